//! A queue that outlives the process: what it is asked, whichever broker keeps it.
//!
//! Without one, an event waits in the memory of the node where it happened. With one it goes a longer way, which a node
//! that is killed does not cut:
//!
//! ```text
//! send ─► put ─► broker ─► taken by the node that owns the partition ─► queues of endpoints ─► delivered ─► done
//! ```
//!
//! **Partitions.** An event belongs to one of 64, by a hash of its app and channel, so that a channel's events stay in
//! one line however many nodes there are. A partition is owned by one node at a time; who owns which is told by
//! [`Journal::own`], and is not the journal's to decide.
//!
//! **What a journal promises.** Of one partition, what one node put comes back in that order to the owner. It comes at
//! least once: an entry that was taken and is not done when its owner goes, or gives the partition up, comes to the next
//! owner, and the one that is not yet known to be done comes again after a new start of the same. What was put before
//! `kill -9` and is with the broker is not lost; what was put and is not yet with the broker is.
//!
//! **What it does not.** Order across nodes that put. Order across a change of owners: what the old one still tries to
//! deliver may come after what the new one has delivered, and twice. Receivers tell repeated ones by the header
//! `X-Fanwire-Webhook-Id`, which is the same wherever the same event is delivered alone.
//!
//! Knows nothing of events: entries are bytes.

mod entry;
mod kept;
mod ledger;
pub mod memory;
pub mod nats;
mod open;
pub mod redis;
mod ticket;

use std::fmt;

use bytes::Bytes;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

pub(super) use entry::Entry;
pub use open::{JournalFault, Room, checkup, open};
pub(super) use ticket::{Ticket, Tickets};

/// How many partitions there are: as many as a [`Partitions`] has bits. Part of the format of what is stored.
pub const PARTITIONS: u8 = 64;

/// One line of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u8);

impl Partition {
    /// That of a channel. The same on every node and in every version.
    pub fn of(app_id: &str, channel: &str) -> Partition {
        let mut hash = Xxh3::new();
        hash.update(app_id.as_bytes());
        // Stands in neither of them.
        hash.update(&[0]);
        hash.update(channel.as_bytes());
        Partition((hash.digest() % u64::from(PARTITIONS)) as u8)
    }

    /// The one with this number, 0 to 63.
    pub fn at(index: u8) -> Option<Partition> {
        (index < PARTITIONS).then_some(Partition(index))
    }

    /// Its number, 0 to 63.
    pub fn index(self) -> u8 {
        self.0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Partition> {
        (0..PARTITIONS).map(Partition)
    }
}

/// Some of the partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partitions(u64);

impl Partitions {
    /// All of them: what a node owns that is alone.
    pub const ALL: Partitions = Partitions(u64::MAX);
    /// None of them: what a node owns that leaves.
    pub const NONE: Partitions = Partitions(0);

    /// Whether it is among them.
    pub fn contains(self, partition: Partition) -> bool {
        self.0 >> partition.0 & 1 == 1
    }

    /// The lowest first.
    pub fn iter(self) -> impl Iterator<Item = Partition> {
        Partition::all().filter(move |partition| self.contains(*partition))
    }
}

impl FromIterator<Partition> for Partitions {
    fn from_iter<I: IntoIterator<Item = Partition>>(partitions: I) -> Partitions {
        Partitions(
            partitions
                .into_iter()
                .fold(0, |bits, partition| bits | 1 << partition.0),
        )
    }
}

/// Names an entry to the journal that gave it out. Means nothing to anybody else, and nothing after the end of the
/// process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Where the entry was.
    pub partition: Partition,
    /// The broker's name for it, such as the id in a stream or a sequence number.
    pub entry: Box<str>,
}

/// An entry that came back.
#[derive(Clone, Debug)]
pub struct Taken {
    /// To be given to [`Journal::done`] or to [`Journal::leave`] once.
    pub receipt: Receipt,
    /// The bytes that were put.
    pub entry: Bytes,
    /// How often the partition had been read from its first entry on when this one was read.
    pub round: u64,
}

/// How a journal is, for a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalFigures {
    /// What the broker does not know of yet: entries that were put, and entries that are done.
    pub unsent: usize,
    /// Partitions of which the broker holds as many entries as it may.
    pub partitions_full: usize,
    /// Partitions that are this node's.
    pub partitions_owned: usize,
    /// Entries that were given to this node and left at the broker for the time being.
    pub left: usize,
}

/// What became of an entry that was to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// On its way to the broker, and kept until the broker has it.
    Queued,
    /// The broker is behind or away, and as much waits for it as may: the entry is not kept.
    Full,
}

/// A queue at a broker. Every call is short and never waits: a journal's own tasks do the work, with bounded queues.
pub trait Journal: Send + Sync + fmt::Debug {
    /// Hands over an entry, up to some 100 KB. May be called under a channel's lock; of one partition the order of the
    /// calls is the order of the entries. While the broker is away, as much is kept as the journal has room for.
    fn put(&self, partition: Partition, entry: Bytes) -> Put;

    /// The node owns these partitions from now on, and no others: it is given their entries, from the first one on that
    /// is not done, whoever was given it before. To be called at each change; entries of partitions that are given up
    /// may still be on their way for a moment.
    fn own(&self, owned: Partitions);

    /// The entry has been delivered, or given up for good: it must not come again. Repeated or late calls do no harm.
    fn done(&self, receipt: Receipt);

    /// The entry stays at the broker for the time being: nothing is kept of it here, and it comes again when the
    /// partition is next read from its first entry on. The answer is how often that had been begun by now: what is
    /// behind this entry, and must not overtake it, has to be left as well unless it comes with a higher number.
    fn leave(&self, receipt: Receipt) -> u64;

    /// Has these partitions be read from their first entries on, soon. What is in hand does not come again.
    fn give_again(&self, partitions: Partitions);

    /// What the broker does not know of yet: entries that were put, and entries that are done. While there are any, the
    /// process had better not end.
    fn unsent(&self) -> usize;

    /// How it is.
    fn figures(&self) -> JournalFigures;
}

/// A journal, and where the entries come out that it gives to this node. The queue is bounded, some hundreds: a journal
/// waits with the next ones while it is full, and asks its broker for no more.
pub type OpenJournal = (std::sync::Arc<dyn Journal>, mpsc::Receiver<Taken>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_always_in_the_same_partition() {
        // These figures are part of what is stored: they must never change.
        let index = |(app, channel)| Partition::of(app, channel).index();
        assert_eq!(
            [("1", "a"), ("1", "b"), ("2", "a"), ("12", "")].map(index),
            [44, 9, 30, 14]
        );
        let used: std::collections::HashSet<_> =
            (0..2_000).map(|n| Partition::of("1", &n.to_string())).collect();
        assert_eq!(used.len(), usize::from(PARTITIONS), "all of them are used");
    }

    #[test]
    fn partitions_are_a_set() {
        let some: Partitions = [3, 63, 0].into_iter().filter_map(Partition::at).collect();
        assert_eq!(some.iter().map(Partition::index).collect::<Vec<_>>(), [0, 3, 63]);
        assert_eq!(Partitions::ALL.iter().count(), 64);
        assert_eq!(Partitions::NONE.iter().count(), 0);
        assert!(Partition::at(64).is_none());
    }
}
