//! When an entry of a durable queue is done: as soon as nobody holds its ticket any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Journal, Receipt};

/// Where the tickets of one journal come from.
#[derive(Debug)]
pub(in crate::webhook) struct Tickets {
    journal: Arc<dyn Journal>,
    is_closed: AtomicBool,
}

/// Held by each copy of an event that came out of a journal. The last one that goes tells the journal.
#[derive(Debug)]
pub(in crate::webhook) struct Ticket {
    of: Arc<Tickets>,
    receipt: Receipt,
}

impl Tickets {
    pub(in crate::webhook) fn of(journal: Arc<dyn Journal>) -> Arc<Tickets> {
        Arc::new(Tickets {
            journal,
            is_closed: AtomicBool::new(false),
        })
    }

    pub(in crate::webhook) fn issue(self: &Arc<Tickets>, receipt: Receipt) -> Arc<Ticket> {
        let of = self.clone();
        Arc::new(Ticket { of, receipt })
    }

    /// From now on what is dropped is not done, but left to other nodes.
    pub(in crate::webhook) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.of.is_closed.load(Ordering::Acquire) {
            self.of.journal.done(self.receipt.clone());
        }
    }
}
