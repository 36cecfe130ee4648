//! What this node has heard of each topic of each sender, on one lane: the next number, what is held back behind one
//! that is missing, when it is asked for and when given up.
//!
//! Whatever is lost, repeated or late: what comes out is in order per sender and topic, nothing twice, and what is
//! missing is counted. Knows nothing of what the envelopes say, and does not know itself: own echoes are not to be
//! put in.

mod gap;
#[cfg(test)]
mod tests;
mod way;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::parcel::{Range, Run};
use crate::adapter::{NodeId, Topic};
use gap::Gap;
use way::Way;

/// A request goes out at a random moment of so much time, so that one asks for what all missed.
const JITTER: Duration = Duration::from_millis(200);
/// The pause before a request is repeated; the next is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// One request names so many pieces; what is left has its turn when these have come or are given up.
const ASK_RANGES_MAX: usize = 1024;
/// Heads travel on another connection: envelopes may arrive so much later before they count as missed.
const HEAD_AHEAD: Duration = Duration::from_millis(300);
/// What is held back of one topic of one sender. More, and the gap is given up.
const HELD_BYTES_MAX: usize = 1024 * 1024;
/// What is held back on the way. More, and the gap of the topic that comes is given up.
const LANE_HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// So long the positions of a lost node are kept.
const LOST_KEPT: Duration = Duration::from_secs(600);
/// If nobody looked at the clock for so long, this node was stopped, and no gap is to blame.
const STALLED: Duration = Duration::from_secs(1);

/// What comes out, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The next envelope of this topic of this sender.
    Deliver {
        /// Who numbered it.
        sender: NodeId,
        /// Where it was heard.
        topic: Topic,
        /// Its number; numbers only grow.
        number: u64,
        /// The envelope.
        envelope: Bytes,
    },
    /// These numbers are never delivered.
    GiveUp {
        /// Who numbered them.
        sender: NodeId,
        /// Where they were missed.
        topic: Topic,
        /// The first.
        from: u64,
        /// How many there are.
        count: u64,
    },
    /// To be asked of this sender, on its own topic.
    Ask {
        /// Whom to ask.
        sender: NodeId,
        /// What is missed of all its topics on this way.
        ranges: Vec<Range>,
    },
}

/// What became of envelopes. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionCounts {
    /// Delivered: in order and once.
    pub received: u64,
    /// Of these, such as had been sent again.
    pub repaired: u64,
    /// Heard though they had been delivered, held back or given up before.
    pub duplicates: u64,
    /// Given up.
    pub gaps: u64,
    /// Topics of a sender that were first heard of after a break: how much was missed there, if anything, is unknown.
    pub breaks: u64,
    /// Gaps given up early, since what was held back behind them had no more room.
    pub overflows: u64,
}

/// What this node has heard of each topic of each sender, on one way.
#[derive(Debug)]
pub struct Positions {
    interests: HashMap<Topic, Interest, FixedState>,
    senders: BTreeMap<NodeId, Sender>,
    /// Counts interests and births: which was first?
    sequence: u64,
    held_bytes: usize,
    counts: PositionCounts,
    random: u64,
    ticked: Option<Instant>,
}

#[derive(Debug)]
struct Interest {
    since: u64,
    /// The broker may have left something out and has not confirmed since: nothing is asked for, nothing given up.
    is_lost: bool,
    /// It has been so once.
    was_lost: bool,
}

#[derive(Debug, Default)]
struct Sender {
    positions: HashMap<Topic, Position, FixedState>,
    /// What was last told of topics of which nothing is known but that.
    told: HashMap<Topic, u64, FixedState>,
    /// All of its topics were told: what is not in `told` has not been used.
    told_all: bool,
    /// Topics that were confirmed since it last told heads.
    fresh: BTreeSet<Topic>,
    gaps: BTreeMap<Topic, Gap>,
    /// Interests up to here are older than the sender.
    born: u64,
    lost: Option<Instant>,
    asks_at: Option<Instant>,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// The number expected next.
    Next(u64),
    /// Nothing was heard but this head: what it counts may have been heard before us, or be on its way.
    Head(u64),
}

