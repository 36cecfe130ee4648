//! What a node knows of its durable queue, whichever broker keeps it: the entries that are on their way there, those
//! that came back and are in hand, those that are done, and the partitions that are its own.
//!
//! The journal's calls change it and return; the tasks that speak with the broker take from it what is to be said, and
//! tell it what was answered. Knows nothing of brokers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::{JournalFigures, PARTITIONS, Partition, Partitions, Put, Receipt, Room, Taken};

/// How an entry at the broker is named among those of its partition: part of what its receipt says.
pub(super) type KeyOf = fn(&str) -> &str;

/// The same for the broker's name itself.
pub(super) fn whole(entry: &str) -> &str {
    entry
}

/// Entries of one partition, the oldest first, for the broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) partition: Partition,
    /// The number of the first of them; the others follow. Counted anew by each process.
    pub(super) first: u64,
    pub(super) entries: Vec<Bytes>,
}

/// See the head of this file. Its calls hold its lock only for as long as they take.
#[derive(Debug)]
pub(super) struct Ledger {
    room: Room,
    key_of: KeyOf,
    state: Mutex<State>,
    owned: watch::Sender<Partitions>,
    /// There is something to tell the broker.
    work: Notify,
    /// A partition is to be read again.
    again: Notify,
}

#[derive(Debug)]
struct State {
    lines: Vec<Line>,
    /// Of all lines together.
    entries: usize,
    bytes: usize,
    /// The line from which the next batch is taken first, so that each has its turn.
    turn: usize,
    /// Done, and the broker does not know: the oldest first.
    done: VecDeque<Receipt>,
}

/// One partition.
#[derive(Debug, Default)]
struct Line {
    /// Not yet accepted by the broker.
    unsent: VecDeque<Bytes>,
    /// The number of the first of them.
    first: u64,
    /// The broker holds as many of this partition as it may.
    is_full: bool,
    /// What came back: whether it is done, which the broker may not know yet.
    known: HashMap<Box<str>, bool>,
    /// How often it was read from its first entry on.
    round: u64,
    /// Entries that came since then and were left at the broker.
    left: usize,
    /// It is to be read from its first entry on.
    is_wanted_again: bool,
}

