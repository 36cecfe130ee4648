//! What comes out of a durable queue, on its way into the queues of endpoints.
//!
//! The queue can keep more than this process may. So an event waits at the broker while none of the endpoints that want it
//! has room (see [`left`]), and holds up nobody else meanwhile. If some have room and some have not, it is taken in for
//! those that have, and counted as dropped for the others: an endpoint that hangs must not delay one that does not.

mod left;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::body::Event;
use super::queue::{Entry, Journal, Partitions, Receipt, Taken, Tickets};
use super::{Webhooks, lock, now};
use crate::app::{App, NotFound, WebhookKind};
use crate::metrics::WebhookDrop;
use left::{LeftBehind, Name};

/// How often it is looked whether there is room again in the process.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked whether endpoints have room again for what was left.
const LOOK_AT_LEFT: Duration = Duration::from_secs(1);
/// An app that nobody could tell of is asked for again after so long: who asks holds the others up meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Stands in place of an endpoint for all of an app; none is called so.
const WHOLE: &str = "";

impl Webhooks {
    /// Takes the entries of a durable queue in, one after the other, until there are none any more. `find` knows the
    /// apps; entries of one that nobody can tell of wait at the broker.
    pub async fn take_in<F>(self, mut taken: mpsc::Receiver<Taken>, find: impl Fn(String) -> F)
    where
        F: Future<Output = Result<Arc<App>, NotFound>>,
    {
        let (Some(tickets), Some(journal)) = (self.shared.tickets.clone(), self.shared.journal.clone())
        else {
            return;
        };
        let mut intake = Intake {
            webhooks: self,
            tickets,
            journal,
            left: LeftBehind::default(),
            not_known: HashMap::new(),
        };
        let mut look = Instant::now() + LOOK_AT_LEFT;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(look), if !intake.left.is_empty() => {
                    intake.look();
                    look = Instant::now() + LOOK_AT_LEFT;
                }
                next = taken.recv() => {
                    // What comes at the end is for others.
                    let is_closing = intake.webhooks.shared.is_closing.load(Ordering::Acquire);
                    let Some(next) = next.filter(|_| !is_closing) else {
                        return;
                    };
                    intake.take(next, &find).await;
                }
            }
        }
    }
}

/// Between the journal and the queues of endpoints.
struct Intake {
    webhooks: Webhooks,
    tickets: Arc<Tickets>,
    journal: Arc<dyn Journal>,
    left: LeftBehind,
    /// Apps of which nobody could tell whether there are such, and when that is asked again.
    not_known: HashMap<Arc<str>, std::time::Instant>,
}

impl Intake {
    /// Takes an entry in, or leaves it at the broker.
    async fn take<F>(&mut self, taken: Taken, find: &impl Fn(String) -> F)
    where
        F: Future<Output = Result<Arc<App>, NotFound>>,
    {
        let Taken {
            receipt,
            entry,
            round,
        } = taken;
        let shared = self.webhooks.shared.clone();
        let Some(entry) = Entry::decode(&entry) else {
            tracing::warn!("an entry of the webhook queue cannot be read; it is dropped");
            return self.journal.done(receipt);
        };
        let whole: Name = (entry.app_id.as_str().into(), WHOLE.into());
        let waits = self.left.would_overtake(&whole, receipt.partition, round);
        if waits || self.not_known.contains_key(&whole.0) {
            return self.leave([whole], receipt);
        }
        let app = match find(entry.app_id.clone()).await {
            Ok(app) => app,
            // What belongs to an app that is gone is done.
            Err(NotFound::Unknown) => return self.journal.done(receipt),
            Err(NotFound::Unavailable) => {
                self.not_known.insert(whole.0.clone(), now() + ASK_AGAIN);
                return self.leave([whole], receipt);
            }
        };
        self.left.took(&whole, receipt.partition);
        // No app could be given anything.
        while lock(&shared.dispatch).is_full() {
            sleep(LOOK).await;
        }
        let event = Event {
            channel: entry.channel,
            json: Box::<str>::from(entry.json).into(),
            id: entry.id,
            time_ms: entry.time_ms,
            expires: shared.expires(entry.time_ms),
            ticket: None,
        };
        match self.share_out(&app, entry.kind, event, &receipt, round) {
            Fate::Unwanted => self.journal.done(receipt),
            Fate::Taken => {
                shared.taken_in.fetch_add(1, Ordering::Relaxed);
                shared.wake.notify_one();
            }
            Fate::Left(names) => self.leave(names, receipt),
        }
    }

    /// Leaves an entry at the broker that is for these.
    fn leave(&mut self, names: impl IntoIterator<Item = Name>, receipt: Receipt) {
        let (partition, round) = (receipt.partition, self.journal.leave(receipt));
        for name in names {
            self.left.leave(name, partition, round);
        }
    }

    /// Puts an event into the queues of the endpoints that ask for it and have room, unless it would overtake there what
    /// was left.
    fn share_out(
        &mut self,
        app: &Arc<App>,
        kind: WebhookKind,
        event: Event,
        receipt: &Receipt,
        round: u64,
    ) -> Fate {
        let settings = app.settings();
        let app_id: Arc<str> = app.id().into();
        let shared = &self.webhooks.shared;
        let mut dispatch = lock(&shared.dispatch);
        let wanting = settings.endpoints_wanting(kind, &event.channel);
        let (may_have, full): (Vec<_>, Vec<_>) = wanting
            .map(|target| (target, (app_id.clone(), target.name.clone())))
            .partition(|(target, name)| {
                !self.left.would_overtake(name, receipt.partition, round)
                    && dispatch.has_room_for(app.id(), &target.name, 1, event.bytes())
            });
        let full: Vec<_> = full.into_iter().map(|(_, name)| name).collect();
        if may_have.is_empty() {
            return match full.is_empty() {
                true => Fate::Unwanted,
                false => Fate::Left(full),
            };
        }
        let event = Event {
            ticket: Some(self.tickets.issue(receipt.clone())),
            ..event
        };
        let metrics = shared.metrics.webhooks(app.id());
        for (target, name) in may_have {
            // Counted by itself if there is no room for two.
            let _ = dispatch.push(app, target, || metrics.clone(), event.clone(), now());
            self.left.took(&name, receipt.partition);
        }
        metrics.dropped(WebhookDrop::Full).inc_by(full.len() as u64);
        Fate::Taken
    }

    /// Has the journal give again what was left for endpoints that have room by now, and for apps that are to be asked
    /// for again.
    fn look(&mut self) {
        let now = now();
        self.not_known.retain(|_, asked_again| now < *asked_again);
        let dispatch = lock(&self.webhooks.shared.dispatch);
        let wanted = self.left.wanted(now, |(app_id, name)| match &**name {
            WHOLE => !self.not_known.contains_key(app_id),
            name => dispatch.has_much_room_for(app_id, name),
        });
        drop(dispatch);
        if wanted != Partitions::NONE {
            self.journal.give_again(wanted);
        }
    }
}

/// What becomes of an entry.
enum Fate {
    /// No endpoint asks for such.
    Unwanted,
    /// At least one has it.
    Taken,
    /// It stays at the broker: these ask for it and have no room.
    Left(Vec<Name>),
}

#[cfg(test)]
mod tests;
