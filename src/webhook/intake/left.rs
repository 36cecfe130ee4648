//! What of a durable queue was left at the broker, since no endpoint that wants it had room, and when it is to come again.
//! Pure: time is an argument.
//!
//! Nothing is kept of an event that is left but for whom it was and of which partition: what comes behind it for the same
//! endpoint is left as well, until the partition has been read from its first entry on. So neither the order of a
//! channel's events is lost nor memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::webhook::queue::{Partition, Partitions};

/// A partition that was asked for is asked for again after so long. Everything of it comes again that is not in hand, so
/// this is no small thing.
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// What did not come so long after it was asked for is with the broker no more.
const FORGET: Duration = Duration::from_secs(60);

/// An app's id, and what one of its endpoints is called.
pub(super) type Name = (Arc<str>, Arc<str>);

/// For whom something was left.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    endpoints: HashMap<Name, BTreeMap<Partition, Since>>,
}

/// Since when something of a partition is left.
#[derive(Debug)]
struct Since {
    /// What comes with this round or an earlier one is behind what was left.
    round: u64,
    /// When it was first asked for, and last.
    asked: Option<(Instant, Instant)>,
}

impl LeftBehind {
    /// Whether nothing is left for anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether something that came in this round would overtake what was left for the endpoint.
    pub(super) fn would_overtake(&self, name: &Name, partition: Partition, round: u64) -> bool {
        let since = self.endpoints.get(name).and_then(|left| left.get(&partition));
        since.is_some_and(|since| round <= since.round)
    }

    /// Something is left that is for the endpoint; `round` is that of the partition by now.
    pub(super) fn leave(&mut self, name: Name, partition: Partition, round: u64) {
        let since = Since { round, asked: None };
        self.endpoints.entry(name).or_default().insert(partition, since);
    }

    /// Something was taken in that did not overtake anything.
    pub(super) fn took(&mut self, name: &Name, partition: Partition) {
        let Some(left) = self.endpoints.get_mut(name) else {
            return;
        };
        left.remove(&partition);
        if left.is_empty() {
            self.endpoints.remove(name);
        }
    }

    /// The partitions that are to be read again, since something of them is for an endpoint that has room by now.
    pub(super) fn wanted(&mut self, now: Instant, has_room: impl Fn(&Name) -> bool) -> Partitions {
        let mut wanted = Vec::new();
        self.endpoints.retain(|name, left| {
            left.retain(|_, since| {
                let first = since.asked.map(|(first, _)| first);
                first.is_none_or(|first| now.saturating_duration_since(first) < FORGET)
            });
            let is_due = |since: &Since| {
                let last = since.asked.map(|(_, last)| last);
                last.is_none_or(|last| now.saturating_duration_since(last) >= ASK_INTERVAL)
            };
            if left.values().any(is_due) && has_room(name) {
                for (partition, since) in left.iter_mut().filter(|(_, since)| is_due(since)) {
                    let first = since.asked.map_or(now, |(first, _)| first);
                    since.asked = Some((first, now));
                    wanted.push(*partition);
                }
            }
            !left.is_empty()
        });
        wanted.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(endpoint: &str) -> Name {
        ("1".into(), endpoint.into())
    }

    fn at(index: u8) -> Partition {
        Partition::at(index).expect("a partition")
    }

    fn indices(partitions: Partitions) -> Vec<u8> {
        partitions.iter().map(Partition::index).collect()
    }

    #[test]
    fn what_is_behind_something_left_is_left_until_the_next_round() {
        let mut left = LeftBehind::default();
        let (slow, well) = (name("slow"), name("well"));
        left.leave(slow.clone(), at(3), 1);
        for (endpoint, partition, round, overtakes) in [
            (&slow, 3, 1, true),
            (&slow, 3, 2, false),
            (&slow, 4, 1, false),
            (&well, 3, 1, false),
        ] {
            assert_eq!(left.would_overtake(endpoint, at(partition), round), overtakes);
        }
        // What was under way when the partition was begun anew: the next round is the one to wait for.
        left.leave(slow.clone(), at(3), 2);
        assert!(left.would_overtake(&slow, at(3), 2));
        left.took(&slow, at(3));
        assert!(left.is_empty());
    }

    #[test]
    fn it_is_asked_for_when_there_is_room_and_not_too_often() {
        let mut left = LeftBehind::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        left.leave(name("slow"), at(3), 1);
        left.leave(name("slow"), at(7), 1);
        left.leave(name("down"), at(9), 1);
        let slow_has_room = |of: &Name| *of == name("slow");
        assert_eq!(indices(left.wanted(start, |_| false)), [0; 0]);
        assert_eq!(indices(left.wanted(start, slow_has_room)), [3, 7]);
        assert_eq!(indices(left.wanted(after(4), slow_has_room)), [0; 0]);
        left.took(&name("slow"), at(3));
        // Left again: the next room is for it.
        left.leave(name("slow"), at(7), 2);
        assert_eq!(indices(left.wanted(after(4), slow_has_room)), [7]);
        assert_eq!(indices(left.wanted(after(9), |_| true)), [7, 9]);
    }

    #[test]
    fn what_never_comes_is_forgotten() {
        let mut left = LeftBehind::default();
        let start = Instant::now();
        left.leave(name("slow"), at(3), 1);
        left.wanted(start, |_| true);
        left.wanted(start + FORGET - Duration::from_secs(1), |_| true);
        assert!(!left.is_empty());
        left.wanted(start + FORGET, |_| true);
        assert!(left.is_empty());
    }
}
