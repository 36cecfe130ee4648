//! What this node says on one lane: numbered, kept for who misses some of it, and the queue to the broker at once.
//!
//! The connection is a cursor over it, one for each topic: it moves on when the broker has accepted, and what was not
//! accepted is sent again. Bounded in bytes; what is overwritten before it left is a gap, and counted. Knows nothing
//! of connections: who owns one takes batches out and says how they ended.

mod log;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::parcel::{Content, Parcel, Range, Run};
use crate::adapter::{Message, NodeId, Topic};
use log::Log;

/// One parcel's envelopes are at most so many bytes, unless it is one alone.
const PARCEL_BYTES: usize = 64 * 1024;
/// Of one batch, repairs are at most so much, and a parcel.
const REPAIR_BYTES: usize = 64 * 1024;
/// What a topic keeps whatever happens on others, if there is room for so much on each.
const SURE_BYTES: usize = 4 * 1024;
/// What waits unnumbered, and is in flight, is at most so much. What does not fit is refused.
const EXPRESS_BYTES_MAX: usize = 1024 * 1024;
/// What an entry costs beside its own bytes.
const ENTRY_BYTES: usize = 64;
/// So long is kept what was accepted, and so long a topic's head is told.
const KEEP: Duration = Duration::from_secs(60);
/// The relay is behind if something waits for longer.
const BEHIND: Duration = Duration::from_secs(1);

/// Time since the ring was made, in twentieths of a second: four bytes last for six years.
type Tick = u32;

const fn ticks(time: Duration) -> Tick {
    time.as_secs() as Tick * 20 + time.subsec_millis() / 50
}

fn cost(envelope: &Bytes) -> usize {
    envelope.len() + ENTRY_BYTES
}

/// What this node says on one lane.
#[derive(Debug)]
pub struct Ring {
    made: Instant,
    /// The latest time heard of.
    now: Tick,
    bytes_max: usize,
    sure_bytes: usize,
    indexes: HashMap<Topic, u32, FixedState>,
    topics: Vec<(Topic, Log)>,
    /// What was appended, the oldest first: topic and number. May name what is gone by now.
    age: VecDeque<(u32, u64)>,
    /// What the broker accepted, the earliest first: topic, and the last number of a parcel. May name what is gone.
    accepted: VecDeque<(u32, u64)>,
    /// Topics with something unsent that are not in flight, in their order.
    ready: VecDeque<u32>,
    /// Topics with something to send again, in their order.
    repairing: VecDeque<u32>,
    express: VecDeque<(Topic, Bytes)>,
    express_bytes: usize,
    flight: Vec<Flight>,
    bytes: usize,
    unaccepted_bytes: usize,
    counts: RingCounts,
}

/// What became of envelopes. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// Accepted by the broker.
    pub accepted: u64,
    /// Overwritten before the broker accepted them.
    pub gaps: u64,
    /// Sent again, since somebody missed them.
    pub repeated: u64,
    /// Unnumbered messages that found no room.
    pub refused: u64,
}

/// A message for the broker, not yet put together, so that the ring need not be locked for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub topic: Topic,
    payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Payload {
    Run(Run),
    Express(Bytes),
}

/// What was handed over, and the batch's end is awaited of.
#[derive(Debug)]
enum Flight {
    Run(u32),
    Repair,
    Express(Topic, Bytes),
}

impl Outgoing {
    /// What goes to the broker. Copies the envelopes into one piece.
    pub fn into_message(self, sender: NodeId) -> Message {
        let bytes = match self.payload {
            Payload::Express(bytes) => bytes,
            Payload::Run(run) => Parcel {
                sender,
                content: Content::Envelopes(run),
            }
            .encode(),
        };
        Message {
            topic: self.topic,
            bytes,
        }
    }
}

impl Ring {
    /// An empty ring of at most `bytes_max` bytes, for at most `topics` numbered topics.
    pub fn new(bytes_max: usize, topics: usize, now: Instant) -> Ring {
        Ring {
            made: now,
            now: 0,
            bytes_max,
            sure_bytes: SURE_BYTES.min(bytes_max / 2 / topics.max(1)),
            indexes: HashMap::default(),
            topics: Vec::new(),
            age: VecDeque::new(),
            accepted: VecDeque::new(),
            ready: VecDeque::new(),
            repairing: VecDeque::new(),
            express: VecDeque::new(),
            express_bytes: 0,
            flight: Vec::new(),
            bytes: 0,
            unaccepted_bytes: 0,
            counts: RingCounts::default(),
        }
    }

    /// Numbers an envelope, keeps it, and sends it when its topic's turn comes: 1, 2, 3 … on each topic. Amortised
    /// constant time; never refuses, but may overwrite the oldest.
    pub fn append(&mut self, topic: Topic, envelope: Bytes, now: Instant) -> u64 {
        let now = self.pass(now);
        let index = self.index(topic);
        let cost = cost(&envelope);
        let log = &mut self.topics[index as usize].1;
        let number = log.append(envelope, now);
        if !log.is_queued {
            log.is_queued = true;
            self.ready.push_back(index);
        }
        self.age.push_back((index, number));
        self.bytes += cost;
        self.unaccepted_bytes += cost;
        if self.bytes > self.bytes_max {
            self.overwrite();
        }
        number
    }

