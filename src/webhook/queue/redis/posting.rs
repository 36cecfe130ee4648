//! What Redis is told: entries that were put, and entries that are done. All in transactions, so that of a batch either
//! everything has happened or nothing, and the order of a partition is kept whatever is refused in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, Value, pipe};
use tokio::time::sleep;

use super::{GROUP, Names};
use crate::adapter::redis::{Line, Lines, Open};
use crate::webhook::queue::ledger::{Batch, Ledger};
use crate::webhook::queue::{Partition, Partitions, Receipt};

/// So many entries are in one transaction, and so many bytes of them.
const ENTRIES_MAX: usize = 512;
const BYTES_MAX: usize = 1024 * 1024;
/// So many that are done.
const DONES_MAX: usize = 1024;
/// After a refusal Redis is left alone for so long.
const REFUSED_REST: Duration = Duration::from_millis(250);
/// After a lost answer: until the connection is known to be lost.
const LOST_REST: Duration = Duration::from_millis(20);
/// So often it is asked whether a full partition has room again.
const FULL_REST: Duration = Duration::from_secs(1);

/// Tells Redis what the ledger holds, for ever.
pub(super) async fn run(lines: Arc<Lines>, names: Names, ledger: Arc<Ledger>) {
    let line = &lines.lines[0];
    while let Some(open) = line.open().await {
        if !post(line, open, &names, &ledger).await {
            let is_full = ledger.full() != Partitions::NONE;
            tokio::select! {
                () = ledger.work() => {}
                () = sleep(FULL_REST), if is_full => {}
            }
        }
    }
}

/// Posts one transaction. False if nothing waits for the next one.
async fn post(line: &Line, mut open: Open, names: &Names, ledger: &Ledger) -> bool {
    let batches = ledger.batches(ENTRIES_MAX, BYTES_MAX);
    let dones = ledger.dones(DONES_MAX);
    let transaction = Transaction::new(names, &batches, &dones, ledger.full());
    if transaction.answers.is_empty() {
        return false;
    }
    let Some(replies) = line.ask(&mut open, &transaction.commands).await else {
        sleep(LOST_REST).await;
        return true;
    };
    match replies.last() {
        Some(Value::Array(results)) if results.len() == transaction.answers.len() => {
            for (answer, result) in transaction.answers.iter().zip(results) {
                match (answer, result) {
                    (Answer::Length(partition), Value::Int(length)) => {
                        let stored = usize::try_from(*length).unwrap_or(usize::MAX);
                        ledger.set_full(*partition, stored >= ledger.room().stored);
                    }
                    // Nothing that Redis may say of a single one would be different next time: something that is no
                    // stream has the name of one.
                    (_, Value::ServerError(error)) => line.refused(&open, error),
                    _ => {}
                }
            }
            for batch in &batches {
                ledger.accepted(batch.partition, batch.entries.len());
            }
            ledger.confirmed(dones.len());
        }
        _ => {
            let mut errors = replies.iter().filter_map(|reply| match reply {
                Value::ServerError(error) => Some(error),
                _ => None,
            });
            // The first says why, the last only that nothing was done.
            if let Some(error) = errors.next() {
                line.refused(&open, error);
            }
            sleep(REFUSED_REST).await;
        }
    }
    !batches.is_empty() || !dones.is_empty()
}

/// What the result of a command tells.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// How many entries the stream has.
    Length(Partition),
    /// Nothing but success.
    Done,
}

/// The commands, and for each of them what its result tells.
struct Transaction {
    commands: Pipeline,
    answers: Vec<Answer>,
}

impl Transaction {
    fn new(names: &Names, batches: &[Batch], dones: &[Receipt], full: Partitions) -> Transaction {
        let mut commands = pipe();
        let mut answers = Vec::new();
        commands.cmd("MULTI");
        let mut done_of: BTreeMap<Partition, Vec<&str>> = BTreeMap::new();
        for receipt in dones {
            done_of.entry(receipt.partition).or_default().push(&receipt.entry);
        }
        for (partition, entries) in done_of {
            let stream = names.stream(partition);
            let acknowledge = commands.cmd("XACK").arg(&stream).arg(GROUP);
            entries.iter().for_each(|entry| {
                acknowledge.arg(*entry);
            });
            let delete = commands.cmd("XDEL").arg(&stream);
            entries.iter().for_each(|entry| {
                delete.arg(*entry);
            });
            answers.extend([Answer::Done, Answer::Done]);
        }
        for Batch {
            partition, entries, ..
        } in batches
        {
            let stream = names.stream(*partition);
            for entry in entries {
                commands
                    .cmd("XADD")
                    .arg(&stream)
                    .arg("*")
                    .arg("e")
                    .arg(&entry[..]);
                answers.push(Answer::Done);
            }
            commands.cmd("XLEN").arg(&stream);
            answers.push(Answer::Length(*partition));
        }
        for partition in full.iter() {
            commands.cmd("XLEN").arg(names.stream(partition));
            answers.push(Answer::Length(partition));
        }
        commands.cmd("EXEC");
        Transaction { commands, answers }
    }
}
