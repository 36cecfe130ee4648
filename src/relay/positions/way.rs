//! One topic of one sender at one moment: what is heard of it goes out in order, or is held back, or given up.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::gap::{Gap, Held, held_cost};
use super::{
    HEAD_AHEAD, HELD_BYTES_MAX, JITTER, LANE_HELD_BYTES_MAX, Output, Position, PositionCounts, Sender, jitter,
};
use crate::adapter::{NodeId, Topic};
use crate::relay::parcel::Run;

/// One topic of one sender at one moment.
pub(super) struct Way<'a> {
    pub(super) sender: NodeId,
    pub(super) topic: Topic,
    pub(super) now: Instant,
    /// The sender is younger than the interest in the topic.
    pub(super) is_born: bool,
    /// The topic may have missed something once.
    pub(super) was_lost: bool,
    pub(super) state: &'a mut Sender,
    pub(super) held_bytes: &'a mut usize,
    pub(super) counts: &'a mut PositionCounts,
    pub(super) random: &'a mut u64,
}

impl Way<'_> {
    /// Where we are. None: nothing was heard yet.
    pub(super) fn position(&self) -> Option<Position> {
        let born = self.is_born.then_some(Position::Next(1));
        self.state.positions.get(&self.topic).copied().or(born)
    }

    /// Something is heard for the first time, of what others may have heard more.
    pub(super) fn begins(&mut self, has_earlier: bool) {
        if has_earlier && self.was_lost {
            self.counts.breaks += 1;
        }
    }

    /// The number that is expected next, if anything is known.
    pub(super) fn next(&self) -> Option<u64> {
        self.state
            .positions
            .get(&self.topic)
            .map(|position| position.next())
    }

    /// Takes in what was heard, where `next` is expected.
    pub(super) fn receive(&mut self, mut next: u64, run: Run, out: &mut Vec<Output>) {
        let began = next;
        let known_head = match self.state.positions.get(&self.topic) {
            Some(Position::Head(head)) => *head,
            _ => 0,
        };
        let (first, end, is_repair) = (run.first, run.end(), run.is_repair);
        let has_gap = !self.state.gaps.is_empty() && self.state.gaps.contains_key(&self.topic);
        if first <= next && !has_gap {
            // As it almost always is: nothing is missing.
            let fresh = end.saturating_sub(next);
            let old = run.envelopes.len() as u64 - fresh;
            self.counts.duplicates += old;
            self.counts.received += fresh;
            self.counts.repaired += if is_repair { fresh } else { 0 };
            out.extend(run.envelopes.into_iter().zip(first..).skip(old as usize).map(
                |(envelope, number)| Output::Deliver {
                    sender: self.sender,
                    topic: self.topic,
                    number,
                    envelope,
                },
            ));
            next = next.max(end);
        } else {
            self.state.positions.insert(self.topic, Position::Next(next));
            if first > next {
                self.is_missing(end - 1, Duration::ZERO, first > self.target(next) + 1);
            }
            for (envelope, number) in run.envelopes.into_iter().zip(first..) {
                next = self.take(next, number, Held { envelope, is_repair }, out);
            }
        }
        self.state.positions.insert(self.topic, Position::Next(next));
        self.settle(next, next > began);
        if known_head >= next {
            self.is_missing(known_head, HEAD_AHEAD, true);
        }
    }

    /// Takes in one envelope where something is missing; what is expected next then.
    fn take(&mut self, mut next: u64, number: u64, held: Held, out: &mut Vec<Output>) -> u64 {
        while number > next && !self.has_room(&held.envelope) {
            self.counts.overflows += 1;
            let to = self.first_held().map_or(number, |first| first.min(number));
            next = self.skip(next, to, out);
            next = self.release(next, out);
        }
        if number < next {
            self.counts.duplicates += 1;
            return next;
        }
        if number == next {
            self.deliver(number, held, out);
            return self.release(next + 1, out);
        }
        let cost = held_cost(&held.envelope);
        let Some(gap) = self.state.gaps.get_mut(&self.topic) else {
            return next;
        };
        if gap.hold(number, held.envelope, held.is_repair) {
            *self.held_bytes += cost;
        } else {
            self.counts.duplicates += 1;
        }
        next
    }

    fn has_room(&self, envelope: &Bytes) -> bool {
        let cost = held_cost(envelope);
        let gap = self.state.gaps.get(&self.topic);
        gap.map_or(0, Gap::held_bytes) + cost <= HELD_BYTES_MAX
            && *self.held_bytes + cost <= LANE_HELD_BYTES_MAX
    }

    fn first_held(&self) -> Option<u64> {
        self.state.gaps.get(&self.topic).and_then(Gap::first_held)
    }

    /// The last number that is known to exist, where `next` is expected.
    fn target(&self, next: u64) -> u64 {
        self.state
            .gaps
            .get(&self.topic)
            .map_or(next - 1, |gap| gap.target)
    }

    /// Numbers up to `target` exist. What of them was not heard will be asked for, but not before `grace` is over; if
    /// this makes another hole, sooner than a repeated request would.
    pub(super) fn is_missing(&mut self, target: u64, grace: Duration, is_hole: bool) {
        let ripe = self.now + grace;
        let gap = self.state.gaps.entry(self.topic);
        let gap = gap.or_insert_with(|| Gap::new(target, ripe));
        gap.target = gap.target.max(target);
        gap.ripe = gap.ripe.min(ripe);
        if is_hole && self.state.asks_at.is_none_or(|asks_at| asks_at > ripe + JITTER) {
            self.state.pause = Duration::ZERO;
            self.state.ask_soon(ripe + jitter(self.random));
        }
    }

    /// Gives up what is missed below `end`, and delivers what was held back behind it.
    pub(super) fn give_up(&mut self, mut next: u64, end: u64, out: &mut Vec<Output>) {
        let began = next;
        while next < end {
            let to = self.first_held().map_or(end, |first| first.min(end));
            next = self.skip(next, to, out);
            next = self.release(next, out);
        }
        if next > began {
            self.state.positions.insert(self.topic, Position::Next(next));
        }
        self.settle(next, next > began);
    }

    /// Gives up all from `next` to before `to`.
    fn skip(&mut self, next: u64, to: u64, out: &mut Vec<Output>) -> u64 {
        if next < to {
            // A sender may claim any number, and several may.
            self.counts.gaps = self.counts.gaps.saturating_add(to - next);
            out.push(Output::GiveUp {
                sender: self.sender,
                topic: self.topic,
                from: next,
                count: to - next,
            });
        }
        next.max(to)
    }

    /// Delivers what was held back and has its turn.
    fn release(&mut self, mut next: u64, out: &mut Vec<Output>) -> u64 {
        while let Some(held) = self
            .state
            .gaps
            .get_mut(&self.topic)
            .and_then(|gap| gap.take(next))
        {
            *self.held_bytes -= held_cost(&held.envelope);
            self.deliver(next, held, out);
            next += 1;
        }
        next
    }

    fn deliver(&mut self, number: u64, held: Held, out: &mut Vec<Output>) {
        self.counts.received += 1;
        self.counts.repaired += u64::from(held.is_repair);
        out.push(Output::Deliver {
            sender: self.sender,
            topic: self.topic,
            number,
            envelope: held.envelope,
        });
    }

    /// Ends the gap if nothing is missing any more.
    fn settle(&mut self, next: u64, has_progress: bool) {
        let Some(gap) = self.state.gaps.get_mut(&self.topic) else {
            return;
        };
        if next > gap.target {
            *self.held_bytes -= gap.held_bytes();
            self.state.gaps.remove(&self.topic);
        } else if has_progress {
            gap.progressed(self.now);
            self.state.pause = Duration::ZERO;
        }
        if self.state.gaps.is_empty() {
            self.state.asks_at = None;
            self.state.pause = Duration::ZERO;
        }
    }
}
