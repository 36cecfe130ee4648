//! Rings, a broker that has its troubles, and positions: whatever is lost, late, repeated or refused, each receiver
//! gets each topic of each sender in order and once, and knows how much it did not get.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range as Span;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::parcel::{Content, Parcel};
use super::positions::{Output, Positions};
use super::ring::Ring;
use crate::adapter::{Message, NodeId, Topic};

const STEP_MS: u64 = 10;
const TOPICS: u16 = 3;
/// Troubles last so long; then the broker is well, and all must come right.
const TROUBLES_MS: u64 = 15_000;
const RECOVERY_MS: u64 = 15_000;

/// How the broker is.
#[derive(Clone, Debug)]
struct Troubles {
    /// Of all events, so many are lost, and so many come twice.
    loss: f64,
    repeat: f64,
    /// What nodes ask and answer each other is lost, too, and heads are.
    spares_talk: bool,
    delay_ms_max: u64,
    outages_ms: Vec<Span<u64>>,
    ring_bytes_max: usize,
}

#[derive(Debug)]
struct Sender {
    id: NodeId,
    born_ms: u64,
    ring: Ring,
    /// When the batch in flight ends, and how.
    flight: Option<(u64, Vec<bool>)>,
    appended: BTreeMap<Topic, u64>,
}

#[derive(Debug)]
struct Receiver {
    id: NodeId,
    positions: Positions,
    interests: BTreeMap<Topic, Interest>,
    given_up: u64,
}

/// What a receiver must have of a topic that it is interested in.
#[derive(Debug)]
struct Interest {
    since_ms: u64,
    is_lost: bool,
    /// By sender, the number that must come next.
    next: BTreeMap<NodeId, u64>,
    /// By sender, what it had appended when the interest was two seconds old: what came after is not to be missed.
    appended_then: BTreeMap<NodeId, u64>,
}

struct World {
    troubles: Troubles,
    random: StdRng,
    start: Instant,
    now_ms: u64,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    /// On their way: when, in which order, to which receiver or sender, by index.
    bus: BinaryHeap<Reverse<(u64, u64, usize, Packet)>>,
    packets: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    topic: Topic,
    bytes: Bytes,
}

