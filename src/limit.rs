//! A token bucket in eight bytes, for limits kept per socket.
//!
//! This is the generic cell rate algorithm: instead of a number of tokens and the time of the last refill, a
//! bucket keeps one instant, the *theoretical arrival time* of the next permitted event. What all buckets of
//! a kind have in common, rate and burst, is a [`Rate`] that the caller passes in. Not here: a clock (`now`
//! is an argument, in nanoseconds since any fixed start), locks, or a decision about what happens to who is
//! over the limit.

use std::time::Duration;

const NS_PER_S: u64 = 1_000_000_000;

/// How much a [`Bucket`] lets through: shared by all buckets of one kind, so that each stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one token grows back.
    interval_ns: u64,
    /// How far the arrival time may run ahead of the clock: (burst - 1) intervals.
    tolerance_ns: u64,
}

impl Rate {
    /// `per_s` events each second in the long run, up to `burst` of them at once. Zero of either counts as
    /// one.
    pub fn per_second(per_s: u32, burst: u32) -> Rate {
        // Rounded up, so that the long run is never faster than what was asked for.
        let interval_ns = NS_PER_S.div_ceil(u64::from(per_s.max(1)));
        let tolerance_ns = interval_ns.saturating_mul(u64::from(burst.max(1)) - 1);
        Rate {
            interval_ns,
            tolerance_ns,
        }
    }
}

/// The state of one token bucket. A new one is full.
///
/// Time may stand still and even step back between calls: the bucket then refuses longer, it never panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When the bucket is full again, in nanoseconds since the caller's start.
    full_at_ns: u64,
}

impl Bucket {
    /// Takes one token. `Err` tells how long it takes until there is one; nothing was taken then.
    pub fn take(&mut self, rate: Rate, now_ns: u64) -> Result<(), Duration> {
        let latest_ns = now_ns.saturating_add(rate.tolerance_ns);
        if self.full_at_ns > latest_ns {
            return Err(Duration::from_nanos(self.full_at_ns - latest_ns));
        }
        self.full_at_ns = self.full_at_ns.max(now_ns).saturating_add(rate.interval_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_is_eight_bytes() {
        assert_eq!(size_of::<Bucket>(), 8);
    }

    #[test]
    fn a_burst_passes_then_one_event_per_interval() {
        let rate = Rate::per_second(10, 3);
        let mut bucket = Bucket::default();
        let start = 5 * NS_PER_S;
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, start), Ok(()));
        }
        assert_eq!(bucket.take(rate, start), Err(Duration::from_millis(100)));
        assert_eq!(
            bucket.take(rate, start + NS_PER_S / 20),
            Err(Duration::from_millis(50))
        );
        assert_eq!(bucket.take(rate, start + NS_PER_S / 10), Ok(()));
        assert!(bucket.take(rate, start + NS_PER_S / 10).is_err());
    }

    #[test]
    fn the_ends_of_the_clock_are_harmless() {
        let rate = Rate::per_second(0, u32::MAX);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, u64::MAX), Ok(()));
        assert_eq!(bucket.take(rate, u64::MAX), Ok(()));
        assert_eq!(
            bucket.take(Rate::per_second(1, 1), 0),
            Err(Duration::from_nanos(u64::MAX))
        );
    }

    /// The textbook form: a number of tokens and the time of the last refill.
    struct Textbook {
        tokens: f64,
        refilled_ns: u64,
    }

    proptest! {
        /// Where the textbook bucket is clearly over or under one token, the small one must decide the same
        /// way; within rounding of exactly one token either answer is right, and the textbook follows it.
        #[test]
        fn decides_like_a_textbook_token_bucket(
            per_s in 1u32..5_000,
            burst in 1u32..50,
            start_ns in 0u64..(1 << 50),
            gaps_ns in prop::collection::vec(
                prop_oneof![Just(0u64), 0u64..2_000_000, 0u64..3_000_000_000], 1..200),
        ) {
            let rate = Rate::per_second(per_s, burst);
            let mut bucket = Bucket::default();
            let mut textbook = Textbook { tokens: f64::from(burst), refilled_ns: start_ns };
            let mut now_ns = start_ns;
            for gap_ns in gaps_ns {
                now_ns += gap_ns;
                let grown = (now_ns - textbook.refilled_ns) as f64 / rate.interval_ns as f64;
                textbook.tokens = (textbook.tokens + grown).min(f64::from(burst));
                textbook.refilled_ns = now_ns;

                let taken = bucket.take(rate, now_ns);
                if (textbook.tokens - 1.0).abs() > 1e-6 {
                    prop_assert_eq!(taken.is_ok(), textbook.tokens > 1.0, "{} tokens", textbook.tokens);
                }
                match taken {
                    Ok(()) => textbook.tokens -= 1.0,
                    Err(wait) => {
                        // The advertised wait is exact: at its end a token is there, a nanosecond sooner it
                        // is not.
                        let wait_ns = wait.as_nanos() as u64;
                        prop_assert!(bucket.clone().take(rate, now_ns + wait_ns).is_ok());
                        prop_assert!(bucket.clone().take(rate, now_ns + wait_ns - 1).is_err());
                    }
                }
            }
        }
    }
}
