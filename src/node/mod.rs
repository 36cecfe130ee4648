//! Where both ways meet: what sockets ask for and what the HTTP API asks for become changes of the hub, frames, and
//! entries in the shards' inboxes.
//!
//! Every call is synchronous and short, and may come from any thread. Only [`Node::permission_to_publish`] waits; it
//! is asked for before a publication begins, outside any lock. Knows nothing of sockets' bytes, of HTTP or of JSON
//! that came in.

mod apps;
pub mod cluster;
mod duties;
mod membership;
mod publish;
mod queries;
mod store;
mod usage;
mod users;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

pub use cluster::{Cluster, Waiter};
pub use membership::{Joiner, Refused};
pub use publish::{Busy, Publication};
pub use queries::{CachedEvent, ChannelDetail, ChannelSummary};
pub use store::{ReadApp, StoreDesk};
pub use usage::UsageSaver;

use cluster::announce::Announcer;

use crate::app::{App, Apps};
use crate::hub::Hub;
use crate::hub::channel::{Channel, ChannelState};
use crate::hub::inbox::{Broadcast, Delivery, Entry, Inboxes, ShardIndex};
use crate::hub::namespace::Namespace;
use crate::metrics::Metrics;
use crate::protocol::frame::Frame;
use crate::protocol::socket_id::SocketId;
use crate::webhook::{Webhooks, WebhooksConfig};

/// This process: the apps it serves, who is connected, and what is due later.
#[derive(Debug)]
pub struct Node {
    apps: Apps,
    hub: Hub,
    metrics: Arc<Metrics>,
    /// Whether what the apps use is kept somewhere else.
    saves_usage: AtomicBool,
    /// Where the clock of [`Node::now_ns`] begins.
    started: Instant,
    duties: duties::Duties,
    /// Tells the apps' own back ends.
    webhooks: Webhooks,
    /// What they are yet to be told.
    back_ends: webhooks::BackEnds,
    /// Tells the other nodes, if there may be any.
    announcer: Option<Announcer>,
    /// The way to the other nodes. None: this node is alone.
    cluster: Option<Cluster>,
    /// What other nodes have: one for each channel and node.
    shares: AtomicUsize,
}

impl Node {
    /// A node that serves these apps with the shards behind these inboxes, and is alone.
    pub fn new(apps: Apps, inboxes: Inboxes, metrics: Arc<Metrics>) -> Self {
        Node {
            webhooks: Webhooks::new(WebhooksConfig::default(), metrics.clone()),
            apps,
            hub: Hub::new(inboxes),
            metrics,
            saves_usage: AtomicBool::new(false),
            started: now(),
            duties: duties::Duties::default(),
            back_ends: webhooks::BackEnds::default(),
            announcer: None,
            cluster: None,
            shares: AtomicUsize::new(0),
        }
    }

    /// One that tells other nodes of what it has, whoever carries it to them.
    #[must_use]
    pub fn announcing(self, announcer: Announcer) -> Self {
        Node {
            announcer: Some(announcer),
            ..self
        }
    }

    /// Makes it one of several, before it serves anybody.
    pub fn join(&mut self, cluster: Cluster) {
        self.announcer = Some(Announcer::by_clock(cluster.id(), cluster.wall_us()));
        self.cluster = Some(cluster);
    }

    /// Makes it tell the apps' back ends on this way, before it serves anybody. Without it nothing is delivered.
    pub fn tell(&mut self, webhooks: Webhooks) {
        self.webhooks = webhooks;
    }

    /// The way to the apps' own back ends.
    pub fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// The way to the other nodes, unless this one is alone.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The apps.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    /// The inboxes of the shards.
    pub fn inboxes(&self) -> &Inboxes {
        self.hub.inboxes()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Nanoseconds since this node was made: the clock of the buckets that its threads share.
    pub fn now_ns(&self) -> u64 {
        now().saturating_duration_since(self.started).as_nanos() as u64
    }

    /// An app's part of the directory.
    pub fn namespace(&self, app: &Arc<App>) -> Arc<Namespace> {
        self.hub.namespace(app, &self.metrics)
    }
}

/// The clock of all that a node does, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Pushes one frame to every shard with a subscriber; called under the channel's lock.
fn push_to_audience(
    delivery: &mut Delivery<'_>,
    channel: &Arc<Channel>,
    state: &ChannelState,
    frame: &Frame,
    except: Option<SocketId>,
    published: Instant,
) {
    for shard in state.audience() {
        push_to_shard(delivery, shard, channel, frame, except, published);
    }
}

/// Pushes one frame to a shard; called under the channel's lock.
fn push_to_shard(
    delivery: &mut Delivery<'_>,
    shard: ShardIndex,
    channel: &Arc<Channel>,
    frame: &Frame,
    except: Option<SocketId>,
    published: Instant,
) {
    let broadcast = Broadcast {
        channel: channel.clone(),
        frame: frame.clone(),
        except,
        published,
    };
    delivery.push(shard, Entry::Broadcast(broadcast));
}
