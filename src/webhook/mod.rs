//! News to an app's own back end: from an event to a signed POST request.
//!
//! [`Webhooks::send`] queues an event for each endpoint of the app that asked for such; what runs on the control runtime
//! delivers it:
//!
//! ```text
//! send ─► body (JSON) ─► dispatch ─► endpoint (order, batches, retries) ─► deliver ─► client ─► dead letters
//! ```
//!
//! Knows nothing of the hub, of other nodes or of what makes a channel occupied: who calls knows that an event has come
//! to pass.

mod backoff;
mod body;
mod client;
mod config;
mod dead;
mod deliver;
mod dispatch;
mod endpoint;
mod event;
mod intake;
pub mod queue;
mod report;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::Notify;

pub use config::{WebhookQueue, WebhooksConfig};
pub use event::WebhookEvent;
pub use report::{EndpointReport, EndpointState, LatencyReport, LetterReport, WebhookReport};

use crate::app::{App, WebhookKind};
use crate::metrics::{Metrics, WebhookBrokerSnapshot, WebhookDrop, WebhookSnapshot};
use crate::protocol::ChannelName;
use crate::wall::unix_ms;
use body::Event;
use dead::DeadLetters;
use dispatch::Dispatch;
use queue::{Entry, Journal, Partition, Partitions, Put, Tickets};

/// What became of an event that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Every endpoint that asked for it will be sent it, or it will be counted why not.
    Queued,
    /// There was no room for it with at least one endpoint, for which it is dropped, and counted.
    Full,
    /// No endpoint of the app asks for such events of this channel.
    Unwanted,
}

/// Which dead letters are to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters<'a> {
    /// The one with this id.
    Id(u128),
    /// All of the endpoint with this name.
    Endpoint(&'a str),
}

/// What became of dead letters that were to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redelivered {
    /// They go at once.
    pub sent: usize,
    /// They stay what they are: their endpoint is gone or disabled, or has no room.
    pub left: usize,
}

/// The way of all apps' events to their endpoints. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: WebhooksConfig,
    metrics: Arc<Metrics>,
    dispatch: Mutex<Dispatch>,
    dead: Mutex<DeadLetters>,
    /// Something has been queued, or has come to its end.
    wake: Notify,
    /// A queue that outlives the process, and what tells it what is done.
    journal: Option<Arc<dyn Journal>>,
    tickets: Option<Arc<Tickets>>,
    /// Events that came out of that queue into those of endpoints.
    taken_in: AtomicU64,
    /// The process is about to end.
    is_closing: AtomicBool,
}

impl Webhooks {
    /// Queues with these bounds. Nothing is delivered before [`Webhooks::deliver`] runs.
    pub fn new(config: WebhooksConfig, metrics: Arc<Metrics>) -> Webhooks {
        Webhooks::over(config, metrics, None)
    }

    /// The same, with a queue that outlives the process. What comes out of it is for [`Webhooks::take_in`].
    pub fn durable(config: WebhooksConfig, metrics: Arc<Metrics>, journal: Arc<dyn Journal>) -> Webhooks {
        Webhooks::over(config, metrics, Some(journal))
    }

    fn over(config: WebhooksConfig, metrics: Arc<Metrics>, journal: Option<Arc<dyn Journal>>) -> Webhooks {
        let shared = Shared {
            dispatch: Mutex::new(Dispatch::new(&config)),
            dead: Mutex::new(DeadLetters::new(
                config.dead_letters_max,
                config.dead_letter_bytes_max,
            )),
            wake: Notify::new(),
            is_closing: AtomicBool::new(false),
            taken_in: AtomicU64::new(0),
            tickets: journal.clone().map(Tickets::of),
            journal,
            config,
            metrics,
        };
        Webhooks {
            shared: Arc::new(shared),
        }
    }

    /// Whether the app wants to hear of such an event of this channel: to be asked before anything is done for one. An
    /// app without webhooks answers by one comparison.
    pub fn wants(&self, app: &App, kind: WebhookKind, channel: &ChannelName) -> bool {
        app.settings().endpoints_wanting(kind, channel).next().is_some() && app.is_served()
    }

    /// Queues an event for the endpoints of the app that ask for it. Never waits, and may be called under a channel's
    /// lock; in the order of the calls the events of one channel arrive. `time_ms` is when it happened, in milliseconds
    /// since 1970.
    pub fn send(&self, app: &Arc<App>, event: WebhookEvent, time_ms: u64) -> Sent {
        let (kind, channel) = (event.kind(), event.channel());
        if !self.wants(app, kind, channel) {
            return Sent::Unwanted;
        }
        let id = rand::random();
        let Some(journal) = &self.shared.journal else {
            let event = Event {
                channel: channel.clone(),
                json: event.to_json().into(),
                id,
                time_ms,
                expires: self.shared.expires(time_ms),
                ticket: None,
            };
            return self.enqueue(app, kind, &event);
        };
        let partition = Partition::of(app.id(), channel.as_str());
        let entry = Entry {
            app_id: app.id().to_owned(),
            kind,
            channel: channel.clone(),
            id,
            time_ms,
            json: RawValue::from_string(event.to_json()).expect("an event is written as JSON"),
        };
        match journal.put(partition, entry.encode()) {
            Put::Queued => Sent::Queued,
            Put::Full => {
                let metrics = self.shared.metrics.webhooks(app.id());
                metrics.dropped(WebhookDrop::Full).inc();
                Sent::Full
            }
        }
    }

