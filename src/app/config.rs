//! What an operator writes about one app: names, switches and limits, with their defaults.
//!
//! Only the shape and what is wrong about a value by itself; [`App`](super::App) is the form the server works
//! with.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keys::KeyConfig;
use super::origin::OriginPattern;
use super::policy::{self, ChannelRule};
use super::webhook::WebhookConfig;
use crate::secret::{REDACTED, Secret};

/// One app: a tenant with its own key, secret, channels and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["id"]))]
pub struct AppConfig {
    /// Identifies the app in the paths of the HTTP API (`/apps/ID/events`). Required, unique, always text:
    /// write `"1"`, not `1`. The official Python SDK accepts only digits here.
    pub id: String,
    /// Identifies the app in the path that clients connect to (`/app/KEY`) and in every signature. Required unless
    /// there are `keys`; unique, public.
    pub key: String,
    /// Signs API requests, channel authorisations and sign-ins. Required here or by `secret_file`; never
    /// printed.
    pub secret: Secret,
    /// A file that holds the secret, in place of `secret`. One line end after it is cut off. A relative path
    /// starts from the directory that the server is started in, not from that of the configuration file.
    pub secret_file: Option<PathBuf>,
    /// Further keys, each with a secret of its own and, if it is to begin or end, with the times: to replace a key
    /// without a gap.
    pub keys: Vec<KeyConfig>,
    /// Whether the app may be used. A disabled app closes its sockets with 4003 and answers API requests with
    /// 403.
    pub enabled: bool,
    /// A name for humans reading the configuration. No meaning to the server.
    pub name: Option<String>,
    /// Refuse sockets that do not come over TLS: they are closed with 4000, which makes pusher-js switch to
    /// `wss`. Needs `tls`; or, where a proxy decrypts, it has to be one of `server.trusted_proxies` and say that it did.
    pub tls_only: bool,
    /// Origins that browsers may connect from: `*`, `https://a.example`, `a.example`, `*.a.example`, each
    /// with or without a port. An empty list allows all of them.
    pub allowed_origins: Vec<String>,
    /// Refuse clients that send no `Origin`, that is, all but browsers.
    pub require_origin: bool,
    /// Sockets that may be connected at once; a further one is closed with 4004. 0 is no limit.
    pub connections_max: usize,
    /// Let clients send `client-` events to the other subscribers of private and presence channels.
    pub client_events: bool,
    /// Client events each socket may send per second, and at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub client_events_per_s: u32,
    /// Client events that all sockets of the app together may send per second, and at once, on each node. 0 is no
    /// limit.
    #[schemars(range(max = 1_000_000))]
    pub client_events_per_s_total: u32,
    /// Events that the HTTP API may publish per second, and at once, on each node: one for an event, whatever the
    /// number of its channels, and one for each item of a batch. Over it the answer is 429. 0 is no limit.
    #[schemars(range(max = 1_000_000))]
    pub publishes_per_s: u32,
    /// Other calls of the HTTP API per second, and at once, on each node. Over it the answer is 429. 0 is no limit.
    #[schemars(range(max = 1_000_000))]
    pub queries_per_s: u32,
    /// Messages per day, in UTC: one for each channel that an event is published to by the HTTP API, and one for each
    /// client event, however many subscribers hear it. Over it the API answers 403, and client events are refused. With
    /// a `store` it holds for all nodes together, within about ten seconds, and over restarts; without one each node
    /// counts its own since its start. 0 is no limit.
    pub messages_per_day: u64,
    /// Tell the subscribers of a channel how many they are. Whether back ends are told is up to their webhook endpoints,
    /// whatever is said here.
    pub subscription_count_events: bool,
    /// Tell signed-in users when the users they watch come and go.
    pub watchlist: bool,
    /// Close a socket that neither signs in nor joins a private or presence channel within `auth_timeout_s`.
    pub authorized_connections: bool,
    /// Time a socket has to prove itself where `authorized_connections` is on.
    #[schemars(range(min = 1, max = 86_400))]
    pub auth_timeout_s: u32,
    /// Silence after which the other side is asked whether it still lives. Told to clients when they connect.
    #[schemars(range(min = 1, max = 86_400))]
    pub activity_timeout_s: u32,
    /// Time a silent client has to answer that question before it is closed with 4201.
    #[schemars(range(min = 1, max = 3_600))]
    pub pong_wait_s: u32,
    /// How a silent client is asked.
    pub ping_mode: PingMode,
    /// Longest channel name, in bytes, without the prefix `#server-to-user-`.
    #[schemars(range(min = 1, max = 4_096))]
    pub channel_name_length_max: usize,
    /// Longest event name, in characters.
    #[schemars(range(min = 1, max = 4_096))]
    pub event_name_length_max: usize,
    /// Largest data of one event, in bytes.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub event_data_bytes_max: usize,
    /// Largest message a client may send, in bytes; a larger one closes its socket with 1009.
    #[schemars(range(min = 1_024, max = 67_108_864))]
    pub message_bytes_max: usize,
    /// Channels one publish may name.
    #[schemars(range(min = 1, max = 100_000))]
    pub channels_per_publish_max: usize,
    /// Events in one batch.
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_items_max: usize,
    /// Users in one presence channel, however many sockets each of them has.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub presence_members_max: usize,
    /// Largest `user_info` of a presence member as JSON text, in bytes.
    #[schemars(range(min = 2, max = 1_048_576))]
    pub presence_user_info_bytes_max: usize,
    /// Longest `user_id` of a presence member, in bytes.
    #[schemars(range(min = 1, max = 4_096))]
    pub presence_user_id_length_max: usize,
    /// Longest id of a signed-in user, in bytes.
    #[schemars(range(min = 1, max = 4_096))]
    pub user_id_length_max: usize,
    /// Users one user may watch; further ones are left out.
    #[schemars(range(min = 1, max = 100_000))]
    pub watchlist_length_max: usize,
    /// Channels one socket may be subscribed to at once. 0 is no limit.
    pub channels_per_connection_max: usize,
    /// Time a cache channel remembers its last event.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub cache_ttl_s: u32,
    /// Memory for the last events of all cache channels of the app, in bytes; the oldest give way.
    pub cache_bytes_max: usize,
    /// Bytes that may wait for one slow socket before it is closed with 4100.
    #[schemars(range(min = 16_384))]
    pub outbox_bytes_max: usize,
    /// Time a user may be away before the users who watch them hear of it.
    #[schemars(range(max = 60_000))]
    pub watch_grace_ms: u32,
    /// Time a channel may be empty, or a presence member away, before the app's back end hears of it by a webhook. Who
    /// is back by then never went. 0 tells it at once.
    #[schemars(range(max = 60_000))]
    pub webhook_grace_ms: u32,
    /// What differs for channels by their names: the first rule whose pattern fits a channel counts, alone, and what it
    /// does not say is as the app has it. `fanwire check-config --channel NAME` tells which one that is.
    pub channels: Vec<ChannelRule>,
    /// Where the app's own back end is told what happens.
    #[schemars(length(max = 32))]
    pub webhooks: Vec<WebhookConfig>,
}

