//! The porch: where a connection stays that has something to do before HTTP which is not instant. It has threads of its
//! own, so that neither the listener nor a shard ever waits for such a client.
//!
//! Only so many are on the porch at a time, each for so long. While it is full nobody is let in, and whoever comes waits
//! where the kernel keeps those who were not accepted yet: a storm of good clients is slowed down and not turned away.
//! Those who say nothing have less time as soon as half of the places are taken.

mod header;

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::address::{AddressLimits, TooMany, TrustedProxies};
use crate::hub::inbox::{Arrival, Entry};
use crate::metrics::ConnectionError;
use crate::node::Node;
use crate::tls::{Acceptor, HandshakeFault, handshake};

/// The time each has on the porch while half of the places or more are taken.
const CROWDED_PATIENCE: Duration = Duration::from_secs(2);

/// What a connection goes through on the porch, in this order.
pub(super) struct Steps {
    /// It begins with a header of the PROXY protocol; after it, these proxies are believed.
    pub(super) proxy_header: Option<TrustedProxies>,
    /// It is counted to the address that it comes from.
    pub(super) limits: AddressLimits,
    /// It is encrypted.
    pub(super) tls: Option<Arc<Acceptor>>,
}

impl Steps {
    /// Whether there is anything to do before HTTP.
    pub(super) fn is_any(&self) -> bool {
        self.proxy_header.is_some() || self.tls.is_some()
    }
}

/// Why a connection does not get beyond the porch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Header(#[from] crate::address::proxy_header::Broken),
    #[error("its address has too many connections")]
    TooMany(TooMany),
    #[error("no TLS: {0}")]
    Tls(#[from] HandshakeFault),
    #[error("the connection was lost on the porch")]
    Lost(#[from] io::Error),
}

impl Unfit {
    /// As what it is counted, unless nothing is wrong: who looks whether somebody listens has nothing to say.
    fn counted_as(&self) -> Option<ConnectionError> {
        match self {
            Unfit::Tls(HandshakeFault::Nothing) => None,
            Unfit::Tls(_) => Some(ConnectionError::Tls),
            Unfit::Header(_) | Unfit::Lost(_) => Some(ConnectionError::ProxyHeader),
            Unfit::TooMany(_) => Some(ConnectionError::AddressLimit),
        }
    }
}

/// The porch with its threads.
pub(super) struct Porch {
    runtime: Option<Runtime>,
    floor: Arc<Floor>,
}

/// What those on the porch share.
struct Floor {
    steps: Steps,
    node: Arc<Node>,
    /// How long each may stay.
    patience: Duration,
    places: usize,
    taken: AtomicUsize,
}

impl Porch {
    /// Opens a porch of so many places, on each of which one may stay so long.
    pub(super) fn open(
        steps: Steps,
        places: usize,
        patience: Duration,
        node: Arc<Node>,
    ) -> io::Result<Porch> {
        let cores = std::thread::available_parallelism()?.get();
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.div_ceil(2))
            .thread_name("porch")
            .enable_all()
            .build()?;
        let floor = Floor {
            steps,
            node,
            patience,
            places,
            taken: AtomicUsize::new(0),
        };
        Ok(Porch {
            runtime: Some(runtime),
            floor: Arc::new(floor),
        })
    }

    /// Whether one more may come.
    pub(super) fn has_room(&self) -> bool {
        self.connections() < self.floor.places
    }

    /// How many are on the porch.
    pub(super) fn connections(&self) -> usize {
        self.floor.taken.load(Ordering::Relaxed)
    }

    /// Takes in a connection. It is handed to a shard when it has gone through all steps.
    pub(super) fn receive(&self, arrival: Arrival) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(Box::pin(stay(Place::take(&self.floor), arrival)));
        }
    }
}

impl Drop for Porch {
    /// Who is still on the porch is dropped. A server is dropped where nothing may block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A place on the porch, given back when it is dropped.
struct Place {
    floor: Arc<Floor>,
    /// How long one may stay on it: decided as one comes.
    patience: Duration,
}

impl Place {
    fn take(floor: &Arc<Floor>) -> Place {
        let before = floor.taken.fetch_add(1, Ordering::Relaxed);
        if before + 1 == floor.places {
            floor.node.metrics().porch_full_total.inc();
        }
        let is_crowded = before >= floor.places / 2;
        Place {
            floor: floor.clone(),
            patience: match is_crowded {
                true => floor.patience.min(CROWDED_PATIENCE),
                false => floor.patience,
            },
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.floor.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection's stay on the porch.
async fn stay(place: Place, arrival: Arrival) {
    let client = arrival.client;
    let floor = &place.floor;
    let errors = |error| floor.node.metrics().connection_errors(error).inc();
    match timeout(place.patience, walk(&floor.steps, arrival)).await {
        Ok(Ok(arrival)) => hand_over(&floor.node, arrival),
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "a connection is dropped on the porch");
            error.counted_as().map(errors);
        }
        Err(_) => {
            tracing::debug!(%client, "a connection took too long on the porch");
            errors(ConnectionError::Timeout);
        }
    }
}

/// All that comes before HTTP.
async fn walk(steps: &Steps, arrival: Arrival) -> Result<Arrival, Unfit> {
    let mut arrival = arrival.try_map(TcpStream::from_std)?;
    if let Some(trusted) = &steps.proxy_header {
        let header = header::read(&mut arrival.stream).await?;
        arrival.client = header::client(&header, arrival.client, trusted);
    }
    arrival.place = steps
        .limits
        .enter(&arrival.client, Instant::now)
        .map_err(Unfit::TooMany)?;
    if let Some(tls) = &steps.tls {
        arrival.sealed = Some(handshake(&mut arrival.stream, tls.server()).await?);
        arrival.client.is_tls = true;
    }
    Ok(arrival.try_map(TcpStream::into_std)?)
}

/// Hands a connection to the shard with the fewest.
fn hand_over(node: &Node, arrival: Arrival<StdStream>) {
    if let Some(sealed) = &arrival.sealed {
        let figures = node.metrics().tls();
        match sealed.is_resumed() {
            true => figures.resumed.inc(),
            false => figures.full.inc(),
        }
    }
    let inboxes = node.inboxes();
    let shard = inboxes.least_loaded();
    inboxes.of(shard).add_connection();
    inboxes.deliver().push(shard, Entry::Accept(arrival));
}
