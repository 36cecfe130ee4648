//! Which topics this node hears, and who waits for the broker to confirm one.
//!
//! A topic is wanted while a channel of it has a subscriber here, and for half a minute longer: a page that is reloaded
//! is not to cost two messages. "Subscribed" is to mean: subscribed everywhere. So the first subscriber of a topic is
//! admitted when the broker has confirmed it, or after two seconds; while the bus is known to be down, at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::adapter::{Topic, WishNumber};
use crate::hub::inbox::{ShardIndex, SocketKey};

/// So long a topic without a subscriber is still heard.
const KEPT: Duration = Duration::from_secs(30);
/// So long a subscriber waits at most.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Who waits to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The socket's shard.
    pub shard: ShardIndex,
    /// The socket.
    pub socket: SocketKey,
    /// What its shard knows the request by.
    pub token: u32,
}

/// One topic.
#[derive(Debug, Default)]
struct Interest {
    is_wanted: bool,
    is_confirmed: bool,
    number: WishNumber,
    /// Channels with a subscriber here.
    occupied: u32,
    /// Since when it has none, if it has none.
    idle_since: Option<Instant>,
    waiting: Vec<(Instant, Waiter)>,
}

/// What the adapter is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) topic: Topic,
    pub(super) wanted: bool,
    pub(super) number: WishNumber,
}

/// All topics of channels. Each has a lock of its own, short, and the last to be taken.
#[derive(Debug)]
pub(super) struct Interests {
    topics: Box<[Mutex<Interest>]>,
}

/// What [`Interests::enter`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// The topic is heard.
    Heard,
    /// The waiter will be admitted later.
    Waits(Option<Wish>),
}

impl Interests {
    pub(super) fn new(topics: u16) -> Interests {
        Interests {
            topics: (0..topics).map(|_| Mutex::default()).collect(),
        }
    }

