//! A token bucket in eight bytes: [`Bucket`], for limits kept per socket, and [`SharedBucket`], which many threads take
//! from.
//!
//! This is the generic cell rate algorithm: instead of a number of tokens and the time of the last refill, a
//! bucket keeps one instant, the *theoretical arrival time* of the next permitted event. What all buckets of
//! a kind have in common, rate and burst, is a [`Rate`] that the caller passes in. Not here: a clock (`now`
//! is an argument, in nanoseconds since any fixed start), locks, or a decision about what happens to who is
//! over the limit.

use std::sync::atomic::{AtomicU64, Ordering};
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

    /// How many tokens a full bucket has.
    pub fn burst(self) -> u64 {
        self.tolerance_ns / self.interval_ns + 1
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
        self.take_many(1, rate, now_ns)
    }

    /// Takes so many tokens, or none: `Err` tells how long it takes until they are there. More than a bucket can hold
    /// are given by a full one, which owes them then, so that the long run is right. None counts as one.
    pub fn take_many(&mut self, count: u32, rate: Rate, now_ns: u64) -> Result<(), Duration> {
        let more = u64::from(count.max(1)) - 1;
        let more_ns = rate.interval_ns.saturating_mul(more);
        let latest_ns = now_ns.saturating_add(rate.tolerance_ns.saturating_sub(more_ns));
        if self.full_at_ns > latest_ns {
            return Err(Duration::from_nanos(self.full_at_ns - latest_ns));
        }
        let taken_ns = more_ns.saturating_add(rate.interval_ns);
        self.full_at_ns = self.full_at_ns.max(now_ns).saturating_add(taken_ns);
        Ok(())
    }

    /// How many tokens there are.
    pub fn tokens(&self, rate: Rate, now_ns: u64) -> u64 {
        let missing_ns = self.full_at_ns.saturating_sub(now_ns);
        let full_ns = rate.tolerance_ns.saturating_add(rate.interval_ns);
        full_ns.saturating_sub(missing_ns) / rate.interval_ns
    }

    /// How long it takes until the bucket is full again, if nobody takes anything.
    pub fn full_in(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.full_at_ns.saturating_sub(now_ns))
    }
}

/// A [`Bucket`] that many threads take from, each without waiting for another.
#[derive(Debug, Default)]
pub struct SharedBucket {
    full_at_ns: AtomicU64,
}

impl SharedBucket {
    /// As [`Bucket::take_many`].
    pub fn take_many(&self, count: u32, rate: Rate, now_ns: u64) -> Result<(), Duration> {
        // Relaxed is enough: the bucket guards no other memory, and each step is one atomic change of it.
        let mut full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let mut bucket = Bucket { full_at_ns };
            bucket.take_many(count, rate, now_ns)?;
            let (relaxed, next) = (Ordering::Relaxed, bucket.full_at_ns);
            match self
                .full_at_ns
                .compare_exchange_weak(full_at_ns, next, relaxed, relaxed)
            {
                Ok(_) => return Ok(()),
                Err(changed) => full_at_ns = changed,
            }
        }
    }

    /// The bucket as it is at this moment.
    pub fn get(&self) -> Bucket {
        Bucket {
            full_at_ns: self.full_at_ns.load(Ordering::Relaxed),
        }
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

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let rate = Rate::per_second(10, 10);
        let mut bucket = Bucket::default();
        let start = 5 * NS_PER_S;
        assert_eq!(rate.burst(), 10);
        assert_eq!(bucket.take_many(7, rate, start), Ok(()));
        assert_eq!(bucket.tokens(rate, start), 3);
        assert_eq!(bucket.take_many(4, rate, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.tokens(rate, start), 3, "nothing was taken");
        assert_eq!(bucket.take_many(3, rate, start), Ok(()));
        assert_eq!(bucket.tokens(rate, start), 0);
        assert_eq!(bucket.full_in(start), Duration::from_secs(1));
        assert_eq!(bucket.tokens(rate, start + NS_PER_S / 2), 5);
    }

    #[test]
    fn more_than_it_holds_are_owed() {
        let rate = Rate::per_second(10, 10);
        let mut bucket = Bucket::default();
        let start = 5 * NS_PER_S;
        assert_eq!(bucket.take_many(25, rate, start), Ok(()));
        assert_eq!(bucket.tokens(rate, start), 0);
        assert_eq!(bucket.take(rate, start), Err(Duration::from_millis(1_600)));
        // Only a full bucket gives so many.
        let full_at = start + 2_500_000_000;
        assert_eq!(
            bucket.take_many(25, rate, full_at - 1),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(bucket.take_many(25, rate, full_at), Ok(()));
    }

    #[test]
    fn a_race_takes_exactly_what_is_there() {
        let (bucket, rate) = (SharedBucket::default(), Rate::per_second(1, 1_000));
        let barrier = std::sync::Barrier::new(8);
        let race = || {
            barrier.wait();
            (0..500)
                .filter(|_| bucket.take_many(1, rate, NS_PER_S).is_ok())
                .count()
        };
        let taken: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
            racers
                .into_iter()
                .map(|racer| racer.join().expect("no racer panics"))
                .sum()
        });
        assert_eq!((taken, bucket.get().tokens(rate, NS_PER_S)), (1_000, 0));
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
                (prop_oneof![Just(0u64), 0u64..2_000_000, 0u64..3_000_000_000], 1u32..8), 1..200),
        ) {
            let rate = Rate::per_second(per_s, burst);
            let mut bucket = Bucket::default();
            let mut textbook = Textbook { tokens: f64::from(burst), refilled_ns: start_ns };
            let mut now_ns = start_ns;
            for (gap_ns, count) in gaps_ns {
                now_ns += gap_ns;
                let grown = (now_ns - textbook.refilled_ns) as f64 / rate.interval_ns as f64;
                textbook.tokens = (textbook.tokens + grown).min(f64::from(burst));
                textbook.refilled_ns = now_ns;

                // What is more than it can hold is given by a full one.
                let needed = f64::from(count.min(burst));
                let shared = SharedBucket { full_at_ns: AtomicU64::new(bucket.full_at_ns) };
                let taken = bucket.take_many(count, rate, now_ns);
                prop_assert_eq!(shared.take_many(count, rate, now_ns), taken);
                prop_assert_eq!(shared.get(), bucket);
                if (textbook.tokens - needed).abs() > 1e-6 {
                    prop_assert_eq!(taken.is_ok(), textbook.tokens > needed, "{} tokens", textbook.tokens);
                }
                match taken {
                    Ok(()) => textbook.tokens -= f64::from(count),
                    Err(wait) => {
                        // The advertised wait is exact: at its end a token is there, a nanosecond sooner it
                        // is not.
                        let wait_ns = wait.as_nanos() as u64;
                        prop_assert!(bucket.clone().take_many(count, rate, now_ns + wait_ns).is_ok());
                        prop_assert!(bucket.clone().take_many(count, rate, now_ns + wait_ns - 1).is_err());
                    }
                }
            }
        }
    }
}
