//! This node among others: what the hub decides goes out over the relay and the roster, and what other nodes say comes
//! in the same way.
//!
//! The only place that knows both here and elsewhere. Nothing here makes a caller wait for another node: publishing
//! appends to a ring, membership marks what is to be announced, and answers come from the merged view in the hub.
//!
//! The tasks: for each lane one that sends ([`send`]) and one that receives ([`receive`]); one that announces what
//! changed here ([`announce`]); and the heart ([`heart`]), which judges who is alive and has a thread of its own.

pub mod announce;
pub mod apply;
mod carry_out;
pub mod collect;
mod early;
mod heart;
mod interest;
mod peers;
mod receive;
mod relay;
mod send;
pub mod settle;
mod share;
mod upkeep;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use self::heart::Heart;
pub use self::interest::Waiter;
use self::interest::{Entered, Interests, Wish};
use self::peers::Peers;
pub(super) use self::relay::RelayedEvent;
use super::webhooks::turns::Turns;
use super::{Node, now};
use crate::adapter::config::AdapterConfig;
use crate::adapter::{Adapter, Events, LANE_HEART, Link, NodeId, Sink, Topic};
use crate::hub::channel::Channel;
use crate::hub::namespace::Namespace;
use crate::protocol::channel_name::ChannelName;
use crate::relay::positions::Positions;
use crate::relay::ring::Ring;
use crate::wall;

/// What is sent and received over one connection.
#[derive(Debug)]
struct Lane {
    ring: Mutex<Ring>,
    positions: Mutex<Positions>,
    to_send: Notify,
    /// What the ring holds that the broker has not accepted, kept beside it so that publishers need no lock. Bytes.
    unaccepted: AtomicUsize,
}

impl Lane {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Plain data, whole after each call; a lane that nobody can lock again would be worse.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer is the envelope's number on its topic.
    fn append(&self, topic: Topic, envelope: Bytes, now: Instant) -> u64 {
        let mut ring = self.ring();
        let number = ring.append(topic, envelope, now);
        self.unaccepted.store(ring.unaccepted_bytes(), Ordering::Relaxed);
        drop(ring);
        self.to_send.notify_one();
        number
    }

    /// Says which messages of the last batch the broker has accepted.
    fn settle(&self, accepted: &[bool]) {
        let mut ring = self.ring();
        ring.settle(accepted, now());
        self.unaccepted.store(ring.unaccepted_bytes(), Ordering::Relaxed);
    }

    /// Sends something that has no number: it may be lost. False if there is no room now.
    fn send(&self, topic: Topic, bytes: Bytes) -> bool {
        let is_taken = self.ring().send(topic, bytes);
        self.to_send.notify_one();
        is_taken
    }
}

/// What a life of a node begins with. Simulations choose it; all else that is left to chance follows from the id.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Its name.
    pub id: NodeId,
    /// The wall clock: microseconds since 1970.
    pub wall_us: fn() -> u64,
}

/// The way to the other nodes.
#[derive(Debug)]
pub struct Cluster {
    id: NodeId,
    wall_us: fn() -> u64,
    config: AdapterConfig,
    driver: &'static str,
    adapter: Arc<dyn Adapter>,
    sink: Sink,
    lanes: Box<[Lane]>,
    /// Told when the broker has accepted something.
    room: Notify,
    interests: Interests,
    heart: Heart,
    peers: Peers,
    /// Who asks for all that is here.
    asking: mpsc::Sender<NodeId>,
    runtime: Handle,
    /// Whose turn it is where one node acts for all. Written by the heart alone.
    turns: ArcSwap<Turns>,
    /// Looked at now and then, since it is asked for with each trigger.
    is_behind: AtomicBool,
    /// Events of other nodes that the shards could not take.
    dropped_busy: AtomicU64,
    /// Something was heard that makes no sense, and told in the log.
    has_told_malformed: AtomicBool,
}

/// What a cluster's tasks will work.
#[derive(Debug)]
pub struct Incoming {
    events: Vec<Events>,
    asking: mpsc::Receiver<NodeId>,
}

/// The tasks of a node in a cluster. They run for ever, but for the heart, which ends with [`Cluster::leave`].
pub struct Tasks {
    /// To be run where nothing holds it up.
    pub heart: BoxFuture<'static, ()>,
    /// The others, each with a name.
    pub others: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

/// So many nodes may ask for all that is here at once; the others ask again.
const ASKING_MAX: usize = 256;

/// The tasks of this node, which is in a cluster.
pub fn tasks(node: &Arc<Node>, incoming: Incoming) -> Tasks {
    let Incoming { events, asking } = incoming;
    let mut others: Vec<(&'static str, BoxFuture<'static, ()>)> = vec![
        (
            "the roster's answers",
            Box::pin(share::answer(node.clone(), asking)),
        ),
        ("the announcements", Box::pin(upkeep::announce(node.clone()))),
        ("the relay's upkeep", Box::pin(upkeep::keep_up(node.clone()))),
    ];
    let mut heart: Option<BoxFuture<'static, ()>> = None;
    for (lane, events) in events.into_iter().enumerate() {
        if lane == LANE_HEART {
            heart = Some(Box::pin(heart::beat(node.clone(), events)));
            continue;
        }
        others.push(("a lane to the broker", Box::pin(send::send(node.clone(), lane))));
        others.push((
            "a lane from the broker",
            Box::pin(receive::receive(node.clone(), lane, events)),
        ));
    }
    Tasks {
        heart: heart.unwrap_or_else(|| Box::pin(std::future::ready(()))),
        others,
    }
}

impl Cluster {
    /// A node that has just come to life, and what its tasks will work. To be called on the runtime of these tasks.
    pub fn new(config: AdapterConfig, link: Link) -> (Cluster, Incoming) {
        let life = Life {
            id: NodeId::draw(),
            wall_us: wall::unix_us,
        };
        Cluster::living(life, config, link)
    }

