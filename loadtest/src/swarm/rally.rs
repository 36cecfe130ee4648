//! Pairs of clients that play client events back and forth: one asks, the other answers, and how long it took until the
//! answer was there. The one who asks and the one who answers may be on different threads.
//!
//! It knows nothing of sockets: it says who is to say something and when.

use std::collections::{HashMap, VecDeque};

use hdrhistogram::Histogram;

use super::account::delays;

/// What a client does with an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is a subscriber, and its ledger counts.
    #[default]
    Reads,
    /// It says something and waits for the answer.
    Asks,
    /// It says back what it hears.
    Answers,
}

/// What the pairs of one thread came to.
#[derive(Clone, Debug)]
pub(crate) struct Trips {
    /// From what was said until its answer. Nanoseconds.
    pub(crate) took: Histogram<u64>,
    /// How many were begun, and how many have no answer yet.
    pub(crate) begun: u64,
    pub(crate) open: u64,
    /// Answers to something that nobody waits for.
    pub(crate) foreign: u64,
}

/// The game of one thread.
#[derive(Debug)]
pub(super) struct Rally {
    /// From one question of a pair to its next; none: as soon as it is answered.
    every_ns: Option<u64>,
    /// When which client may ask again, the soonest first.
    due: VecDeque<(u64, usize)>,
    /// Questions that wait for their answers, by the client.
    waiting: HashMap<usize, u32>,
    sequence: u32,
    is_on: bool,
    trips: Trips,
}

impl Default for Rally {
    fn default() -> Rally {
        Rally {
            every_ns: None,
            due: VecDeque::new(),
            waiting: HashMap::new(),
            sequence: 0,
            is_on: false,
            trips: Trips::new(),
        }
    }
}

impl Rally {
    /// Begins, with these clients asking. Where there is a pace, they begin evenly within one interval.
    pub(super) fn begin(&mut self, asking: &[usize], every_ns: Option<u64>, now_ns: u64) {
        let apart_ns = every_ns.unwrap_or(0) / asking.len().max(1) as u64;
        let turns = (0..)
            .zip(asking)
            .map(|(turn, client)| (now_ns + turn * apart_ns, *client));
        *self = Rally {
            every_ns,
            due: turns.collect(),
            sequence: self.sequence,
            is_on: true,
            ..Rally::default()
        };
    }

    /// Nobody asks any more. What is under way may still come.
    pub(super) fn end(&mut self) {
        self.is_on = false;
        self.due.clear();
    }

    /// When the next question is due.
    #[inline]
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due.front().map(|(due_ns, _)| *due_ns)
    }

    /// The next client whose question is due, and the number of that question.
    pub(super) fn next(&mut self, now_ns: u64) -> Option<(usize, u32)> {
        self.next_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let (_, client) = self.due.pop_front()?;
        self.sequence = self.sequence.wrapping_add(1);
        self.waiting.insert(client, self.sequence);
        self.trips.begun += 1;
        Some((client, self.sequence))
    }

    /// A client has got an answer.
    pub(super) fn answered(&mut self, client: usize, sequence: u32, sent_ns: u64, now_ns: u64) {
        if self.waiting.get(&client) != Some(&sequence) {
            self.trips.foreign += 1;
            return;
        }
        self.waiting.remove(&client);
        self.trips.took.saturating_record(now_ns.saturating_sub(sent_ns));
        if self.is_on {
            let next_ns = self.every_ns.map_or(now_ns, |every_ns| sent_ns + every_ns);
            self.due.push_back((next_ns, client));
        }
    }

    /// How many answers have come.
    #[inline]
    pub(super) fn count(&self) -> u64 {
        self.trips.took.len()
    }

    /// What it has come to.
    pub(super) fn trips(&self) -> Trips {
        Trips {
            open: self.waiting.len() as u64,
            ..self.trips.clone()
        }
    }
}

impl Trips {
    /// None yet.
    pub(crate) fn new() -> Trips {
        Trips {
            took: delays(),
            begun: 0,
            open: 0,
            foreign: 0,
        }
    }

    /// Adds what another thread's pairs came to.
    pub(crate) fn add(&mut self, other: &Trips) {
        self.took.add(&other.took).expect("both have the same limits");
        self.begun += other.begun;
        self.open += other.open;
        self.foreign += other.foreign;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_asks_again_when_it_is_answered_or_due() {
        for (every_ns, next_ns) in [(None, 130), (Some(1_000), 1_100)] {
            let mut rally = Rally::default();
            rally.begin(&[7], every_ns, 100);
            assert_eq!(rally.next(99), None);
            assert_eq!(rally.next(100), Some((7, 1)));
            assert_eq!(rally.next_ns(), None);
            rally.answered(7, 1, 100, 130);
            assert_eq!(rally.next_ns(), Some(next_ns));
            assert_eq!((rally.count(), rally.trips().open), (1, 0));
        }
    }

    #[test]
    fn what_nobody_waits_for_is_foreign_and_what_is_not_answered_stays_open() {
        let mut rally = Rally::default();
        rally.begin(&[7, 8], None, 0);
        rally.next(0);
        rally.next(0);
        rally.answered(7, 2, 0, 5);
        rally.end();
        rally.answered(8, 2, 0, 5);
        let trips = rally.trips();
        assert_eq!((trips.begun, trips.open, trips.foreign), (2, 1, 1));
        assert_eq!(rally.next_ns(), None);
    }
}
