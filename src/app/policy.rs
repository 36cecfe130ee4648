//! What holds for some channels of an app and not for all: rules by a pattern of names, of which the first that fits
//! counts, alone. What it does not say is as the app has it.
//!
//! All is resolved when the settings are: to ask what holds for a channel allocates nothing, and where there are no
//! rules it is no work at all. Not here: what follows from a policy; that is for whoever asks for it.

mod explanation;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::{AppConfig, Fault};
use super::pattern;
use crate::limit::Rate;
use crate::protocol::{ChannelKind, ChannelName};

pub use explanation::{Explained, Explanation};

/// Rules that one app may have: each of them may have to be compared with a channel's name.
const RULES_MAX: usize = 256;

/// What differs for channels whose names fit a pattern. The first rule that fits a channel counts, alone; what it does
/// not say is as the app has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pattern"]))]
pub struct ChannelRule {
    /// The whole names that it is about, prefix included, such as `presence-chat-*`: each `*` stands for any
    /// characters, or none. Required.
    pub pattern: String,
    /// In place of the app's `event_data_bytes_max`. An event for several channels keeps to the smallest of theirs.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub event_data_bytes_max: Option<usize>,
    /// In place of the app's `client_events`.
    pub client_events: Option<bool>,
    /// In place of the app's `client_events_per_s`, and counted apart: what a socket sends to these channels and to
    /// others does not add up.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub client_events_per_s: Option<u32>,
    /// In place of the app's `cache_ttl_s`.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub cache_ttl_s: Option<u32>,
    /// In place of the app's `presence_members_max`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub presence_members_max: Option<usize>,
    /// In place of the app's `subscription_count_events`.
    pub subscription_count_events: Option<bool>,
    /// The names of the only webhook endpoints that are told of these channels; an empty list is none of them. Without
    /// it: all. What the endpoints themselves ask for holds beside it.
    pub webhooks: Option<Vec<String>>,
}

impl ChannelRule {
    /// What it says about the channels, by the names of the settings.
    pub(super) fn says(&self) -> Map<String, Value> {
        let mut said = match serde_json::to_value(self) {
            Ok(Value::Object(said)) => said,
            _ => Map::new(),
        };
        said.retain(|name, value| name != "pattern" && !value.is_null());
        said
    }
}

/// Whether a setting of a rule means anything on channels of this kind.
pub(super) fn concerns(setting: &str, kind: ChannelKind) -> bool {
    match setting {
        "client_events" | "client_events_per_s" => kind.needs_auth(),
        "cache_ttl_s" => kind.is_cache(),
        "presence_members_max" => kind.is_presence(),
        "subscription_count_events" => !kind.is_presence() && !kind.is_user(),
        "webhooks" => !kind.is_user(),
        _ => true,
    }
}

/// What is wrong about the rules of an app whose webhook endpoints have these names.
pub(super) fn faults(app: &AppConfig, endpoints: &[String]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if app.channels.len() > RULES_MAX {
        faults.push(Fault {
            key: "channels".into(),
            text: format!("has more than {RULES_MAX} rules: put several names under one pattern"),
        });
        return faults;
    }
    for (index, rule) in app.channels.iter().enumerate() {
        let found = faults_of(rule, index, app, endpoints);
        faults.extend(found.into_iter().map(|(key, text)| Fault {
            key: format!("channels[{index}].{key}"),
            text,
        }));
    }
    faults
}