    fn of(&self, topic: u16) -> MutexGuard<'_, Interest> {
        // Plain data: whoever panicked with it left nothing half done that matters.
        self.topics[usize::from(topic)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is about to subscribe to a channel of this topic.
    pub(super) fn enter(&self, topic: u16, waiter: Waiter, now: Instant) -> Entered {
        let mut interest = self.of(topic);
        if interest.occupied == 0 {
            interest.idle_since = Some(now);
        }
        if interest.is_confirmed {
            return Entered::Heard;
        }
        interest.waiting.push((now, waiter));
        if interest.is_wanted {
            return Entered::Waits(None);
        }
        interest.is_wanted = true;
        interest.number += 1;
        Entered::Waits(Some(Wish {
            topic: Topic::Channels(topic),
            wanted: true,
            number: interest.number,
        }))
    }

    /// A channel of this topic has its first subscriber here. Called under the channel's lock.
    pub(super) fn occupied(&self, topic: u16) {
        let mut interest = self.of(topic);
        interest.occupied += 1;
        interest.idle_since = None;
    }

    /// A channel of this topic has lost its last subscriber here. Called under the channel's lock.
    pub(super) fn vacated(&self, topic: u16, now: Instant) {
        let mut interest = self.of(topic);
        interest.occupied = interest.occupied.saturating_sub(1);
        if interest.occupied == 0 {
            interest.idle_since = Some(now);
        }
    }

    /// The broker confirmed a wish. The answer is who is to be admitted; none if the wish is not the last one.
    /// `hear` is called before the topic can be given up again.
    pub(super) fn confirmed(
        &self,
        topic: u16,
        number: WishNumber,
        hear: impl FnOnce(),
    ) -> Option<Vec<Waiter>> {
        let mut interest = self.of(topic);
        if number != interest.number || !interest.is_wanted {
            return None;
        }
        interest.is_confirmed = true;
        hear();
        let waiting = std::mem::take(&mut interest.waiting);
        Some(waiting.into_iter().map(|(_, waiter)| waiter).collect())
    }

    /// The topic is not heard for now.
    pub(super) fn lost(&self, topic: u16) {
        let mut interest = self.of(topic);
        interest.is_confirmed = false;
    }

    /// Looks at every topic: who has waited long enough, and what need not be heard any more. `all` admits everybody,
    /// since the bus is known to be down. `unconfirmed` is called for each topic of which somebody is admitted, before
    /// that; `forget` for each that is given up, before anybody can want it again.
    pub(super) fn tick(
        &self,
        now: Instant,
        all: bool,
        mut unconfirmed: impl FnMut(Topic),
        mut forget: impl FnMut(Topic),
    ) -> (Vec<Waiter>, Vec<Wish>) {
        let (mut admitted, mut wishes) = (Vec::new(), Vec::new());
        for topic in 0..self.topics.len() as u16 {
            let mut interest = self.of(topic);
            if !interest.is_wanted {
                continue;
            }
            let waited = interest.waiting.len();
            let is_over = |since: Instant| all || now.saturating_duration_since(since) >= WAIT_MAX;
            interest.waiting.retain(|(since, waiter)| {
                let goes = is_over(*since);
                if goes {
                    admitted.push(*waiter);
                }
                !goes
            });
            if interest.waiting.len() < waited {
                unconfirmed(Topic::Channels(topic));
            }
            let is_idle = interest
                .idle_since
                .is_some_and(|since| now.saturating_duration_since(since) >= KEPT);
            if is_idle && interest.waiting.is_empty() {
                interest.is_wanted = false;
                interest.is_confirmed = false;
                interest.idle_since = None;
                interest.number += 1;
                forget(Topic::Channels(topic));
                wishes.push(Wish {
                    topic: Topic::Channels(topic),
                    wanted: false,
                    number: interest.number,
                });
            }
        }
        (admitted, wishes)
    }

    /// Asks for a topic anew, since it seems deaf. Nothing if it is not wanted.
    pub(super) fn anew(&self, topic: u16) -> Option<Wish> {
        let mut interest = self.of(topic);
        if !interest.is_wanted {
            return None;
        }
        interest.number += 1;
        Some(Wish {
            topic: Topic::Channels(topic),
            wanted: true,
            number: interest.number,
        })
    }

    /// How many topics are wanted.
    pub(super) fn wanted(&self) -> usize {
        let wanted = (0..self.topics.len() as u16).filter(|topic| self.of(*topic).is_wanted);
        wanted.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(token: u32) -> Waiter {
        Waiter {
            shard: 0,
            socket: SocketKey::unpack(1),
            token,
        }
    }

    fn wish(wanted: bool, number: WishNumber) -> Wish {
        Wish {
            topic: Topic::Channels(3),
            wanted,
            number,
        }
    }

    #[test]
    fn the_first_subscribers_of_a_topic_wait_together_for_one_confirmation() {
        let (interests, now) = (Interests::new(16), Instant::now());
        assert_eq!(
            interests.enter(3, waiter(1), now),
            Entered::Waits(Some(wish(true, 1)))
        );
        assert_eq!(interests.enter(3, waiter(2), now), Entered::Waits(None));
        assert_eq!(
            interests.confirmed(3, 0, || ()),
            None,
            "an older wish says nothing"
        );
        assert_eq!(interests.confirmed(3, 1, || ()), Some(vec![waiter(1), waiter(2)]));
        assert_eq!(interests.enter(3, waiter(3), now), Entered::Heard);
        interests.lost(3);
        assert_eq!(interests.enter(3, waiter(4), now), Entered::Waits(None));
        assert_eq!(
            interests.confirmed(3, 1, || ()),
            Some(vec![waiter(4)]),
            "heard again"
        );
    }

    #[test]
    fn nobody_waits_longer_than_two_seconds_nor_while_the_bus_is_down() {
        let (interests, now) = (Interests::new(16), Instant::now());
        interests.enter(3, waiter(1), now);
        assert_eq!(
            interests
                .tick(now + Duration::from_millis(1_999), false, drop, drop)
                .0,
            []
        );
        assert_eq!(
            interests
                .tick(now + Duration::from_millis(2_000), false, drop, drop)
                .0,
            [waiter(1)]
        );
        interests.enter(3, waiter(2), now);
        assert_eq!(interests.tick(now, true, drop, drop).0, [waiter(2)]);
    }

    #[test]
    fn a_topic_is_heard_half_a_minute_longer_than_it_is_needed() {
        let (interests, now) = (Interests::new(16), Instant::now());
        let s = Duration::from_secs;
        interests.enter(3, waiter(1), now);
        interests.confirmed(3, 1, || ());
        interests.occupied(3);
        interests.occupied(3);
        interests.vacated(3, now);
        assert_eq!(
            interests.tick(now + s(100), false, drop, drop).1,
            [],
            "one channel is left"
        );
        interests.vacated(3, now + s(100));
        assert_eq!(interests.tick(now + s(129), false, drop, drop).1, []);
        assert_eq!(interests.enter(3, waiter(2), now + s(129)), Entered::Heard);
        assert_eq!(
            interests.tick(now + s(158), false, drop, drop).1,
            [],
            "somebody came to look"
        );
        assert_eq!(
            interests.tick(now + s(159), false, drop, drop).1,
            [wish(false, 2)]
        );
        assert_eq!(
            interests.enter(3, waiter(3), now + s(160)),
            Entered::Waits(Some(wish(true, 3)))
        );
        assert_eq!(
            interests.confirmed(3, 1, || ()),
            None,
            "a late word about the wish before last"
        );
    }

    #[test]
    fn a_deaf_topic_is_asked_for_anew() {
        let (interests, now) = (Interests::new(16), Instant::now());
        assert_eq!(interests.anew(3), None);
        interests.enter(3, waiter(1), now);
        interests.confirmed(3, 1, || ());
        assert_eq!(interests.anew(3), Some(wish(true, 2)));
        assert_eq!(
            interests.enter(3, waiter(2), now),
            Entered::Heard,
            "as far as is known"
        );
        assert_eq!(interests.wanted(), 1);
    }
}
