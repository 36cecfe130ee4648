//! What is remembered of an endpoint's last requests, for who looks.

/// How many of the last requests that were answered well the percentiles are taken of.
const LATENCIES: usize = 128;

/// How one request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::webhook) struct Outcome {
    /// The status of the answer, if there was one.
    pub(in crate::webhook) status: Option<u16>,
    /// Why it counts as failed; none: it was answered with success.
    pub(in crate::webhook) error: Option<String>,
    /// From the connection to the answer, in milliseconds.
    pub(in crate::webhook) took_ms: u32,
    /// When it was over, in milliseconds since 1970.
    pub(in crate::webhook) time_ms: u64,
}

impl Outcome {
    pub(in crate::webhook) fn is_delivered(&self) -> bool {
        self.error.is_none()
    }
}

/// The last requests of one endpoint. Times are in milliseconds since 1970.
#[derive(Debug, Default)]
pub(in crate::webhook) struct History {
    pub(in crate::webhook) last_status: Option<u16>,
    pub(in crate::webhook) last_error: Option<String>,
    pub(in crate::webhook) last_error_ms: Option<u64>,
    pub(in crate::webhook) last_success_ms: Option<u64>,
    /// Requests that failed since the last one that did not.
    pub(in crate::webhook) failed_in_a_row: u32,
    latencies: Vec<u32>,
    next: usize,
}

impl History {
    pub(in crate::webhook) fn note(&mut self, outcome: &Outcome) {
        self.last_status = outcome.status;
        match &outcome.error {
            Some(error) => {
                self.last_error = Some(error.clone());
                self.last_error_ms = Some(outcome.time_ms);
                self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
            }
            None => {
                self.last_success_ms = Some(outcome.time_ms);
                self.failed_in_a_row = 0;
                if self.latencies.len() < LATENCIES {
                    self.latencies.push(outcome.took_ms);
                } else {
                    self.latencies[self.next] = outcome.took_ms;
                }
                self.next = (self.next + 1) % LATENCIES;
            }
        }
    }

    /// How many requests the percentiles are of.
    pub(in crate::webhook) fn measured(&self) -> usize {
        self.latencies.len()
    }

    /// The latencies that so many percent of the last requests did not exceed. None before the first.
    pub(in crate::webhook) fn percentiles<const N: usize>(&self, percents: [usize; N]) -> Option<[u32; N]> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        Some(
            percents
                .map(|percent| sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1).min(last)]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(took_ms: u32, error: Option<&str>) -> Outcome {
        Outcome {
            status: Some(200),
            error: error.map(str::to_owned),
            took_ms,
            time_ms: u64::from(took_ms),
        }
    }

    #[test]
    fn percentiles_are_of_the_last_requests_that_went_well() {
        let mut history = History::default();
        assert_eq!(history.percentiles([50]), None);
        history.note(&outcome(7, None));
        assert_eq!(history.percentiles([0, 50, 99, 100]), Some([7; 4]));
        history.note(&outcome(9_999, Some("timed out")));
        assert_eq!(history.percentiles([100]), Some([7]));
        (1..=228).for_each(|ms| history.note(&outcome(ms, None)));
        assert_eq!(history.measured(), 128);
        assert_eq!(history.percentiles([50, 90, 100]), Some([164, 216, 228]));
    }

    #[test]
    fn the_last_error_stays_when_all_is_well_again() {
        let mut history = History::default();
        history.note(&outcome(1, Some("answered 500")));
        history.note(&outcome(2, Some("timed out")));
        assert_eq!(history.failed_in_a_row, 2);
        history.note(&outcome(3, None));
        assert_eq!(history.failed_in_a_row, 0);
        assert_eq!(history.last_error.as_deref(), Some("timed out"));
        assert_eq!(
            (history.last_error_ms, history.last_success_ms),
            (Some(2), Some(3))
        );
    }
}
