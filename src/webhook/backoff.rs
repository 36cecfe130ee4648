//! When a failed request is tried again. Pure.

use std::time::{Duration, Instant};

use super::config::WebhooksConfig;

/// The times of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    pub(super) fn of(config: &WebhooksConfig) -> Backoff {
        Backoff {
            first: Duration::from_millis(config.retry_first_ms.into()),
            max: Duration::from_millis(config.retry_max_ms.into()),
        }
    }

    /// The pause after so many failed attempts, at least one: it doubles from the first up to the longest, and is
    /// shortened by up to a quarter so that what failed together does not come back together. `random` is in `0.0..1.0`.
    fn pause(self, failed: u32, random: f64) -> Duration {
        let doublings = failed.saturating_sub(1).min(31);
        let pause = self.first.saturating_mul(1 << doublings).min(self.max);
        pause.mul_f64(1.0 - random.clamp(0.0, 1.0) / 4.0)
    }

    /// When to try again after so many failed attempts. The last attempt begins early enough to be over when the events
    /// expire, whatever the pause would have been; none: it has been.
    pub(super) fn next(
        self,
        failed: u32,
        random: f64,
        timeout: Duration,
        expires: Instant,
        now: Instant,
    ) -> Option<Instant> {
        let last = expires.checked_sub(timeout)?;
        (now < last).then(|| (now + self.pause(failed, random)).min(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        max: Duration::from_secs(60),
    };

    #[test]
    fn pauses_double_up_to_a_minute_and_vary() {
        let seconds = |failed| BACKOFF.pause(failed, 0.0).as_secs();
        assert_eq!(
            [1, 2, 3, 6, 7, 40, u32::MAX].map(seconds),
            [1, 2, 4, 32, 60, 60, 60]
        );
        assert_eq!(BACKOFF.pause(1, 1.0), Duration::from_millis(750));
        assert_eq!(BACKOFF.pause(9, 0.5), Duration::from_millis(52_500));
    }

    #[test]
    fn the_last_attempt_is_over_when_the_events_expire() {
        let born = Instant::now() + Duration::from_secs(1_000);
        let at = |s| born + Duration::from_secs(s);
        let (timeout, expires) = (Duration::from_secs(10), at(300));
        for (failed, now, next) in [
            (1, 0, Some(1)),
            (8, 123, Some(183)),
            (10, 243, Some(290)),
            (11, 289, Some(290)),
            (11, 290, None),
            (11, 310, None),
        ] {
            let found = BACKOFF.next(failed, 0.0, timeout, expires, at(now));
            assert_eq!(found, next.map(at), "{failed} {now}");
        }
    }
}
