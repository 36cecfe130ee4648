//! What Redis gives to the owner of partitions: first what the owner, whichever node that was, has been given and has not
//! acknowledged, then what is new. One task reads all partitions in turn, so that each is given in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Pipeline, Value, pipe};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{CONSUMER, GROUP, Names};
use crate::adapter::redis::{Line, Lines, Open};
use crate::webhook::queue::ledger::Ledger;
use crate::webhook::queue::{Partition, Partitions, Receipt, Taken};

/// Redis answers after so many milliseconds when there is nothing new: so late a change of what is owned is seen.
const BLOCK_MS: u32 = 500;
/// So many entries are read at once, of all partitions together, and of each.
const ENTRIES_MAX: usize = 256;
const ENTRIES_OF_ONE: std::ops::RangeInclusive<usize> = 4..=128;
/// So often it is asked whether anything was given to another node that believed to be the owner, or to this one on a
/// connection that was lost.
const LOOK: Duration = Duration::from_secs(2);
/// After a refusal Redis is left alone for so long.
const REFUSED_REST: Duration = Duration::from_millis(250);
/// After a lost answer: until the connection is known to be lost.
const LOST_REST: Duration = Duration::from_millis(20);

/// How far a partition is read.
#[derive(Debug, PartialEq, Eq)]
enum Cursor {
    /// What was given to the owner before, behind this entry.
    Given(Box<str>),
    /// What is new.
    New,
}

struct Taking<'a> {
    line: &'a Line,
    names: Names,
    ledger: Arc<Ledger>,
    out: mpsc::Sender<Taken>,
    /// Of the partitions that are owned and have a group.
    cursors: BTreeMap<Partition, Cursor>,
    looked: Instant,
}

