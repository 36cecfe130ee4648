//! Apps: the tenants of the server, with their names, keys, limits and policies.
//!
//! [`AppConfig`] is what an operator writes, [`Settings`] what the server makes of it, [`App`] the tenant itself, whose
//! settings may be replaced while it is served, and [`Apps`] finds one by id or key. Not here: channels and sockets of
//! an app (the hub's), and the signatures made with its secrets (the protocol's).

mod config;
mod directory;
mod keys;
mod lookup;
mod origin;
mod pattern;
mod policy;
mod quota;
mod rates;
mod settings;
mod store;
mod stored;
mod usage;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};

pub use config::{AppConfig, Fault, PingMode};
pub use directory::Apps;
pub use keys::{Key, KeyConfig, KeyState};
pub use lookup::{LookupBounds, NotFound, QUESTIONS_MAX, Question};
pub use origin::{OriginError, OriginPattern};
pub use policy::{ChannelRule, Explained, Explanation, Policy};
pub use quota::Admission;
pub use rates::Rated;
pub use settings::{Limits, Settings};
pub use store::{
    AppName, AppRecord, AppStore, KeyRecord, NAME_BYTES_MAX, NAMES_MAX, StoreError, UsageBatch, UsageDay,
};
pub use stored::{NotTaken, Sweep};
pub use usage::{Day, OverQuota, Readings, USAGE_DAYS_MAX};
pub use webhook::{
    ID_HEADER, KEY_HEADER, SIGNATURE_HEADER, WebhookBatch, WebhookConfig, WebhookEndpoint, WebhookEndpoints,
    WebhookFilter, WebhookKind, WebhookUrl,
};

pub use crate::secret::{REDACTED, Secret};

use jiff::Timestamp;
use quota::Quota;
use rates::Rates;
use usage::Usage;

use crate::limit::SharedBucket;
use crate::protocol::CloseCode;

/// One app: who it is, what it uses and what is taken of its quotas, and its settings of now. Whoever serves a part of it holds the same
/// one, so that a change of its settings is everybody's at once.
#[derive(Debug)]
pub struct App {
    id: Arc<str>,
    settings: ArcSwap<Settings>,
    /// Not so once it was removed, or as long as only other nodes serve it.
    is_served: AtomicBool,
    connections: Quota,
    rates: Rates,
    usage: Usage,
    /// Whether somebody looked for it since [`Apps::sweep`] last asked.
    was_wanted: AtomicBool,
    /// Whether it is of a store.
    is_stored: AtomicBool,
}

impl App {
    /// An app with these settings, which also say its id.
    pub fn new(settings: Settings) -> App {
        App {
            id: settings.config.id.as_str().into(),
            settings: ArcSwap::from_pointee(settings),
            is_served: AtomicBool::new(true),
            connections: Quota::default(),
            rates: Rates::default(),
            usage: Usage::since(Day::of(Timestamp::now())),
            was_wanted: AtomicBool::new(true),
            is_stored: AtomicBool::new(false),
        }
    }

    /// One that is not served here, and of which nothing but its id is known.
    fn unserved(id: &str) -> App {
        let app = App::new(Settings::unserved(id));
        app.is_served.store(false, Ordering::Release);
        app
    }

    /// The id in the paths of the HTTP API. Never changes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The settings of this moment. To be taken once for what belongs together, and not to be kept.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Replaces the settings, as a whole. What follows from it for those who are connected is the caller's business.
    pub fn set(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Whether it is one of the apps of this server, and not one that was, or that only other nodes know.
    pub fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Acquire)
    }

    /// Why nobody may be connected to it at this moment, if so: it is not served here, or disabled.
    pub fn closed(&self) -> Option<CloseCode> {
        if !self.is_served.load(Ordering::Acquire) {
            Some(CloseCode::NoSuchApp)
        } else if !self.settings().config.enabled {
            Some(CloseCode::AppDisabled)
        } else {
            None
        }
    }

    /// Takes one place of the connection quota, given back when the answer is dropped. `None`: the app is
    /// full.
    pub fn admit(self: &Arc<App>) -> Option<Admission> {
        Admission::take(self)
    }

    /// Connections admitted on this node and not yet gone.
    pub fn connections(&self) -> usize {
        self.connections.taken()
    }

    /// Connections on all nodes of the cluster, as far as the others said.
    pub fn connections_everywhere(&self) -> usize {
        self.connections.taken() + self.connections.elsewhere()
    }

    /// The other nodes have so many connections: they count against the quota.
    pub fn set_connections_elsewhere(&self, connections: usize) {
        self.connections.set_elsewhere(connections);
        self.usage.note_connections(self.connections_everywhere());
    }

    /// What is left, on this node, of what the app may do per second: see [`Limits::rate`].
    pub fn bucket(&self, rated: Rated) -> &SharedBucket {
        self.rates.of(rated)
    }

    /// Counts messages that are about to be published: one for each event and channel. All or none of them; an app
    /// without a quota is never refused, and asks no clock.
    ///
    /// # Errors
    /// The quota of the day does not allow them.
    pub fn charge_messages(&self, count: u64, now: impl FnOnce() -> Timestamp) -> Result<(), OverQuota> {
        let max = self.settings().limits.messages_per_day;
        self.usage.charge(count, max, now)
    }

    /// Messages charged on this node since it knows the app.
    pub fn messages(&self) -> u64 {
        self.usage.messages()
    }

    /// Books what the app used since the last time, which the counters tell. The answer is what was used today, on this
    /// node since its start; of connections, the most on all nodes together.
    pub fn settle_usage(&self, now: Timestamp, readings: Readings) -> UsageDay {
        self.usage.settle(now, readings, || self.connections_everywhere())
    }

    /// What was used on this node and no store has, as of the last settlement: at most [`USAGE_DAYS_MAX`] days, the
    /// oldest first.
    pub fn unsaved_usage(&self) -> Vec<UsageDay> {
        self.usage.unsaved()
    }

    /// The same, for whoever saves it, or keeps it until it can.
    pub fn take_unsaved_usage(&self) -> Vec<UsageDay> {
        self.usage.take_unsaved()
    }

    /// Whether all was taken that the counters tell.
    pub fn is_usage_saved(&self, readings: Readings) -> bool {
        self.usage.is_saved(readings)
    }

    /// A store has so many messages of this day, among them all of this node but the unsaved ones: what is beyond those
    /// counts against the quota here too.
    pub fn set_messages_saved(&self, day: Day, saved: u64) {
        self.usage.set_messages_saved(day, saved);
    }
}