/// What is wrong about the rule at this place, by its setting.
fn faults_of(
    rule: &ChannelRule,
    index: usize,
    app: &AppConfig,
    endpoints: &[String],
) -> Vec<(String, String)> {
    if let Err(text) = pattern::check(&rule.pattern, app.channel_name_length_max) {
        return vec![("pattern".into(), text)];
    }
    let mut faults = Vec::new();
    let mut fault = |key: &str, text: String| faults.push((key.to_owned(), text));

    let earlier = app.channels[..index].iter();
    // A pattern that fits another one as text fits every name that the other one does.
    let before = earlier
        .enumerate()
        .find(|(_, earlier)| pattern::matches(&earlier.pattern, &rule.pattern));
    if let Some((place, earlier)) = before {
        let text = format!(
            "never counts: `channels[{place}]`, `{}`, comes first and fits the same names; put it behind this one, or \
             remove one of them",
            earlier.pattern
        );
        fault("pattern", text);
    }

    let says = rule.says();
    if says.is_empty() && index + 1 == app.channels.len() {
        let text = "says nothing, and no other rule comes behind it: remove it, or say what is to differ";
        fault("pattern", text.into());
    }
    let kinds = pattern::kinds(&rule.pattern);
    for setting in says.keys() {
        if !kinds.iter().any(|kind| concerns(setting, *kind)) {
            fault(setting, format!("does nothing: {}", where_it_would(setting)));
        }
    }
    let client_events = rule.client_events.unwrap_or(app.client_events);
    if rule.client_events_per_s.is_some() && !client_events {
        let text = "does nothing: clients may not send events to these channels, see `client_events`";
        fault("client_events_per_s", text.into());
    }
    if let Some(bytes) = rule.event_data_bytes_max {
        let may_cache = kinds.iter().any(|kind| kind.is_cache());
        for (key, room) in [
            ("outbox_bytes_max", app.outbox_bytes_max),
            (
                "cache_bytes_max",
                if may_cache {
                    app.cache_bytes_max
                } else {
                    usize::MAX
                },
            ),
        ] {
            if room < bytes {
                let text =
                    format!("is more than the app's `{key}`, {room}, which must hold at least one event");
                fault("event_data_bytes_max", text);
            }
        }
    }
    for (place, name) in rule.webhooks.iter().flatten().enumerate() {
        let key = format!("webhooks[{place}]");
        if !endpoints.contains(name) {
            let known = match endpoints {
                [] => "has no endpoints".to_owned(),
                known => format!("has these: {}", known.join(", ")),
            };
            fault(&key, format!("names no endpoint of the app, which {known}"));
        } else if rule
            .webhooks
            .iter()
            .flatten()
            .take(place)
            .any(|other| other == name)
        {
            fault(&key, "stands there twice".into());
        }
    }
    faults
}

/// Which channels a setting is about, for who gave it to others.
fn where_it_would(setting: &str) -> &'static str {
    match setting {
        "client_events" | "client_events_per_s" => {
            "only private and presence channels take client events, and none of them has such a name"
        }
        "cache_ttl_s" => "no cache channel has such a name",
        "presence_members_max" => "no presence channel has such a name",
        "subscription_count_events" => "presence channels and those of single users have no such events",
        _ => "nobody is told of the channels of single users",
    }
}

/// What holds for a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Largest data of one event.
    pub event_data_bytes_max: usize,
    /// Whether clients may send events, where the kind of the channel allows it.
    pub client_events: bool,
    /// Client events that each socket may send.
    pub client_events_rate: Rate,
    /// The same as it was written, for who is over it.
    pub client_events_per_s: u32,
    /// What of a socket's buckets they are counted in: 0 is the one of the app, each rule with a rate of its own has
    /// another.
    pub client_events_bucket: usize,
    /// Time a cache channel remembers its last event.
    pub cache_ttl: Duration,
    /// Users in one presence channel.
    pub presence_members_max: usize,
    /// Whether subscribers are told how many they are.
    pub subscription_count_events: bool,
    /// The endpoints that are told, if not all.
    webhooks: Option<Box<[String]>>,
}

impl Policy {
    /// Whether this webhook endpoint may be told of the channel.
    pub fn tells(&self, endpoint: &str) -> bool {
        let among = |names: &[String]| names.iter().any(|name| name == endpoint);
        self.webhooks.as_deref().is_none_or(among)
    }

