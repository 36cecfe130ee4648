//! The webhooks' tasks: the delivery, and what a queue that outlives the process needs besides.
//!
//! The delivery has a thread of its own, which gives way to the others: each request wakes it about twice, and a shard
//! in the middle of a broadcast is not to be set aside for it, where cores are few.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::priority::give_way;
use super::{StartError, vital};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::webhook::Webhooks;
use crate::webhook::queue::{self, Partitions, Taken};

/// How often it is looked which part of the queue is this node's.
const LOOK: Duration = Duration::from_secs(1);

/// The way to the back ends that the configuration asks for.
pub(super) struct Opened {
    pub(super) webhooks: Webhooks,
    /// What comes out of the queue on the way, if there is one.
    taken: Option<mpsc::Receiver<Taken>>,
    /// Who else may sign the certificates of endpoints.
    authorities: RootCertStore,
}

/// Opens it.
///
/// # Errors
/// The queue or a file that it needs cannot be used.
pub(super) async fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Opened, StartError> {
    let authorities = config.webhooks.authorities();
    let authorities = authorities.map_err(|text| StartError::Setting {
        section: "webhooks",
        key: "ca_file",
        text,
    })?;
    let opened = queue::open(&config.webhooks, &config.adapter, &config.redis, &config.nats).await?;
    let (settings, metrics) = (config.webhooks.clone(), metrics.clone());
    let (webhooks, taken) = match opened {
        None => (Webhooks::new(settings, metrics), None),
        Some((journal, taken)) => (Webhooks::durable(settings, metrics, journal), Some(taken)),
    };
    Ok(Opened {
        webhooks,
        taken,
        authorities,
    })
}

/// The delivery at work, until this is dropped.
#[derive(Debug)]
pub(super) struct Delivery {
    _stop: oneshot::Sender<()>,
}

/// Begins to deliver.
pub(super) fn begin(node: &Arc<Node>, opened: Opened, tasks: &mut JoinSet<()>) -> io::Result<Delivery> {
    let Opened {
        webhooks,
        taken,
        authorities,
    } = opened;
    let delivery = deliver(webhooks.clone(), authorities)?;
    let Some(taken) = taken else {
        return Ok(delivery);
    };
    let apps = node.clone();
    let find = move |id: String| {
        let apps = apps.clone();
        async move { apps.apps().find_by_id(&id).await }
    };
    tasks.spawn(vital(
        "the queue of webhooks",
        webhooks.clone().take_in(taken, find),
    ));
    tasks.spawn(vital(
        "this node's part of the queue of webhooks",
        own(node.clone()),
    ));
    Ok(delivery)
}

fn deliver(webhooks: Webhooks, authorities: RootCertStore) -> io::Result<Delivery> {
    let (stop, stops) = oneshot::channel::<()>();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("webhooks".into())
        .spawn(move || {
            // Those that look names up for it give way too.
            give_way();
            runtime.block_on(async {
                tokio::select! {
                    () = vital("the delivery of webhooks", webhooks.deliver(authorities)) => {}
                    // A sender that is dropped says the same.
                    _ = stops => {}
                }
            });
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        })?;
    Ok(Delivery { _stop: stop })
}

/// Tells the queue which part of it is this node's, whenever that changes.
async fn own(node: Arc<Node>) {
    let mut looks = tokio::time::interval(LOOK);
    let mut owned = Partitions::NONE;
    loop {
        looks.tick().await;
        let now = node.queue_partitions();
        if now != owned {
            owned = now;
            node.webhooks().own(owned);
        }
    }
}
