//! The durable queue in Redis Streams: a stream for each partition, and one group of consumers in each.
//!
//! ```text
//! put ─► ledger ─► posting: XADD ─► stream ─► XREADGROUP: taking ─► given to this node
//!                  posting: XACK, XDEL ◄─ ledger ◄─ done
//! ```
//!
//! **One consumer.** All nodes read as the same consumer, the owner, since a partition has one owner at a time. So what
//! a node that died had been given is what this consumer has not acknowledged: its successor reads that first, in order,
//! and then what is new. Nothing has to be claimed from anybody, and no node leaves anything of its own behind. While two
//! nodes believe they own the same partition, each new entry still goes to one of them only.
//!
//! **One slot.** All streams are in one slot of a cluster: so one command reads all that a node owns, and one transaction
//! writes. What webhooks there are, one server bears easily.

mod posting;
mod taking;

use std::sync::Arc;

use tokio::sync::mpsc;

use super::kept::Kept;
use super::ledger::{self, Ledger};
use super::{OpenJournal, Partition, Room};
use crate::adapter::redis::{Lines, RedisConfig, RedisFault};

/// The group of consumers in each stream.
const GROUP: &str = "fanwire";
/// The one consumer in it.
const CONSUMER: &str = "owner";

/// What the streams are called.
#[derive(Clone, Debug)]
struct Names {
    /// With braces around it, so that all that is named behind it falls into one slot.
    stem: String,
}

impl Names {
    fn new(prefix: &str) -> Names {
        Names { stem: stem(prefix) }
    }

    fn stream(&self, partition: Partition) -> String {
        format!("{}.{}", self.stem, partition.index())
    }

    /// The partition of a stream, if it is one of these.
    fn partition(&self, stream: &[u8]) -> Option<Partition> {
        let number = std::str::from_utf8(stream).ok()?.strip_prefix(&self.stem)?;
        Partition::at(number.strip_prefix('.')?.parse().ok()?)
    }
}

/// What the names of all streams begin with.
pub(super) fn stem(prefix: &str) -> String {
    format!("{{{prefix}.webhooks}}")
}

/// Begins to connect. Redis need not be there yet.
///
/// The error is about a setting of the section `redis`.
///
/// # Panics
/// Outside a tokio runtime with time and I/O.
pub fn open(config: &RedisConfig, prefix: &str, room: Room) -> Result<OpenJournal, RedisFault> {
    let names = Names::new(prefix);
    // Who waits for new entries holds up what comes behind it on the same connection.
    let lines = Arc::new(Lines::open(config, &names.stem, 2)?);
    let ledger = Arc::new(Ledger::new(room, ledger::whole));
    let (out, taken) = mpsc::channel(room.taken);
    let posting = posting::run(lines.clone(), names.clone(), ledger.clone());
    let taking = taking::run(lines, names, ledger.clone(), out);
    let mut kept = Kept::new(ledger);
    kept.spawn(posting);
    kept.spawn(taking);
    Ok((Arc::new(kept), taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_after_its_partition() {
        let names = Names::new("a.b");
        let partition = Partition::at(63).expect("a partition");
        assert_eq!(names.stream(partition), "{a.b.webhooks}.63");
        assert_eq!(names.partition(b"{a.b.webhooks}.63"), Some(partition));
        for foreign in [
            "{a.b.webhooks}.64",
            "{a.b.webhooks}",
            "{a.b.webhooks}.",
            "{a.webhooks}.1",
            "",
        ] {
            assert_eq!(names.partition(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
