//! What the server works with: an app's settings, resolved. Nothing in them needs to be parsed or looked up by name.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::config::{AppConfig, Fault};
use super::keys::{Key, Keys};
use super::origin::OriginPattern;
use super::policy::{Policies, Policy};
use super::rates::Rated;
use super::webhook::{WebhookEndpoint, WebhookEndpoints, WebhookKind};
use crate::limit::Rate;
use crate::protocol::ChannelName;

/// The settings of one app, whole and in order.
#[derive(Debug)]
pub struct Settings {
    /// The settings as they were written: read names and switches here, numbers from `limits`.
    pub config: AppConfig,
    /// Every limit in the unit it is used in.
    pub limits: Limits,
    policies: Policies,
    /// Where the app's own back end is told what happens.
    pub webhooks: WebhookEndpoints,
    keys: Keys,
    origins: Vec<OriginPattern>,
}

/// The limits of an app in the units they are used in, but for those that a rule for some channels may change: see
/// [`Settings::policy`]. Where the settings say 0 for "no limit", this says the greatest number, so a plain comparison is
/// right everywhere. The fields are described at [`AppConfig`].
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the same names, described once, at AppConfig")]
pub struct Limits {
    pub connections_max: usize,
    pub messages_per_day: u64,
    pub auth_timeout: Duration,
    pub activity_timeout: Duration,
    pub pong_wait: Duration,
    pub channel_name_length_max: usize,
    pub event_name_length_max: usize,
    pub message_bytes_max: usize,
    pub channels_per_publish_max: usize,
    pub batch_items_max: usize,
    pub presence_user_info_bytes_max: usize,
    pub presence_user_id_length_max: usize,
    pub user_id_length_max: usize,
    pub watchlist_length_max: usize,
    pub channels_per_connection_max: usize,
    pub cache_bytes_max: usize,
    pub outbox_bytes_max: usize,
    pub watch_grace: Duration,
    pub webhook_grace: Duration,
    shared: [Option<Rate>; Rated::COUNT],
}

impl Limits {
    fn of(config: &AppConfig) -> Limits {
        let seconds = |s: u32| Duration::from_secs(s.into());
        let unlimited_if_zero = |max: usize| if max == 0 { usize::MAX } else { max };
        Limits {
            connections_max: unlimited_if_zero(config.connections_max),
            auth_timeout: seconds(config.auth_timeout_s),
            activity_timeout: seconds(config.activity_timeout_s),
            pong_wait: seconds(config.pong_wait_s),
            channel_name_length_max: config.channel_name_length_max,
            event_name_length_max: config.event_name_length_max,
            message_bytes_max: config.message_bytes_max,
            channels_per_publish_max: config.channels_per_publish_max,
            batch_items_max: config.batch_items_max,
            presence_user_info_bytes_max: config.presence_user_info_bytes_max,
            presence_user_id_length_max: config.presence_user_id_length_max,
            user_id_length_max: config.user_id_length_max,
            watchlist_length_max: config.watchlist_length_max,
            channels_per_connection_max: unlimited_if_zero(config.channels_per_connection_max),
            cache_bytes_max: config.cache_bytes_max,
            outbox_bytes_max: config.outbox_bytes_max,
            watch_grace: Duration::from_millis(config.watch_grace_ms.into()),
            webhook_grace: Duration::from_millis(config.webhook_grace_ms.into()),
            messages_per_day: match config.messages_per_day {
                0 => u64::MAX,
                messages => messages,
            },
            shared: Rated::ALL.map(|rated| {
                let per_s = rated.per_s(config);
                (per_s > 0).then(|| Rate::per_second(per_s, per_s))
            }),
        }
    }

    /// The rate of the app as a whole, on this node; none where there is no limit.
    pub fn rate(&self, rated: Rated) -> Option<Rate> {
        self.shared[rated as usize]
    }
}

impl Settings {
    /// Resolves the settings of one app, or tells all that is wrong about them.
    pub fn new(config: AppConfig) -> Result<Settings, Vec<Fault>> {
        let faults = config.faults();
        match faults.is_empty() {
            true => Ok(Settings::resolved(config)),
            false => Err(faults),
        }
    }

