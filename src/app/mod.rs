//! Apps: the tenants of the server, with their names, secrets, limits and policies.
//!
//! [`AppConfig`] is what an operator writes, [`App`] what the server works with, [`Apps`] finds one by id or
//! key. Not here: channels and sockets of an app (the hub's), and the signatures made with its secret (the
//! protocol's).

mod config;
mod origin;
mod pattern;
mod quota;
mod store;
mod webhook;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use config::{AppConfig, Fault, PingMode};
pub use origin::{OriginError, OriginPattern};
pub use quota::Admission;
pub use store::{AppName, AppRecord, AppStore, KeyRecord, NAME_BYTES_MAX, NAMES_MAX, StoreError, UsageDay};
pub use webhook::{
    ID_HEADER, KEY_HEADER, SIGNATURE_HEADER, WebhookBatch, WebhookConfig, WebhookEndpoint, WebhookEndpoints,
    WebhookFilter, WebhookKind,
};

pub use crate::secret::{REDACTED, Secret};

use crate::limit::Rate;
use quota::Quota;

/// One app, resolved: nothing in it needs to be parsed or looked up by name any more.
#[derive(Debug)]
pub struct App {
    /// The settings as they were written: read names and switches here, numbers from `limits`.
    pub config: AppConfig,
    /// Every limit in the unit it is used in.
    pub limits: Limits,
    origins: Vec<OriginPattern>,
    connections: Quota,
}

/// The limits of an app in the units they are used in. Where the settings say 0 for "no limit", this says
/// `usize::MAX`, so a plain comparison is right everywhere. The fields are described at [`AppConfig`].
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the same names, described once, at AppConfig")]
pub struct Limits {
    pub connections_max: usize,
    pub client_events: Rate,
    pub auth_timeout: Duration,
    pub activity_timeout: Duration,
    pub pong_wait: Duration,
    pub channel_name_length_max: usize,
    pub event_name_length_max: usize,
    pub event_data_bytes_max: usize,
    pub message_bytes_max: usize,
    pub channels_per_publish_max: usize,
    pub batch_items_max: usize,
    pub presence_members_max: usize,
    pub presence_user_info_bytes_max: usize,
    pub presence_user_id_length_max: usize,
    pub user_id_length_max: usize,
    pub watchlist_length_max: usize,
    pub channels_per_connection_max: usize,
    pub cache_ttl: Duration,
    pub cache_bytes_max: usize,
    pub outbox_bytes_max: usize,
    pub watch_grace: Duration,
}

impl Limits {
    fn of(config: &AppConfig) -> Limits {
        let seconds = |s: u32| Duration::from_secs(s.into());
        let unlimited_if_zero = |max: usize| if max == 0 { usize::MAX } else { max };
        Limits {
            connections_max: unlimited_if_zero(config.connections_max),
            client_events: Rate::per_second(config.client_events_per_s, config.client_events_per_s),
            auth_timeout: seconds(config.auth_timeout_s),
            activity_timeout: seconds(config.activity_timeout_s),
            pong_wait: seconds(config.pong_wait_s),
            channel_name_length_max: config.channel_name_length_max,
            event_name_length_max: config.event_name_length_max,
            event_data_bytes_max: config.event_data_bytes_max,
            message_bytes_max: config.message_bytes_max,
            channels_per_publish_max: config.channels_per_publish_max,
            batch_items_max: config.batch_items_max,
            presence_members_max: config.presence_members_max,
            presence_user_info_bytes_max: config.presence_user_info_bytes_max,
            presence_user_id_length_max: config.presence_user_id_length_max,
            user_id_length_max: config.user_id_length_max,
            watchlist_length_max: config.watchlist_length_max,
            channels_per_connection_max: unlimited_if_zero(config.channels_per_connection_max),
            cache_ttl: seconds(config.cache_ttl_s),
            cache_bytes_max: config.cache_bytes_max,
            outbox_bytes_max: config.outbox_bytes_max,
            watch_grace: Duration::from_millis(config.watch_grace_ms.into()),
        }
    }
}

impl App {
    /// Resolves the settings of one app, or tells all that is wrong about them.
    pub fn new(config: AppConfig) -> Result<App, Vec<Fault>> {
        let faults = config.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let origins = config
            .allowed_origins
            .iter()
            .filter_map(|pattern| OriginPattern::parse(pattern).ok())
            .collect();
        let limits = Limits::of(&config);
        Ok(App {
            config,
            origins,
            connections: Quota::new(limits.connections_max),
            limits,
        })
    }

    /// The id in the paths of the HTTP API.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// The public key in the paths of sockets and in signatures.
    pub fn key(&self) -> &str {
        &self.config.key
    }

    /// The secret that signatures are made with. Never log or answer with it.
    pub fn secret(&self) -> &str {
        self.config.secret.expose()
    }

    /// Whether a client with this `Origin` header may connect; `None` is a client that sent none.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        match origin {
            None => !self.config.require_origin,
            Some(origin) => {
                self.origins.is_empty() || self.origins.iter().any(|pattern| pattern.matches(origin))
            }
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
    }
}

/// All apps of this server.
#[derive(Debug, Default)]
pub struct Apps {
    by_id: HashMap<String, Arc<App>>,
    by_key: HashMap<String, Arc<App>>,
}

