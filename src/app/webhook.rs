//! Where an app wants to be told what happens to it: its webhook endpoints, as written and as the server works with
//! them.
//!
//! Only which events go where, and with what; not here: the events themselves, and how they are sent (`webhook/`).

mod endpoint;
mod url;

use std::collections::{BTreeMap, HashSet};

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::Fault;
use super::pattern;
use crate::secret::Secret;

pub use endpoint::{WebhookEndpoint, WebhookEndpoints};
pub use url::WebhookUrl;

/// Headers that say what a webhook is, and so are the server's own; lower case.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("x-pusher-key");
/// The signature of the body.
pub const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("x-pusher-signature");
/// The same for each attempt to deliver a body, so that a receiver can tell what it has seen already.
pub const ID_HEADER: HeaderName = HeaderName::from_static("x-fanwire-webhook-id");

/// Endpoints of one app at most: each event is matched against all of them.
const ENDPOINTS_MAX: usize = 32;

/// What an app can be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookKind {
    /// A channel has its first subscriber.
    ChannelOccupied,
    /// A channel has lost its last subscriber.
    ChannelVacated,
    /// A user has joined a presence channel.
    MemberAdded,
    /// A user has left a presence channel.
    MemberRemoved,
    /// A client has sent an event.
    ClientEvent,
    /// Somebody has joined a cache channel that remembers no event.
    CacheMiss,
    /// The number of a channel's subscribers has changed.
    SubscriptionCount,
}

impl WebhookKind {
    /// All of them.
    pub const ALL: [WebhookKind; 7] = [
        WebhookKind::ChannelOccupied,
        WebhookKind::ChannelVacated,
        WebhookKind::MemberAdded,
        WebhookKind::MemberRemoved,
        WebhookKind::ClientEvent,
        WebhookKind::CacheMiss,
        WebhookKind::SubscriptionCount,
    ];

    /// Its name in the body of a webhook.
    pub fn as_str(self) -> &'static str {
        match self {
            WebhookKind::ChannelOccupied => "channel_occupied",
            WebhookKind::ChannelVacated => "channel_vacated",
            WebhookKind::MemberAdded => "member_added",
            WebhookKind::MemberRemoved => "member_removed",
            WebhookKind::ClientEvent => "client_event",
            WebhookKind::CacheMiss => "cache_miss",
            WebhookKind::SubscriptionCount => "subscription_count",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// One endpoint of an app: a URL that is sent what happens to the app, as signed POST requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct WebhookConfig {
    /// What the endpoint is called in reports and API paths: letters, digits, `-` and `_`. Unique in the app. Without
    /// it: its place in the list, from 1. With a name of its own an endpoint keeps its queue when the list is
    /// rearranged.
    #[schemars(length(max = 64))]
    pub name: Option<String>,
    /// Where the requests go: `http` or `https`. Required. Redirects are not followed. The query is never printed, since
    /// there may be a token in it.
    pub url: WebhookUrl,
    /// Whether it is sent anything. What waits when this turns false is dropped, and counted.
    pub enabled: bool,
    /// What it is told about. An empty list is everything.
    pub event_types: Vec<WebhookKind>,
    /// Headers added to each request, such as `Authorization`. Their values are never printed.
    pub headers: BTreeMap<String, Secret>,
    /// Which channels it is told about.
    pub filter: WebhookFilter,
    /// How many events make one request.
    pub batch: WebhookBatch,
    /// Time one request may take, from the connection to the end of the answer.
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
    /// Requests that may be on their way to it at once. Events of one channel are never on their way at once.
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: u16,
}

/// Which channels an endpoint is told about: those that fit everything that is set here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookFilter {
    /// The name begins with this.
    pub channel_name_starts_with: Option<String>,
    /// The name ends with this.
    pub channel_name_ends_with: Option<String>,
    /// The name fits one of these patterns, in which `*` stands for any characters. An empty list asks nothing.
    pub channel_patterns: Vec<String>,
}

/// How events are gathered into requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookBatch {
    /// Events in one request at most. 1 is no batching.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_events: u16,
    /// Time an event may wait for others to go with it.
    #[schemars(range(max = 60_000))]
    pub max_delay_ms: u32,
}

