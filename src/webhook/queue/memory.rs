//! A durable queue in this process, for tests of what uses one: the journals of several nodes over one store, which
//! outlives them, and faults on demand. Passes the suite that Redis and NATS pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::kept::Kept;
use super::ledger::{Ledger, whole};
use super::{OpenJournal, PARTITIONS, Partition, Partitions, Receipt, Room, Taken};

/// What all nodes share. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stored: Mutex<Stored>,
    /// Told at each change.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Stored {
    is_up: bool,
    last: u64,
    partitions: Vec<BTreeMap<u64, Bytes>>,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// An empty one.
    pub fn new() -> Store {
        let stored = Stored {
            is_up: true,
            last: 0,
            partitions: (0..PARTITIONS).map(|_| BTreeMap::new()).collect(),
        };
        Store {
            inner: Arc::new(Inner {
                stored: Mutex::new(stored),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// Whether journals reach it, or wait until they do.
    pub fn set_up(&self, is_up: bool) {
        self.change(|stored| stored.is_up = is_up);
    }

    /// How many entries there are that are not done.
    pub fn len(&self) -> usize {
        self.with(|stored| stored.partitions.iter().map(BTreeMap::len).sum())
    }

    /// Whether all entries are done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with<T>(&self, act: impl FnOnce(&mut Stored) -> T) -> T {
        // No step panics half way.
        act(&mut self.inner.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, act: impl FnOnce(&mut Stored)) {
        self.with(act);
        self.inner.changes.send_modify(|number| *number += 1);
    }

    /// A node's journal over it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(&self, room: Room) -> OpenJournal {
        let ledger = Arc::new(Ledger::new(room, whole));
        let (out, taken) = mpsc::channel(room.taken);
        let mut kept = Kept::new(ledger.clone());
        kept.spawn(post(self.clone(), ledger.clone()));
        kept.spawn(take(self.clone(), ledger, out));
        (Arc::new(kept), taken)
    }

    /// Does what the ledger holds, if the store can be reached.
    fn work(&self, ledger: &Ledger) {
        if ledger.unsent() == 0 || !self.with(|stored| stored.is_up) {
            return;
        }
        self.change(|stored| {
            let dones = ledger.dones(usize::MAX);
            for receipt in &dones {
                let partition = usize::from(receipt.partition.index());
                if let Ok(number) = receipt.entry.parse() {
                    stored.partitions[partition].remove(&number);
                }
            }
            ledger.confirmed(dones.len());
            for batch in ledger.batches(usize::MAX, usize::MAX) {
                let entries = batch.entries.len();
                for entry in batch.entries {
                    stored.last += 1;
                    let partition = usize::from(batch.partition.index());
                    stored.partitions[partition].insert(stored.last, entry);
                }
                ledger.accepted(batch.partition, entries);
            }
        });
    }

    fn tell_full(&self, ledger: &Ledger) {
        let stored = ledger.room().stored;
        let full: Partitions = self.with(|now| {
            let of = |partition: &Partition| now.partitions[usize::from(partition.index())].len();
            Partition::all()
                .filter(|partition| of(partition) >= stored)
                .collect()
        });
        for partition in Partition::all() {
            ledger.set_full(partition, full.contains(partition));
        }
    }

    /// The first entry of the partition behind this number.
    fn next(&self, partition: Partition, behind: u64) -> Option<(u64, Bytes)> {
        self.with(|stored| {
            let mut entries = stored.partitions[usize::from(partition.index())].range(behind + 1..);
            let (number, entry) = entries.next().filter(|_| stored.is_up)?;
            Some((*number, entry.clone()))
        })
    }
}

async fn post(store: Store, ledger: Arc<Ledger>) {
    let mut changes = store.inner.changes.subscribe();
    loop {
        changes.mark_unchanged();
        store.work(&ledger);
        store.tell_full(&ledger);
        tokio::select! {
            () = ledger.work() => {}
            _ = changes.changed() => {}
        }
    }
}

async fn take(store: Store, ledger: Arc<Ledger>, out: mpsc::Sender<Taken>) {
    let mut changes = store.inner.changes.subscribe();
    let mut owned = ledger.owned();
    let mut reached: BTreeMap<Partition, u64> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let mine = *owned.borrow_and_update();
        reached.retain(|partition, _| mine.contains(*partition) && !ledger.is_wanted_again(*partition));
        let mut some = false;
        for partition in mine.iter() {
            let behind = reached.entry(partition).or_insert_with(|| {
                ledger.begun(partition);
                0
            });
            let Some((number, entry)) = store.next(partition, *behind) else {
                continue;
            };
            (*behind, some) = (number, true);
            let receipt = Receipt {
                partition,
                entry: number.to_string().into(),
            };
            if let Some(taken) = ledger.take(receipt, entry)
                && out.send(taken).await.is_err()
            {
                return;
            }
        }
        if some {
            continue;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = ledger.again() => {}
            changed = owned.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