impl Positions {
    /// Nothing heard yet. The seed decides at which moments is asked; give each node its own.
    pub fn new(seed: u64) -> Positions {
        Positions {
            interests: HashMap::default(),
            senders: BTreeMap::new(),
            sequence: 0,
            held_bytes: 0,
            counts: PositionCounts::default(),
            random: seed,
            ticked: None,
        }
    }

    /// The broker has confirmed this topic: whatever is published from now on is heard. Of senders that nothing is
    /// known of, the first envelope heard is the beginning. If it was confirmed before, positions are kept.
    pub fn interested(&mut self, topic: Topic, now: Instant) {
        self.sequence += 1;
        let since = self.sequence;
        if !self.interests.contains_key(&topic) {
            for sender in self.senders.values_mut() {
                sender.fresh.insert(topic);
            }
        }
        let interest = self.interests.entry(topic).or_insert(Interest {
            since,
            is_lost: false,
            was_lost: false,
        });
        if std::mem::take(&mut interest.is_lost) {
            for sender in self.senders.values_mut() {
                if let Some(gap) = sender.gaps.get_mut(&topic) {
                    gap.renew(now);
                    sender.ask_soon(now + jitter(&mut self.random));
                }
            }
        }
    }

    /// The topic may have missed something: heads will tell, once it is confirmed again.
    pub fn lost(&mut self, topic: Topic) {
        if let Some(interest) = self.interests.get_mut(&topic) {
            interest.is_lost = true;
            interest.was_lost = true;
            self.begin_at_heads(topic);
        }
    }

    /// The topic is listened to though the broker has not confirmed it, since it is away: what is published from now on
    /// is missed, and asked for once it is confirmed.
    pub fn listened_to_unconfirmed(&mut self, topic: Topic) {
        self.sequence += 1;
        self.interests.entry(topic).or_insert(Interest {
            since: self.sequence,
            is_lost: true,
            was_lost: true,
        });
        self.begin_at_heads(topic);
    }

    /// Whose beginning is not known begins behind what it last told of itself. That may be a little more than was
    /// published since somebody listens; to begin with what comes next could be too little.
    fn begin_at_heads(&mut self, topic: Topic) {
        for sender in self.senders.values_mut() {
            let unused = sender.told_all.then_some(0);
            if let Some(head) = sender.told.get(&topic).copied().or(unused) {
                let next = Position::Next(head + 1);
                sender.positions.entry(topic).or_insert(next);
            }
        }
    }

    /// The topic is not wanted any more: what was known of it goes.
    pub fn forget(&mut self, topic: Topic) {
        self.interests.remove(&topic);
        for sender in self.senders.values_mut() {
            if let Some(position) = sender.positions.remove(&topic) {
                sender.told.insert(topic, position.next() - 1);
            }
            if let Some(gap) = sender.gaps.remove(&topic) {
                self.held_bytes -= gap.held_bytes();
            }
        }
    }

    /// A node has started: on topics that were confirmed before, the first thing it says has the number 1.
    pub fn sender_is_new(&mut self, sender: NodeId) {
        self.sequence += 1;
        let state = self.senders.entry(sender).or_default();
        state.born = self.sequence;
        state.told_all = true;
        for (topic, position) in &mut state.positions {
            let interest = self.interests.get(topic);
            if let Position::Head(_) = position
                && interest.is_some_and(|interest| interest.since < state.born)
            {
                *position = Position::Next(1);
            }
        }
    }

    /// Who is not alive counts as lost, if only since now: also those who were never said to be alive.
    pub fn only_alive(&mut self, is_alive: impl Fn(NodeId) -> bool, now: Instant) {
        for (sender, state) in &mut self.senders {
            if !is_alive(*sender) {
                state.lost.get_or_insert(now);
            }
        }
    }

