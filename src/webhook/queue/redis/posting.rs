//! What Redis is told: entries that are done, and entries that were put. The latter in a transaction, so that of a batch
//! either everything is stored or nothing, and the order of a partition is kept whatever is refused in between. The former
//! by themselves: a server that has no memory for more still lets go of what is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, ServerError, Value, pipe};
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

/// Posts what is done and one transaction. False if nothing waits for the next one.
async fn post(line: &Line, mut open: Open, names: &Names, ledger: &Ledger) -> bool {
    let dones = ledger.dones(DONES_MAX);
    let batches = ledger.batches(ENTRIES_MAX, BYTES_MAX);
    let mut commands = pipe();
    let let_go = let_go(names, &dones, &mut commands);
    let answers = transaction(names, &batches, ledger.full(), &mut commands);
    if commands.is_empty() {
        return false;
    }
    let Some(replies) = line.ask(&mut open, &commands).await else {
        sleep(LOST_REST).await;
        return true;
    };
    let (of_dones, of_transaction) = replies.split_at(let_go.min(replies.len()));
    let mut refusal = errors(of_dones).next();
    if refusal.is_none() {
        ledger.confirmed(dones.len());
    }
    match of_transaction.last() {
        None => {}
        Some(Value::Array(results)) if results.len() == answers.len() => {
            for (partition, result) in answers.iter().zip(results) {
                if let (Some(partition), Value::Int(length)) = (partition, result) {
                    let stored = usize::try_from(*length).unwrap_or(usize::MAX);
                    ledger.set_full(*partition, stored >= ledger.room().stored);
                }
            }
            // Nothing that Redis may say of a single one would be different next time: something that is no stream has
            // the name of one.
            if let Some(error) = errors(results).next() {
                line.refused(&open, error);
            }
            for batch in &batches {
                ledger.accepted(batch.partition, batch.entries.len());
            }
        }
        // The first says why, the last only that nothing was done.
        Some(_) => refusal = errors(of_transaction).next(),
    }
    if let Some(error) = refusal {
        line.refused(&open, error);
        sleep(REFUSED_REST).await;
    }
    !batches.is_empty() || !dones.is_empty()
}

fn errors(replies: &[Value]) -> impl Iterator<Item = &ServerError> {
    replies.iter().filter_map(|reply| match reply {
        Value::ServerError(error) => Some(error),
        _ => None,
    })
}

/// Adds what lets go of entries; the answer is how many commands that takes.
fn let_go(names: &Names, dones: &[Receipt], commands: &mut Pipeline) -> usize {
    let mut done_of: BTreeMap<Partition, Vec<&str>> = BTreeMap::new();
    for receipt in dones {
        done_of.entry(receipt.partition).or_default().push(&receipt.entry);
    }
    for (partition, entries) in &done_of {
        let stream = names.stream(*partition);
        commands.cmd("XACK").arg(&stream).arg(GROUP).arg(entries);
        commands.cmd("XDEL").arg(&stream).arg(entries);
    }
    2 * done_of.len()
}

/// Adds what stores entries, and asks how many there are of each partition that is concerned. The answers say of which
/// partition each result tells that.
fn transaction(
    names: &Names,
    batches: &[Batch],
    full: Partitions,
    commands: &mut Pipeline,
) -> Vec<Option<Partition>> {
    let mut answers = Vec::new();
    if batches.is_empty() && full == Partitions::NONE {
        return answers;
    }
    commands.cmd("MULTI");
    for batch in batches {
        let stream = names.stream(batch.partition);
        for entry in &batch.entries {
            let add = commands.cmd("XADD").arg(&stream).arg("*");
            add.arg("e").arg(&entry[..]);
            answers.push(None);
        }
    }
    let concerned = batches.iter().map(|batch| batch.partition);
    for partition in concerned.chain(full.iter()) {
        commands.cmd("XLEN").arg(names.stream(partition));
        answers.push(Some(partition));
    }
    commands.cmd("EXEC");
    answers
}