    /// Puts an event into the queue of each endpoint that asks for it.
    fn enqueue(&self, app: &Arc<App>, kind: WebhookKind, event: &Event) -> Sent {
        let settings = app.settings();
        let mut sent = Sent::Unwanted;
        let mut dispatch = lock(&self.shared.dispatch);
        for target in settings.endpoints_wanting(kind, &event.channel) {
            let metrics = || self.shared.metrics.webhooks(app.id());
            let is_queued = dispatch.push(app, target, metrics, event.clone(), now());
            sent = match (sent, is_queued) {
                (Sent::Full, _) | (_, false) => Sent::Full,
                _ => Sent::Queued,
            };
        }
        drop(dispatch);
        if sent != Sent::Unwanted {
            self.shared.wake.notify_one();
        }
        sent
    }

    /// Tells the queue that outlives the process which part of it is this node's.
    pub fn own(&self, owned: Partitions) {
        // What is in hand when the process is about to end is delivered first: others would do it too.
        if let Some(journal) = &self.shared.journal
            && !self.shared.is_closing.load(Ordering::Acquire)
        {
            journal.own(owned);
        }
    }

    /// Drops what waits for the endpoints of an app that is gone.
    pub fn forget(&self, app_id: &str) {
        lock(&self.shared.dispatch).forget_app(app_id);
    }

    /// How the endpoints of an app are on this node, and what was given up.
    pub fn report(&self, app: &App) -> WebhookReport {
        let settings = app.settings();
        let dispatch = lock(&self.shared.dispatch);
        let endpoints = settings
            .config
            .webhooks
            .iter()
            .enumerate()
            .map(|(index, config)| {
                let name = config.name_at(index);
                let endpoint = dispatch.find(app.id(), &name);
                EndpointReport::of(config, name, endpoint)
            });
        let endpoints = endpoints.collect();
        drop(dispatch);
        let dead = lock(&self.shared.dead);
        let letters = dead
            .of_app(app.id())
            .take(report::LETTERS_MAX)
            .map(LetterReport::of);
        WebhookReport {
            endpoints,
            dead_letters: letters.collect(),
        }
    }

    /// Sends dead letters of an app again: the same bodies with the same ids. None is there: nothing is meant by that.
    pub fn redeliver(&self, app: &Arc<App>, letters: Letters<'_>) -> Option<Redelivered> {
        let settings = app.settings();
        let taken = lock(&self.shared.dead).take(app.id(), |letter| match letters {
            Letters::Id(id) => letter.id == id,
            Letters::Endpoint(name) => &*letter.endpoint == name,
        });
        let is_known = match letters {
            Letters::Id(_) => !taken.is_empty(),
            Letters::Endpoint(name) => !taken.is_empty() || settings.webhooks.find(name).is_some(),
        };
        let mut answer = Redelivered { sent: 0, left: 0 };
        for letter in taken {
            let target = settings.webhooks.find(&letter.endpoint);
            let is_queued = target.is_some_and(|target| {
                let metrics = || self.shared.metrics.webhooks(app.id());
                let events = letter.events.clone();
                lock(&self.shared.dispatch).redeliver(app, target, metrics, events, now())
            });
            match is_queued {
                true => answer.sent += 1,
                false => {
                    answer.left += 1;
                    lock(&self.shared.dead).keep(letter);
                }
            }
        }
        self.shared.wake.notify_one();
        is_known.then_some(answer)
    }

    /// What waits, for a scrape.
    pub fn snapshot(&self) -> Vec<WebhookSnapshot> {
        let mut apps: HashMap<Arc<str>, WebhookSnapshot> = HashMap::new();
        let of = |app_id: &Arc<str>| WebhookSnapshot {
            app_id: app_id.clone(),
            ..WebhookSnapshot::default()
        };
        for (app_id, endpoint) in lock(&self.shared.dispatch).iter() {
            let app = apps.entry(app_id.clone()).or_insert_with(|| of(app_id));
            app.queue_events += endpoint.queue.events() as u64;
            app.queue_bytes += endpoint.queue.bytes() as u64;
        }
        for letter in lock(&self.shared.dead).iter() {
            let app = apps
                .entry(letter.app_id.clone())
                .or_insert_with(|| of(&letter.app_id));
            app.dead_letters += 1;
        }
        apps.into_values().collect()
    }

    /// How the queue is that outlives the process, for a scrape.
    pub fn broker_snapshot(&self) -> Option<WebhookBrokerSnapshot> {
        let figures = self.shared.journal.as_ref()?.figures();
        Some(WebhookBrokerSnapshot {
            unsent: figures.unsent as u64,
            partitions_full: figures.partitions_full as u64,
            partitions_owned: figures.partitions_owned as u64,
            taken: self.shared.taken_in.load(Ordering::Relaxed),
            left: figures.left as u64,
        })
    }
}

impl Shared {
    /// When an event is given up that happened at this time.
    fn expires(&self, time_ms: u64) -> Instant {
        let age = Duration::from_millis(unix_ms().saturating_sub(time_ms));
        now() + Duration::from_secs(self.config.give_up_s.into()).saturating_sub(age)
    }
}

/// The clock of deliveries, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What these locks protect is whole after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