/// How a client that has been silent is asked for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PingMode {
    /// By a WebSocket ping frame, which every client answers without knowing.
    Frame,
    /// By a `pusher:ping` event, for clients behind proxies that swallow ping frames.
    Event,
}

impl Default for AppConfig {
    fn default() -> AppConfig {
        AppConfig {
            id: String::new(),
            key: String::new(),
            secret: Secret::default(),
            secret_file: None,
            keys: Vec::new(),
            enabled: true,
            name: None,
            tls_only: false,
            allowed_origins: Vec::new(),
            require_origin: false,
            connections_max: 0,
            client_events: false,
            client_events_per_s: 10,
            client_events_per_s_total: 0,
            publishes_per_s: 0,
            queries_per_s: 0,
            messages_per_day: 0,
            subscription_count_events: false,
            watchlist: false,
            authorized_connections: false,
            auth_timeout_s: 30,
            activity_timeout_s: 120,
            pong_wait_s: 30,
            ping_mode: PingMode::Frame,
            channel_name_length_max: 200,
            event_name_length_max: 200,
            event_data_bytes_max: 10 * 1024,
            message_bytes_max: 64 * 1024,
            channels_per_publish_max: 100,
            batch_items_max: 10,
            presence_members_max: 100,
            presence_user_info_bytes_max: 1024,
            presence_user_id_length_max: 128,
            user_id_length_max: 200,
            watchlist_length_max: 100,
            channels_per_connection_max: 0,
            cache_ttl_s: 1800,
            cache_bytes_max: 64 * 1024 * 1024,
            outbox_bytes_max: 1024 * 1024,
            watch_grace_ms: 3000,
            webhook_grace_ms: 3000,
            channels: Vec::new(),
            webhooks: Vec::new(),
        }
    }
}

