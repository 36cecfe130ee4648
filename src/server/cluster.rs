//! The cluster's tasks and threads, from the start to the goodbye.
//!
//! They have threads of their own, so that a flood from other nodes holds up no probe and no request, and nothing here
//! holds up the relay. The heart has one for itself: whatever the others do, a node that lives says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::health::Health;
use super::{StartError, vital};
use crate::adapter::config::Driver;
use crate::adapter::nats::NatsAdapter;
use crate::adapter::redis::RedisAdapter;
use crate::adapter::{Adapter, Link, events};
use crate::config::Config;
use crate::node::{Node, cluster};

/// So long a start waits for the other nodes' shares of the roster.
const SYNC_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether a node that does not fit the others fits by now.
const LOOK: Duration = Duration::from_millis(500);
/// So long a goodbye may take.
pub(super) const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// Threads for the adapter, the relay and the roster.
const THREADS: usize = 2;

/// The threads of the cluster's tasks, the heart aside.
#[derive(Debug)]
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    pub(super) fn start() -> io::Result<Threads> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("relay")
            .enable_all()
            .build()?;
        Ok(Threads(Some(runtime)))
    }

    /// What is spawned while the guard lives runs on these threads.
    pub(super) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Threads {
    /// A server is dropped where nothing may block.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Begins to connect to the broker that the configuration names, if it names one.
pub(super) fn open(config: &Config) -> Result<Option<(Link, Threads)>, StartError> {
    let adapter = &config.adapter;
    if adapter.driver == Driver::None {
        return Ok(None);
    }
    let threads = Threads::start()?;
    let on_threads = threads.enter();
    let (sink, events) = events(usize::from(adapter.connections), adapter.inbox_bytes_max);
    let fault = |section| move |(key, text)| StartError::Setting { section, key, text };
    let (driver, adapter): (_, Arc<dyn Adapter>) = match adapter.driver {
        Driver::None => return Ok(None),
        Driver::Redis => {
            let opened = RedisAdapter::open(&config.redis, adapter, sink.clone());
            ("redis", Arc::new(opened.map_err(fault("redis"))?))
        }
        Driver::Nats => {
            let opened = NatsAdapter::open(&config.nats, adapter, sink.clone());
            ("nats", Arc::new(opened.map_err(fault("nats"))?))
        }
    };
    let link = Link {
        driver,
        adapter,
        events,
        sink,
    };
    drop(on_threads);
    Ok(Some((link, threads)))
}

/// What joins a node to its cluster, as long as it lives.
#[derive(Debug)]
pub(super) struct Membership {
    node: Arc<Node>,
    /// They end with it.
    _tasks: JoinSet<()>,
    _threads: Threads,
    /// The heart stops when this is dropped.
    _stop: oneshot::Sender<()>,
    /// Resolves when it has stopped.
    stopped: oneshot::Receiver<()>,
}

impl Membership {
    /// Begins. The node is ready when it knows what the others have.
    pub(super) fn begin(
        node: &Arc<Node>,
        (incoming, threads): (cluster::Incoming, Threads),
        health: &Arc<Health>,
    ) -> io::Result<Membership> {
        let on_threads = threads.enter();
        let cluster::Tasks { heart, others } = cluster::tasks(node, incoming);
        let (stop, stops) = oneshot::channel::<()>();
        let (stopping, stopped) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("heart".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = vital("the heart", heart) => {}
                    // The server was dropped.
                    _ = stops => {}
                }
            });
            drop(stopping);
        })?;
        let mut tasks = JoinSet::new();
        for (name, task) in others {
            tasks.spawn(vital(name, task));
        }
        health.syncing(true);
        tasks.spawn(wait_for_others(node.clone(), health.clone()));
        drop(on_threads);
        Ok(Membership {
            node: node.clone(),
            _tasks: tasks,
            _threads: threads,
            _stop: stop,
            stopped,
        })
    }

    /// Says goodbye to the other nodes, so that they need not wait for the lease.
    pub(super) async fn end(mut self) {
        let node = self.node.clone();
        let Some(cluster) = node.cluster() else { return };
        let goodbye = async {
            cluster.leave().await;
            let _ = (&mut self.stopped).await;
        };
        // If nobody hears it the lease says the same, later.
        let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(cluster) = self.node.cluster() {
            cluster.end();
        }
    }
}

/// A node that has just started is ready when it knows what the others have, and if it fits them.
async fn wait_for_others(node: Arc<Node>, health: Arc<Health>) {
    if tokio::time::timeout(SYNC_MAX, node.synced()).await.is_err() {
        tracing::warn!("not all that other nodes have is known yet; serving all the same");
    }
    while node.cluster().is_some_and(cluster::Cluster::is_mismatched) {
        health.cluster_mismatch(true);
        tokio::time::sleep(LOOK).await;
    }
    health.cluster_mismatch(false);
    health.syncing(false);
}