impl Default for WebhookConfig {
    fn default() -> WebhookConfig {
        WebhookConfig {
            name: None,
            url: WebhookUrl::default(),
            enabled: true,
            event_types: Vec::new(),
            headers: BTreeMap::new(),
            filter: WebhookFilter::default(),
            batch: WebhookBatch::default(),
            timeout_ms: 10_000,
            concurrency: 8,
        }
    }
}

impl Default for WebhookBatch {
    fn default() -> WebhookBatch {
        WebhookBatch {
            max_events: 1,
            max_delay_ms: 0,
        }
    }
}

impl WebhookFilter {
    fn fits(&self, channel: &str) -> bool {
        let WebhookFilter {
            channel_name_starts_with: start,
            channel_name_ends_with: end,
            channel_patterns: patterns,
        } = self;
        start.as_deref().is_none_or(|start| channel.starts_with(start))
            && end.as_deref().is_none_or(|end| channel.ends_with(end))
            && (patterns.is_empty() || patterns.iter().any(|pattern| pattern::matches(pattern, channel)))
    }
}

impl WebhookConfig {
    /// What is wrong about the endpoints of an app, by themselves and among each other.
    pub(super) fn faults(webhooks: &[WebhookConfig]) -> Vec<Fault> {
        let mut names = HashSet::new();
        let mut faults = Vec::new();
        if webhooks.len() > ENDPOINTS_MAX {
            faults.push(Fault {
                key: "webhooks".into(),
                text: format!(
                    "may be {ENDPOINTS_MAX} endpoints at most, and these are {}",
                    webhooks.len()
                ),
            });
        }
        for (index, webhook) in webhooks.iter().enumerate() {
            faults.extend(webhook.faults_at(index));
            let name = webhook.name_at(index);
            if !names.insert(name.clone()) {
                faults.push(Fault {
                    key: format!("webhooks[{index}].name"),
                    text: format!("another endpoint of the app is called `{name}` already"),
                });
            }
        }
        faults
    }

    /// The name it goes by at this place of the list, from 0.
    pub(crate) fn name_at(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| (index + 1).to_string())
    }

    fn header_map(&self) -> Result<HeaderMap, (String, &'static str)> {
        let mut map = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let fault = |text| (format!("headers.{name}"), text);
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let parsed = parsed.map_err(|_| fault("is no name of a header"))?;
            let own = [
                KEY_HEADER,
                SIGNATURE_HEADER,
                ID_HEADER,
                CONTENT_TYPE,
                CONTENT_LENGTH,
                HOST,
            ];
            if own.contains(&parsed) || CONNECTION_HEADERS.contains(&parsed.as_str()) {
                return Err(fault("is set by the server itself"));
            }
            if value.expose() == crate::secret::REDACTED {
                return Err(fault(
                    "is the mark that a printed configuration shows in place of the value",
                ));
            }
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| fault("holds what no header may: only printable ASCII"))?;
            value.set_sensitive(true);
            if map.insert(parsed, value).is_some() {
                return Err(fault("stands there twice, but for upper and lower case"));
            }
        }
        Ok(map)
    }

    /// What is wrong about this endpoint by itself, at this place of the list.
    fn faults_at(&self, index: usize) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, text: &str| {
            faults.push(Fault {
                key: format!("webhooks[{index}].{key}"),
                text: text.into(),
            })
        };
        if let Some(name) = &self.name
            && !is_name(name)
        {
            fault("name", "must be 1 to 64 letters, digits, `-` and `_`");
        }
        match self.url.uri() {
            _ if self.url.is_empty() => fault("url", "is required"),
            Err(text) => fault("url", text),
            Ok(_) => {}
        }
        if let Err((key, text)) = self.header_map() {
            fault(&key, text);
        }
        if self.batch.max_events == 1 && self.batch.max_delay_ms > 0 {
            fault(
                "batch.max_delay_ms",
                "would only delay every event, since `max_events` is 1: raise that, or leave this at 0",
            );
        }
        if self.batch.max_events > 1 && self.batch.max_delay_ms == 0 {
            fault(
                "batch.max_delay_ms",
                "is 0, so that no event would wait for others: set it, or leave `max_events` at 1",
            );
        }
        faults
    }
}

