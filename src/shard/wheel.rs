//! Deadlines of many sockets without a timer for each: keys in one bucket per tick, taken out when the tick has come.
//!
//! The buckets lie in an ordered map instead of a ring, so there is no span to fall out of and an empty tick costs
//! nothing: a shard has some hundred ticks in use, since nearly all its deadlines lie one timeout ahead. Nothing is
//! cancelled: a key that is due means "look at this socket", and who looks may find it gone or heard from since, and
//! insert it again. This is not a clock: what a tick is, and which one it is now, the caller says.

use std::collections::BTreeMap;

/// Keys waiting for their tick. A key takes its own size, up to twice that while its bucket grows; a bucket's memory
/// is given back when its tick has come.
#[derive(Debug)]
pub struct Wheel<K> {
    buckets: BTreeMap<u64, Vec<K>>,
}

impl<K> Default for Wheel<K> {
    fn default() -> Wheel<K> {
        Wheel {
            buckets: BTreeMap::new(),
        }
    }
}

impl<K> Wheel<K> {
    /// Lets a key become due at a tick; at the next [`Wheel::advance`] if that tick has passed. The same key may wait
    /// more than once.
    pub fn insert(&mut self, key: K, deadline_tick: u64) {
        self.buckets.entry(deadline_tick).or_default().push(key);
    }

    /// Moves the keys that are due by now to the end of `due`, the earliest first. The work grows with them alone.
    pub fn advance(&mut self, now_tick: u64, due: &mut Vec<K>) {
        while let Some(bucket) = self.buckets.first_entry()
            && *bucket.key() <= now_tick
        {
            let mut keys = bucket.remove();
            if due.is_empty() {
                // Whoever drops `due` then gives back what a mass of deadlines took.
                *due = keys;
            } else {
                due.append(&mut keys);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn due<K>(wheel: &mut Wheel<K>, now_tick: u64) -> Vec<K> {
        let mut due = Vec::new();
        wheel.advance(now_tick, &mut due);
        due
    }

    #[test]
    fn a_key_is_due_once_its_tick_has_come() {
        let mut wheel = Wheel::default();
        wheel.insert("a", 150);
        wheel.insert("b", 120);
        assert!(due(&mut wheel, 119).is_empty());
        assert_eq!(due(&mut wheel, 120), ["b"]);
        assert_eq!(due(&mut wheel, 100_000), ["a"]);
        assert!(wheel.buckets.is_empty());
    }

    #[test]
    fn what_is_late_already_is_due_at_once() {
        let mut wheel = Wheel::default();
        assert!(due(&mut wheel, 10).is_empty());
        wheel.insert("a", 3);
        assert_eq!(due(&mut wheel, 10), ["a"]);
    }

    #[test]
    fn what_was_due_already_stays_in_front() {
        let mut wheel = Wheel::default();
        wheel.insert("b", 1);
        let mut due = vec!["a"];
        wheel.advance(1, &mut due);
        assert_eq!(due, ["a", "b"]);
    }

    #[test]
    fn a_mass_of_deadlines_leaves_no_memory_behind() {
        let mut wheel = Wheel::default();
        (0..10_000u64).for_each(|key| wheel.insert(key, 5));
        let held: usize = wheel.buckets.values().map(Vec::capacity).sum();
        assert!(held <= 20_000);
        assert_eq!(due(&mut wheel, 5).len(), 10_000);
        assert!(wheel.buckets.is_empty());
    }

    proptest! {
        #[test]
        fn keeps_order_like_a_sorted_list(
            // Each step: deadlines to insert, as ticks from now, then how far time goes on.
            steps in vec((vec(prop_oneof![0..300u64, Just(86_400)], 0..20), 0..200u64), 1..30)
        ) {
            let mut wheel = Wheel::default();
            let (mut sorted, mut now, mut key) = (Vec::new(), 0, 0u64);
            for (deadlines, passed) in steps {
                for ahead in deadlines {
                    wheel.insert(key, now + ahead);
                    sorted.push((now + ahead, key));
                    key += 1;
                }
                now += passed;
                sorted.sort();
                let waiting = sorted.split_off(sorted.partition_point(|(deadline, _)| *deadline <= now));
                let expected: Vec<u64> = sorted.drain(..).map(|(_, key)| key).collect();
                prop_assert_eq!(due(&mut wheel, now), expected);
                sorted = waiting;
            }
        }
    }
}
