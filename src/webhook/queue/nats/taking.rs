//! What JetStream gives to the owner of partitions. Each has its consumer and a task that pulls from it, a few at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Life, Names};
use crate::adapter::nats::Fault;
use crate::webhook::queue::ledger::Ledger;
use crate::webhook::queue::{Partition, Partitions, Receipt, Taken};

/// Longer than any webhook is tried: nothing is given again as long as the consumer is the same.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(25 * 60 * 60);
/// So many entries are pulled ahead, of all partitions together, and of each.
const ENTRIES_MAX: usize = 512;
const ENTRIES_OF_ONE: std::ops::RangeInclusive<usize> = 4..=128;
/// So long the server keeps a question for more.
const PULL_MAX: Duration = Duration::from_secs(60);
const PULL_BEAT: Duration = Duration::from_secs(20);
/// A partition that is quiet for so long is looked at: whether anything was given to another node that believed to be
/// the owner, or to this one on a connection that was lost.
const LOOK: Duration = Duration::from_secs(5);
/// A consumer that somebody took away belongs to another owner; who still believes to be it after so long shares it.
const GIVE_WAY: Duration = Duration::from_secs(3);

/// So many consumers are made at once: in a cluster of servers each has a leader to find.
const TAKEN_OVER_AT_ONCE: usize = 8;
/// After a failure a partition is left alone for so long.
const FAILED_REST: Duration = Duration::from_millis(500);

/// Gives to this node what it owns, until the connection is of no use any more; says why.
pub(super) async fn run(
    life: &Life,
    names: &Names,
    ledger: &Arc<Ledger>,
    out: &mpsc::Sender<Taken>,
) -> Fault {
    let mut owned = ledger.owned();
    let mut running: BTreeMap<Partition, AbortHandle> = BTreeMap::new();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let turns = Arc::new(Semaphore::new(TAKEN_OVER_AT_ONCE));
    loop {
        let mine: Partitions = *owned.borrow_and_update();
        running.retain(|partition, task| {
            let stays = mine.contains(*partition);
            if !stays {
                task.abort();
            }
            stays
        });
        let ahead = ENTRIES_MAX / mine.iter().count().max(1);
        for partition in mine.iter() {
            running.entry(partition).or_insert_with(|| {
                let taking = Taking {
                    life: life.clone(),
                    turns: turns.clone(),
                    names: names.clone(),
                    ledger: ledger.clone(),
                    out: out.clone(),
                    partition,
                    ahead: ahead.clamp(*ENTRIES_OF_ONE.start(), *ENTRIES_OF_ONE.end()),
                };
                tasks.spawn(taking.run())
            });
        }
        tokio::select! {
            changed = owned.changed() => {
                if changed.is_err() {
                    return "nobody takes webhooks any more".to_owned();
                }
            }
            Some(ended) = tasks.join_next() => {
                // One that was given up has nothing to say.
                if ended.is_ok() {
                    return "nobody takes webhooks any more".to_owned();
                }
            }
        }
    }
}

struct Taking {
    life: Life,
    /// Held while a consumer is made.
    turns: Arc<Semaphore>,
    names: Names,
    ledger: Arc<Ledger>,
    out: mpsc::Sender<Taken>,
    partition: Partition,
    /// So many are pulled ahead.
    ahead: usize,
}

/// Why a consumer is read no more.
enum End {
    /// Somebody took it away.
    Deleted,
    /// More was given to the owner than this node has, or what was left is wanted again.
    Behind,
}

impl Taking {
    /// Takes until nobody takes entries any more.
    async fn run(self) {
        let name = self.names.consumer(self.partition);
        let mut is_taken_over = true;
        loop {
            match self.take(&name, is_taken_over).await {
                Ok(None) => return,
                Ok(Some(End::Deleted)) => {
                    is_taken_over = false;
                    sleep(GIVE_WAY).await;
                }
                Ok(Some(End::Behind)) => is_taken_over = true,
                // A cluster of servers may be looking for the leader of this one. Whether the connection is of any use
                // is for others to find out.
                Err(fault) => {
                    tracing::debug!(
                        partition = self.partition.index(),
                        fault,
                        "webhooks are not given"
                    );
                    is_taken_over = true;
                    sleep(FAILED_REST).await;
                }
            }
        }
    }

    async fn take(&self, name: &str, is_taken_over: bool) -> Result<Option<End>, Fault> {
        let turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let stream = self.life.context.get_stream_no_info(&*self.names.stream).await;
        let stream: Stream<()> = stream.map_err(|error| error.to_string())?;
        if is_taken_over {
            // Whether there was one or not.
            let _ = stream.delete_consumer(name).await;
        }
        let consumer: PullConsumer = stream
            .get_or_create_consumer(name, self.config(name))
            .await
            .map_err(|error| format!("the consumer of a partition: {error}"))?;
        if is_taken_over {
            self.ledger.begun(self.partition);
        }
        drop(turn);
        self.read(&stream, name, &consumer).await
    }

    fn config(&self, name: &str) -> pull::Config {
        pull::Config {
            durable_name: Some(name.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACKNOWLEDGE_MAX,
            filter_subject: self.names.subject(self.partition),
            // How much is in hand is bounded by who has it in hand: one endpoint that is down must not hold up the
            // others of its partition.
            max_ack_pending: -1,
            // What it knows is made anew when it is lost: the stream has only what is not done.
            memory_storage: true,
            ..pull::Config::default()
        }
    }

    async fn read(
        &self,
        stream: &Stream<()>,
        name: &str,
        consumer: &PullConsumer,
    ) -> Result<Option<End>, Fault> {
        let messages = consumer
            .stream()
            .max_messages_per_batch(self.ahead)
            .expires(PULL_MAX)
            .heartbeat(PULL_BEAT)
            .messages();
        let mut messages = messages.await.map_err(|error| error.to_string())?;
        loop {
            if self.ledger.is_wanted_again(self.partition) {
                return Ok(Some(End::Behind));
            }
            let message = match timeout(LOOK, messages.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => match error.kind() {
                    MessagesErrorKind::ConsumerDeleted => return Ok(Some(End::Deleted)),
                    _ => return Err(format!("no more webhooks: {error}")),
                },
                Ok(None) => return Ok(Some(End::Deleted)),
                Err(_) => {
                    // Counted first: what is done in between makes less of both.
                    let known = self.ledger.known(self.partition);
                    match stream.consumer_info(name).await {
                        Ok(info) if info.num_ack_pending > known => return Ok(Some(End::Behind)),
                        Ok(_) => continue,
                        Err(error) => match error.kind() {
                            async_nats::jetstream::context::ConsumerInfoErrorKind::NotFound => {
                                return Ok(Some(End::Deleted));
                            }
                            _ => return Err(format!("the consumer of a partition: {error}")),
                        },
                    }
                }
            };
            self.life.session.heard.store(true, Ordering::Relaxed);
            let Some(receipt) = self.receipt(&message) else {
                continue;
            };
            if let Some(taken) = self.ledger.take(receipt, message.payload.clone())
                && self.out.send(taken).await.is_err()
            {
                return Ok(None);
            }
        }
    }

    fn receipt(&self, message: &async_nats::jetstream::Message) -> Option<Receipt> {
        let number = message.info().ok()?.stream_sequence;
        let subject = message.reply.as_ref()?;
        Some(Receipt {
            partition: self.partition,
            entry: format!("{number} {subject}").into(),
        })
    }
}
