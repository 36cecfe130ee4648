//! The durable queue in NATS JetStream: one stream with a subject for each partition, from which the server takes what is
//! acknowledged, and a durable consumer for each partition that has an owner.
//!
//! ```text
//! put ─► ledger ─► posting: publish ─► stream ─► consumer of the partition: taking ─► given to this node
//!                  posting: acknowledge ◄─ ledger ◄─ done
//! ```
//!
//! **Taking over.** A server gives again what was not acknowledged when its time is up, behind what is newer by then. So
//! the time is longer than anything is tried for, and a new owner makes the consumer anew: then everything comes again
//! that is not done, from the first on. Consumers are named after their partitions, so no node leaves any behind.
//!
//! **Once.** Each entry is published with a number of its own: what is sent again, since its acknowledgement was lost
//! with the connection, the server drops.

mod posting;
mod stream;
mod taking;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::kept::Kept;
use super::ledger::Ledger;
use super::{OpenJournal, Partition, Room, Taken};
use crate::adapter::nats::{Access, Fault, NatsConfig, Session};

use stream::Unready;
pub use stream::checkup;

/// At the start NATS is waited for so long, to hear whether it can be used; then it may come later.
const START_MAX: Duration = Duration::from_secs(3);
/// An answer takes no longer, or the connection is made anew.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// So often the other side is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(1);
/// The pauses between attempts grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// What the stream, its subjects and its consumers are called.
#[derive(Clone, Debug)]
struct Names {
    prefix: Arc<str>,
    stream: Arc<str>,
}

impl Names {
    fn new(prefix: &str) -> Names {
        // Names of streams have no dots, and prefixes no `=`.
        let stream = format!("{}=webhooks", prefix.replace('.', "="));
        Names {
            prefix: prefix.into(),
            stream: stream.into(),
        }
    }

    fn subjects(&self) -> String {
        format!("{}.webhooks.*", self.prefix)
    }

    fn subject(&self, partition: Partition) -> String {
        format!("{}.webhooks.{}", self.prefix, partition.index())
    }

    fn consumer(&self, partition: Partition) -> String {
        format!("partition-{}", partition.index())
    }
}

/// How an entry is named: its number in the stream, a space, and where it is acknowledged.
fn key_of(entry: &str) -> &str {
    entry.split_once(' ').map_or(entry, |(number, _)| number)
}

/// Connects, and makes the stream if there is none. If NATS cannot be reached yet, that is told in the log, and it is
/// tried again for ever.
///
/// # Errors
/// NATS is there and cannot be used, such as without JetStream; or a setting of the section `nats` has a fault. For a
/// person.
///
/// # Panics
/// Outside a tokio runtime with time and I/O.
pub async fn open(config: &NatsConfig, prefix: &str, room: Room) -> Result<OpenJournal, String> {
    let access = config
        .access()
        .map_err(|(key, text)| format!("`nats.{key}` {text}"))?;
    let (out, taken) = mpsc::channel(room.taken);
    let ledger = Arc::new(Ledger::new(room, key_of));
    let kept = Keeping {
        access,
        names: Names::new(prefix),
        ledger: ledger.clone(),
        out,
        life: rand::random(),
    };
    let first = match timeout(START_MAX, kept.begin()).await {
        Ok(Err(Unready::Unusable(reason))) => return Err(reason),
        Ok(Ok(life)) => Some(life),
        Ok(Err(Unready::Away(_))) | Err(_) => None,
    };
    let mut journal = Kept::new(ledger);
    journal.spawn(kept.run(first));
    Ok((Arc::new(journal), taken))
}

/// All that keeping the queue takes.
struct Keeping {
    access: Access,
    names: Names,
    ledger: Arc<Ledger>,
    out: mpsc::Sender<Taken>,
    /// Stands in the numbers of what is published: no other process has the same.
    life: u64,
}

/// One connection, with the stream there.
#[derive(Clone)]
struct Life {
    session: Arc<Session>,
    context: jetstream::Context,
}

impl Keeping {
    async fn begin(&self) -> Result<Life, Unready> {
        let session = Session::open(&self.access, &self.names.prefix).await;
        let session = session.map_err(Unready::Away)?;
        let context = jetstream::ContextBuilder::new()
            .timeout(ANSWER_MAX)
            .ack_timeout(ANSWER_MAX)
            .build(session.client.clone());
        let stored = self.ledger.room().stored;
        stream::ensure(&context, &self.names, stored, stream::copies(&session)).await?;
        Ok(Life {
            session: Arc::new(session),
            context,
        })
    }

    /// Works, one connection after the other, until nobody takes entries any more.
    async fn run(self, mut first: Option<Life>) {
        let mut pause = PAUSE_MIN;
        let mut told: Option<Fault> = None;
        loop {
            let begun = match first.take() {
                Some(life) => Ok(life),
                None => self.begin().await,
            };
            let fault = match begun {
                Ok(life) => {
                    if told.take().is_some() {
                        tracing::info!("the queue of webhooks in nats is back");
                    }
                    pause = PAUSE_MIN;
                    self.live(life).await
                }
                Err(Unready::Away(fault) | Unready::Unusable(fault)) => fault,
            };
            if self.out.is_closed() {
                return;
            }
            if told.as_ref() != Some(&fault) {
                tracing::warn!(reason = fault, "the queue of webhooks in nats is away");
                told = Some(fault);
            }
            sleep(pause.mul_f32(rand::random_range(0.5..1.0))).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    /// Works through one connection until it is of no use any more; the answer says why.
    async fn live(&self, life: Life) -> Fault {
        let pulse = async {
            loop {
                sleep(PULSE).await;
                if let Err(fault) = life.session.answers().await {
                    return fault;
                }
            }
        };
        tokio::select! {
            fault = life.session.over() => fault,
            fault = pulse => fault,
            fault = posting::run(&life, &self.names, &self.ledger, self.life) => fault,
            fault = taking::run(&life, &self.names, &self.ledger, &self.out) => fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_has_a_stream_of_its_own() {
        let names = ["a.b", "a-b", "a_b", "ab"].map(|prefix| Names::new(prefix).stream);
        assert_eq!(names.each_ref().map(|name| &**name)[0], "a=b=webhooks");
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }

    #[test]
    fn an_entry_is_known_by_its_number_however_often_it_is_given() {
        assert_eq!(key_of("17 $JS.ACK.s.c.1.17.4.0.0"), "17");
        assert_eq!(key_of("17 $JS.ACK.s.c.2.17.9.0.0"), "17");
        assert_eq!(key_of("17"), "17");
    }
}