impl Ledger {
    pub(super) fn new(room: Room, key_of: KeyOf) -> Ledger {
        let state = State {
            lines: (0..PARTITIONS).map(|_| Line::default()).collect(),
            entries: 0,
            bytes: 0,
            turn: 0,
            done: VecDeque::new(),
        };
        Ledger {
            room,
            key_of,
            state: Mutex::new(state),
            owned: watch::Sender::new(Partitions::NONE),
            work: Notify::new(),
            again: Notify::new(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // No step panics half way.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn room(&self) -> Room {
        self.room
    }

    pub(super) fn put(&self, partition: Partition, entry: Bytes) -> Put {
        let put = self.with(|state| {
            let line = &mut state.lines[usize::from(partition.index())];
            let has_room = state.entries < self.room.entries && entry.len() <= self.room.bytes - state.bytes;
            if line.is_full || !has_room {
                return Put::Full;
            }
            state.entries += 1;
            state.bytes += entry.len();
            line.unsent.push_back(entry);
            Put::Queued
        });
        if put == Put::Queued {
            self.work.notify_one();
        }
        put
    }

    /// What the calls to `own` said last, and says next.
    pub(super) fn owned(&self) -> watch::Receiver<Partitions> {
        self.owned.subscribe()
    }

    pub(super) fn own(&self, owned: Partitions) {
        self.owned.send_if_modified(|known| {
            let changed = *known != owned;
            *known = owned;
            changed
        });
        self.with(|state| {
            let given_up = Partition::all().filter(|partition| !owned.contains(*partition));
            for partition in given_up {
                // If it comes back to this node, so do its entries, as they would to any other.
                let line = &mut state.lines[usize::from(partition.index())];
                line.known.retain(|_, is_done| *is_done);
                line.left = 0;
            }
        });
    }

    pub(super) fn done(&self, receipt: Receipt) {
        self.with(|state| {
            let line = &mut state.lines[usize::from(receipt.partition.index())];
            let key = (self.key_of)(&receipt.entry);
            let was_done = match line.known.get_mut(key) {
                Some(is_done) => std::mem::replace(is_done, true),
                None => line.known.insert(key.into(), true).is_some(),
            };
            if !was_done {
                state.done.push_back(receipt);
            }
        });
        self.work.notify_one();
    }

    /// What the broker does not know of yet: entries that were put, and entries that are done.
    pub(super) fn unsent(&self) -> usize {
        self.with(|state| state.entries + state.done.len())
    }

    /// Ends when there may be something to tell the broker.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// The oldest entries of as many partitions as fit, which are kept until they are accepted. Partitions that the
    /// broker has no room for are left out.
    pub(super) fn batches(&self, entries_max: usize, bytes_max: usize) -> Vec<Batch> {
        self.with(|state| {
            let (mut entries, mut bytes) = (0, 0);
            let mut batches = Vec::new();
            for place in 0..state.lines.len() {
                let index = (state.turn + place) % state.lines.len();
                let line = &state.lines[index];
                if line.is_full {
                    continue;
                }
                let fitting = line.unsent.iter().take_while(|entry| {
                    // One at least: there is none that never fits.
                    let fits = entries == 0 || (entries < entries_max && bytes + entry.len() <= bytes_max);
                    if fits {
                        entries += 1;
                        bytes += entry.len();
                    }
                    fits
                });
                let fitting: Vec<_> = fitting.cloned().collect();
                if let Some(partition) = Partition::at(index as u8).filter(|_| !fitting.is_empty()) {
                    batches.push(Batch {
                        partition,
                        first: line.first,
                        entries: fitting,
                    });
                }
            }
            state.turn = (state.turn + 1) % state.lines.len();
            batches
        })
    }

    /// The broker has the first so many of the partition.
    pub(super) fn accepted(&self, partition: Partition, count: usize) {
        self.with(|state| {
            let line = &mut state.lines[usize::from(partition.index())];
            for entry in line.unsent.drain(..count.min(line.unsent.len())) {
                state.entries -= 1;
                state.bytes -= entry.len();
                line.first += 1;
            }
        });
    }

    /// Whether the broker holds as many of the partition as it may: then no more are put.
    pub(super) fn set_full(&self, partition: Partition, is_full: bool) {
        let was_full = self.with(|state| {
            let line = &mut state.lines[usize::from(partition.index())];
            std::mem::replace(&mut line.is_full, is_full)
        });
        if was_full && !is_full {
            self.work.notify_one();
        }
    }

    /// The partitions that the broker has no room for.
    pub(super) fn full(&self) -> Partitions {
        self.with(|state| {
            let is_full = |partition: &Partition| state.lines[usize::from(partition.index())].is_full;
            Partition::all().filter(is_full).collect()
        })
    }

    /// The oldest of those that are done and that the broker does not know to be; kept until that is confirmed.
    pub(super) fn dones(&self, max: usize) -> Vec<Receipt> {
        self.with(|state| state.done.iter().take(max).cloned().collect())
    }

    /// The broker knows of the first so many.
    pub(super) fn confirmed(&self, count: usize) {
        self.with(|state| {
            for receipt in state.done.drain(..count.min(state.done.len())) {
                let line = &mut state.lines[usize::from(receipt.partition.index())];
                line.known.remove((self.key_of)(&receipt.entry));
            }
        });
    }

    /// What is to be given to this node of an entry that the broker brought: nothing if it is in hand already, or done,
    /// or of a partition that is not this node's any more.
    pub(super) fn take(&self, receipt: Receipt, entry: Bytes) -> Option<Taken> {
        self.with(|state| {
            let line = &mut state.lines[usize::from(receipt.partition.index())];
            let key = (self.key_of)(&receipt.entry);
            if !self.owned.borrow().contains(receipt.partition) || line.known.contains_key(key) {
                return None;
            }
            line.known.insert(key.into(), false);
            let round = line.round;
            Some(Taken {
                receipt,
                entry,
                round,
            })
        })
    }

    /// How many of the partition are in hand, or done without the broker's knowing for sure, or left.
    pub(super) fn known(&self, partition: Partition) -> usize {
        self.with(|state| {
            let line = &state.lines[usize::from(partition.index())];
            line.known.len() + line.left
        })
    }

    /// The entry is in hand no more, and not done. The answer is the partition's round by now.
    pub(super) fn leave(&self, receipt: &Receipt) -> u64 {
        self.with(|state| {
            let line = &mut state.lines[usize::from(receipt.partition.index())];
            let key = (self.key_of)(&receipt.entry);
            if line.known.get(key) == Some(&false) {
                line.known.remove(key);
                line.left += 1;
            }
            line.round
        })
    }

    pub(super) fn give_again(&self, partitions: Partitions) {
        self.with(|state| {
            for partition in partitions.iter() {
                state.lines[usize::from(partition.index())].is_wanted_again = true;
            }
        });
        self.again.notify_one();
    }

    /// Ends when a partition may be wanted again.
    pub(super) async fn again(&self) {
        self.again.notified().await;
    }

    /// Whether the partition is to be read from its first entry on.
    pub(super) fn is_wanted_again(&self, partition: Partition) -> bool {
        self.with(|state| state.lines[usize::from(partition.index())].is_wanted_again)
    }

    /// The partition is read from its first entry on from now on: what was left comes again.
    pub(super) fn begun(&self, partition: Partition) {
        self.with(|state| {
            let line = &mut state.lines[usize::from(partition.index())];
            line.round += 1;
            line.left = 0;
            line.is_wanted_again = false;
        });
    }

    pub(super) fn figures(&self) -> JournalFigures {
        let partitions_owned = self.owned.borrow().iter().count();
        self.with(|state| JournalFigures {
            unsent: state.entries + state.done.len(),
            partitions_full: state.lines.iter().filter(|line| line.is_full).count(),
            partitions_owned,
            left: state.lines.iter().map(|line| line.left).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u8) -> Partition {
        Partition::at(index).expect("a partition")
    }

    fn receipt(index: u8, entry: &str) -> Receipt {
        Receipt {
            partition: at(index),
            entry: entry.into(),
        }
    }

    fn ledger() -> Ledger {
        let room = Room {
            entries: 4,
            bytes: 100,
            ..Room::default()
        };
        Ledger::new(room, whole)
    }

    fn texts(batches: &[Batch]) -> Vec<(u8, u64, Vec<&[u8]>)> {
        let of = batches.iter().map(|batch| {
            let entries = batch.entries.iter().map(|entry| &entry[..]);
            (batch_index(batch), batch.first, entries.collect())
        });
        of.collect()
    }

    fn batch_index(batch: &Batch) -> u8 {
        batch.partition.index()
    }

    #[test]
    fn entries_are_kept_in_order_until_they_are_accepted() {
        let ledger = ledger();
        for (index, entry) in [(7, "a"), (3, "b"), (7, "c")] {
            assert_eq!(ledger.put(at(index), entry.into()), Put::Queued);
        }
        let all: Vec<(u8, u64, Vec<&[u8]>)> = vec![(3, 0, vec![b"b"]), (7, 0, vec![b"a", b"c"])];
        for _ in 0..2 {
            assert_eq!(
                texts(&ledger.batches(9, 99)),
                all,
                "again, as long as none is accepted"
            );
        }
        ledger.accepted(at(7), 1);
        ledger.accepted(at(3), 1);
        assert_eq!(ledger.unsent(), 1);
        assert_eq!(texts(&ledger.batches(9, 99)), [(7, 1, vec![&b"c"[..]])]);
    }

    #[test]
    fn a_batch_ends_where_it_is_long_enough() {
        let ledger = ledger();
        for entry in ["1234", "5678", "9"] {
            ledger.put(at(0), entry.into());
        }
        assert_eq!(ledger.batches(2, 99)[0].entries.len(), 2);
        assert_eq!(ledger.batches(9, 8)[0].entries.len(), 2);
        assert_eq!(ledger.batches(9, 1)[0].entries.len(), 1, "one at least");
    }

    #[test]
    fn a_full_ledger_or_a_full_partition_takes_no_more() {
        let ledger = ledger();
        assert_eq!(
            ledger.put(at(0), vec![0; 101].into()),
            Put::Full,
            "too many bytes"
        );
        assert_eq!(ledger.put(at(0), vec![0; 100].into()), Put::Queued);
        assert_eq!(ledger.put(at(0), "x".into()), Put::Full);
        ledger.accepted(at(0), 1);
        ledger.set_full(at(0), true);
        assert_eq!(ledger.put(at(0), "x".into()), Put::Full, "the broker has no room");
        for _ in 0..4 {
            assert_eq!(ledger.put(at(1), "x".into()), Put::Queued);
        }
        assert_eq!(ledger.put(at(1), "x".into()), Put::Full, "too many entries");
        ledger.set_full(at(1), true);
        assert_eq!(
            ledger.batches(9, 99),
            [],
            "what waits for a full partition goes on waiting"
        );
        assert_eq!(
            ledger.full().iter().map(Partition::index).collect::<Vec<_>>(),
            [0, 1]
        );
    }

    #[test]
    fn an_entry_is_given_once_and_never_after_it_is_done() {
        let ledger = ledger();
        let take = |entry: &str| ledger.take(receipt(5, entry), "bytes".into()).is_some();
        assert!(!take("1"), "not this node's");
        ledger.own(Partitions::ALL);
        assert!(take("1") && take("2"));
        assert!(!take("1"), "in hand");
        for _ in 0..2 {
            ledger.done(receipt(5, "1"));
        }
        assert_eq!(ledger.dones(9), [receipt(5, "1")]);
        assert_eq!((ledger.unsent(), ledger.known(at(5))), (1, 2));

        ledger.own(Partitions::NONE);
        ledger.own(Partitions::ALL);
        assert!(!take("1"), "done, even if the broker does not know");
        assert!(
            take("2"),
            "not done, and comes to the new owner, who is the old one"
        );
        ledger.confirmed(1);
        assert_eq!((ledger.unsent(), ledger.known(at(5))), (0, 1));
    }

    #[test]
    fn what_is_left_comes_again_with_the_next_round() {
        let ledger = ledger();
        ledger.own(Partitions::ALL);
        let take = |entry: &str| {
            ledger
                .take(receipt(5, entry), "bytes".into())
                .map(|taken| taken.round)
        };
        ledger.begun(at(5));
        assert_eq!((take("1"), take("2")), (Some(1), Some(1)));
        for _ in 0..2 {
            assert_eq!(ledger.leave(&receipt(5, "1")), 1);
        }
        assert_eq!(ledger.figures().left, 1);
        assert_eq!(
            ledger.known(at(5)),
            2,
            "the broker has given out no more than that"
        );

        assert!(!ledger.is_wanted_again(at(5)));
        ledger.give_again([at(5)].into_iter().collect());
        assert!(ledger.is_wanted_again(at(5)) && !ledger.is_wanted_again(at(6)));
        ledger.begun(at(5));
        assert!(!ledger.is_wanted_again(at(5)));
        assert_eq!(
            (take("1"), take("2")),
            (Some(2), None),
            "the other one is in hand"
        );
        assert_eq!((ledger.figures().left, ledger.known(at(5))), (0, 2));

        ledger.done(receipt(5, "1"));
        assert_eq!(ledger.leave(&receipt(5, "1")), 2);
        assert_eq!(ledger.figures().left, 0, "done is done");
    }
}