/// Gives to this node what it owns, until nobody takes it any more.
pub(super) async fn run(lines: Arc<Lines>, names: Names, ledger: Arc<Ledger>, out: mpsc::Sender<Taken>) {
    let mut owned = ledger.owned();
    let mut taking = Taking {
        line: &lines.lines[1],
        names,
        ledger,
        out,
        cursors: BTreeMap::new(),
        looked: Instant::now(),
    };
    let mut life = None;
    loop {
        let mine = *owned.borrow_and_update();
        taking.cursors.retain(|partition, _| mine.contains(*partition));
        if mine == Partitions::NONE {
            if owned.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(mut open) = taking.line.open().await else {
            return;
        };
        if life != Some(open.life()) {
            // What was given on the last connection may have been lost with it.
            taking.cursors.clear();
            life = Some(open.life());
        }
        match taking.step(&mut open, mine).await {
            Ok(()) => {}
            Err(Stop::Lost) => sleep(LOST_REST).await,
            Err(Stop::Refused) => sleep(REFUSED_REST).await,
            Err(Stop::Nobody) => return,
        }
    }
}

/// Why a step ended before its end.
enum Stop {
    /// There was no answer.
    Lost,
    Refused,
    /// Nobody takes entries any more.
    Nobody,
}

impl Taking<'_> {
    async fn step(&mut self, open: &mut Open, owned: Partitions) -> Result<(), Stop> {
        for (partition, cursor) in &mut self.cursors {
            if self.ledger.is_wanted_again(*partition) {
                *cursor = from_the_first(&self.ledger, *partition);
            }
        }
        let gained: Vec<_> = owned
            .iter()
            .filter(|partition| !self.cursors.contains_key(partition))
            .collect();
        if !gained.is_empty() {
            self.begin(open, gained).await?;
        }
        if self.looked.elapsed() >= LOOK {
            self.look(open).await?;
            self.looked = Instant::now();
        }
        self.read(open).await
    }

    async fn ask(&mut self, open: &mut Open, commands: &Pipeline) -> Result<Vec<Value>, Stop> {
        self.line.ask(open, commands).await.ok_or(Stop::Lost)
    }

    /// Looks at a refusal. One for want of a group is mended: somebody has emptied the server.
    fn refused(&mut self, open: &Open, error: &redis::ServerError) -> Stop {
        match error.code() {
            "NOGROUP" | "UNBLOCKED" => self.cursors.clear(),
            _ => self.line.refused(open, error),
        }
        Stop::Refused
    }

    /// Sees to it that the partitions have streams with groups, and reads them from their beginning.
    async fn begin(&mut self, open: &mut Open, gained: Vec<Partition>) -> Result<(), Stop> {
        let mut commands = pipe();
        for partition in &gained {
            let create = commands.cmd("XGROUP").arg("CREATE");
            create
                .arg(self.names.stream(*partition))
                .arg(GROUP)
                .arg("0")
                .arg("MKSTREAM");
        }
        for (partition, reply) in gained.into_iter().zip(self.ask(open, &commands).await?) {
            match reply {
                // It is there; or there is no memory for one, and it may be there all the same.
                Value::ServerError(error) if !matches!(error.code(), "BUSYGROUP" | "OOM") => {
                    return Err(self.refused(open, &error));
                }
                _ => {
                    let cursor = from_the_first(&self.ledger, partition);
                    self.cursors.insert(partition, cursor)
                }
            };
        }
        Ok(())
    }

    /// Finds partitions of which more was given to the owner than this node has.
    async fn look(&mut self, open: &mut Open) -> Result<(), Stop> {
        let new = self.cursors.iter().filter(|(_, cursor)| **cursor == Cursor::New);
        // Counted first: what is done in between makes less of both.
        let known: Vec<_> = new
            .map(|(partition, _)| (*partition, self.ledger.known(*partition)))
            .collect();
        if known.is_empty() {
            return Ok(());
        }
        let mut commands = pipe();
        for (partition, _) in &known {
            commands
                .cmd("XPENDING")
                .arg(self.names.stream(*partition))
                .arg(GROUP);
        }
        for ((partition, known), reply) in known.into_iter().zip(self.ask(open, &commands).await?) {
            let given = match reply {
                Value::Array(parts) => match parts.first() {
                    Some(Value::Int(given)) => usize::try_from(*given).unwrap_or(0),
                    _ => 0,
                },
                Value::ServerError(error) => return Err(self.refused(open, &error)),
                _ => 0,
            };
            if given > known {
                let cursor = from_the_first(&self.ledger, partition);
                self.cursors.insert(partition, cursor);
            }
        }
        Ok(())
    }

    /// Reads some of every partition, waiting a little if there is nothing.
    async fn read(&mut self, open: &mut Open) -> Result<(), Stop> {
        let count = ENTRIES_MAX / self.cursors.len().max(1);
        let count = count.clamp(*ENTRIES_OF_ONE.start(), *ENTRIES_OF_ONE.end());
        let mut commands = pipe();
        let read = commands.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg(CONSUMER);
        read.arg("COUNT")
            .arg(count)
            .arg("BLOCK")
            .arg(BLOCK_MS)
            .arg("STREAMS");
        for partition in self.cursors.keys() {
            read.arg(self.names.stream(*partition));
        }
        for cursor in self.cursors.values() {
            read.arg(match cursor {
                Cursor::Given(entry) => entry,
                Cursor::New => ">",
            });
        }
        let replies = self.ask(open, &commands).await?;
        match replies.into_iter().next() {
            Some(Value::Map(streams)) => {
                for (stream, entries) in streams {
                    self.give(stream, entries, count).await?;
                }
                Ok(())
            }
            Some(Value::ServerError(error)) => Err(self.refused(open, &error)),
            _ => Ok(()),
        }
    }

    /// Gives what was read of one partition.
    async fn give(&mut self, stream: Value, entries: Value, count: usize) -> Result<(), Stop> {
        let (Value::BulkString(stream), Value::Array(entries)) = (stream, entries) else {
            return Ok(());
        };
        let Some(partition) = self.names.partition(&stream) else {
            return Ok(());
        };
        let is_last = entries.len() < count;
        let mut behind = None;
        for entry in entries {
            let Some((id, bytes)) = entry_of(entry) else {
                continue;
            };
            behind = Some(id.clone());
            let receipt = Receipt { partition, entry: id };
            match bytes {
                Some(bytes) => {
                    if let Some(taken) = self.ledger.take(receipt, bytes) {
                        self.out.send(taken).await.map_err(|_| Stop::Nobody)?;
                    }
                }
                // Taken out of the stream by somebody, and yet not acknowledged.
                None => self.ledger.done(receipt),
            }
        }
        if let Some(cursor) = self.cursors.get_mut(&partition)
            && *cursor != Cursor::New
        {
            *cursor = match behind {
                Some(id) if !is_last => Cursor::Given(id),
                _ => Cursor::New,
            };
        }
        Ok(())
    }
}

/// Before the first entry of a partition that is not done: from there on everything comes again that is not in hand.
fn from_the_first(ledger: &Ledger, partition: Partition) -> Cursor {
    ledger.begun(partition);
    Cursor::Given("0".into())
}

/// The name of an entry and its bytes, which are missing where the stream does not have it any more.
fn entry_of(entry: Value) -> Option<(Box<str>, Option<Bytes>)> {
    let Value::Array(parts) = entry else { return None };
    let mut parts = parts.into_iter();
    let Some(Value::BulkString(id)) = parts.next() else {
        return None;
    };
    let id = String::from_utf8(id).ok()?.into_boxed_str();
    let fields = match parts.next() {
        Some(Value::Array(fields)) => fields,
        _ => return Some((id, None)),
    };
    match fields.into_iter().nth(1) {
        Some(Value::BulkString(bytes)) => Some((id, Some(bytes.into()))),
        // Nobody of ours wrote this: it is taken away.
        _ => Some((id, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn entries_are_read_and_what_is_none_is_not() {
        let entry = |fields| Value::Array(vec![text("1-0"), fields]);
        let fields = |fields: &[&str]| Value::Array(fields.iter().map(|field| text(field)).collect());
        assert_eq!(
            entry_of(entry(fields(&["e", "bytes"]))),
            Some(("1-0".into(), Some("bytes".into())))
        );
        for gone in [Value::Nil, fields(&[]), fields(&["e"])] {
            assert_eq!(entry_of(entry(gone)), Some(("1-0".into(), None)));
        }
        for none in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
        ] {
            assert_eq!(entry_of(none), None);
        }
    }
}
