//! What one topic's envelopes are kept in: numbered, sent up to a cursor, and dropped from the old end.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Tick, cost};
use crate::relay::parcel::Run;

/// The same numbers are not sent again within this time, however many ask: two hundred milliseconds.
const SAME_REPAIR_TICKS: Tick = 4;
/// So many pieces of a topic may be under repair. Who asks for more is not heard, and asks again.
const REPAIRS_MAX: usize = 64;

/// The envelopes of one topic.
///
/// `first` … `sent` were accepted, then come those in flight, then those that wait.
#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// The number of the first entry, or the next one if there is none.
    first: u64,
    /// What the entries cost together.
    bytes: usize,
    /// Up to here all was accepted, or given up.
    sent: u64,
    /// The last number that was accepted.
    head: u64,
    /// The last number of the parcel in flight.
    flight: Option<u64>,
    /// When it was last appended to, or accepted from.
    used: Tick,
    /// Whether its turn will come, or it is in flight.
    pub(super) is_queued: bool,
    /// Whether its turn to repair will come.
    pub(super) is_repairing: bool,
    repairs: Vec<Repair>,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    /// When it was accepted, or appended if it was not.
    at: Tick,
}

/// Numbers that are to be sent again, or were a moment ago.
#[derive(Debug)]
struct Repair {
    from: u64,
    to: u64,
    /// The first that has not been sent again.
    next: u64,
    /// When the last one was handed over.
    done: Option<Tick>,
}

/// What an entry was when it was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) cost: usize,
    pub(super) was_accepted: bool,
    /// It never left, and never will.
    pub(super) is_gap: bool,
}

/// How a parcel ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// What its entries cost that were still there.
    pub(super) cost: usize,
    pub(super) accepted: u64,
    /// Envelopes overwritten while they were in flight, in vain.
    pub(super) gaps: u64,
}