impl Apps {
    /// Resolves a list of apps. `Err` holds everything that is wrong, each with the app's position in the
    /// list.
    pub fn new(configs: impl IntoIterator<Item = AppConfig>) -> Result<Apps, Vec<(usize, Fault)>> {
        let mut apps = Apps::default();
        let mut faults = Vec::new();
        let mut taken = Taken::default();
        for (index, config) in configs.into_iter().enumerate() {
            // An app that is wrong otherwise takes its names too, so that all faults come at once.
            let mut wrong = taken.add(&config);
            match App::new(config) {
                Ok(app) => apps.add(Arc::new(app)),
                Err(by_itself) => wrong.extend(by_itself),
            }
            faults.extend(wrong.into_iter().map(|fault| (index, fault)));
        }
        if faults.is_empty() { Ok(apps) } else { Err(faults) }
    }

    fn add(&mut self, app: Arc<App>) {
        self.by_id.insert(app.id().to_owned(), Arc::clone(&app));
        self.by_key.insert(app.key().to_owned(), app);
    }

    /// The app with this id, as in `/apps/ID/events`.
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.by_id.get(id)
    }

    /// The app with this key, as in `/app/KEY`.
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.by_key.get(key)
    }

    /// All apps, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_id.values()
    }
}

/// The names that apps of a list have, right or wrong.
#[derive(Default)]
struct Taken {
    ids: HashSet<String>,
    keys: HashSet<String>,
}

impl Taken {
    /// Notes the names of one more app, and tells which of them another has. A missing name is none.
    fn add(&mut self, config: &AppConfig) -> Vec<Fault> {
        let names = [
            ("id", &config.id, &mut self.ids),
            ("key", &config.key, &mut self.keys),
        ];
        let twice = |(what, name, taken): (&str, &String, &mut HashSet<String>)| {
            (!name.is_empty() && !taken.insert(name.clone())).then(|| Fault {
                key: what.into(),
                text: format!("another app has the {what} `{name}` already"),
            })
        };
        names.into_iter().filter_map(twice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(id: &str, key: &str) -> AppConfig {
        AppConfig {
            id: id.into(),
            key: key.into(),
            ..AppConfig::demo()
        }
    }

    #[test]
    fn apps_are_found_by_id_and_by_key() {
        let apps = Apps::new([app("1", "a"), app("2", "b")]).expect("two different apps");
        assert_eq!(apps.by_id("2").map(|app| app.key()), Some("b"));
        assert_eq!(apps.by_key("a").map(|app| app.id()), Some("1"));
        assert!(apps.by_id("a").is_none() && apps.by_key("1").is_none());
        assert_eq!(apps.iter().count(), 2);
    }

    #[test]
    fn ids_and_keys_are_unique_and_all_faults_are_told() {
        let faults =
            Apps::new([app("1", "a"), app("1", "b"), app("2", "a"), app("", "c")]).expect_err("three faults");
        let places: Vec<_> = faults
            .iter()
            .map(|(index, fault)| (*index, fault.key.as_str()))
            .collect();
        assert_eq!(places, [(1, "id"), (2, "key"), (3, "id")]);
    }

    #[test]
    fn the_names_of_an_app_without_a_secret_are_taken_too() {
        let without_secret = || AppConfig {
            secret: Secret::default(),
            ..app("1", "a")
        };
        let faults = Apps::new([without_secret(), app("1", "a"), app("", ""), app("", "")])
            .expect_err("every app is wrong");
        let places: Vec<_> = faults
            .iter()
            .map(|(index, fault)| (*index, fault.key.as_str()))
            .collect();
        let expected = [
            (0, "secret"),
            (1, "id"),
            (1, "key"),
            (2, "id"),
            (2, "key"),
            (3, "id"),
            (3, "key"),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn zero_means_unlimited_only_where_the_settings_say_so() {
        let limits = App::new(app("1", "a")).expect("a valid app").limits;
        assert_eq!(
            (limits.connections_max, limits.channels_per_connection_max),
            (usize::MAX, usize::MAX)
        );
        let config = AppConfig {
            connections_max: 7,
            channels_per_connection_max: 8,
            ..app("1", "a")
        };
        let limits = App::new(config).expect("a valid app").limits;
        assert_eq!(
            (limits.connections_max, limits.channels_per_connection_max),
            (7, 8)
        );
    }

    #[test]
    fn origins_matter_only_where_the_app_says_so() {
        let with = |allowed: &[&str], require_origin| {
            let allowed_origins = allowed.iter().map(|&pattern| pattern.to_owned()).collect();
            App::new(AppConfig {
                allowed_origins,
                require_origin,
                ..app("1", "a")
            })
            .expect("a valid app")
        };
        assert!(with(&[], false).allows_origin(Some("https://any.example")));
        assert!(with(&[], false).allows_origin(None));
        assert!(!with(&[], true).allows_origin(None));
        let listed = with(&["a.example", "https://b.example"], false);
        assert!(listed.allows_origin(Some("https://b.example")) && listed.allows_origin(None));
        assert!(!listed.allows_origin(Some("https://c.example")));
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let config = AppConfig {
            secret: Secret::new("s3cr3t"),
            ..app("1", "a")
        };
        let apps = Apps::new([config]).expect("a valid app");
        assert!(!format!("{apps:?}").contains("s3cr3t"));
    }
}