/// Headers that belong to one connection and not to what is said over it.
const CONNECTION_HEADERS: [&str; 6] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> WebhookConfig {
        WebhookConfig {
            url: WebhookUrl::new(url),
            ..WebhookConfig::default()
        }
    }

    #[test]
    fn each_fault_names_its_key() {
        type Change = fn(&mut WebhookConfig);
        let header = |name: &'static str, value: &'static str| {
            move |webhook: &mut WebhookConfig| drop(webhook.headers.insert(name.into(), Secret::new(value)))
        };
        type AnyChange = Box<dyn Fn(&mut WebhookConfig)>;
        let cases: Vec<(AnyChange, &str)> = vec![
            (Box::new((|it| it.url = WebhookUrl::default()) as Change), "url"),
            (
                Box::new((|it| it.url = WebhookUrl::new("example.org")) as Change),
                "url",
            ),
            (
                Box::new((|it| it.url = WebhookUrl::new("ftp://example.org/")) as Change),
                "url",
            ),
            (
                Box::new((|it| it.url = WebhookUrl::new("https://u:p@example.org/")) as Change),
                "url",
            ),
            (
                Box::new((|it| it.url = WebhookUrl::new("https://example.org/#a")) as Change),
                "url",
            ),
            (Box::new((|it| it.name = Some("a b".into())) as Change), "name"),
            (Box::new((|it| it.name = Some(String::new())) as Change), "name"),
            (
                Box::new(header("Content-Type", "text/plain")),
                "headers.Content-Type",
            ),
            (Box::new(header("X-PUSHER-KEY", "k")), "headers.X-PUSHER-KEY"),
            (
                Box::new(header("x-pusher-signature", "k")),
                "headers.x-pusher-signature",
            ),
            (
                Box::new(header("X-Fanwire-Webhook-Id", "k")),
                "headers.X-Fanwire-Webhook-Id",
            ),
            (Box::new(header("Host", "example.org")), "headers.Host"),
            (Box::new(header("content-length", "1")), "headers.content-length"),
            (
                Box::new(header("Transfer-Encoding", "chunked")),
                "headers.Transfer-Encoding",
            ),
            (Box::new(header("two words", "x")), "headers.two words"),
            (Box::new(header("x", "a\r\nb: c")), "headers.x"),
            (Box::new(header("x", "[redacted]")), "headers.x"),
            (
                Box::new((|it| it.batch.max_delay_ms = 5) as Change),
                "batch.max_delay_ms",
            ),
            (
                Box::new((|it| it.batch.max_events = 5) as Change),
                "batch.max_delay_ms",
            ),
        ];
        for (change, key) in cases {
            let mut webhook = endpoint("https://example.org/hooks?token=1");
            assert_eq!(WebhookConfig::faults(std::slice::from_ref(&webhook)), []);
            change(&mut webhook);
            let keys: Vec<_> = WebhookConfig::faults(&[webhook])
                .into_iter()
                .map(|fault| fault.key)
                .collect();
            assert_eq!(keys, [format!("webhooks[0].{key}")]);
        }
    }

    #[test]
    fn names_are_unique_those_by_place_too() {
        let named = WebhookConfig {
            name: Some("3".into()),
            ..endpoint("http://a/")
        };
        let found = WebhookConfig::faults(&[named, endpoint("http://b/"), endpoint("http://c/")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, "webhooks[2].name");
    }

    #[test]
    fn an_app_has_so_many_endpoints_at_most() {
        let endpoints = |count| vec![endpoint("http://a/"); count];
        assert_eq!(WebhookConfig::faults(&endpoints(ENDPOINTS_MAX)), []);
        let found = WebhookConfig::faults(&endpoints(ENDPOINTS_MAX + 1));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, "webhooks");
    }

    #[test]
    fn header_values_and_queries_are_not_shown() {
        let mut webhook = endpoint("https://example.org/?token=hunter2");
        webhook
            .headers
            .insert("Authorization".into(), Secret::new("Bearer hunter3"));
        let endpoints = WebhookEndpoints::of(std::slice::from_ref(&webhook));
        assert_eq!(endpoints.iter().count(), 1);
        assert!(!format!("{endpoints:?}").contains("hunter"));
        assert!(!format!("{webhook:?}").contains("hunter"));
        let printed = serde_json::to_value(&webhook).expect("serialises");
        assert!(!printed.to_string().contains("hunter"));
        assert_eq!(printed["url"], "https://example.org/");
    }

    #[test]
    fn names_on_the_wire_and_in_settings_are_the_same() {
        for kind in WebhookKind::ALL {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
    }
}
