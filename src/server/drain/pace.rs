//! How many closes are due when, so that they are spread evenly over a length of time. Pure: time is an argument.

use std::time::Duration;

/// Who was held up catches up at half as much again as usual, and not at once: no second is to have twice its part.
const CATCH_UP: f64 = 1.5;
/// Of a pause longer than this, what was due in it is caught up later. Long against the time between two questions.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A number of closes on their way, evenly over a length of time.
#[derive(Debug)]
pub(super) struct Pace {
    total: usize,
    length: Duration,
    given: usize,
    /// When it was asked last, from the beginning.
    asked: Duration,
    /// How many may be given now, whatever is due: grows with time, up to what a short pause is worth.
    credit: f64,
}

impl Pace {
    pub(super) fn new(total: usize, length: Duration) -> Pace {
        Pace {
            total,
            length,
            given: 0,
            asked: Duration::ZERO,
            credit: 1.0,
        }
    }

    /// How many more are due so long after the beginning. To be asked often.
    pub(super) fn due(&mut self, elapsed: Duration) -> usize {
        let wanted = self.share(elapsed).saturating_sub(self.given);
        let count = match self.length.is_zero() {
            true => wanted,
            false => wanted.min(self.allowed(elapsed)),
        };
        self.given += count;
        self.credit -= count as f64;
        count
    }

    /// Whether all were given.
    pub(super) fn is_over(&self) -> bool {
        self.given == self.total
    }

    /// How many were to be given by then.
    fn share(&self, elapsed: Duration) -> usize {
        if elapsed >= self.length {
            return self.total;
        }
        (self.total as f64 * elapsed.as_secs_f64() / self.length.as_secs_f64()).ceil() as usize
    }

    /// How many may be given at once.
    fn allowed(&mut self, elapsed: Duration) -> usize {
        let per_s = CATCH_UP * self.total as f64 / self.length.as_secs_f64();
        let pause = elapsed.saturating_sub(self.asked).min(PAUSE_MAX);
        self.asked = elapsed;
        let most = (per_s * PAUSE_MAX.as_secs_f64()).max(1.0);
        self.credit = (self.credit + per_s * pause.as_secs_f64()).min(most);
        self.credit as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many closes there are at which moments, in milliseconds, if the question is asked at these.
    fn given(total: usize, length_s: u64, asked: impl IntoIterator<Item = u64>) -> Vec<(u64, usize)> {
        let mut pace = Pace::new(total, Duration::from_secs(length_s));
        let due = |at| (at, pace.due(Duration::from_millis(at)));
        asked.into_iter().map(due).collect()
    }

    fn between(given: &[(u64, usize)], from: u64, to: u64) -> usize {
        let within = given.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, count)| count).sum()
    }

    #[test]
    fn closes_are_even_and_end_whole() {
        let given = given(1_000, 10, (0..=10_000).step_by(50));
        for second in 0..10 {
            let count = between(&given, second * 1_000, (second + 1) * 1_000);
            assert!((95..=102).contains(&count), "{count} in second {second}");
        }
        assert_eq!(between(&given, 0, 10_001), 1_000);
    }

    #[test]
    fn few_have_their_places_in_time_too() {
        let given = given(3, 9, (0..=9_000).step_by(50));
        let at: Vec<u64> = given
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(at, [50, 3_050, 6_050]);
    }

    #[test]
    fn without_a_length_all_go_at_once() {
        let mut pace = Pace::new(3, Duration::ZERO);
        assert!(!pace.is_over());
        assert_eq!(pace.due(Duration::ZERO), 3);
        assert!(pace.is_over());
    }

    #[test]
    fn a_stall_is_caught_up_without_a_burst() {
        // Nobody asked for two seconds.
        let asked = (0..2_000).step_by(50).chain((4_000..=12_000).step_by(50));
        let given = given(1_000, 10, asked);
        assert!(between(&given, 4_000, 4_001) <= 15);
        assert!((100..=170).contains(&between(&given, 4_000, 5_000)));
        // By the eighth second it is even again, and it ends in time.
        assert!((790..=802).contains(&between(&given, 0, 8_000)));
        assert_eq!(between(&given, 0, 10_001), 1_000);
    }

    proptest! {
        /// Whenever the question is asked, no second has twice the mean, and nobody is left over.
        #[test]
        fn no_second_has_twice_its_part(
            total in 100_usize..20_000,
            length_s in 2_u64..12,
            pauses in proptest::collection::vec(prop_oneof![9 => 50_u64..80, 1 => 80_u64..3_000], 400),
        ) {
            let mut at = 0;
            let asked = pauses.into_iter().map(|pause| { at += pause; at });
            let given = given(total, length_s, asked);
            let mean = total as f64 / length_s as f64;
            for (from, _) in &given {
                let count = between(&given, *from, from + 1_000) as f64;
                prop_assert!(count <= 2.0 * mean + 2.0, "{count} within a second from {from} ms, mean {mean}");
            }
            prop_assert_eq!(given.iter().map(|(_, count)| count).sum::<usize>(), total);
        }
    }
}
