//! The cluster's tasks and threads, from the start to the goodbye.
//!
//! The heart has a thread of its own: whatever holds the others up, a node that lives says so. All else runs on the
//! control runtime.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::health::Health;
use super::{StartError, vital};
use crate::adapter::config::Driver;
use crate::adapter::redis::RedisAdapter;
use crate::adapter::{Adapter, Link, events};
use crate::config::Config;
use crate::node::{Node, cluster};

/// So long a start waits for the other nodes' shares of the roster.
const SYNC_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether a node that does not fit the others fits by now.
const LOOK: Duration = Duration::from_millis(500);
/// So long a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// Begins to connect to the broker that the configuration names, if it names one.
pub(super) fn open(config: &Config) -> Result<Option<Link>, StartError> {
    let adapter = &config.adapter;
    let (sink, events) = events(usize::from(adapter.connections), adapter.inbox_bytes_max);
    let (driver, adapter): (_, Arc<dyn Adapter>) = match adapter.driver {
        Driver::None => return Ok(None),
        Driver::Redis => {
            let opened = RedisAdapter::open(&config.redis, adapter, sink.clone());
            (
                "redis",
                Arc::new(opened.map_err(|(key, text)| StartError::Adapter {
                    section: "redis",
                    key,
                    text,
                })?),
            )
        }
        Driver::Nats => {
            let text = "is not built yet".to_owned();
            return Err(StartError::Adapter {
                section: "adapter",
                key: "driver",
                text,
            });
        }
    };
    Ok(Some(Link {
        driver,
        adapter,
        events,
        sink,
    }))
}

/// What joins a node to its cluster, as long as it lives.
#[derive(Debug)]
pub(super) struct Membership {
    node: Arc<Node>,
    /// They end with it.
    _tasks: JoinSet<()>,
    /// The heart stops when this is dropped.
    _stop: oneshot::Sender<()>,
    /// Resolves when it has stopped.
    stopped: oneshot::Receiver<()>,
}

impl Membership {
    /// Begins. To be called on the control runtime. The node is ready when it knows what the others have.
    pub(super) fn begin(
        node: &Arc<Node>,
        incoming: cluster::Incoming,
        health: &Arc<Health>,
    ) -> io::Result<Membership> {
        let cluster::Tasks { heart, others } = cluster::tasks(node, incoming);
        let (stop, stops) = oneshot::channel::<()>();
        let (stopping, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
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
        Ok(Membership {
            node: node.clone(),
            _tasks: tasks,
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
