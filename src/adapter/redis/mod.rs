//! The way over Redis 7: one server, the master that sentinels name, or a cluster with sharded pub/sub.
//!
//! All three are the same here: a list of servers, each with its own connections, one that publishes and one that
//! hears for every lane; with one server every topic is its own, in a cluster its slot decides (`topology`). What a
//! connection hears is asked for topic by topic, and again after each loss (`wishes`, `hearing`): a client that does so
//! by itself is not to be trusted where a server holds topics of several slots.

mod checkup;
mod config;
mod hearing;
mod line;
mod link;
mod names;
mod publisher;
mod slots;
mod status;
mod topology;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::{Pipeline, ServerError, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use checkup::{checkup, checkup_streams};
pub use config::{RedisConfig, RedisFault};
pub(crate) use line::{Line, Lines, Open};
pub use url::RedisUrl;

use super::config::AdapterConfig;
use super::owned::Owned;
use super::wished::Wished;
use super::{Adapter, Lane, LinkHealth, Message, Sink, Topic, WishNumber};
use hearing::Hearing;
use link::{Fault, Keeper};
use names::Names;
use status::ServerId;
use topology::{Seeker, Topology};
use url::Layout;

/// A batch waits no longer for its replies.
const PUBLISH_MAX: Duration = Duration::from_secs(5);
/// The same where there are other servers, whose messages must not wait for one that does not answer.
const PUBLISH_TO_MANY_MAX: Duration = Duration::from_secs(1);

/// The way over Redis. Its connections end with it.
pub struct RedisAdapter {
    names: Arc<Names>,
    is_cluster: bool,
    topology: watch::Receiver<Arc<Topology>>,
    keeper: Keeper,
    channel_lanes: usize,
    /// The wishes of each lane.
    wished: Vec<Arc<Wished>>,
    _tasks: Vec<Owned>,
}

impl RedisAdapter {
    /// Begins to connect, and to report into the sink. Redis need not be there yet.
    ///
    /// The error is about a setting of the section `redis`; [`RedisConfig::faults`] tells all of them.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O.
    pub fn open(
        config: &RedisConfig,
        adapter: &AdapterConfig,
        sink: Sink,
    ) -> Result<RedisAdapter, RedisFault> {
        let lanes = sink.lanes().len();
        let seeker = Seeker::new(config, 2 * lanes, lanes)?;
        let keeper = seeker.keeper.clone();
        let is_cluster = seeker.layout == Layout::Cluster;
        let names = Arc::new(Names::new(&adapter.prefix, adapter.topics, is_cluster));
        let (found, topology) = watch::channel(Arc::default());
        let wished: Vec<Arc<Wished>> = sink.lanes().map(|_| Arc::default()).collect();
        let hear = |wished: &Arc<Wished>| {
            let hearing = Hearing {
                keeper: keeper.clone(),
                names: names.clone(),
                is_cluster,
                sink: sink.clone(),
                topology: topology.clone(),
                wished: wished.clone(),
            };
            Owned::spawn(hearing.run())
        };
        let mut tasks: Vec<_> = wished.iter().map(hear).collect();
        tasks.push(Owned::spawn(seeker.follow(found)));
        Ok(RedisAdapter {
            names,
            is_cluster,
            topology,
            keeper,
            channel_lanes: sink.channel_lanes(),
            wished,
            _tasks: tasks,
        })
    }
}

impl fmt::Debug for RedisAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAdapter")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Adapter for RedisAdapter {
    fn publish(&self, lane: Lane, batch: Vec<Message>) -> BoxFuture<'_, Vec<bool>> {
        Box::pin(async move {
            let topology = self.topology.borrow().clone();
            let mut parts: BTreeMap<usize, (Vec<usize>, Pipeline)> = BTreeMap::new();
            for (place, message) in batch.iter().enumerate() {
                let Some(server) = topology.owner(self.names.slot(message.topic)) else {
                    continue;
                };
                let (places, messages) = parts.entry(server).or_default();
                places.push(place);
                messages
                    .cmd(if self.is_cluster { "SPUBLISH" } else { "PUBLISH" })
                    .arg(self.names.name(message.topic))
                    .arg(&message.bytes[..]);
            }
            let mut accepted = vec![false; batch.len()];
            drop(batch);
            let send = |(server, (places, messages)): (usize, (Vec<usize>, Pipeline))| {
                let server = topology.servers[server].clone();
                let replies = server.publishers[lane].send(messages)?;
                Some(async move { (server, places, replies.await) })
            };
            let mut sent: FuturesUnordered<_> = parts.into_iter().filter_map(send).collect();
            let limit = match topology.servers.len() {
                0 | 1 => PUBLISH_MAX,
                _ => PUBLISH_TO_MANY_MAX,
            };
            let limit = Instant::now() + limit;
            while let Ok(Some((server, places, replies))) = timeout_at(limit, sent.next()).await {
                let replies = replies.unwrap_or_else(|_| Ok(Vec::new()));
                if let Ok(replies) = &replies {
                    for (place, reply) in places.into_iter().zip(replies) {
                        accepted[place] = matches!(reply, Value::Int(_));
                    }
                }
                self.keeper.refused(server.id, &replies);
            }
            accepted
        })
    }

    fn want(&self, topic: Topic, wanted: bool, number: WishNumber) {
        self.wished[topic.lane(self.channel_lanes)].want(topic, wanted, number);
    }

    fn health(&self) -> LinkHealth {
        self.keeper.status.health()
    }
}

impl Keeper {
    /// Looks for refusals among the replies: some say that the servers have changed, the others are told.
    fn refused(&self, server: ServerId, replies: &Result<Vec<Value>, Fault>) {
        let refusals = replies.iter().flatten().filter_map(|reply| match reply {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        for error in refusals {
            if !self.doubts(error) {
                self.status.refused(server, &error.to_string());
            }
        }
    }

    /// Whether the error says that the servers have changed: then they are looked up.
    fn doubts(&self, error: &ServerError) -> bool {
        let doubts = matches!(
            error.code(),
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY"
        );
        if doubts {
            self.doubt.notify_one();
        }
        doubts
    }
}
