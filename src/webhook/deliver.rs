//! What carries out deliveries: one task that starts requests when they are due, and one for each request on its way.
//!
//! While nothing waits it sleeps without a timer, however many endpoints there are.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper_util::client::legacy::connect::Connect;
use jiff::Timestamp;
use rustls::RootCertStore;
use tokio::task::JoinSet;

use super::body::body;
use super::client::{self, Answer, Letterhead, Pool};
use super::dispatch::Attempt;
use super::dispatch::history::Outcome;
use super::queue::Partitions;
use super::{Shared, Webhooks, lock, now, unix_ms};
use crate::app::Settings;
use crate::metrics::WebhookDrop;

/// How often it is looked whether all is delivered, when the process is about to end.
const LOOK: Duration = Duration::from_millis(20);
/// After so many failed requests in a row the operator is told.
const FAILED_TOLD: u32 = 5;

impl Webhooks {
    /// Delivers what is sent, for ever. The certificates of endpoints may be signed by whom the system trusts, and by
    /// these authorities.
    pub async fn deliver(self, authorities: RootCertStore) {
        let config = self.shared.config.clone();
        self.deliver_over(move || client::pool(&config, authorities))
            .await;
    }

    /// The same over any connections, which are asked for at the first delivery.
    pub(super) async fn deliver_over<C>(self, open: impl FnOnce() -> Pool<C>)
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        let shared = self.shared;
        // Before that nobody needs the store of certificates.
        let mut open = Some(open);
        let mut pool: Option<Pool<C>> = None;
        let mut requests = JoinSet::new();
        loop {
            while let Some(attempt) = shared.next(now()) {
                if pool.is_none() {
                    pool = open.take().map(|open| open());
                }
                if let Some(pool) = &pool {
                    requests.spawn(shared.clone().request(pool.clone(), attempt));
                }
            }
            let due = lock(&shared.dispatch).due();
            tokio::select! {
                () = shared.wake.notified() => {}
                () = sleep_until(due) => {}
                Some(_) = requests.join_next() => {}
            }
        }
    }

    /// Sends what waits without waiting for company or for the time of a retry, until `deadline`; what is left then is
    /// dropped and counted, or left to the durable queue. To be called when nothing is sent any more. The answer is how
    /// many events were dropped.
    pub async fn flush(&self, deadline: Instant) -> usize {
        let shared = &self.shared;
        shared.is_closing.store(true, Ordering::Release);
        lock(&shared.dispatch).hurry(now());
        shared.wake.notify_one();
        while now() < deadline && !shared.is_flushed() {
            tokio::time::sleep(LOOK).await;
        }
        match (&shared.tickets, &shared.journal) {
            (Some(tickets), Some(journal)) => {
                tickets.close();
                journal.own(Partitions::NONE);
                0
            }
            _ => lock(&shared.dispatch).abandon(WebhookDrop::Shutdown),
        }
    }
}

impl Shared {
    /// Whether nothing is left to be sent: nothing at all, or nothing that a durable queue would not keep for others.
    fn is_flushed(&self) -> bool {
        let dispatch = lock(&self.dispatch);
        let Some(journal) = &self.journal else {
            return dispatch.events() == 0;
        };
        let is_due = dispatch.due().is_some_and(|due| due <= now());
        dispatch.under_way() == 0 && !is_due && journal.unsent() == 0
    }

    /// The next request that is to be made now. What is too old to be sent, or has nowhere to go any more, is dealt with
    /// on the way.
    fn next(&self, now: Instant) -> Option<Attempt> {
        loop {
            let mut dispatch = lock(&self.dispatch);
            let mut attempt = dispatch.take(now)?;
            let settings = attempt.app.settings();
            let target = settings.webhooks.find(&attempt.target.name).cloned();
            drop(settings);
            let target = target.filter(|_| attempt.app.is_served());
            let Some(target) = target else {
                dispatch.retire(attempt, now);
                continue;
            };
            if attempt.batch.has_expired(now) {
                let letter = dispatch.expire(attempt, unix_ms(), now);
                drop(dispatch);
                lock(&self.dead).extend(letter);
                continue;
            }
            if !Arc::ptr_eq(&target, &attempt.target) {
                dispatch.aim(attempt.endpoint, &target);
                attempt.target = target;
            }
            return Some(attempt);
        }
    }

    async fn request<C>(self: Arc<Self>, pool: Pool<C>, attempt: Attempt)
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        let begun = now();
        let sending = AssertUnwindSafe(send(&pool, &attempt)).catch_unwind();
        // A batch that is lost here would hold its channels up for ever.
        let answer = sending
            .await
            .unwrap_or_else(|_| Answer::failed("the server failed while it was sent"));
        let ended = now();
        let outcome = Outcome {
            status: answer.status,
            error: answer.error,
            took_ms: u32::try_from(ended.duration_since(begun).as_millis()).unwrap_or(u32::MAX),
            time_ms: unix_ms(),
        };
        let (endpoint, app, target) = (attempt.endpoint, attempt.app.clone(), attempt.target.clone());
        let mut dispatch = lock(&self.dispatch);
        let before = dispatch.failed_in_a_row(endpoint);
        let letter = dispatch.settle(attempt, &outcome, rand::random(), ended);
        let after = dispatch.failed_in_a_row(endpoint);
        drop(dispatch);
        lock(&self.dead).extend(letter);
        tell(app.id(), &target.name, &outcome, before, after);
        self.wake.notify_one();
    }
}

async fn send<C>(pool: &Pool<C>, attempt: &Attempt) -> Answer
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let settings: Arc<Settings> = Arc::clone(&attempt.app.settings());
    let Some(key) = settings.signing_key(Timestamp::now) else {
        return Answer::failed("not sent: the app has no key that may be used now to sign it");
    };
    let target = &attempt.target;
    let head = Letterhead {
        url: &target.url,
        headers: &target.headers,
        key: &key.name,
        secret: key.secret.expose(),
        id: attempt.body_id(),
    };
    let timeout = Duration::from_millis(target.config.timeout_ms.into());
    client::post(pool, &head, body(&attempt.batch.events), timeout).await
}

/// Tells the log of a request, and the operator when an endpoint begins to fail for good, and when it is well again.
fn tell(app: &str, endpoint: &str, outcome: &Outcome, failed_before: u32, failed_now: u32) {
    let (status, error, took_ms) = (outcome.status, outcome.error.as_deref(), outcome.took_ms);
    match (failed_before, failed_now) {
        (FAILED_TOLD.., 0) => tracing::info!(app, endpoint, "webhooks to this endpoint succeed again"),
        (before, FAILED_TOLD) if before < FAILED_TOLD => tracing::warn!(
            app,
            endpoint,
            error,
            "webhooks to this endpoint fail; they are tried again, and GET /apps/ID/webhooks tells how it is"
        ),
        _ => tracing::debug!(app, endpoint, status, error, took_ms, "webhook"),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
