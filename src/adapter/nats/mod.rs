//! The way over NATS: one connection for each lane, which publishes and hears.
//!
//! NATS confirms neither a subscription nor a publication, and its client says of neither when it is lost. What does
//! tell is an echo: a server works off what comes through one connection in order, so that a message to ourselves
//! that comes back has everything before it behind it (`session`). A connection that is lost is never repaired, but
//! made anew, and what was heard through it reported as lost (`hearing`).

mod checkup;
mod config;
mod hearing;
mod session;
mod status;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

pub use checkup::checkup;
pub(crate) use config::Access;
pub use config::{NatsConfig, NatsFault, NatsUrl};
pub(crate) use session::{Fault, Session};

use super::config::AdapterConfig;
use super::owned::Owned;
use super::wished::Wished;
use super::{Adapter, Lane, LinkHealth, Message, Sink, Topic, WishNumber};
use hearing::Hearing;
use status::Status;

/// A batch waits no longer for its echo.
const PUBLISH_MAX: Duration = Duration::from_secs(5);

/// The way over NATS. Its connections end with it.
///
/// A message longer than the servers' `max_payload`, 1 MiB unless they are told otherwise, is given up.
pub struct NatsAdapter {
    prefix: Arc<str>,
    status: Arc<Status>,
    channel_lanes: usize,
    lanes: Vec<LaneHandle>,
    _tasks: Vec<Owned>,
}

struct LaneHandle {
    wished: Arc<Wished>,
    current: Arc<Mutex<Option<Arc<Session>>>>,
}

impl NatsAdapter {
    /// Begins to connect, and to report into the sink. NATS need not be there yet.
    ///
    /// The error is about a setting of the section `nats`; [`NatsConfig::faults`] tells all of them.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O.
    pub fn open(config: &NatsConfig, adapter: &AdapterConfig, sink: Sink) -> Result<NatsAdapter, NatsFault> {
        let access = Arc::new(config.access()?);
        let prefix: Arc<str> = adapter.prefix.as_str().into();
        let status = Arc::new(Status::new(sink.lanes().len()));
        let (mut lanes, mut tasks) = (Vec::new(), Vec::new());
        for _ in sink.lanes() {
            let lane = LaneHandle {
                wished: Arc::default(),
                current: Arc::default(),
            };
            let hearing = Hearing {
                access: access.clone(),
                prefix: prefix.clone(),
                status: status.clone(),
                sink: sink.clone(),
                wished: lane.wished.clone(),
                current: lane.current.clone(),
            };
            tasks.push(Owned::spawn(hearing.run()));
            lanes.push(lane);
        }
        Ok(NatsAdapter {
            prefix,
            status,
            channel_lanes: sink.channel_lanes(),
            lanes,
            _tasks: tasks,
        })
    }

    /// Sends what fits, in order, and ends when the server has worked it off.
    async fn send(&self, session: &Session, batch: Vec<Message>) -> Result<(), Fault> {
        let bytes_max = session.message_bytes_max();
        for message in batch {
            let bytes = message.bytes.len();
            if bytes > bytes_max {
                let reason = format!(
                    "gave up a message of {bytes} bytes, which is longer than the servers' max_payload, {bytes_max}: raise it, or let apps send less"
                );
                self.status.refused("max_payload", &reason);
                continue;
            }
            let subject = format!("{}.{}", self.prefix, message.topic);
            let sent = session.client.publish(subject, message.bytes).await;
            sent.map_err(|error| error.to_string())?;
        }
        session.echo().await
    }
}

impl fmt::Debug for NatsAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsAdapter")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Adapter for NatsAdapter {
    fn publish(&self, lane: Lane, batch: Vec<Message>) -> BoxFuture<'_, Vec<bool>> {
        Box::pin(async move {
            let count = batch.len();
            let current = &self.lanes[lane].current;
            let current = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(session) = current else {
                return vec![false; count];
            };
            let sent = tokio::select! {
                sent = timeout(PUBLISH_MAX, self.send(&session, batch)) => matches!(sent, Ok(Ok(()))),
                _ = session.over() => false,
            };
            vec![sent; count]
        })
    }

    fn want(&self, topic: Topic, wanted: bool, number: WishNumber) {
        self.lanes[topic.lane(self.channel_lanes)]
            .wished
            .want(topic, wanted, number);
    }

    fn health(&self) -> LinkHealth {
        self.status.health()
    }
}
