//! Of which misses of cache channels the back end was told just now: as long as a channel's cache stays empty, it is told
//! again only after a while, however many subscribers come.
//!
//! Pure: time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::channel_name::ChannelName;

/// So long a miss is not told again.
const MISS_INTERVAL: Duration = Duration::from_secs(3);

/// An app's id and a channel of it.
type Missed = (String, ChannelName);

/// The misses of the last [`MISS_INTERVAL`], of all apps together.
#[derive(Debug)]
pub(super) struct Misses {
    told: HashMap<Missed, Instant>,
    /// In the order of time; also those of which `told` has a later one or none any more.
    order: VecDeque<(Instant, Missed)>,
    misses_max: usize,
}

impl Misses {
    /// Nothing was told. At most `misses_max` are remembered; one more may be told again at once.
    pub(super) fn new(misses_max: usize) -> Misses {
        Misses {
            told: HashMap::new(),
            order: VecDeque::new(),
            misses_max,
        }
    }

    /// A channel's cache was missed. True if that is to be told.
    pub(super) fn is_news(&mut self, app: &str, channel: &ChannelName, now: Instant) -> bool {
        let is_over = |told: Instant| now.saturating_duration_since(told) >= MISS_INTERVAL;
        while self.order.front().is_some_and(|(told, _)| is_over(*told)) {
            let Some((told, place)) = self.order.pop_front() else {
                break;
            };
            if self.told.get(&place) == Some(&told) {
                self.told.remove(&place);
            }
        }
        let place = (app.to_owned(), channel.clone());
        if self.told.contains_key(&place) {
            return false;
        }
        if self.order.len() < self.misses_max {
            self.told.insert(place.clone(), now);
            self.order.push_back((now, place));
        }
        true
    }

    /// The channel has an event to show: when that is gone, the next miss is news.
    pub(super) fn filled(&mut self, app: &str, channel: &ChannelName) {
        if !self.told.is_empty() {
            self.told.remove(&(app.to_owned(), channel.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).expect("a legal name")
    }

    #[test]
    fn a_miss_is_told_again_after_three_seconds_whoever_misses_what_else() {
        let mut misses = Misses::new(10);
        let start = Instant::now();
        for (ms, app, name, told) in [
            (0, "1", "cache-a", true),
            (0, "1", "cache-a", false),
            (0, "1", "cache-b", true),
            (0, "2", "cache-a", true),
            (2_999, "1", "cache-a", false),
            (3_000, "1", "cache-a", true),
            (5_999, "1", "cache-a", false),
            (6_000, "1", "cache-a", true),
        ] {
            let now = start + Duration::from_millis(ms);
            assert_eq!(
                misses.is_news(app, &channel(name), now),
                told,
                "{ms} {app} {name}"
            );
        }
        assert_eq!(misses.order.len(), 1, "what is over is forgotten");
        assert_eq!(misses.told.len(), 1);
    }

    #[test]
    fn what_was_filled_since_may_be_missed_at_once() {
        let mut misses = Misses::new(10);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let name = channel("cache-a");
        assert!(misses.is_news("1", &name, at(0)));
        misses.filled("2", &name);
        assert!(!misses.is_news("1", &name, at(1_000)));
        misses.filled("1", &name);
        assert!(misses.is_news("1", &name, at(2_000)));
        // The earlier one is over, this one is not.
        assert!(!misses.is_news("1", &name, at(4_999)));
        assert!(misses.is_news("1", &name, at(5_000)));
    }

    #[test]
    fn what_finds_no_room_is_told() {
        let mut misses = Misses::new(1);
        let now = Instant::now();
        assert!(misses.is_news("1", &channel("cache-a"), now));
        for _ in 0..2 {
            assert!(misses.is_news("1", &channel("cache-b"), now));
        }
        assert!(!misses.is_news("1", &channel("cache-a"), now));
        assert_eq!(misses.order.len(), 1);
    }
}