    /// Puts a finished, unnumbered message before all that is numbered. False if there is no room: not taken.
    pub fn send(&mut self, topic: Topic, message: Bytes) -> bool {
        // One that is too big by itself goes when it is alone, or it would never go.
        if self.express_bytes + cost(&message) > EXPRESS_BYTES_MAX && !self.express.is_empty() {
            self.counts.refused += 1;
            return false;
        }
        self.express_bytes += cost(&message);
        self.express.push_back((topic, message));
        true
    }

    /// What is to be handed over next, of about `bytes_max` bytes: unnumbered messages, repairs, then topics in turn,
    /// a parcel of each. It ends with [`Ring::settle`]; a batch before that was not settled counts as not accepted.
    pub fn next_batch(&mut self, bytes_max: usize) -> Vec<Outgoing> {
        if !self.flight.is_empty() {
            self.land(&[]);
        }
        let mut batch = Vec::new();
        let mut room = bytes_max;
        while room > 0
            && let Some((topic, message)) = self.express.pop_front()
        {
            room = room.saturating_sub(message.len());
            self.flight.push(Flight::Express(topic, message.clone()));
            batch.push(Outgoing {
                topic,
                payload: Payload::Express(message),
            });
        }
        self.take_repairs(&mut batch, &mut room);
        while room > 0
            && let Some(index) = self.ready.pop_front()
        {
            let (topic, log) = &mut self.topics[index as usize];
            let Some((run, bytes)) = log.next_parcel(PARCEL_BYTES) else {
                log.is_queued = false;
                continue;
            };
            room = room.saturating_sub(bytes);
            self.flight.push(Flight::Run(index));
            batch.push(Outgoing {
                topic: *topic,
                payload: Payload::Run(run),
            });
        }
        batch
    }

    fn take_repairs(&mut self, batch: &mut Vec<Outgoing>, room: &mut usize) {
        let mut repair_room = REPAIR_BYTES.min(*room);
        while repair_room > 0
            && let Some(index) = self.repairing.pop_front()
        {
            let (topic, log) = &mut self.topics[index as usize];
            let Some((run, bytes)) = log.next_repair(repair_room, self.now) else {
                log.is_repairing = false;
                continue;
            };
            self.repairing.push_back(index);
            repair_room = repair_room.saturating_sub(bytes);
            *room = room.saturating_sub(bytes);
            self.counts.repeated += run.envelopes.len() as u64;
            self.flight.push(Flight::Repair);
            batch.push(Outgoing {
                topic: *topic,
                payload: Payload::Run(run),
            });
        }
    }

    /// Says which messages of the last batch the broker accepted, in their order; one that is not spoken of was not.
    /// What was not accepted takes its turn again (how soon is the caller's to say); a repair does not, since who
    /// misses it asks again.
    pub fn settle(&mut self, accepted: &[bool], now: Instant) {
        self.pass(now);
        self.land(accepted);
    }

    fn land(&mut self, accepted: &[bool]) {
        let flight = std::mem::take(&mut self.flight);
        let mut again = Vec::new();
        for (at, flight) in flight.into_iter().enumerate() {
            let is_accepted = accepted.get(at).copied().unwrap_or(false);
            match flight {
                Flight::Express(_, message) if is_accepted => self.express_bytes -= cost(&message),
                Flight::Express(topic, message) => again.push((topic, message)),
                Flight::Repair => {}
                Flight::Run(index) => {
                    let log = &mut self.topics[index as usize].1;
                    let settled = log.settle(is_accepted, self.now);
                    if settled.accepted > 0 {
                        self.accepted.push_back((index, log.head()));
                    }
                    self.unaccepted_bytes -= settled.cost;
                    self.counts.accepted += settled.accepted;
                    self.counts.gaps += settled.gaps;
                    log.is_queued = log.has_unsent();
                    if log.is_queued {
                        self.ready.push_back(index);
                    }
                }
            }
        }
        again
            .into_iter()
            .rev()
            .for_each(|message| self.express.push_front(message));
    }

    /// Notes what others miss, to be sent again on its own topic, and answers what is no longer to be had: for each
    /// topic that is concerned the first number that is.
    pub fn resend(&mut self, ranges: &[Range], now: Instant) -> Vec<(Topic, u64)> {
        let now = self.pass(now);
        let mut gone = Vec::new();
        for range in ranges {
            let Some(&index) = self.indexes.get(&range.topic) else {
                continue;
            };
            let log = &mut self.topics[index as usize].1;
            let below = (range.topic, log.first());
            if range.from < log.first() && !gone.contains(&below) {
                gone.push(below);
            }
            if log.repair(range.from, range.to, now) && !log.is_repairing {
                log.is_repairing = true;
                self.repairing.push_back(index);
            }
        }
        gone
    }

