//! Where apps come from that the configuration does not name: what a store is asked, and how it may fail.
//!
//! Knows nothing of SQL, and nothing of what is remembered of its answers: that is the directory's.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use serde_json::{Map, Value, json};

use crate::secret::Secret;

/// Longest id or key of an app in a store, in bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 500;
/// Longest settings, in bytes.
const SETTINGS_BYTES_MAX: usize = 1024 * 1024;

/// What an app is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AppName {
    /// As in `/apps/ID/events`.
    Id(Box<str>),
    /// As in `/app/KEY`.
    Key(Box<str>),
}

impl AppName {
    /// The id or the key.
    pub fn as_str(&self) -> &str {
        match self {
            AppName::Id(id) => id,
            AppName::Key(key) => key,
        }
    }

    /// Whether an app can have it at all; no store is asked for one that cannot be.
    pub fn is_possible(&self) -> bool {
        let name = self.as_str();
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(super::config::is_plain_in_a_path)
    }
}

/// An app as a store has it: raw, and perhaps wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppRecord {
    /// The id.
    pub id: String,
    /// A name for humans.
    pub name: Option<String>,
    /// Whether the app may be used.
    pub enabled: bool,
    /// A JSON object, with the names of the configuration file, of what differs from the defaults.
    pub settings: String,
    /// Its keys, the oldest first. An app without any cannot be used.
    pub keys: Vec<KeyRecord>,
}

/// One key of an app as a store has it. The times are RFC 3339 text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRecord {
    /// The public key.
    pub key: String,
    /// What is signed with.
    pub secret: Secret,
    /// It counts from then on; none: it always did.
    pub active_from: Option<String>,
    /// It does not count from then on; none: it always will.
    pub expires_at: Option<String>,
}

impl AppRecord {
    /// Whether a store can hold it.
    ///
    /// # Errors
    /// What is too long, for a person.
    pub fn fits(&self) -> Result<(), String> {
        let keys = self.keys.iter();
        let lengths = [
            ("id", self.id.len(), NAME_BYTES_MAX),
            (
                "name",
                self.name.as_ref().map_or(0, |name| name.chars().count()),
                NAME_BYTES_MAX,
            ),
            (
                "key",
                keys.clone().map(|key| key.key.len()).max().unwrap_or(0),
                NAME_BYTES_MAX,
            ),
            (
                "secret",
                keys.map(|key| key.secret.expose().len()).max().unwrap_or(0),
                SECRET_BYTES_MAX,
            ),
            ("settings", self.settings.len(), SETTINGS_BYTES_MAX),
        ];
        match lengths.iter().find(|(_, length, max)| length > max) {
            Some((what, _, max)) => Err(format!("{what}: is longer than the {max} that a store holds")),
            None => Ok(()),
        }
    }

    /// A number that changes with anything in it, within this process.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// The app as it would stand in the configuration file, secrets and all.
    ///
    /// # Errors
    /// What is wrong, for a person; never a value.
    pub fn written(&self) -> Result<Value, String> {
        let mut app: Map<String, Value> = match serde_json::from_str(&self.settings) {
            Ok(settings) => settings,
            Err(error) => return Err(format!("settings: must be a JSON object: {error}")),
        };
        for own in ["id", "name", "enabled", "key", "secret", "secret_file", "keys"] {
            if app.contains_key(own) {
                let place = match own {
                    "id" | "name" | "enabled" => "in a column of its own",
                    _ => "in the table app_keys",
                };
                return Err(format!(
                    "settings.{own}: stands {place}: remove it from `settings`"
                ));
            }
        }
        // All of them among the further keys, where each may have its times.
        let keys = self.keys.iter().map(|record| {
            json!({
                "key": record.key,
                "secret": record.secret.expose(),
                "active_from": record.active_from,
                "expires_at": record.expires_at,
            })
        });
        app.insert("keys".into(), keys.collect());
        app.insert("id".into(), json!(self.id));
        app.insert("name".into(), json!(self.name));
        app.insert("enabled".into(), json!(self.enabled));
        Ok(app.into())
    }
}

/// What an app used on one day, or a part of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageDay {
    /// The day, in UTC.
    pub day: Date,
    /// Messages that count for the quota: one for each event that the API published to a channel, and for each client
    /// event.
    pub messages: u64,
    /// Messages sent to sockets, one for each message and recipient.
    pub delivered: u64,
    /// Bytes sent to sockets and in answers of the API.
    pub bytes_sent: u64,
    /// Bytes that came in, from sockets and to the API.
    pub bytes_received: u64,
    /// Most connections at once.
    pub connections_peak: u64,
}

/// What apps used, to be added to a store once, however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageBatch {
    /// Whose batch it is: one process, by a name that no other has or had.
    pub writer: String,
    /// Which of its batches. Each begins when the one before was added.
    pub number: u64,
    /// Which app used what on which day.
    pub used: Vec<(String, UsageDay)>,
}

impl UsageDay {
    /// A day on which nothing was used yet.
    pub fn new(day: Date) -> UsageDay {
        UsageDay {
            day,
            messages: 0,
            delivered: 0,
            bytes_sent: 0,
            bytes_received: 0,
            connections_peak: 0,
        }
    }

    /// Adds what was used on the same day.
    pub fn add(&mut self, more: &UsageDay) {
        self.messages = self.messages.saturating_add(more.messages);
        self.delivered = self.delivered.saturating_add(more.delivered);
        self.bytes_sent = self.bytes_sent.saturating_add(more.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(more.bytes_received);
        self.connections_peak = self.connections_peak.max(more.connections_peak);
    }
}

/// Why a store gives no answer. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. It may be better in a moment.
    #[error("the store does not answer: {0}")]
    Down(String),
    /// It answers, but its tables are not those that this version works with.
    #[error("{0}")]
    Schema(String),
    /// It refuses what was asked.
    #[error("the store refuses: {0}")]
    Refused(String),
}

/// A place that apps are kept in.
pub trait AppStore: Send + Sync + fmt::Debug {
    /// The apps with these ids or keys; names that nothing has are missing from the answer, and an app that was asked
    /// for by several names may be there once. No more than [`NAMES_MAX`] names at once.
    fn find(&self, names: Vec<AppName>) -> BoxFuture<'_, Result<Vec<AppRecord>, StoreError>>;

    /// Adds to what apps used on some days: messages and bytes are added up, of peaks the greatest stays. All or
    /// nothing. After [`StoreError::Down`] nobody knows which, and the same batch may be sent again: it counts once.
    fn add_usage<'a>(&'a self, batch: &'a UsageBatch) -> BoxFuture<'a, Result<(), StoreError>>;

    /// What an app used on its last `days` days that it was used on at all, the newest first.
    fn usage<'a>(&'a self, app_id: &'a str, days: u32) -> BoxFuture<'a, Result<Vec<UsageDay>, StoreError>>;

    /// The messages of one day, of those of these apps that have any. No more than [`NAMES_MAX`] apps at once.
    fn messages<'a>(
        &'a self,
        day: Date,
        app_ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, StoreError>>;

    /// Whether it can be used at all: it answers, and its tables are those that are expected.
    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What to call it in logs and metrics, such as `postgres`.
    fn kind(&self) -> &'static str;
}

/// Names that a store may be asked for at once.
pub const NAMES_MAX: usize = 100;
