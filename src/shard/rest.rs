//! When a channel's next run waits a little, so that frames which come meanwhile travel along at next to no cost. Pure.
//!
//! A rest begins only behind a run of several frames: they came faster than runs go out. It lasts twice as long as that
//! run took, and ends at once when as many frames wait as any run of late has had: where publishers wait for deliveries
//! before they go on, nothing more would come.

use std::time::{Duration, Instant};

/// Behind a run that took less nobody rests: a small channel costs little. The runtime's timer counts whole
/// milliseconds, so a short rest may last a millisecond longer than said here, where too few frames come to end it.
const RUN_MIN: Duration = Duration::from_micros(100);
/// No rest is longer, however many subscribers the channel has.
const REST_MAX: Duration = Duration::from_millis(6);
/// So many frames that wait are enough joined: to send them costs little more than to send a few.
const FRAMES_MAX: usize = 32;
/// "Of late": this many runs, and up to as many before them.
const RUNS: u8 = 16;

/// Whether the next run of a channel rests, and what its runs have been like.
#[derive(Debug)]
pub(super) struct Rest {
    /// When it is over, unless nobody rests.
    until: Option<Instant>,
    /// The most frames of one run, in this stretch of runs and in the one before.
    most: usize,
    most_before: usize,
    /// Runs in this stretch.
    runs: u8,
}

impl Default for Rest {
    fn default() -> Self {
        Rest {
            until: None,
            most: FRAMES_MAX,
            most_before: FRAMES_MAX,
            runs: 0,
        }
    }
}

impl Rest {
    /// A run of so many frames was served to its last subscriber.
    pub(super) fn after(&mut self, frames: usize, took: Duration, now: Instant) {
        let is_rushed = frames > 1;
        if is_rushed {
            self.learn(frames);
        }
        self.until = (is_rushed && took >= RUN_MIN).then(|| now + (took * 2).min(REST_MAX));
    }

    fn learn(&mut self, frames: usize) {
        if self.runs == RUNS {
            self.most_before = self.most;
            self.most = 0;
            self.runs = 0;
        }
        self.most = self.most.max(frames);
        self.runs += 1;
    }

    /// When it is over at the latest; `None` if nobody rests.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the next run still waits for more frames than these.
    pub(super) fn goes_on(&self, waiting: usize, now: Instant) -> bool {
        let enough = self.most.max(self.most_before).min(FRAMES_MAX);
        self.until.is_some_and(|until| until > now) && waiting < enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(2);

    #[test]
    fn nobody_rests_behind_a_single_frame_or_a_short_run() {
        let now = Instant::now();
        for (frames, took) in [(1, LONG), (5, RUN_MIN / 2)] {
            let mut rest = Rest::default();
            rest.after(frames, took, now);
            assert!(
                rest.until().is_none() && !rest.goes_on(1, now),
                "{frames} frames in {took:?}"
            );
        }
    }

    #[test]
    fn a_rest_lasts_twice_as_long_as_the_run_took_but_not_for_ever() {
        let now = Instant::now();
        for (took, lasts) in [(LONG, LONG * 2), (REST_MAX * 5, REST_MAX)] {
            let mut rest = Rest::default();
            rest.after(2, took, now);
            assert_eq!(rest.until(), Some(now + lasts));
            assert!(rest.goes_on(1, now + lasts - Duration::from_nanos(1)));
            assert!(!rest.goes_on(1, now + lasts));
        }
    }

    #[test]
    fn a_rest_is_over_once_as_many_wait_as_any_run_of_late_had() {
        let now = Instant::now();
        let mut rest = Rest::default();
        // Nothing is known yet: only the bound ends it.
        rest.after(4, LONG, now);
        assert!(rest.goes_on(FRAMES_MAX - 1, now) && !rest.goes_on(FRAMES_MAX, now));
        for _ in 0..RUNS {
            rest.after(4, LONG, now);
        }
        rest.after(7, LONG, now);
        for _ in 0..RUNS {
            rest.after(4, LONG, now);
        }
        assert!(rest.goes_on(6, now) && !rest.goes_on(7, now));
        // The run of seven was long ago.
        for _ in 0..RUNS {
            rest.after(4, LONG, now);
        }
        assert!(rest.goes_on(3, now) && !rest.goes_on(4, now));
    }
}