    /// A node is gone. Its positions are kept for ten minutes, should it come back.
    pub fn sender_lost(&mut self, sender: NodeId, now: Instant) {
        if let Some(state) = self.senders.get_mut(&sender) {
            state.lost.get_or_insert(now);
        }
    }

    /// All that is missed gets its full time anew: the way to the senders, or from them, was blocked.
    pub fn renew(&mut self, now: Instant) {
        for sender in self.senders.values_mut().filter(|sender| !sender.gaps.is_empty()) {
            sender.gaps.values_mut().for_each(|gap| gap.renew(now));
            sender.pause = Duration::ZERO;
            sender.ask_soon(now + jitter(&mut self.random));
        }
    }

    /// Envelopes were heard. Of a topic that is not wanted, nothing comes out. The sender counts as alive until it is
    /// said to be lost.
    pub fn receive(&mut self, sender: NodeId, topic: Topic, run: Run, now: Instant, out: &mut Vec<Output>) {
        let Some(mut way) = self.enter(sender, topic, now) else {
            return;
        };
        way.state.lost = None;
        let next = match way.position() {
            Some(Position::Next(next)) => next,
            // A repair may be as old as the ring is long, and was asked for by another.
            Some(Position::Head(head)) if run.is_repair && run.end() <= head + 1 => return,
            None if run.is_repair => return,
            Some(Position::Head(head)) if run.is_repair || run.first > head => head + 1,
            // It was on its way when the head was told.
            Some(Position::Head(_)) => run.first,
            None => {
                way.begins(run.first > 1);
                run.first
            }
        };
        way.receive(next, run, out);
    }

    /// The sender says that the broker has accepted all up to `number`.
    pub fn head(&mut self, sender: NodeId, topic: Topic, number: u64, now: Instant) {
        let Some(mut way) = self.enter(sender, topic, now) else {
            let state = self.senders.entry(sender).or_default();
            state.lost = None;
            state.told.insert(topic, number);
            return;
        };
        way.state.lost = None;
        let heard = match way.position() {
            Some(Position::Next(next)) => {
                // Of who was born meanwhile it is not noted yet, and what is asked for begins there.
                way.state.positions.insert(topic, Position::Next(next));
                next - 1
            }
            Some(Position::Head(head)) => head,
            None => {
                way.begins(true);
                way.state.positions.insert(topic, Position::Head(number));
                return;
            }
        };
        if number > heard {
            way.is_missing(number, HEAD_AHEAD, true);
        }
    }

    /// The sender has told its heads. On topics that were confirmed before, and that are not among them, it has published
    /// nothing of late or ever: what it publishes next is not to be missed.
    pub fn told_heads(&mut self, sender: NodeId) {
        let Some(state) = self.senders.get_mut(&sender) else {
            return;
        };
        let unused = state.told_all.then_some(0);
        for topic in std::mem::take(&mut state.fresh) {
            if let Some(head) = state.told.get(&topic).copied().or(unused)
                && self.interests.contains_key(&topic)
            {
                state.positions.entry(topic).or_insert(Position::Next(head + 1));
            }
        }
    }

    /// The sender has told the heads of all topics that it has ever used.
    pub fn told_all_heads(&mut self, sender: NodeId) {
        self.senders.entry(sender).or_default().told_all = true;
    }

    /// The sender says that numbers below this one are no longer to be had.
    pub fn gone(&mut self, sender: NodeId, topic: Topic, below: u64, now: Instant, out: &mut Vec<Output>) {
        let Some(mut way) = self.enter(sender, topic, now) else {
            return;
        };
        way.state.lost = None;
        // Of what is not missed here nothing is given up.
        if let (Some(next), Some(gap)) = (way.next(), way.state.gaps.get(&topic)) {
            let target = gap.target;
            way.give_up(next, below.min(target + 1), out);
        }
    }

