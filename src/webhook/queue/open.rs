//! The durable queue that the settings ask for.

use thiserror::Error;

use super::OpenJournal;
use crate::adapter::config::AdapterConfig;
use crate::adapter::nats::NatsConfig;
use crate::adapter::redis::RedisConfig;
use crate::checkup::Report;
use crate::webhook::{WebhookQueue, WebhooksConfig};

/// How much a journal may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Entries that were put and are not yet with the broker.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Entries of one partition at the broker; a little more is possible where several nodes put at once.
    pub stored: usize,
    /// Entries given to this node that it has not looked at.
    pub taken: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room {
            entries: 200_000,
            bytes: 128 * 1024 * 1024,
            // What is not delivered is given up after five minutes: some thirteen hundred thousand entries in all are
            // more than the busiest cluster has in so long.
            stored: 20_000,
            taken: 512,
        }
    }
}

/// Why there is no durable queue, for a person.
#[derive(Debug, Error)]
#[error("webhooks.queue is {queue}, which cannot be used: {reason}")]
pub struct JournalFault {
    queue: &'static str,
    reason: String,
}

/// Opens the durable queue, or none if webhooks wait in memory. The broker need not be there yet.
///
/// # Errors
/// The broker is there and cannot be used, such as a NATS server without JetStream; or a section has a fault, of which
/// `RedisConfig::faults` and `NatsConfig::faults` tell all.
///
/// # Panics
/// Outside a tokio runtime with time and I/O.
pub async fn open(
    config: &WebhooksConfig,
    adapter: &AdapterConfig,
    redis: &RedisConfig,
    nats: &NatsConfig,
) -> Result<Option<OpenJournal>, JournalFault> {
    let room = Room {
        entries: config.queue_events_max,
        bytes: config.queue_bytes_max,
        ..Room::default()
    };
    match config.queue {
        WebhookQueue::Memory => Ok(None),
        WebhookQueue::Redis => {
            let journal = super::redis::open(redis, &adapter.prefix, room);
            let journal = journal.map_err(|(key, text)| JournalFault {
                queue: "redis",
                reason: format!("`redis.{key}` {text}"),
            })?;
            Ok(Some(journal))
        }
        WebhookQueue::Nats => {
            let journal = super::nats::open(nats, &adapter.prefix, room).await;
            let journal = journal.map_err(|reason| JournalFault {
                queue: "nats",
                reason,
            })?;
            Ok(Some(journal))
        }
    }
}

/// Whether the broker that the settings ask for would keep webhooks. Asked by a person; nothing is stored or changed.
pub async fn checkup(
    config: &WebhooksConfig,
    adapter: &AdapterConfig,
    redis: &RedisConfig,
    nats: &NatsConfig,
    report: &mut Report<'_>,
) {
    match config.queue {
        WebhookQueue::Memory => report.note(
            "webhooks.queue is memory: what a node that is killed has not delivered is lost; redis and nats keep it",
        ),
        WebhookQueue::Redis => {
            let stem = super::redis::stem(&adapter.prefix);
            crate::adapter::redis::checkup_streams(redis, &stem, report).await;
        }
        WebhookQueue::Nats => super::nats::checkup(nats, &adapter.prefix, report).await,
    }
}