    /// As [`Cluster::new`], with a life that was chosen.
    pub fn living(life: Life, config: AdapterConfig, link: Link) -> (Cluster, Incoming) {
        let Life { id, wall_us } = life;
        let lanes = link.sink.lanes();
        let ring_bytes_max = config.ring_bytes_max / lanes.len();
        let topics_of_ring = usize::from(config.topics) + 1;
        let (asking, asked) = mpsc::channel(ASKING_MAX);
        let lane = |lane| Lane {
            ring: Mutex::new(Ring::new(ring_bytes_max, topics_of_ring, now())),
            positions: Mutex::new(Positions::new(id.0.wrapping_add(lane as u64))),
            to_send: Notify::new(),
            unaccepted: AtomicUsize::new(0),
        };
        let cluster = Cluster {
            id,
            wall_us,
            driver: link.driver,
            adapter: link.adapter,
            lanes: lanes.map(lane).collect(),
            sink: link.sink,
            room: Notify::new(),
            interests: Interests::new(config.topics),
            heart: Heart::new(config.lease_s),
            peers: Peers::default(),
            asking,
            runtime: Handle::current(),
            turns: ArcSwap::from_pointee(Turns::new(id)),
            is_behind: AtomicBool::new(false),
            dropped_busy: AtomicU64::new(0),
            has_told_malformed: AtomicBool::new(false),
            config,
        };
        let incoming = Incoming {
            events: link.events,
            asking: asked,
        };
        (cluster, incoming)
    }

    /// This life of this node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The wall clock that this node goes by: microseconds since 1970.
    pub(super) fn wall_us(&self) -> fn() -> u64 {
        self.wall_us
    }

    /// Whose turn it is where one node acts for all.
    pub(super) fn turns(&self) -> Guard<Arc<Turns>> {
        self.turns.load()
    }

    /// Whether no other node is known to be alive.
    pub(super) fn is_last(&self) -> bool {
        self.heart.alive().is_empty()
    }

    /// What is left to chance here: another for each life.
    fn luck(&self) -> StdRng {
        StdRng::seed_from_u64(self.id.0)
    }

    /// Which topic the events of a channel travel on. Every node of a cluster must come to the same.
    fn topic_of(&self, app_id: &str, name: &ChannelName) -> u16 {
        let hash = xxh3_64_with_seed(name.as_str().as_bytes(), xxh3_64(app_id.as_bytes()));
        (hash % u64::from(self.config.topics)) as u16
    }

    fn lane_of(&self, topic: Topic) -> &Lane {
        &self.lanes[topic.lane(self.sink.channel_lanes())]
    }

    fn tell(&self, wish: Wish) {
        self.adapter.want(wish.topic, wish.wanted, wish.number);
    }

    /// Something was heard that makes no sense.
    fn malformed(&self) {
        if !self.has_told_malformed.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a message of another node was not understood; does every node run a version like this one's?"
            );
        }
    }

    /// Whether the broker can be reached at all, as far as is known.
    fn is_reachable(&self) -> bool {
        self.adapter.health().connected > 0
    }

    /// Whether all connections to the broker are up, as far as is known.
    fn is_up(&self) -> bool {
        self.adapter.health().is_whole()
    }
}

impl Node {
    /// Whether the events of a channel are heard from all nodes, so that a socket may subscribe to it at once. If not,
    /// [`Entry::Admit`](crate::hub::inbox::Entry::Admit) says when, after two seconds at the latest.
    pub fn is_heard(&self, namespace: &Namespace, name: &ChannelName, waiter: Waiter) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let topic = cluster.topic_of(namespace.app.id(), name);
        match cluster.interests.enter(topic, waiter, now()) {
            Entered::Heard => true,
            Entered::Waits(wish) => {
                if let Some(wish) = wish {
                    cluster.tell(wish);
                }
                false
            }
        }
    }

    /// A channel has its first subscriber here; called under its lock.
    pub(super) fn occupied(&self, namespace: &Namespace, channel: &Channel) {
        if let (Some(cluster), Some(name)) = (&self.cluster, channel.name()) {
            let topic = cluster.topic_of(namespace.app.id(), name);
            cluster.interests.occupied(topic);
        }
    }

    /// A channel has lost its last subscriber here; called under its lock.
    pub(super) fn vacated(&self, namespace: &Namespace, channel: &Channel) {
        if let (Some(cluster), Some(name)) = (&self.cluster, channel.name()) {
            let topic = cluster.topic_of(namespace.app.id(), name);
            cluster.interests.vacated(topic, now());
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
