//! An event as it stands in a durable queue: self-contained, so that another node can deliver it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::app::WebhookKind;
use crate::protocol::ChannelName;

/// Longer than any setting allows: the name was checked where the event happened.
const NAME_LENGTH_MAX: usize = 65_536;

/// An event, whose app it is, and when it happened.
#[derive(Debug)]
pub(in crate::webhook) struct Entry {
    pub(in crate::webhook) app_id: String,
    pub(in crate::webhook) kind: WebhookKind,
    pub(in crate::webhook) channel: ChannelName,
    /// The event's own id.
    pub(in crate::webhook) id: u128,
    /// Milliseconds since 1970.
    pub(in crate::webhook) time_ms: u64,
    /// As it stands in a body.
    pub(in crate::webhook) json: Box<RawValue>,
}

/// What is stored. New versions may add fields; none may change its meaning.
#[derive(Serialize, Deserialize)]
struct Stored {
    app: String,
    kind: WebhookKind,
    channel: String,
    /// Hex: JSON has no numbers of that size.
    id: String,
    time_ms: u64,
    event: Box<RawValue>,
}

impl Entry {
    pub(in crate::webhook) fn encode(self) -> Bytes {
        let stored = Stored {
            app: self.app_id,
            kind: self.kind,
            channel: self.channel.as_str().to_owned(),
            id: format!("{:032x}", self.id),
            time_ms: self.time_ms,
            event: self.json,
        };
        serde_json::to_vec(&stored)
            .expect("text and numbers are always JSON")
            .into()
    }

    /// None: it is not of this version, or spoilt.
    pub(in crate::webhook) fn decode(entry: &[u8]) -> Option<Entry> {
        let stored: Stored = serde_json::from_slice(entry).ok()?;
        let channel = ChannelName::parse(&stored.channel, NAME_LENGTH_MAX).ok()?;
        Some(Entry {
            app_id: stored.app,
            kind: stored.kind,
            channel,
            id: u128::from_str_radix(&stored.id, 16).ok()?,
            time_ms: stored.time_ms,
            json: stored.event,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let json = r#"{"name":"cache_miss","channel":"cache-a"}"#;
        let entry = Entry {
            app_id: "1".into(),
            kind: WebhookKind::CacheMiss,
            channel: ChannelName::parse("cache-a", 200).expect("a legal name"),
            id: u128::MAX - 1,
            time_ms: 7,
            json: RawValue::from_string(json.into()).expect("JSON"),
        };
        let read = Entry::decode(&entry.encode()).expect("it is in order");
        assert_eq!(
            (&*read.app_id, read.kind, read.channel.as_str()),
            ("1", WebhookKind::CacheMiss, "cache-a")
        );
        assert_eq!((read.id, read.time_ms, read.json.get()), (u128::MAX - 1, 7, json));
    }

    #[test]
    fn what_is_spoilt_is_no_entry() {
        for bytes in [
            &b""[..],
            b"{}",
            b"\xff",
            br#"{"app":"1","kind":"cache_miss","channel":"a b","id":"1","time_ms":1,"event":{}}"#,
            br#"{"app":"1","kind":"other","channel":"a","id":"1","time_ms":1,"event":{}}"#,
            br#"{"app":"1","kind":"cache_miss","channel":"a","id":"x","time_ms":1,"event":{}}"#,
        ] {
            assert!(Entry::decode(bytes).is_none());
        }
    }
}