/// Something wrong with a setting of an app: the key inside the app, and what is wrong about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key as it is written inside the app, such as `key` or `allowed_origins[2]`.
    pub key: String,
    /// What is wrong, for a person.
    pub text: String,
}

impl AppConfig {
    /// The secret of the demo app. Everybody knows it, so it must never guard a server that others can reach.
    pub const DEMO_SECRET: &'static str = "app-secret";

    /// The app that is served in development mode, when none is configured.
    pub fn demo() -> AppConfig {
        AppConfig {
            id: "1".into(),
            key: "app-key".into(),
            secret: Secret::new(AppConfig::DEMO_SECRET),
            name: Some("demo".into()),
            client_events: true,
            subscription_count_events: true,
            watchlist: true,
            ..AppConfig::default()
        }
    }

    /// Every key that was written: `key` with its secret, and `keys`.
    pub fn all_keys(&self) -> impl Iterator<Item = KeyConfig> + '_ {
        let first = (!self.key.is_empty()).then(|| KeyConfig {
            key: self.key.clone(),
            secret: self.secret.clone(),
            ..KeyConfig::default()
        });
        first.into_iter().chain(self.keys.iter().cloned())
    }

    /// What is wrong about this app by itself. Ranges of numbers are the schema's business and not looked at.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, text: &str| {
            faults.push(Fault {
                key: key.into(),
                text: text.into(),
            })
        };

        match self.id.as_str() {
            "" => fault("id", "is required"),
            id if !id.bytes().all(is_plain_in_a_path) => fault("id", IN_A_PATH),
            _ => {}
        }
        // Those in `keys` may stand alone.
        if !self.key.is_empty()
            || !self.secret.is_empty()
            || self.secret_file.is_some()
            || self.keys.is_empty()
        {
            faults.extend(key_faults(
                "",
                &self.key,
                &self.secret,
                self.secret_file.is_some(),
            ));
        }
        for (index, key) in self.keys.iter().enumerate() {
            let place = format!("keys[{index}].");
            faults.extend(key_faults(
                &place,
                &key.key,
                &key.secret,
                key.secret_file.is_some(),
            ));
            if key
                .expires_at
                .is_some_and(|end| key.active_from.is_some_and(|from| end <= from))
            {
                faults.push(Fault {
                    key: format!("{place}expires_at"),
                    text: "is not after `active_from`, so the key could never be used".into(),
                });
            }
        }
        let mut fault = |key: &str, text: &str| {
            faults.push(Fault {
                key: key.into(),
                text: text.into(),
            })
        };
        for (index, pattern) in self.allowed_origins.iter().enumerate() {
            if let Err(error) = OriginPattern::parse(pattern) {
                fault(&format!("allowed_origins[{index}]"), &error.to_string());
            }
        }
        if self.allowed_origins.len() > 1 && self.allowed_origins.iter().any(|pattern| pattern == "*") {
            fault(
                "allowed_origins",
                "`*` allows every origin, so the others beside it do nothing: remove one or the other",
            );
        }
        for (key, bytes) in [
            ("outbox_bytes_max", self.outbox_bytes_max),
            ("cache_bytes_max", self.cache_bytes_max),
        ] {
            if bytes < self.event_data_bytes_max {
                fault(
                    key,
                    &format!(
                        "must hold at least one event, so not less than `event_data_bytes_max`, {}",
                        self.event_data_bytes_max
                    ),
                );
            }
        }
        let mut rules = self.channels.iter();
        let may_be_sent = self.client_events || rules.any(|rule| rule.client_events == Some(true));
        if self.client_events_per_s_total > 0 && !may_be_sent {
            fault(
                "client_events_per_s_total",
                "does nothing, since `client_events` is off: turn that on or remove this",
            );
        }
        if self.presence_user_info_bytes_max > self.message_bytes_max {
            fault(
                "presence_user_info_bytes_max",
                &format!(
                    "can never be reached: a message may have `message_bytes_max`, {}, at most",
                    self.message_bytes_max
                ),
            );
        }
        faults.extend(policy::faults(self, &self.endpoint_names()));
        faults.extend(WebhookConfig::faults(&self.webhooks));
        faults
    }

    /// The names of the app's webhook endpoints.
    pub fn endpoint_names(&self) -> Vec<String> {
        let webhooks = self.webhooks.iter().enumerate();
        webhooks.map(|(index, webhook)| webhook.name_at(index)).collect()
    }
}

