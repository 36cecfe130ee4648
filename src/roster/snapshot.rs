//! All that a node has, said to who does not know it yet: its chunks, and how a receiver puts them together.
//!
//! The sender walks its channels while they change, and says with the first chunk which number its announcements had
//! when the walk began, and with the last which they had when it was over, with every change flushed that the walk may
//! have seen. So the walk is fuzzy, but with the announcements between the two numbers on top of it, it is exact. A
//! receiver collects both and hands the whole over as one; nobody is told anything of it before that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::delta::{self, Entry};
use crate::relay::Stamp;
use crate::relay::wire::{Malformed, Reader, put_bytes, put_number};

/// Without progress for so long, the snapshot is asked for anew.
const PATIENCE: Duration = Duration::from_secs(2);

/// Charged for each channel and each member beside their names. Bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which snapshot: drawn by the sender, so that parts of two are not mixed up.
    pub snapshot: u64,
    /// Which part, from 0.
    pub index: u32,
    /// The number of the sender's last announcement when it began to walk.
    pub begins_at: u64,
    /// In the last part: the number of the last announcement that the whole stands for.
    pub ends_at: Option<u64>,
    /// Entries, as [`delta::read`] reads them.
    pub piece: Bytes,
}

impl Chunk {
    /// As it travels.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.piece.len() + 40);
        bytes.put_u64(self.snapshot);
        put_number(&mut bytes, self.index.into());
        put_number(&mut bytes, self.begins_at);
        bytes.put_u8(self.ends_at.is_some().into());
        if let Some(ends_at) = self.ends_at {
            put_number(&mut bytes, ends_at);
        }
        put_bytes(&mut bytes, &self.piece);
        bytes.freeze()
    }

    /// The opposite of [`Chunk::encode`].
    pub fn decode(bytes: Bytes) -> Result<Chunk, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(Chunk {
            snapshot: reader.fixed()?,
            index: u32::try_from(reader.number()?).map_err(|_| Malformed)?,
            begins_at: reader.number()?,
            ends_at: match reader.byte()? {
                0 => None,
                1 => Some(reader.number()?),
                _ => return Err(Malformed),
            },
            piece: reader.bytes()?,
        })
    }
}

/// What a node has of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Sockets subscribed there.
    pub count: u32,
    /// Members there, each with the `user_info` and since when.
    pub members: HashMap<Arc<str>, (Arc<str>, Stamp)>,
}

/// All that a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Its channels, by app id and name; one that is not in it has nobody there.
    pub apps: HashMap<Arc<str>, HashMap<Arc<str>, Share>>,
    /// The rest, in the order in which it was said: cached events, connections.
    pub others: Vec<Entry>,
    bytes: usize,
}

impl Whole {
    /// Brings it up to what an entry says.
    pub fn apply(&mut self, entry: Entry) {
        let Entry::Channel {
            app,
            channel,
            count,
            members,
        } = entry
        else {
            self.bytes += ENTRY_OVERHEAD_BYTES + other_bytes(&entry);
            self.others.push(entry);
            return;
        };
        self.bytes += ENTRY_OVERHEAD_BYTES + channel.len();
        let channels = self.apps.entry(app).or_default();
        let share = channels.entry(channel.clone()).or_default();
        share.count = count;
        for member in members {
            match member.claim {
                Some(claim) => {
                    self.bytes += ENTRY_OVERHEAD_BYTES + member.user_id.len() + claim.0.len();
                    share.members.insert(member.user_id, claim);
                }
                None => {
                    share.members.remove(&member.user_id);
                }
            }
        }
        if share.count == 0 && share.members.is_empty() {
            channels.remove(&channel);
        }
    }

    /// About what it has taken to collect it. Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn other_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Cached { frame, channel, .. } => frame.len() + channel.len(),
        Entry::Told { channel, member, .. } => channel.len() + member.as_ref().map_or(0, |id| id.len()),
        _ => 0,
    }
}

