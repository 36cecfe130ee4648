//! The endpoints of an app as the server works with them: nothing is parsed any more, and whether anybody asks is told by
//! one comparison.

use std::fmt;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderMap;

use super::{WebhookConfig, WebhookKind};
use crate::protocol::ChannelName;

/// One endpoint, resolved: nothing in it needs to be parsed any more.
pub struct WebhookEndpoint {
    /// What it is called: unique in its app.
    pub name: Arc<str>,
    /// Where requests go.
    pub url: Uri,
    /// What is added to them.
    pub headers: HeaderMap,
    /// The settings as they were written.
    pub config: WebhookConfig,
    kinds: u8,
}

impl WebhookEndpoint {
    /// Whether it is told of such events of this channel.
    pub fn wants(&self, kind: WebhookKind, channel: &ChannelName) -> bool {
        self.kinds & kind.bit() != 0 && self.config.filter.fits(channel.as_str())
    }
}

/// Neither header values nor the query of the URL, where secrets stand.
impl fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookEndpoint")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The endpoints of an app that are enabled. An app without any asks one byte whether anybody wants to hear.
#[derive(Debug, Default)]
pub struct WebhookEndpoints {
    all: Vec<Arc<WebhookEndpoint>>,
    kinds: u8,
}

impl WebhookEndpoints {
    /// Resolves what is in order; see [`AppConfig::faults`](crate::app::AppConfig::faults) for what is not.
    pub(in crate::app) fn of(webhooks: &[WebhookConfig]) -> WebhookEndpoints {
        let resolve = |(index, webhook): (usize, &WebhookConfig)| {
            let of_type = webhook
                .event_types
                .iter()
                .fold(0, |kinds, kind| kinds | kind.bit());
            Some(Arc::new(WebhookEndpoint {
                name: webhook.name_at(index).into(),
                url: webhook.url.uri().ok()?,
                headers: webhook.header_map().ok()?,
                kinds: if of_type == 0 { u8::MAX } else { of_type },
                config: webhook.clone(),
            }))
        };
        let enabled = webhooks.iter().enumerate().filter(|(_, webhook)| webhook.enabled);
        let all: Vec<_> = enabled.filter_map(resolve).collect();
        let kinds = all.iter().fold(0, |kinds, endpoint| kinds | endpoint.kinds);
        WebhookEndpoints { all, kinds }
    }

    /// The endpoints that ask for such events of this channel. Nobody is told of the channels of single users.
    pub(in crate::app) fn wanting(
        &self,
        kind: WebhookKind,
        channel: &ChannelName,
    ) -> impl Iterator<Item = &Arc<WebhookEndpoint>> {
        let any = self.kinds & kind.bit() != 0 && !channel.kind().is_user();
        let all: &[Arc<WebhookEndpoint>] = if any { &self.all } else { &[] };
        all.iter().filter(move |endpoint| endpoint.wants(kind, channel))
    }

    /// The endpoint that goes by this name.
    pub fn find(&self, name: &str) -> Option<&Arc<WebhookEndpoint>> {
        self.all.iter().find(|endpoint| &*endpoint.name == name)
    }

    /// All of them, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<WebhookEndpoint>> {
        self.all.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::webhook::{WebhookFilter, WebhookUrl};

    fn endpoint(url: &str) -> WebhookConfig {
        WebhookConfig {
            url: WebhookUrl::new(url),
            ..WebhookConfig::default()
        }
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).expect("a legal name")
    }

    #[test]
    fn an_endpoint_hears_of_what_it_asked_for() {
        use WebhookKind::{CacheMiss, ChannelOccupied, ClientEvent, MemberAdded};
        let filtered = WebhookConfig {
            event_types: vec![ClientEvent, MemberAdded],
            filter: WebhookFilter {
                channel_name_starts_with: Some("presence-".into()),
                channel_name_ends_with: Some("-eu".into()),
                channel_patterns: vec!["*-room-*".into(), "*-hall-*".into()],
            },
            ..endpoint("http://a/")
        };
        let off = WebhookConfig {
            enabled: false,
            ..endpoint("http://b/")
        };
        let filtered = WebhookEndpoints::of(&[off, filtered]);
        for (kind, name, wanted) in [
            (ClientEvent, "presence-room-eu", true),
            (ClientEvent, "presence-room-1-eu", true),
            (MemberAdded, "presence-hall-1-eu", true),
            (MemberAdded, "presence-yard-1-eu", false),
            (ClientEvent, "presence-room-1-us", false),
            (ClientEvent, "private-room-1-eu", false),
            (ChannelOccupied, "presence-room-1-eu", false),
        ] {
            assert_eq!(
                filtered.wanting(kind, &channel(name)).next().is_some(),
                wanted,
                "{kind:?} {name}"
            );
        }
        assert_eq!(filtered.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["2"]);

        let all = WebhookEndpoints::of(&[endpoint("http://a/")]);
        for (kind, name, count) in [
            (CacheMiss, "cache-a", 1),
            (ChannelOccupied, "#server-to-user-a", 0),
        ] {
            assert_eq!(all.wanting(kind, &channel(name)).count(), count, "{name}");
        }
    }
}