    /// The settings of an app of which nothing but its id is known here: disabled, and without a key.
    pub(super) fn unserved(id: &str) -> Settings {
        Settings::resolved(AppConfig {
            id: id.into(),
            enabled: false,
            ..AppConfig::default()
        })
    }

    /// Resolves what is in order.
    fn resolved(config: AppConfig) -> Settings {
        let origins = config
            .allowed_origins
            .iter()
            .filter_map(|pattern| OriginPattern::parse(pattern).ok())
            .collect();
        Settings {
            limits: Limits::of(&config),
            policies: Policies::of(&config),
            webhooks: WebhookEndpoints::of(&config.webhooks),
            keys: Keys::of(&config),
            origins,
            config,
        }
    }

    /// What holds for a channel. The first rule that fits its name is looked for; where there are none that is no work.
    pub fn policy(&self, channel: &ChannelName) -> &Policy {
        self.policies.of_channel(channel)
    }

    /// The webhook endpoints that are told of such events of this channel. No work for an app without any.
    pub fn endpoints_wanting(
        &self,
        kind: WebhookKind,
        channel: &ChannelName,
    ) -> impl Iterator<Item = &Arc<WebhookEndpoint>> {
        let mut wanting = self.webhooks.wanting(kind, channel).peekable();
        let policy = wanting.peek().map(|_| self.policy(channel));
        wanting.filter(move |endpoint| policy.is_some_and(|policy| policy.tells(&endpoint.name)))
    }

    /// What holds where no rule does.
    pub fn policy_of_app(&self) -> &Policy {
        self.policies.of_app()
    }

    /// The key with this name, if it may be used at this moment. The clock is asked only where a key has a beginning
    /// or an end.
    pub fn key(&self, name: &str, now: impl FnOnce() -> Timestamp) -> Option<&Key> {
        self.keys.active(name, now)
    }

    /// The key that this server signs with: of those that may be used now the oldest.
    pub fn signing_key(&self, now: impl FnOnce() -> Timestamp) -> Option<&Key> {
        self.keys.oldest(now)
    }

    /// Every key, whether it may be used now or not.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
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
    fn zero_means_unlimited_only_where_the_settings_say_so() {
        let limits = Settings::new(app("1", "a")).expect("a valid app").limits;
        assert_eq!(
            (limits.connections_max, limits.channels_per_connection_max),
            (usize::MAX, usize::MAX)
        );
        let config = AppConfig {
            connections_max: 7,
            channels_per_connection_max: 8,
            ..app("1", "a")
        };
        let limits = Settings::new(config).expect("a valid app").limits;
        assert_eq!(
            (limits.connections_max, limits.channels_per_connection_max),
            (7, 8)
        );
    }

    #[test]
    fn origins_matter_only_where_the_app_says_so() {
        let with = |allowed: &[&str], require_origin| {
            let allowed_origins = allowed.iter().map(|&pattern| pattern.to_owned()).collect();
            Settings::new(AppConfig {
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
    fn a_rule_may_keep_webhooks_from_endpoints_that_ask_for_them() {
        let config = serde_json::json!({
            "id": "1", "key": "a", "secret": "s",
            "webhooks": [
                {"name": "all", "url": "http://a/"},
                {"name": "rooms", "url": "http://b/", "filter": {"channel_name_starts_with": "room-"}},
            ],
            "channels": [
                {"pattern": "room-quiet-*", "webhooks": []},
                {"pattern": "room-*", "webhooks": ["rooms"]},
                {"pattern": "hall-*", "webhooks": ["rooms"]},
            ],
        });
        let config = serde_json::from_value(config).expect("an app");
        let settings = Settings::new(config).expect("an app in order");
        for (name, told) in [
            ("other", &["all"][..]),
            ("room-1", &["rooms"]),
            ("room-quiet-1", &[]),
            ("hall-1", &[]),
        ] {
            let channel = ChannelName::parse(name, 200).expect("a legal name");
            let wanting = settings.endpoints_wanting(WebhookKind::ChannelOccupied, &channel);
            let names: Vec<_> = wanting.map(|endpoint| &*endpoint.name).collect();
            assert_eq!(names, told, "{name}");
        }
    }
}
