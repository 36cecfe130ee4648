//! What is missed of one topic of one sender: what came behind it is held back, until it is whole or given up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::adapter::Topic;
use crate::relay::parcel::Range;

/// So long without progress is waited for what is missed.
pub(super) const GIVE_UP: Duration = Duration::from_secs(2);
/// So many pieces of one topic are asked for at once; the others next time.
const RANGES_MAX: usize = 64;
/// What holding an envelope back costs beside its own bytes.
const HELD_BYTES: usize = 64;

/// What is missed of one topic of one sender, from the next expected number on.
#[derive(Debug)]
pub(super) struct Gap {
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// The last number that is known to exist.
    pub(super) target: u64,
    /// Not asked for before.
    pub(super) ripe: Instant,
    /// Given up then, if nothing was delivered until then.
    pub(super) deadline: Instant,
    /// Where the first request since the last delivery ended: what was missed up to there is given up together.
    pub(super) asked_to: Option<u64>,
}

/// An envelope that is held back.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) envelope: Bytes,
    pub(super) is_repair: bool,
}

pub(super) fn held_cost(envelope: &Bytes) -> usize {
    envelope.len() + HELD_BYTES
}

impl Gap {
    pub(super) fn new(target: u64, ripe: Instant) -> Gap {
        Gap {
            held: BTreeMap::new(),
            held_bytes: 0,
            target,
            ripe,
            deadline: ripe + GIVE_UP,
            asked_to: None,
        }
    }

    /// Begins to wait anew.
    pub(super) fn renew(&mut self, now: Instant) {
        self.ripe = now;
        self.deadline = now + GIVE_UP;
        self.asked_to = None;
    }

    /// Something was delivered.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.deadline = self.deadline.max(now + GIVE_UP);
        self.asked_to = None;
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The first number that is held back.
    pub(super) fn first_held(&self) -> Option<u64> {
        self.held.first_key_value().map(|(number, _)| *number)
    }

    /// Holds an envelope back. False if that number is held already.
    pub(super) fn hold(&mut self, number: u64, envelope: Bytes, is_repair: bool) -> bool {
        if self.held.contains_key(&number) {
            return false;
        }
        self.held_bytes += held_cost(&envelope);
        self.held.insert(number, Held { envelope, is_repair });
        true
    }

    /// Takes an envelope that was held back.
    pub(super) fn take(&mut self, number: u64) -> Option<Held> {
        if self.first_held() != Some(number) {
            return None;
        }
        let held = self.held.remove(&number)?;
        self.held_bytes -= held_cost(&held.envelope);
        Some(held)
    }

    /// Notes what is missed from `next` on, in at most `ranges_max` pieces.
    pub(super) fn ask(&mut self, topic: Topic, next: u64, ranges_max: usize, into: &mut Vec<Range>) {
        let ends = self.held.keys().copied().chain([self.target + 1]);
        let mut from = next;
        let mut room = ranges_max.min(RANGES_MAX);
        let mut asked_to = None;
        for end in ends {
            if from < end {
                if room == 0 {
                    break;
                }
                room -= 1;
                let to = end - 1;
                into.push(Range { topic, from, to });
                asked_to = Some(to);
            }
            from = end + 1;
        }
        self.asked_to = self.asked_to.or(asked_to);
    }
}