fn troubles() -> impl Strategy<Value = Troubles> {
    let outage = (0..TROUBLES_MS, 50..4_000u64).prop_map(|(from, length)| from..from + length);
    (
        0.0..0.3f64,
        0.0..0.2f64,
        any::<bool>(),
        0..400u64,
        proptest::collection::vec(outage, 0..3),
        prop_oneof![Just(8 * 1024), Just(1 << 24)],
    )
        .prop_map(
            |(loss, repeat, spares_talk, delay_ms_max, outages_ms, ring_bytes_max)| Troubles {
                loss,
                repeat,
                spares_talk,
                delay_ms_max,
                outages_ms,
                ring_bytes_max,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_out_is_in_order_and_once_and_what_is_missing_is_counted(troubles in troubles(), seed in any::<u64>()) {
        let mut world = World::new(troubles, seed);
        world.live(TROUBLES_MS, true);
        world.troubles = Troubles { loss: 0.0, repeat: 0.0, delay_ms_max: 20, outages_ms: Vec::new(), ..world.troubles };
        world.live(RECOVERY_MS, false);
        world.check();
    }

    #[test]
    fn what_the_ring_keeps_is_delivered(troubles in troubles(), seed in any::<u64>()) {
        // Delays and lost requests could use up the two seconds that a gap is given.
        let troubles = Troubles { spares_talk: true, ring_bytes_max: 1 << 24, ..troubles };
        let mut world = World::new(troubles, seed);
        world.live(TROUBLES_MS, true);
        world.live(RECOVERY_MS, false);
        world.check();
        for receiver in &world.receivers {
            prop_assert_eq!(receiver.positions.counts().gaps, 0);
        }
    }
}

impl World {
    fn new(troubles: Troubles, seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let start = Instant::now();
        let sender = |born_ms| Sender {
            id: NodeId(born_ms),
            born_ms,
            ring: Ring::new(troubles.ring_bytes_max, TOPICS.into(), start),
            flight: None,
            appended: BTreeMap::new(),
        };
        let receiver = |id| Receiver {
            id: NodeId(100_000 + id),
            positions: Positions::new(seed ^ id),
            interests: BTreeMap::new(),
            given_up: 0,
        };
        World {
            senders: [0, random.random_range(500..5_000)].map(sender).into(),
            receivers: [0, 1, 2].map(receiver).into(),
            troubles,
            random,
            start,
            now_ms: 0,
            bus: BinaryHeap::new(),
            packets: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn is_out(&self) -> bool {
        self.troubles
            .outages_ms
            .iter()
            .any(|outage| outage.contains(&self.now_ms))
    }

    fn live(&mut self, for_ms: u64, is_busy: bool) {
        let end = self.now_ms + for_ms;
        while self.now_ms < end {
            self.connections();
            if is_busy {
                self.publish();
                self.change_interests();
            }
            for index in 0..self.senders.len() {
                self.send(index);
            }
            self.deliver();
            if self.now_ms.is_multiple_of(1_000) {
                self.beat();
            }
            if self.now_ms.is_multiple_of(50) {
                for index in 0..self.receivers.len() {
                    self.at(index, |positions, now, out| positions.tick(now, out));
                }
            }
            self.now_ms += STEP_MS;
        }
    }

    /// Nodes are born, connections break and are made anew.
    fn connections(&mut self) {
        let (now, is_out) = (self.now(), self.is_out());
        for receiver in &mut self.receivers {
            for sender in self
                .senders
                .iter()
                .filter(|sender| sender.born_ms == self.now_ms / STEP_MS * STEP_MS)
            {
                receiver.positions.sender_is_new(sender.id);
                // What comes of it on topics that were wanted before begins with 1.
                for interest in receiver.interests.values_mut() {
                    interest.next.insert(sender.id, 1);
                }
            }
            for (topic, interest) in &mut receiver.interests {
                if is_out != interest.is_lost {
                    interest.is_lost = is_out;
                    match is_out {
                        true => receiver.positions.lost(*topic),
                        false => receiver.positions.interested(*topic, now),
                    }
                }
                if interest.since_ms + 2_000 == self.now_ms {
                    let appended = self.senders.iter();
                    let appended =
                        appended.map(|sender| (sender.id, sender.appended.get(topic).copied().unwrap_or(0)));
                    interest.appended_then = appended.collect();
                }
            }
        }
    }

    fn publish(&mut self) {
        let now = self.now();
        for sender in self
            .senders
            .iter_mut()
            .filter(|sender| sender.born_ms <= self.now_ms)
        {
            for topic in (0..TOPICS).map(Topic::Channels) {
                if self.random.random_bool(0.2) {
                    let length = self.random.random_range(1..40);
                    let bytes = Bytes::from(vec![0; length]);
                    let number = sender.ring.append(topic, bytes, now);
                    let last = sender.appended.insert(topic, number).unwrap_or(0);
                    assert_eq!(number, last + 1);
                }
            }
            if self.random.random_bool(0.01) {
                sender.ring.trim(now);
            }
        }
    }

    fn change_interests(&mut self) {
        let (now, is_out) = (self.now(), self.is_out());
        for receiver in &mut self.receivers {
            for topic in (0..TOPICS).map(Topic::Channels) {
                if receiver.interests.contains_key(&topic) {
                    if self.random.random_bool(0.0002) {
                        receiver.positions.forget(topic);
                        receiver.interests.remove(&topic);
                    }
                } else if !is_out && (self.now_ms == 0 || self.random.random_bool(0.005)) {
                    receiver.positions.interested(topic, now);
                    let interest = Interest {
                        since_ms: self.now_ms,
                        is_lost: false,
                        next: BTreeMap::new(),
                        appended_then: BTreeMap::new(),
                    };
                    receiver.interests.insert(topic, interest);
                }
            }
        }
    }

    /// A sender's connection: settles the batch whose end has come, and takes the next.
    fn send(&mut self, index: usize) {
        let (now, now_ms, is_out) = (self.now(), self.now_ms, self.is_out());
        let sender = &mut self.senders[index];
        if let Some((_, accepted)) = sender.flight.take_if(|(at, _)| *at <= now_ms) {
            sender.ring.settle(&accepted, now);
        }
        if sender.flight.is_some() {
            return;
        }
        let id = sender.id;
        let batch = sender.ring.next_batch(2_000);
        if batch.is_empty() {
            return;
        }
        let mut accepted = Vec::new();
        for outgoing in batch {
            let message = outgoing.into_message(id);
            let is_accepted = !is_out && self.random.random_bool(0.98);
            accepted.push(is_accepted);
            // What was not accepted may have been heard all the same.
            if is_accepted || self.random.random_bool(0.3) {
                self.put(message);
            }
        }
        let round_trip_ms = if is_out {
            300
        } else {
            self.random.random_range(0..30)
        };
        self.senders[index].flight = Some((now_ms + round_trip_ms, accepted));
    }

    /// What the broker has goes to all who want it.
    fn put(&mut self, message: Message) {
        let nodes = self.receivers.len() + self.senders.len();
        let is_talk = !matches!(message.topic, Topic::Channels(_)) || is_repair(&message);
        let spares = is_talk && self.troubles.spares_talk;
        for node in 0..nodes {
            let copies = match self.random.random::<f64>() {
                roll if spares || roll >= self.troubles.loss + self.troubles.repeat => 1,
                roll if roll < self.troubles.loss => 0,
                _ => 2,
            };
            for _ in 0..copies {
                let delay_ms = match self.troubles.delay_ms_max {
                    max if spares => self.random.random_range(0..=max.min(50)),
                    max => self.random.random_range(0..=max),
                };
                self.packets += 1;
                let packet = Packet {
                    topic: message.topic,
                    bytes: message.bytes.clone(),
                };
                self.bus
                    .push(Reverse((self.now_ms + delay_ms, self.packets, node, packet)));
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, ..))) = self.bus.peek()
            && *at <= self.now_ms
            && let Some(Reverse((_, _, node, packet))) = self.bus.pop()
        {
            let parcel = Parcel::decode(packet.bytes).expect("as it was encoded");
            match node.checked_sub(self.receivers.len()) {
                None => self.hear(node, packet.topic, parcel),
                Some(index) if packet.topic == Topic::Node(self.senders[index].id) => {
                    self.answer(index, parcel)
                }
                Some(_) => {}
            }
        }
    }

    fn hear(&mut self, index: usize, topic: Topic, parcel: Parcel) {
        let sender = parcel.sender;
        match parcel.content {
            Content::Envelopes(run) => self.at(index, |positions, now, out| {
                positions.receive(sender, topic, run, now, out);
            }),
            Content::Gone(below) if topic == Topic::Node(self.receivers[index].id) => {
                self.at(index, |positions, now, out| {
                    for (topic, below) in below {
                        positions.gone(sender, topic, below, now, out);
                    }
                });
            }
            Content::Beat(beat) => {
                let now = self.now();
                for (topic, head) in beat.heads {
                    self.receivers[index].positions.head(sender, topic, head, now);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, index: usize, parcel: Parcel) {
        let now = self.now();
        let Content::Ask(ranges) = parcel.content else {
            return;
        };
        let sender = &mut self.senders[index];
        let gone = sender.ring.resend(&ranges, now);
        if !gone.is_empty() {
            let answer = Parcel {
                sender: sender.id,
                content: Content::Gone(gone),
            };
            sender.ring.send(Topic::Node(parcel.sender), answer.encode());
        }
    }

    fn beat(&mut self) {
        if self.is_out() {
            return;
        }
        let now = self.now();
        for index in 0..self.senders.len() {
            let beat = super::parcel::Beat {
                heads: self.senders[index].ring.heads(now),
                ..Default::default()
            };
            let bytes = Parcel {
                sender: self.senders[index].id,
                content: Content::Beat(beat),
            }
            .encode();
            self.put(Message {
                topic: Topic::Beats,
                bytes,
            });
        }
    }

    /// Lets a receiver work, and looks at all that comes out.
    fn at(&mut self, index: usize, step: impl FnOnce(&mut Positions, Instant, &mut Vec<Output>)) {
        let mut out = Vec::new();
        let now = self.now();
        step(&mut self.receivers[index].positions, now, &mut out);
        for output in out {
            let receiver = &mut self.receivers[index];
            match output {
                Output::Deliver {
                    sender,
                    topic,
                    number,
                    ..
                } => receiver.advance(sender, topic, number, 1),
                Output::GiveUp {
                    sender,
                    topic,
                    from,
                    count,
                } => {
                    receiver.advance(sender, topic, from, count);
                    receiver.given_up += count;
                }
                Output::Ask { sender, ranges } if !self.is_out() => {
                    let bytes = Parcel {
                        sender: self.receivers[index].id,
                        content: Content::Ask(ranges),
                    }
                    .encode();
                    self.put(Message {
                        topic: Topic::Node(sender),
                        bytes,
                    });
                }
                Output::Ask { .. } => {}
            }
        }
    }

    /// At the end, everybody has come to the last number of everything it wants.
    fn check(&self) {
        for sender in &self.senders {
            assert_eq!(sender.ring.unaccepted_bytes(), 0);
        }
        for receiver in &self.receivers {
            let counts = receiver.positions.counts();
            assert_eq!(counts.gaps, receiver.given_up);
            assert_eq!(receiver.positions.held_bytes(), 0);
            for (topic, interest) in &receiver.interests {
                for sender in &self.senders {
                    let last = sender.appended.get(topic).copied().unwrap_or(0);
                    let then = interest.appended_then.get(&sender.id).copied().unwrap_or(0);
                    match interest.next.get(&sender.id) {
                        Some(next) => assert_eq!(*next, last + 1, "{topic} of {}", sender.id),
                        None => assert_eq!(then, last, "{topic} of {} was never heard", sender.id),
                    }
                }
            }
        }
    }
}

impl Receiver {
    /// Numbers were delivered, or given up: those that had to come next.
    fn advance(&mut self, sender: NodeId, topic: Topic, from: u64, count: u64) {
        let interest = self.interests.get_mut(&topic).expect("the topic is wanted");
        let next = interest.next.entry(sender).or_insert(from);
        assert_eq!(*next, from, "{topic} of {sender}");
        *next += count;
    }
}

fn is_repair(message: &Message) -> bool {
    let parcel = Parcel::decode(message.bytes.clone());
    parcel.is_ok_and(|parcel| matches!(parcel.content, Content::Envelopes(run) if run.is_repair))
}