/// What is wrong about one key; `place` stands before the names of its settings.
fn key_faults(place: &str, key: &str, secret: &Secret, has_file: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |key: &str, text: &str| {
        faults.push(Fault {
            key: format!("{place}{key}"),
            text: text.into(),
        })
    };
    if key.is_empty() {
        fault("key", "is required");
    } else if !key.bytes().all(is_plain_in_a_path) {
        fault("key", IN_A_PATH);
    }
    if secret.is_empty() {
        match has_file {
            true => fault("secret_file", "holds no secret"),
            false => fault("secret", "is required (or `secret_file`)"),
        }
    } else if secret.expose() == REDACTED {
        fault(
            "secret",
            "is the mark that a printed configuration shows in place of a secret",
        );
    }
    faults
}

const IN_A_PATH: &str = "stands in URL paths: printable ASCII without spaces and without / ? # % \" \\";

/// Whether a byte may stand in an id or a key.
pub(super) fn is_plain_in_a_path(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'%' | b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(faults: &[Fault]) -> Vec<&str> {
        faults.iter().map(|fault| fault.key.as_str()).collect()
    }

    #[test]
    fn the_demo_app_is_in_order() {
        assert_eq!(AppConfig::demo().faults(), []);
    }

    #[test]
    fn an_empty_app_lacks_its_names() {
        assert_eq!(keys(&AppConfig::default().faults()), ["id", "key", "secret"]);
    }

    #[test]
    fn each_fault_names_its_key() {
        type Change = fn(&mut AppConfig);
        let cases: [(Change, &str); 10] = [
            (|app| app.id = "a/b".into(), "id"),
            (|app| app.key = "two words".into(), "key"),
            (|app| app.key = "schlüssel".into(), "key"),
            (|app| app.secret = Secret::new("[redacted]"), "secret"),
            (
                |app| app.allowed_origins = vec!["a.example".into(), "https://a.example/x".into()],
                "allowed_origins[1]",
            ),
            (
                |app| app.allowed_origins = vec!["a.example".into(), "*".into()],
                "allowed_origins",
            ),
            (
                |app| app.event_data_bytes_max = 2 * 1024 * 1024,
                "outbox_bytes_max",
            ),
            (|app| app.cache_bytes_max = 100, "cache_bytes_max"),
            (|app| app.message_bytes_max = 1023, "presence_user_info_bytes_max"),
            (
                |app| (app.client_events, app.client_events_per_s_total) = (false, 5),
                "client_events_per_s_total",
            ),
        ];
        for (change, key) in cases {
            let mut app = AppConfig::demo();
            change(&mut app);
            assert_eq!(keys(&app.faults()), [key]);
        }
    }
}
