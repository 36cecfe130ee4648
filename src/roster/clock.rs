//! The cluster's clock: wall clocks that never go back, and never behind what was heard from others.
//!
//! What a node stamps is later than all it knew of then, however its wall clock is set. One that runs far ahead must
//! not drag the others along: more than a minute ahead is not believed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::relay::Stamp;

/// As far ahead of the own wall clock another node's stamp is believed. Microseconds.
const AHEAD_MAX_US: u64 = 60_000_000;

/// This node's share of it. Any thread may ask.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// A stamp later than every one given or heard before. `now_us` is the wall clock: microseconds since 1970.
    pub fn stamp(&self, now_us: u64) -> Stamp {
        let next = |last: u64| now_us.max(last.saturating_add(1));
        Stamp(next(self.0.update(Ordering::Relaxed, Ordering::Relaxed, next)))
    }

    /// Another node gave this stamp. The answer is what to take it for: the same, unless it lies too far ahead.
    pub fn heard(&self, stamp: Stamp, now_us: u64) -> Stamp {
        let believed = stamp.0.min(now_us.saturating_add(AHEAD_MAX_US));
        self.0.fetch_max(believed, Ordering::Relaxed);
        Stamp(believed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_later_than_all_before_it_whatever_the_wall_clock_says() {
        let clock = Clock::default();
        assert_eq!(clock.stamp(1_000), Stamp(1_000));
        assert_eq!(clock.stamp(1_000), Stamp(1_001), "twice in a microsecond");
        assert_eq!(clock.stamp(500), Stamp(1_002), "set back");
        assert_eq!(clock.heard(Stamp(5_000), 1_003), Stamp(5_000));
        assert_eq!(clock.stamp(1_004), Stamp(5_001), "after what was heard");
        assert_eq!(clock.heard(Stamp(10), 1_005), Stamp(10));
        assert_eq!(clock.stamp(9_000), Stamp(9_000), "and with the wall clock again");
    }

    #[test]
    fn a_clock_far_ahead_is_not_followed() {
        let clock = Clock::default();
        assert_eq!(clock.heard(Stamp(u64::MAX), 1_000), Stamp(1_000 + AHEAD_MAX_US));
        assert_eq!(clock.stamp(2_000), Stamp(1_001 + AHEAD_MAX_US));
    }
}