    /// Drops what was accepted more than a minute ago, and gives its memory back. To be called about once a second.
    pub fn trim(&mut self, now: Instant) {
        let now = self.pass(now);
        let mut count = 0;
        for (_, log) in &mut self.topics {
            while log.first_is_older(now.saturating_sub(ticks(KEEP)))
                && let Some(dropped) = log.drop_first()
            {
                self.bytes -= dropped.cost;
            }
            log.shrink(now);
            count += log.len();
        }
        let topics = &self.topics;
        let is_there = |&(index, number): &(u32, u64)| topics[index as usize].1.has(number);
        for named in [&mut self.age, &mut self.accepted] {
            while named.front().is_some_and(|oldest| !is_there(oldest)) {
                named.pop_front();
            }
            if named.len() > 2 * count + 64 {
                named.retain(is_there);
            }
            if named.capacity() > 4 * named.len().max(64) {
                named.shrink_to(2 * named.len());
            }
        }
    }

    /// By topic, the last number that was accepted: of topics used in the last minute.
    pub fn heads(&self, now: Instant) -> Vec<(Topic, u64)> {
        let since = self.tick(now).saturating_sub(ticks(KEEP));
        self.heads_since(since)
    }

    /// By topic, the last number that was accepted: of all topics.
    pub fn all_heads(&self) -> Vec<(Topic, u64)> {
        self.heads_since(0)
    }

    fn heads_since(&self, since: Tick) -> Vec<(Topic, u64)> {
        let used = self
            .topics
            .iter()
            .filter(|(_, log)| log.head() > 0 && log.used() >= since);
        used.map(|(topic, log)| (*topic, log.head())).collect()
    }

    /// The last number of a topic that was accepted: 0 before the first.
    pub fn head(&self, topic: Topic) -> u64 {
        let index = self.indexes.get(&topic);
        index.map_or(0, |index| self.topics[*index as usize].1.head())
    }

    /// Whether something is to be handed over.
    pub fn has_unsent(&self) -> bool {
        !(self.express.is_empty() && self.repairing.is_empty() && self.ready.is_empty())
    }

    /// What envelopes cost that the broker has not accepted. Bytes.
    pub fn unaccepted_bytes(&self) -> usize {
        self.unaccepted_bytes
    }

    /// What is kept, and what waits unnumbered. Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.express_bytes
    }

    /// What became of envelopes.
    pub fn counts(&self) -> RingCounts {
        self.counts
    }

    /// Whether an envelope waits for longer than a second. Looks at the topics whose turn is next and last, not at all.
    pub fn is_behind(&self, now: Instant) -> bool {
        let since = self.tick(now).saturating_sub(ticks(BEHIND));
        let flight = self.flight.iter().find_map(|flight| match flight {
            Flight::Run(index) => Some(index),
            _ => None,
        });
        [flight, self.ready.front(), self.ready.back()]
            .into_iter()
            .flatten()
            .filter_map(|index| self.topics[*index as usize].1.waits_since())
            .any(|waits_since| waits_since < since)
    }

    fn index(&mut self, topic: Topic) -> u32 {
        *self.indexes.entry(topic).or_insert_with(|| {
            self.topics.push((topic, Log::new()));
            self.topics.len() as u32 - 1
        })
    }

    /// Drops the oldest, but for the sure part of each topic, until there is room: what the broker has accepted first.
    /// A busy topic that waits for its turns may hold what is older than all that was accepted on others.
    fn overwrite(&mut self) {
        while self.bytes > self.bytes_max
            && let Some(&(index, last)) = self.accepted.front()
        {
            let log = &mut self.topics[index as usize].1;
            while self.bytes > self.bytes_max
                && log.first() <= last
                && log.bytes() > self.sure_bytes
                && let Some(dropped) = log.drop_first()
            {
                self.bytes -= dropped.cost;
            }
            if log.first() > last || log.bytes() <= self.sure_bytes {
                self.accepted.pop_front();
            }
        }
        while self.bytes > self.bytes_max
            && let Some((index, number)) = self.age.pop_front()
        {
            let log = &mut self.topics[index as usize].1;
            while log.first() <= number
                && log.bytes() > self.sure_bytes
                && let Some(dropped) = log.drop_first()
            {
                self.bytes -= dropped.cost;
                if !dropped.was_accepted {
                    self.unaccepted_bytes -= dropped.cost;
                }
                self.counts.gaps += u64::from(dropped.is_gap);
            }
        }
    }

    fn tick(&self, now: Instant) -> Tick {
        ticks(now.saturating_duration_since(self.made))
    }

    fn pass(&mut self, now: Instant) -> Tick {
        self.now = self.now.max(self.tick(now));
        self.now
    }
}
