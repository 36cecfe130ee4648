//! A journal that a broker keeps: its ledger, and the tasks that speak with the broker for it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::{Journal, JournalFigures, Partition, Partitions, Put, Receipt};

/// See the head of this file. The tasks end with it.
#[derive(Debug)]
pub(super) struct Kept {
    ledger: Arc<Ledger>,
    tasks: JoinSet<()>,
}

impl Kept {
    pub(super) fn new(ledger: Arc<Ledger>) -> Kept {
        Kept {
            ledger,
            tasks: JoinSet::new(),
        }
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }
}

impl Journal for Kept {
    fn put(&self, partition: Partition, entry: Bytes) -> Put {
        self.ledger.put(partition, entry)
    }

    fn own(&self, owned: Partitions) {
        self.ledger.own(owned);
    }

    fn done(&self, receipt: Receipt) {
        self.ledger.done(receipt);
    }

    fn leave(&self, receipt: Receipt) -> u64 {
        self.ledger.leave(&receipt)
    }

    fn give_again(&self, partitions: Partitions) {
        self.ledger.give_again(partitions);
    }

    fn unsent(&self) -> usize {
        self.ledger.unsent()
    }

    fn figures(&self) -> JournalFigures {
        self.ledger.figures()
    }
}