    /// Asks for what is missed, and gives up what has been missed for too long. To be called every 50 ms or so.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        let ticked = self.ticked.replace(now);
        if ticked.is_some_and(|ticked| now.saturating_duration_since(ticked) > STALLED) {
            self.renew(now);
        }
        self.forget_the_lost(now);
        let waiting = self.senders.iter().filter(|(_, state)| !state.gaps.is_empty());
        let waiting: Vec<NodeId> = waiting.map(|(id, _)| *id).collect();
        for sender in waiting {
            self.give_up_overdue(sender, now, out);
            self.ask(sender, now, out);
        }
    }

    fn forget_the_lost(&mut self, now: Instant) {
        let held_bytes = &mut self.held_bytes;
        self.senders.retain(|_, state| {
            let is_over = state
                .lost
                .is_some_and(|lost| now.saturating_duration_since(lost) >= LOST_KEPT);
            if is_over {
                *held_bytes -= state.gaps.values().map(Gap::held_bytes).sum::<usize>();
            }
            !is_over
        });
    }

    fn give_up_overdue(&mut self, sender: NodeId, now: Instant, out: &mut Vec<Output>) {
        let Some(state) = self.senders.get_mut(&sender) else {
            return;
        };
        let mut overdue = Vec::new();
        for (topic, gap) in state.gaps.iter_mut().filter(|(_, gap)| gap.deadline <= now) {
            if self.interests.get(topic).is_none_or(|interest| interest.is_lost) {
                continue;
            }
            match gap.asked_to {
                Some(asked_to) => overdue.push((*topic, asked_to)),
                // Something came in the meantime, and there has been no request since.
                None => gap.deadline = now + gap::GIVE_UP,
            }
        }
        for (topic, asked_to) in overdue {
            if let Some(mut way) = self.enter(sender, topic, now)
                && let Some(next) = way.next()
            {
                way.give_up(next, asked_to + 1, out);
            }
        }
    }

    fn ask(&mut self, sender: NodeId, now: Instant, out: &mut Vec<Output>) {
        let Some(state) = self.senders.get_mut(&sender) else {
            return;
        };
        if state.asks_at.is_none_or(|asks_at| asks_at > now) {
            return;
        }
        let mut ranges = Vec::new();
        let mut next_ripe: Option<Instant> = None;
        for (topic, gap) in &mut state.gaps {
            if self.interests.get(topic).is_none_or(|interest| interest.is_lost) {
                continue;
            }
            if gap.ripe > now {
                next_ripe = Some(next_ripe.map_or(gap.ripe, |ripe| ripe.min(gap.ripe)));
                continue;
            }
            let Some(next) = state.positions.get(topic).map(|position| position.next()) else {
                continue;
            };
            gap.ask(*topic, next, ASK_RANGES_MAX - ranges.len(), &mut ranges);
        }
        state.asks_at = next_ripe.map(|ripe| ripe + jitter(&mut self.random));
        if !ranges.is_empty() {
            state.pause = (state.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
            state.ask_soon(now + state.pause);
            out.push(Output::Ask { sender, ranges });
        }
    }

    /// What became of envelopes.
    pub fn counts(&self) -> PositionCounts {
        self.counts
    }

    /// What is held back. Bytes.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The way into one topic of one sender. None: the topic is not wanted.
    fn enter(&mut self, sender: NodeId, topic: Topic, now: Instant) -> Option<Way<'_>> {
        let interest = self.interests.get(&topic)?;
        let state = self.senders.entry(sender).or_default();
        Some(Way {
            sender,
            topic,
            now,
            is_born: interest.since < state.born,
            was_lost: interest.was_lost,
            state,
            held_bytes: &mut self.held_bytes,
            counts: &mut self.counts,
            random: &mut self.random,
        })
    }
}

impl Sender {
    fn ask_soon(&mut self, at: Instant) {
        self.asks_at = Some(self.asks_at.map_or(at, |asks_at| asks_at.min(at)));
    }
}

impl Position {
    fn next(self) -> u64 {
        match self {
            Position::Next(next) => next,
            Position::Head(head) => head + 1,
        }
    }
}

/// A random part of [`JITTER`]: SplitMix64, since randomness is an argument here.
fn jitter(random: &mut u64) -> Duration {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    JITTER.mul_f64((mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64)
}