/// How far a snapshot has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Staged {
    /// More is to come.
    Waiting,
    /// All of it: what the node has after the announcement with this number.
    Whole(u64, Whole),
    /// It cannot become whole, since announcements that it needs were missed: ask for another.
    Void,
    /// It is larger than it may be.
    TooLarge,
}

/// Collects one node's snapshot, and its announcements meanwhile. To be made before the snapshot is asked for.
#[derive(Debug)]
pub struct Staging {
    /// The snapshot that is being collected.
    snapshot: Option<u64>,
    next_index: u32,
    begins_at: u64,
    ends_at: Option<u64>,
    whole: Whole,
    /// Announcements since it was asked for, each number following the one before.
    later: VecDeque<(u64, Vec<Entry>)>,
    later_bytes: usize,
    bytes_max: usize,
    progress: Instant,
}

impl Staging {
    /// Nothing has come yet. What is collected may take about `bytes_max`.
    pub fn new(bytes_max: usize, now: Instant) -> Staging {
        Staging {
            snapshot: None,
            next_index: 0,
            begins_at: 0,
            ends_at: None,
            whole: Whole::default(),
            later: VecDeque::new(),
            later_bytes: 0,
            bytes_max,
            progress: now,
        }
    }

    /// A part came. One that is out of order is left aside: the next request brings all anew.
    pub fn chunk(&mut self, chunk: &Chunk, now: Instant) -> Result<Staged, Malformed> {
        if chunk.index == 0 && self.snapshot != Some(chunk.snapshot) {
            self.snapshot = Some(chunk.snapshot);
            self.next_index = 0;
            self.begins_at = chunk.begins_at;
            self.ends_at = None;
            self.whole = Whole::default();
        }
        if self.snapshot != Some(chunk.snapshot) || chunk.index != self.next_index {
            return Ok(Staged::Waiting);
        }
        for entry in delta::read(chunk.piece.clone())? {
            self.whole.apply(entry);
        }
        self.next_index += 1;
        self.ends_at = chunk.ends_at;
        self.progress = now;
        Ok(self.look())
    }

    /// An announcement came, with its number and its size in bytes.
    pub fn announced(&mut self, number: u64, entries: Vec<Entry>, bytes: usize, now: Instant) -> Staged {
        let follows = self.later.back().is_none_or(|(last, _)| last + 1 == number);
        if !follows {
            self.missed();
        }
        self.later_bytes += bytes + ENTRY_OVERHEAD_BYTES * (1 + entries.len());
        self.later.push_back((number, entries));
        if self.ends_at.is_some() {
            self.progress = now;
        }
        self.look()
    }

    /// Announcements were given up. What was kept before them is of no use.
    fn missed(&mut self) {
        self.later.clear();
        self.later_bytes = 0;
    }

    /// Whether nothing has come for so long that it is to be asked for anew, once.
    pub fn is_stalled(&mut self, now: Instant) -> bool {
        let is_stalled = now.saturating_duration_since(self.progress) >= PATIENCE;
        if is_stalled {
            self.progress = now;
        }
        is_stalled
    }

    fn look(&mut self) -> Staged {
        if self.whole.bytes() + self.later_bytes > self.bytes_max {
            return Staged::TooLarge;
        }
        let Some(ends_at) = self.ends_at else {
            return Staged::Waiting;
        };
        let begins_at = self.begins_at;
        self.later.retain(|(number, _)| *number > begins_at);
        let first = self.later.front().map(|(number, _)| *number);
        if first.is_some_and(|first| first > begins_at + 1) {
            // What was announced since is kept: the next snapshot may need it.
            self.snapshot = None;
            self.ends_at = None;
            return Staged::Void;
        }
        let stands_for = self.later.back().map_or(begins_at, |(number, _)| *number);
        if stands_for < ends_at {
            return Staged::Waiting;
        }
        let mut whole = std::mem::take(&mut self.whole);
        for entry in self.later.drain(..).flat_map(|(_, entries)| entries) {
            whole.apply(entry);
        }
        Staged::Whole(stands_for, whole)
    }
}

#[cfg(test)]
mod tests;
