//! What an app is told, and how it is written into a body.
//!
//! Knows nothing of endpoints, nor of when such an event comes to be.

use std::sync::Arc;

use serde::Serialize;

use crate::app::WebhookKind;
use crate::protocol::{ChannelName, SocketId};

/// Something that happened to an app.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    missing_docs,
    reason = "the names of the protocol; the kinds are described at WebhookKind"
)]
pub enum WebhookEvent {
    ChannelOccupied {
        channel: ChannelName,
    },
    ChannelVacated {
        channel: ChannelName,
    },
    MemberAdded {
        channel: ChannelName,
        user_id: Arc<str>,
    },
    MemberRemoved {
        channel: ChannelName,
        user_id: Arc<str>,
    },
    ClientEvent {
        channel: ChannelName,
        event: Arc<str>,
        /// Always text, as subscribers get it.
        data: Arc<str>,
        socket_id: SocketId,
        /// The member who sent it: on presence channels only.
        user_id: Option<Arc<str>>,
    },
    CacheMiss {
        channel: ChannelName,
    },
    SubscriptionCount {
        channel: ChannelName,
        subscription_count: u64,
    },
}

impl WebhookEvent {
    /// What kind of event it is.
    pub fn kind(&self) -> WebhookKind {
        match self {
            WebhookEvent::ChannelOccupied { .. } => WebhookKind::ChannelOccupied,
            WebhookEvent::ChannelVacated { .. } => WebhookKind::ChannelVacated,
            WebhookEvent::MemberAdded { .. } => WebhookKind::MemberAdded,
            WebhookEvent::MemberRemoved { .. } => WebhookKind::MemberRemoved,
            WebhookEvent::ClientEvent { .. } => WebhookKind::ClientEvent,
            WebhookEvent::CacheMiss { .. } => WebhookKind::CacheMiss,
            WebhookEvent::SubscriptionCount { .. } => WebhookKind::SubscriptionCount,
        }
    }

    /// The channel that it happened to.
    pub fn channel(&self) -> &ChannelName {
        match self {
            WebhookEvent::ChannelOccupied { channel }
            | WebhookEvent::ChannelVacated { channel }
            | WebhookEvent::MemberAdded { channel, .. }
            | WebhookEvent::MemberRemoved { channel, .. }
            | WebhookEvent::ClientEvent { channel, .. }
            | WebhookEvent::CacheMiss { channel }
            | WebhookEvent::SubscriptionCount { channel, .. } => channel,
        }
    }

    /// The event as it stands among the `events` of a body.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Written<'a> {
            name: &'static str,
            channel: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            event: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            socket_id: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            user_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            subscription_count: Option<u64>,
        }
        let mut written = Written {
            name: self.kind().as_str(),
            channel: self.channel().as_str(),
            event: None,
            data: None,
            socket_id: None,
            user_id: None,
            subscription_count: None,
        };
        match self {
            WebhookEvent::MemberAdded { user_id, .. } | WebhookEvent::MemberRemoved { user_id, .. } => {
                written.user_id = Some(user_id);
            }
            WebhookEvent::ClientEvent {
                event,
                data,
                socket_id,
                user_id,
                ..
            } => {
                written.event = Some(event);
                written.data = Some(data);
                written.socket_id = Some(socket_id.to_string());
                written.user_id = user_id.as_deref();
            }
            WebhookEvent::SubscriptionCount {
                subscription_count, ..
            } => written.subscription_count = Some(*subscription_count),
            WebhookEvent::ChannelOccupied { .. }
            | WebhookEvent::ChannelVacated { .. }
            | WebhookEvent::CacheMiss { .. } => {}
        }
        serde_json::to_string(&written).expect("text and numbers are always JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).expect("a legal name")
    }

    #[test]
    fn every_kind_is_written_as_the_protocol_has_it() {
        let socket_id = SocketId::from_parts(1, 2);
        let client_event = |name, user_id| WebhookEvent::ClientEvent {
            channel: channel(name),
            event: "client-typing".into(),
            data: "{\"a\":1}".into(),
            socket_id,
            user_id,
        };
        for (event, json) in [
            (
                WebhookEvent::ChannelOccupied {
                    channel: channel("a"),
                },
                r#"{"name":"channel_occupied","channel":"a"}"#,
            ),
            (
                WebhookEvent::ChannelVacated {
                    channel: channel("a"),
                },
                r#"{"name":"channel_vacated","channel":"a"}"#,
            ),
            (
                WebhookEvent::MemberAdded {
                    channel: channel("presence-a"),
                    user_id: "1".into(),
                },
                r#"{"name":"member_added","channel":"presence-a","user_id":"1"}"#,
            ),
            (
                WebhookEvent::MemberRemoved {
                    channel: channel("presence-a"),
                    user_id: "\"".into(),
                },
                r#"{"name":"member_removed","channel":"presence-a","user_id":"\""}"#,
            ),
            (
                client_event("private-a", None),
                r#"{"name":"client_event","channel":"private-a","event":"client-typing","data":"{\"a\":1}","socket_id":"1.2"}"#,
            ),
            (
                client_event("presence-a", Some("7".into())),
                r#"{"name":"client_event","channel":"presence-a","event":"client-typing","data":"{\"a\":1}","socket_id":"1.2","user_id":"7"}"#,
            ),
            (
                WebhookEvent::CacheMiss {
                    channel: channel("cache-a"),
                },
                r#"{"name":"cache_miss","channel":"cache-a"}"#,
            ),
            (
                WebhookEvent::SubscriptionCount {
                    channel: channel("a"),
                    subscription_count: 3,
                },
                r#"{"name":"subscription_count","channel":"a","subscription_count":3}"#,
            ),
        ] {
            assert_eq!(event.to_json(), json);
        }
    }
}
