//! What is sent to an endpoint: events with their JSON, the body that some of them make, and its id.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use super::queue::Ticket;
use crate::protocol::ChannelName;

/// What an event takes in memory beside its JSON, roughly. Bytes.
const EVENT_BYTES: usize = 256;

/// An event on its way to an endpoint. Cheap to clone: an event for several endpoints is written once.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) channel: ChannelName,
    /// As it stands in the body.
    pub(super) json: Arc<str>,
    /// Its own, whichever node delivers it.
    pub(super) id: u128,
    /// When it happened, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// When it is given up.
    pub(super) expires: Instant,
    /// Held until all are done with the event: its end is what the durable queue is told.
    #[expect(dead_code, reason = "is held and dropped, never read")]
    pub(super) ticket: Option<Arc<Ticket>>,
}

impl Event {
    /// What it counts for in queues.
    pub(super) fn bytes(&self) -> usize {
        self.json.len() + EVENT_BYTES
    }
}

/// The body that these events make: always the same bytes of the same events.
pub(super) fn body(events: &[Event]) -> String {
    const AROUND: usize = 48;
    let length = events.iter().map(|event| event.json.len() + 1).sum::<usize>();
    let mut body = String::with_capacity(AROUND + length);
    // The oldest one's: that is how old the body is, to receivers that refuse what is too old.
    let time_ms = events.iter().map(|event| event.time_ms).min().unwrap_or_default();
    let _ = write!(body, r#"{{"time_ms":{time_ms},"events":["#);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&event.json);
    }
    body.push_str("]}");
    body
}

/// The id of a body: the same whenever the same events go to the same endpoint.
pub(super) fn body_id(app_id: &str, endpoint: &str, events: &[Event]) -> u128 {
    let mut hash = Xxh3::new();
    for part in [app_id, endpoint] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    for event in events {
        hash.update(&event.id.to_le_bytes());
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::auth;
    use crate::webhook::WebhookEvent;

    fn event(channel: &str, id: u128, time_ms: u64) -> Event {
        let channel = ChannelName::parse(channel, 200).expect("a legal name");
        let event = WebhookEvent::ChannelOccupied {
            channel: channel.clone(),
        };
        Event {
            channel,
            json: event.to_json().into(),
            id,
            time_ms,
            expires: Instant::now(),
            ticket: None,
        }
    }

    #[test]
    fn the_vector_of_the_protocol() {
        let body = body(&[event("my-channel", 1, 1_327_078_148_132)]);
        assert_eq!(
            body,
            r#"{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#
        );
        assert_eq!(
            auth::sign("7ad3773142a6692b25b8", &body),
            "c19001ae3963ccb13bf618e5b16ba9848e7e74df0993aa0689168e341c6833cf"
        );
    }

    #[test]
    fn a_body_is_as_old_as_its_oldest_event() {
        let body = body(&[event("a", 1, 7), event("b", 2, 5)]);
        let events = r#"{"name":"channel_occupied","channel":"a"},{"name":"channel_occupied","channel":"b"}"#;
        assert_eq!(body, format!(r#"{{"time_ms":5,"events":[{events}]}}"#));
    }

    #[test]
    fn a_body_is_known_by_its_events_and_where_it_goes() {
        let (a, b) = (event("a", 1, 0), event("b", 2, 0));
        let id = body_id("1", "e", std::slice::from_ref(&a));
        assert_eq!(id, body_id("1", "e", std::slice::from_ref(&a)));
        for other in [
            body_id("1", "f", std::slice::from_ref(&a)),
            body_id("1e", "", std::slice::from_ref(&a)),
            body_id("1", "e", std::slice::from_ref(&b)),
            body_id("1", "e", &[a, b]),
        ] {
            assert_ne!(id, other);
        }
    }
}