impl Log {
    pub(super) fn new() -> Log {
        Log {
            entries: VecDeque::new(),
            first: 1,
            bytes: 0,
            sent: 0,
            head: 0,
            flight: None,
            used: 0,
            is_queued: false,
            is_repairing: false,
            repairs: Vec::new(),
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn used(&self) -> Tick {
        self.used
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn append(&mut self, bytes: Bytes, now: Tick) -> u64 {
        let number = self.end();
        self.bytes += cost(&bytes);
        self.entries.push_back(Entry { bytes, at: now });
        self.used = now;
        number
    }

    /// The number that the next envelope gets.
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent + 1 < self.end()
    }

    /// When the oldest that was not accepted was appended.
    pub(super) fn waits_since(&self) -> Option<Tick> {
        let index = usize::try_from((self.sent + 1).saturating_sub(self.first)).ok()?;
        self.entries.get(index).map(|entry| entry.at)
    }

    /// Whether this number is still to be had.
    pub(super) fn has(&self, number: u64) -> bool {
        (self.first..self.end()).contains(&number)
    }

    /// Drops the oldest entry.
    pub(super) fn drop_first(&mut self) -> Option<Dropped> {
        let entry = self.entries.pop_front()?;
        let (number, cost) = (self.first, cost(&entry.bytes));
        self.first += 1;
        self.bytes -= cost;
        let was_accepted = number <= self.sent;
        // What is in flight may yet have been accepted: `settle` will know.
        let is_gap = !was_accepted && self.flight.is_none_or(|last| last < number);
        if is_gap && self.flight.is_none() {
            self.sent = number;
        }
        Some(Dropped {
            cost,
            was_accepted,
            is_gap,
        })
    }

    /// Whether the oldest entry was accepted before `tick`.
    pub(super) fn first_is_older(&self, tick: Tick) -> bool {
        self.first <= self.sent && self.entries.front().is_some_and(|entry| entry.at < tick)
    }

    /// The next unsent envelopes, and how many bytes they are: at least one, and no more than `bytes_max` if it is
    /// not the only one.
    pub(super) fn next_parcel(&mut self, bytes_max: usize) -> Option<(Run, usize)> {
        let (run, bytes) = self.run(self.sent + 1, u64::MAX, bytes_max)?;
        self.flight = Some(run.end() - 1);
        Some((run, bytes))
    }

    fn run(&self, from: u64, to: u64, bytes_max: usize) -> Option<(Run, usize)> {
        let index = usize::try_from(from.checked_sub(self.first)?).ok()?;
        let more = usize::try_from(to.checked_sub(from)?).unwrap_or(usize::MAX);
        let first = self.entries.get(index)?;
        let mut bytes = first.bytes.len();
        let mut envelopes =
            Vec::with_capacity((self.entries.len() - index - 1).min(more).min(bytes_max / 256) + 1);
        envelopes.push(first.bytes.clone());
        for entry in self.entries.range(index + 1..).take(more) {
            if bytes + entry.bytes.len() > bytes_max {
                break;
            }
            bytes += entry.bytes.len();
            envelopes.push(entry.bytes.clone());
        }
        let run = Run {
            first: from,
            is_repair: false,
            envelopes,
        };
        Some((run, bytes))
    }

    /// Moves the cursor behind the parcel in flight, or leaves it before it.
    pub(super) fn settle(&mut self, is_accepted: bool, now: Tick) -> Settled {
        let Some(last) = self.flight.take() else {
            return Settled::default();
        };
        // What is no longer there was overwritten on the way, and so was what it was followed by, up to `first`.
        let there = self.first.max(self.sent + 1);
        let mut settled = Settled::default();
        if is_accepted {
            settled.accepted = last - self.sent;
            for number in there..=last {
                let entry = &mut self.entries[(number - self.first) as usize];
                entry.at = now;
                settled.cost += cost(&entry.bytes);
            }
            self.head = last;
            self.sent = last;
            self.used = now;
        } else {
            settled.gaps = there.min(last + 1) - (self.sent + 1);
        }
        self.sent = self.sent.max(self.first - 1);
        settled
    }

    /// Notes that these numbers are to be sent again, as far as they were accepted, are still there, and are not sent
    /// again already. Whether there is anything to do.
    pub(super) fn repair(&mut self, from: u64, to: u64, now: Tick) -> bool {
        self.forget_repairs(now);
        let (mut from, to) = (from.max(self.first), to.min(self.sent));
        self.repairs.sort_unstable_by_key(|repair| repair.from);
        let mut pieces = Vec::new();
        for repair in &self.repairs {
            if from > to {
                break;
            }
            if repair.from > from {
                pieces.push((from, to.min(repair.from - 1)));
            }
            from = from.max(repair.to + 1);
        }
        if from <= to {
            pieces.push((from, to));
        }
        let room = REPAIRS_MAX.saturating_sub(self.repairs.len());
        pieces.truncate(room);
        let has_more = !pieces.is_empty();
        self.repairs.extend(pieces.into_iter().map(|(from, to)| Repair {
            from,
            to,
            next: from,
            done: None,
        }));
        has_more
    }

    fn forget_repairs(&mut self, now: Tick) {
        self.repairs.retain(|repair| {
            repair
                .done
                .is_none_or(|done| now.saturating_sub(done) < SAME_REPAIR_TICKS)
        });
    }

    /// The next envelopes that are to be sent again. None: all have been.
    pub(super) fn next_repair(&mut self, bytes_max: usize, now: Tick) -> Option<(Run, usize)> {
        for index in 0..self.repairs.len() {
            let Repair { to, next, done, .. } = self.repairs[index];
            if done.is_some() {
                continue;
            }
            // Some of it may have been dropped since; who misses it is told when it asks again.
            let found = self.run(next.max(self.first), to, bytes_max);
            let repair = &mut self.repairs[index];
            repair.next = found.as_ref().map_or(to + 1, |(run, _)| run.end());
            if repair.next > to {
                repair.done = Some(now);
            }
            if let Some((mut run, bytes)) = found {
                run.is_repair = true;
                return Some((run, bytes));
            }
        }
        None
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink(&mut self, now: Tick) {
        if self.entries.capacity() > 4 * self.entries.len().max(4) {
            self.entries.shrink_to(2 * self.entries.len());
        }
        self.forget_repairs(now);
        if self.repairs.is_empty() {
            self.repairs = Vec::new();
        }
    }
}
