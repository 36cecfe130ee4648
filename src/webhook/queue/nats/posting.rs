//! What JetStream is told: entries that were put, and entries that are done. Each is confirmed before it counts.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::client::RequestErrorKind;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::{ANSWER_MAX, Life, Names, key_of};
use crate::adapter::nats::Fault;
use crate::webhook::queue::ledger::{Batch, Ledger};
use crate::webhook::queue::{Partitions, Receipt};

/// So many entries are on their way at once, and so many bytes of them.
const ENTRIES_MAX: usize = 256;
const BYTES_MAX: usize = 1024 * 1024;
/// So many that are done.
const DONES_MAX: usize = 256;
/// So often it is tried whether a full partition has room again.
const FULL_REST: Duration = Duration::from_secs(1);
/// After a refusal JetStream is left alone for so long.
const REFUSED_REST: Duration = Duration::from_millis(250);

/// Tells JetStream what the ledger holds, until there is no answer; says why.
pub(super) async fn run(life: &Life, names: &Names, ledger: &Ledger, process: u64) -> Fault {
    let posting = Posting {
        life,
        names,
        ledger,
        process,
    };
    loop {
        let posted = async {
            let dones = posting.confirm().await?;
            Ok::<_, Fault>(posting.publish().await? || dones)
        };
        match posted.await {
            Ok(true) => {}
            Ok(false) => {
                let full = ledger.full();
                let is_full = full != Partitions::NONE;
                tokio::select! {
                    () = ledger.work() => {}
                    () = sleep(FULL_REST), if is_full => {
                        // The next one that is put tells.
                        full.iter().for_each(|partition| ledger.set_full(partition, false));
                    }
                }
            }
            Err(fault) => return fault,
        }
    }
}

struct Posting<'a> {
    life: &'a Life,
    names: &'a Names,
    ledger: &'a Ledger,
    process: u64,
}

/// What became of an entry.
enum Published {
    Accepted,
    /// The stream holds as many of this partition as it may.
    Full,
    Refused(String),
    /// Nobody knows.
    Lost(Fault),
}

impl Posting<'_> {
    /// Publishes some entries. False if none waits.
    async fn publish(&self) -> Result<bool, Fault> {
        let batches = self.ledger.batches(ENTRIES_MAX, BYTES_MAX);
        if batches.is_empty() {
            return Ok(false);
        }
        let mut sent = Vec::with_capacity(batches.len());
        for Batch {
            partition,
            first,
            entries,
        } in batches
        {
            let subject = self.names.subject(partition);
            let mut answers = Vec::with_capacity(entries.len());
            for (number, entry) in (first..).zip(entries) {
                let mut headers = HeaderMap::new();
                let id = format!("{:016x}-{}-{number}", self.process, partition.index());
                headers.insert(NATS_MESSAGE_ID, id);
                let context = &self.life.context;
                let answer = context
                    .publish_with_headers(subject.clone(), headers, entry)
                    .await;
                answers.push(async move { judge(async { answer?.await.map(drop) }.await) });
            }
            sent.push((partition, join_all(answers)));
        }
        let mut refusal = None;
        for (partition, answers) in sent {
            let mut accepted = 0;
            for answer in answers.await {
                match answer {
                    Published::Accepted => accepted += 1,
                    Published::Full => {
                        self.ledger.accepted(partition, accepted);
                        self.ledger.set_full(partition, true);
                        accepted = 0;
                        break;
                    }
                    Published::Refused(reason) => {
                        refusal.get_or_insert(reason);
                        break;
                    }
                    Published::Lost(fault) => {
                        self.ledger.accepted(partition, accepted);
                        return Err(fault);
                    }
                }
            }
            // What was accepted behind one that was not is sent again, and dropped by the server.
            self.ledger.accepted(partition, accepted);
        }
        if let Some(reason) = refusal {
            tracing::warn!(reason, "nats refuses to keep webhooks");
            sleep(REFUSED_REST).await;
        }
        Ok(true)
    }

    /// Acknowledges some that are done. False if there are none.
    async fn confirm(&self) -> Result<bool, Fault> {
        let dones = self.ledger.dones(DONES_MAX);
        let told = join_all(dones.iter().map(|receipt| self.acknowledge(receipt))).await;
        told.into_iter().collect::<Result<(), Fault>>()?;
        self.ledger.confirmed(dones.len());
        Ok(!dones.is_empty())
    }

    async fn acknowledge(&self, receipt: &Receipt) -> Result<(), Fault> {
        let Some((_, subject)) = receipt.entry.split_once(' ') else {
            return Ok(());
        };
        let client = &self.life.session.client;
        let asked = client.request(subject.to_owned(), Bytes::from_static(b"+ACK"));
        let gone = match timeout(ANSWER_MAX, asked).await {
            Ok(Ok(_)) => return Ok(()),
            // The consumer that gave it is gone: a new owner is about to make another one.
            Ok(Err(error)) => error.kind() == RequestErrorKind::NoResponders,
            Err(_) => false,
        };
        let Ok(number) = key_of(&receipt.entry).parse() else {
            return Ok(());
        };
        if !gone {
            return Err("an acknowledgement was not answered".to_owned());
        }
        let stream = self.life.context.get_stream_no_info(&*self.names.stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        match stream.delete_message(number).await {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                // It is not there any more.
                async_nats::jetstream::stream::DeleteMessageErrorKind::JetStream(_) => Ok(()),
                _ => Err(error.to_string()),
            },
        }
    }
}

fn judge(answer: Result<(), PublishError>) -> Published {
    let Err(error) = answer else {
        return Published::Accepted;
    };
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            tracing::warn!("gave up a webhook that is longer than the nats servers' max_payload");
            Published::Accepted
        }
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::StreamNotFound => {
            Published::Lost(error.to_string())
        }
        _ => match source(&error) {
            Some(error) if error.error_code() == ErrorCode::STREAM_STORE_FAILED => Published::Full,
            Some(error) => Published::Refused(error.to_string()),
            None => Published::Lost(error.to_string()),
        },
    }
}

/// What JetStream itself said.
fn source(error: &PublishError) -> Option<&async_nats::jetstream::Error> {
    std::error::Error::source(error)?.downcast_ref()
}