    /// What holds where no rule does.
    fn of_app(app: &AppConfig) -> Policy {
        Policy {
            event_data_bytes_max: app.event_data_bytes_max,
            client_events: app.client_events,
            client_events_rate: Rate::per_second(app.client_events_per_s, app.client_events_per_s),
            client_events_per_s: app.client_events_per_s,
            client_events_bucket: 0,
            cache_ttl: Duration::from_secs(app.cache_ttl_s.into()),
            presence_members_max: app.presence_members_max,
            subscription_count_events: app.subscription_count_events,
            webhooks: None,
        }
    }

    /// The same, but for what a rule says. `bucket` is one that no other rule has.
    fn changed(&self, rule: &ChannelRule, bucket: usize) -> Policy {
        let mut policy = self.clone();
        if let Some(max) = rule.event_data_bytes_max {
            policy.event_data_bytes_max = max;
        }
        if let Some(are_on) = rule.client_events {
            policy.client_events = are_on;
        }
        if let Some(per_s) = rule.client_events_per_s {
            policy.client_events_rate = Rate::per_second(per_s, per_s);
            policy.client_events_per_s = per_s;
            policy.client_events_bucket = bucket;
        }
        if let Some(ttl_s) = rule.cache_ttl_s {
            policy.cache_ttl = Duration::from_secs(ttl_s.into());
        }
        if let Some(max) = rule.presence_members_max {
            policy.presence_members_max = max;
        }
        if let Some(are_on) = rule.subscription_count_events {
            policy.subscription_count_events = are_on;
        }
        policy.webhooks = rule.webhooks.clone().map(Vec::into_boxed_slice);
        policy
    }
}

/// What holds for the channels of one app.
#[derive(Debug)]
pub(super) struct Policies {
    of_app: Policy,
    /// In the order in which they are asked.
    rules: Box<[(Box<str>, Policy)]>,
}

impl Policies {
    pub(super) fn of(app: &AppConfig) -> Policies {
        let of_app = Policy::of_app(app);
        let resolve = |(index, rule): (usize, &ChannelRule)| {
            (rule.pattern.as_str().into(), of_app.changed(rule, index + 1))
        };
        Policies {
            rules: app.channels.iter().enumerate().map(resolve).collect(),
            of_app,
        }
    }

    pub(super) fn of_app(&self) -> &Policy {
        &self.of_app
    }

    pub(super) fn of_channel(&self, name: &ChannelName) -> &Policy {
        let fits = |(pattern, _): &&(Box<str>, Policy)| pattern::matches(pattern, name.as_str());
        let rule = self.rules.iter().find(fits);
        rule.map_or(&self.of_app, |(_, policy)| policy)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::app::Settings;

    fn app(channels: Value) -> AppConfig {
        AppConfig {
            channels: serde_json::from_value(channels).expect("rules"),
            ..AppConfig::demo()
        }
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).expect("a legal name")
    }

    #[test]
    fn the_first_rule_that_fits_counts_alone_and_the_rest_is_the_apps() {
        let app = app(json!([
            {"pattern": "private-chat-vip-*", "client_events_per_s": 50},
            {"pattern": "private-chat-*", "event_data_bytes_max": 100, "client_events": false},
            {"pattern": "*-cache-*", "cache_ttl_s": 7, "subscription_count_events": false},
        ]));
        let settings = Settings::new(app).expect("rules in order");
        let policy = |name| settings.policy(&channel(name));
        let vip = policy("private-chat-vip-1");
        assert_eq!((vip.client_events_per_s, vip.client_events_bucket), (50, 1));
        assert_eq!((vip.event_data_bytes_max, vip.client_events), (10 * 1024, true));
        let chat = policy("private-chat-1");
        assert_eq!((chat.event_data_bytes_max, chat.client_events), (100, false));
        assert_eq!(chat.client_events_bucket, 0, "it has no rate of its own");
        let cache = policy("private-cache-1");
        assert_eq!(cache.cache_ttl, Duration::from_secs(7));
        assert!(!cache.subscription_count_events);
        let other = policy("news");
        assert_eq!(other.cache_ttl, Duration::from_secs(1800));
        assert!(other.subscription_count_events && other.tells("any"));
    }

