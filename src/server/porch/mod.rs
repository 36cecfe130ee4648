//! The porch: where a connection stays that has something to do before HTTP which is not instant. It has threads of its
//! own, so that neither the listener nor a shard ever waits for such a client, and they give way to the shards: however
//! many shake hands, who is connected gets what is sent to them.
//!
//! Only so many are on the porch at a time. Those who have said nothing for a while make room for newcomers, the oldest
//! first. While all others fill it nobody is let in, and whoever comes waits where the kernel keeps those who were not
//! accepted yet: a storm of good clients is slowed down and not turned away.

mod header;
mod visitor;

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use self::header::HeaderFault;
use self::visitor::{Bench, Visitor};
use super::priority::give_way;
use super::waiting::CalledOff;
use crate::address::{AddressLimits, TooMany, TrustedProxies};
use crate::hub::inbox::{Arrival, Entry};
use crate::metrics::ConnectionError;
use crate::node::Node;
use crate::tls::{Acceptor, HandshakeFault, handshake};

/// For how long each may let us wait that comes while half of the places or more are taken.
const CROWDED_PATIENCE: Duration = Duration::from_secs(2);
/// This part of the places is kept free of those who say nothing: who comes then need not wait until one of them has gone.
const KEPT_FREE: usize = 8;
/// Tasks that a thread looks after before it asks the system who else has been heard: a handshake takes a fraction of a
/// millisecond, and what comes meanwhile is to be noticed when it does.
const TASKS_BETWEEN_LOOKS: u32 = 8;

/// What a connection goes through on the porch, in this order.
pub(super) struct Steps {
    /// It begins with a header of the PROXY protocol; after it, these proxies are believed.
    pub(super) proxy_header: Option<TrustedProxies>,
    /// It is counted to the address that it comes from; if it is to be encrypted, its handshake is too.
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
enum Unfit {
    #[error(transparent)]
    Header(#[from] HeaderFault),
    #[error("its address has too many connections")]
    TooMany(TooMany),
    #[error("its address has had all its handshakes for now")]
    TooOften,
    #[error("no TLS: {0}")]
    Tls(#[from] HandshakeFault),
    #[error("it was not waited for any longer: {0:?}")]
    CalledOff(CalledOff),
    #[error("there is no room for it: {0}")]
    System(io::Error),
}

impl Unfit {
    /// As what it is counted, unless nothing is wrong: who looks whether somebody listens has nothing to say, and who asks
    /// whether a name leads here has heard it.
    fn counted_as(&self) -> Option<ConnectionError> {
        match self {
            Unfit::Header(HeaderFault::Nothing) => None,
            Unfit::Tls(HandshakeFault::Nothing | HandshakeFault::Challenge) => None,
            Unfit::Header(_) => Some(ConnectionError::ProxyHeader),
            Unfit::Tls(_) => Some(ConnectionError::Tls),
            Unfit::TooMany(_) | Unfit::TooOften => Some(ConnectionError::AddressLimit),
            Unfit::CalledOff(CalledOff::TooLong) => Some(ConnectionError::Timeout),
            Unfit::CalledOff(CalledOff::TooMany) => Some(ConnectionError::Pending),
            Unfit::System(_) => Some(ConnectionError::Accept),
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
    /// How long each may let us wait.
    patience: Duration,
    places: usize,
    taken: AtomicUsize,
    /// Of those who are waited for.
    bench: Arc<Bench>,
}

impl Porch {
    /// Opens a porch of so many places, on each of which one may let us wait so long.
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
            .on_thread_start(give_way)
            .event_interval(TASKS_BETWEEN_LOOKS)
            .enable_all()
            .build()?;
        let floor = Floor {
            steps,
            node,
            patience,
            places,
            taken: AtomicUsize::new(0),
            bench: Arc::default(),
        };
        Ok(Porch {
            runtime: Some(runtime),
            floor: Arc::new(floor),
        })
    }

    /// Whether one more may come. Where it gets tight, those who say nothing are sent away, the oldest first.
    pub(super) fn make_room(&self) -> bool {
        let (taken, places) = (self.connections(), self.floor.places);
        let beyond = (taken + 1 + places / KEPT_FREE).saturating_sub(places);
        if beyond > 0 {
            self.floor.bench.make_room(beyond, Instant::now());
        }
        taken < places
    }

    /// How many are on the porch. Who is not any longer is counted by its shard.
    pub(super) fn connections(&self) -> usize {
        self.floor.taken.load(Ordering::Acquire)
    }

    /// Takes in a connection. It is handed to a shard when it has gone through all steps.
    pub(super) fn receive(&self, arrival: Arrival) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(Box::pin(stay(Place::take(&self.floor), arrival)));
        }
    }

    /// The server leaves: from now on nobody may let us wait for long.
    pub(super) fn leave(&self) {
        self.floor.bench.leave(Instant::now());
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
    /// How long one may let us wait on it: decided as one comes.
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
        // Whoever sees it sees that a shard counts the connection, if one does.
        self.floor.taken.fetch_sub(1, Ordering::Release);
    }
}

/// One connection's stay on the porch.
async fn stay(place: Place, arrival: Arrival) {
    let client = arrival.client;
    match walk(&place, arrival).await {
        Ok(arrival) => hand_over(&place.floor.node, arrival),
        Err(error) => {
            tracing::debug!(%client, %error, "a connection is dropped on the porch");
            let metrics = place.floor.node.metrics();
            if let Some(error) = error.counted_as() {
                metrics.connection_errors(error).inc();
            }
        }
    }
}

/// All that comes before HTTP.
async fn walk(place: &Place, arrival: Arrival) -> Result<Arrival, Unfit> {
    let new = |stream: StdStream| Visitor::new(stream, &place.floor.bench, place.patience);
    let mut arrival = arrival.try_map(new).map_err(Unfit::System)?;
    let done = take_steps(&place.floor.steps, &mut arrival).await;
    // To whoever reads, that looks like an end.
    done.map_err(|unfit| arrival.stream.called_off().map_or(unfit, Unfit::CalledOff))?;
    arrival.try_map(Visitor::into_std).map_err(Unfit::System)
}

async fn take_steps(steps: &Steps, arrival: &mut Arrival<Visitor>) -> Result<(), Unfit> {
    if let Some(trusted) = &steps.proxy_header {
        let header = header::read(&mut arrival.stream).await?;
        arrival.client = header::client(&header, arrival.client, trusted);
    }
    let now = std::time::Instant::now;
    let place = steps.limits.enter(&arrival.client, now);
    arrival.place = place.map_err(Unfit::TooMany)?;
    if let Some(tls) = &steps.tls {
        // It costs us much more than the client, so it is not begun for who has had enough of them.
        if !steps.limits.may_shake_hands(&arrival.client, now) {
            return Err(Unfit::TooOften);
        }
        arrival.sealed = Some(handshake(&mut arrival.stream, tls).await?);
        arrival.client.is_tls = true;
    }
    Ok(())
}

/// Hands a connection to the shard with the fewest.
fn hand_over(node: &Node, arrival: Arrival) {
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
