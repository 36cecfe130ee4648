//! How far a channel's broadcasts are among the sockets of one thread: who has each, and who will never have it.
//!
//! Pure counting: the ledger decides what counts.

use std::collections::VecDeque;

use super::account::Broadcast;

/// A channel as this thread sees it.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) audience: usize,
    /// Subscriptions that broadcasts wait for, and how many of them have ended.
    pub(super) awaited: u32,
    pub(super) gone: u32,
    /// The oldest broadcast that somebody lacks.
    pub(super) done: u32,
    /// The broadcasts from there on, as far as one has arrived somewhere.
    pub(super) open: VecDeque<Tally>,
}

/// A broadcast that somebody lacks.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) received: u32,
    /// Awaited subscriptions that will not get it any more.
    pub(super) waived: u32,
    /// Those of them that were owed it.
    pub(super) missed: u32,
    pub(super) sent_ns: u64,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// All arrivals, if they are recorded one by one.
    pub(super) arrivals: Vec<u64>,
}

impl Channel {
    /// Nothing has arrived from there on.
    pub(super) fn end(&self) -> u32 {
        self.done + self.open.len() as u32
    }
}

impl Tally {
    pub(super) fn told(self, channel: u32, sequence: u32, awaited: u32) -> Broadcast {
        Broadcast {
            channel,
            sequence,
            sent_ns: self.sent_ns,
            received: self.received,
            missed: self.missed + awaited.saturating_sub(self.received + self.waived),
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            arrivals: self.arrivals,
        }
    }
}