    #[test]
    fn a_rule_may_send_webhooks_to_some_endpoints_or_none() {
        let app = app(json!([
            {"pattern": "a", "webhooks": ["one"]},
            {"pattern": "b", "webhooks": []},
            {"pattern": "c", "cache_ttl_s": 1},
        ]));
        let policies = Policies::of(&app);
        let told = |name: &str| {
            let policy = policies.of_channel(&channel(name));
            ["one", "two"].map(|endpoint| policy.tells(endpoint))
        };
        assert_eq!(told("a"), [true, false]);
        assert_eq!(told("b"), [false, false]);
        assert_eq!(told("c"), [true, true]);
        assert_eq!(told("d"), [true, true]);
    }

    #[test]
    fn each_fault_names_its_setting() {
        let table = [
            (json!([{}]), "channels[0].pattern"),
            (
                json!([{"pattern": "a b", "event_data_bytes_max": 1}]),
                "channels[0].pattern",
            ),
            (json!([{"pattern": "a-*"}]), "channels[0].pattern"),
            (
                json!([{"pattern": "a-*", "event_data_bytes_max": 1}, {"pattern": "a-*", "event_data_bytes_max": 2}]),
                "channels[1].pattern",
            ),
            (
                json!([{"pattern": "*a*", "event_data_bytes_max": 1}, {"pattern": "b-a-*", "event_data_bytes_max": 2}]),
                "channels[1].pattern",
            ),
            (
                json!([{"pattern": "chat-*", "client_events": true}]),
                "channels[0].client_events",
            ),
            (
                json!([{"pattern": "private-*", "presence_members_max": 7}]),
                "channels[0].presence_members_max",
            ),
            (
                json!([{"pattern": "private-a*", "cache_ttl_s": 7}]),
                "channels[0].cache_ttl_s",
            ),
            (
                json!([{"pattern": "presence-*", "subscription_count_events": true}]),
                "channels[0].subscription_count_events",
            ),
            (
                json!([{"pattern": "#server-to-user-*", "webhooks": []}]),
                "channels[0].webhooks",
            ),
            (
                json!([{"pattern": "private-*", "client_events": false, "client_events_per_s": 7}]),
                "channels[0].client_events_per_s",
            ),
            (
                json!([{"pattern": "*", "event_data_bytes_max": 2_000_000}]),
                "channels[0].event_data_bytes_max",
            ),
            (
                json!([{"pattern": "*", "webhooks": ["one", "three"]}]),
                "channels[0].webhooks[1]",
            ),
            (
                json!([{"pattern": "*", "webhooks": ["two", "two"]}]),
                "channels[0].webhooks[1]",
            ),
            (json!(vec![json!({"pattern": "a"}); 257]), "channels"),
        ];
        let endpoints = ["one".to_owned(), "two".to_owned()];
        for (channels, key) in table {
            let found = faults(&app(channels.clone()), &endpoints);
            let keys: Vec<_> = found.iter().map(|fault| fault.key.as_str()).collect();
            assert_eq!(keys, [key], "{channels}");
        }
    }

    #[test]
    fn what_may_do_something_is_accepted() {
        let channels = json!([
            // Keeps the next one from these channels.
            {"pattern": "chat-vip-*"},
            {"pattern": "chat-*", "event_data_bytes_max": 1},
            {"pattern": "*chat-*", "client_events": true, "cache_ttl_s": 1, "presence_members_max": 1},
            {"pattern": "pr*-eu", "client_events_per_s": 1, "presence_members_max": 1},
            {"pattern": "private-*", "cache_ttl_s": 1, "webhooks": ["one"]},
            {"pattern": "#server-to-user-*", "event_data_bytes_max": 1},
        ]);
        assert_eq!(faults(&app(channels), &["one".to_owned()]), []);
    }
}
