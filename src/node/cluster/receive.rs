//! From the broker to the sockets: one task for each lane, which puts what other nodes say into order, and applies it.
//!
//! It never waits for a shard, since that would hold up all topics of its lane: what shards cannot take is dropped,
//! and counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::early::Early;
use super::peers::Work;
use super::share::Ask;
use super::{Cluster, now};
use crate::adapter::{self, Event, Events, Message, NodeId, Topic};
use crate::hub::inbox::Delivery;
use crate::node::Node;
use crate::relay::envelope::{Body, Envelope};
use crate::relay::parcel::{Content, Parcel};
use crate::relay::positions::Output;

/// How often gaps are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Room for what came out in order that is kept when a flood is over.
const OUTPUTS_KEPT: usize = 4_096;
/// So many messages are worked before the shards that they reach are woken.
const MESSAGES_PER_DELIVERY: usize = 256;

/// Works what one lane hears, for ever.
pub(super) async fn receive(node: Arc<Node>, index: adapter::Lane, mut events: Events) {
    let Some(cluster) = node.cluster() else { return };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut out = Vec::new();
    let mut early = Early::default();
    loop {
        let first = tokio::select! {
            biased;
            _ = ticks.tick() => {
                cluster.lanes[index].positions().tick(now(), &mut out);
                None
            }
            () = early.due(&cluster.peers) => None,
            event = events.next() => match event {
                None => return,
                some => some,
            }
        };
        let rest = std::iter::from_fn(|| events.try_next()).take(MESSAGES_PER_DELIVERY);
        let mut delivery = node.inboxes().deliver();
        for event in first.into_iter().chain(rest) {
            node.put_in_order(index, event, &mut out);
            node.work(&mut out, &mut early, &mut delivery);
        }
        node.work(&mut out, &mut early, &mut delivery);
        for (sender, envelope) in early.released(&cluster.peers, now()) {
            node.carry_out(sender, envelope, &mut delivery);
        }
        drop(delivery);
        // Others have their turn: a flood on one lane is not to hold the runtime.
        tokio::task::yield_now().await;
    }
}

impl Node {
    /// Puts into order what the broker delivered.
    fn put_in_order(&self, index: adapter::Lane, event: Event, out: &mut Vec<Output>) {
        let Some(cluster) = &self.cluster else { return };
        let lane = &cluster.lanes[index];
        let Message { topic, bytes } = match event {
            Event::Heard(message) => message,
            Event::Confirmed(topic, number) => {
                return cluster.confirmed(topic, number, self);
            }
            Event::Lost(topic) => {
                lane.positions().lost(topic);
                return cluster.lost(topic);
            }
        };
        let Ok(Parcel { sender, content }) = Parcel::decode(bytes) else {
            return cluster.malformed();
        };
        if sender == cluster.id {
            return;
        }
        match content {
            Content::Envelopes(run) => lane.positions().receive(sender, topic, run, now(), out),
            Content::Ask(ranges) => cluster.repair(sender, &ranges),
            Content::Gone(below) => {
                for (topic, number) in below {
                    let lane = cluster.lane_of(topic);
                    lane.positions().gone(sender, topic, number, now(), out);
                }
            }
            Content::Roster(bytes) => match Ask::decode(bytes) {
                Ok(Ask::All) => cluster.asked(sender),
                Ok(Ask::Chunk(chunk)) => cluster.peers.hand(sender, Work::Chunk(chunk)),
                Err(_) => cluster.malformed(),
            },
            Content::Beat(_) => cluster.malformed(),
        }
    }

    /// Works what came out in order.
    fn work(&self, out: &mut Vec<Output>, early: &mut Early, delivery: &mut Delivery<'_>) {
        let Some(cluster) = &self.cluster else { return };
        for output in out.drain(..) {
            match output {
                Output::Deliver {
                    sender,
                    topic,
                    number,
                    envelope,
                } => match Envelope::decode(envelope) {
                    Ok(Envelope {
                        body: Body::Roster(piece),
                        ..
                    }) => cluster.peers.hand(sender, Work::Announced(number, piece)),
                    Ok(envelope) => {
                        if let Some(envelope) =
                            early.hold_back(sender, topic, envelope, &cluster.peers, now())
                        {
                            self.carry_out(sender, envelope, delivery);
                        }
                    }
                    Err(_) => cluster.malformed(),
                },
                Output::GiveUp {
                    sender,
                    topic,
                    from,
                    count,
                } => {
                    tracing::debug!(node = %sender, %topic, from, count, "gave up what another node sent");
                    match topic {
                        Topic::Roster => cluster.peers.hand(sender, Work::Ask),
                        // Perhaps the broker has forgotten that this node wants it.
                        Topic::Channels(topic) => cluster.want_anew(topic),
                        _ => {}
                    }
                }
                Output::Ask { sender, ranges } => {
                    let parcel = Parcel {
                        sender: cluster.id,
                        content: Content::Ask(ranges),
                    };
                    let topic = Topic::Node(sender);
                    cluster.lane_of(topic).send(topic, parcel.encode());
                }
            }
        }
        out.shrink_to(OUTPUTS_KEPT);
    }
}

impl Cluster {
    /// Sends again what another node has missed.
    fn repair(&self, asking: NodeId, ranges: &[crate::relay::parcel::Range]) {
        let mut gone = Vec::new();
        for lane in &self.lanes {
            let of_lane =
                |range: &&crate::relay::parcel::Range| std::ptr::eq(self.lane_of(range.topic), lane);
            let ranges: Vec<_> = ranges.iter().filter(of_lane).copied().collect();
            if !ranges.is_empty() {
                gone.extend(lane.ring().resend(&ranges, now()));
                lane.to_send.notify_one();
            }
        }
        if !gone.is_empty() {
            let parcel = Parcel {
                sender: self.id,
                content: Content::Gone(gone),
            };
            let topic = Topic::Node(asking);
            self.lane_of(topic).send(topic, parcel.encode());
        }
    }

    /// Another node asks for all that is here.
    fn asked(&self, asking: NodeId) {
        // If so many ask already, it asks again.
        let _ = self.asking.try_send(asking);
    }

    /// The broker has confirmed a topic.
    fn confirmed(&self, topic: Topic, number: adapter::WishNumber, node: &Node) {
        let hear = || self.lane_of(topic).positions().interested(topic, now());
        let Topic::Channels(channels) = topic else {
            return hear();
        };
        if let Some(waiting) = self.interests.confirmed(channels, number, hear) {
            node.admit(waiting);
        }
    }

    fn lost(&self, topic: Topic) {
        if let Topic::Channels(topic) = topic {
            self.interests.lost(topic);
        }
        self.heart.compare_heads();
    }

    fn want_anew(&self, topic: u16) {
        if let Some(wish) = self.interests.anew(topic) {
            self.tell(wish);
        }
    }
}
