//! `POST /apps/ID/events` and `batch_events`: from a body to publications, all or none of them; and what is
//! answered when they are published. Pure: who publishes them is `mod.rs`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::event::{Event, EventBody, Str};
use super::info::{ChannelMap, Counts};
use crate::app::Settings;
use crate::node::ChannelDetail;
use crate::protocol::ChannelName;

/// The events of one call, every one of them valid.
#[derive(Debug, PartialEq)]
pub(super) struct Trigger {
    pub(super) events: Vec<Event>,
    pub(super) idempotency_key: Option<String>,
    form: Form,
}

/// Which of the two calls publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// `events`.
    Event,
    /// `batch_events`.
    Batch,
}

impl Form {
    /// Reads the body of this call.
    pub(super) fn parse(self, body: &[u8], settings: &Settings) -> Result<Trigger, ApiError> {
        match self {
            Form::Event => parse_event(body, settings),
            Form::Batch => parse_batch(body, settings),
        }
    }
}

#[derive(Deserialize)]
struct BatchBody<'a> {
    #[serde(borrow)]
    batch: Option<Vec<EventBody<'a>>>,
    #[serde(borrow)]
    idempotency_key: Option<Str<'a>>,
}

fn parse_event(body: &[u8], settings: &Settings) -> Result<Trigger, ApiError> {
    let event: EventBody<'_> = parse(body)?;
    let idempotency_key = event.idempotency_key.as_ref().map(|key| key.0.to_string());
    Ok(Trigger {
        events: vec![event.checked(settings)?],
        idempotency_key,
        form: Form::Event,
    })
}

/// One bad event refuses all.
fn parse_batch(body: &[u8], settings: &Settings) -> Result<Trigger, ApiError> {
    let body: BatchBody<'_> = parse(body)?;
    let Some(batch) = body.batch else {
        return Err(ApiError::bad("`batch` is missing: an array of events."));
    };
    if batch.is_empty() {
        return Err(ApiError::bad("`batch` is empty: send at least one event."));
    }
    let max = settings.limits.batch_items_max;
    if batch.len() > max {
        return Err(ApiError::bad(format!(
            "`batch` has {} events; the limit is {max}. Send them in several calls, or raise the app's \
             `batch_items_max`.",
            batch.len()
        )));
    }
    let checked = |(n, event): (usize, &EventBody<'_>)| {
        event
            .checked(settings)
            .map_err(|refusal| refusal.at(&format!("batch[{n}]")))
    };
    Ok(Trigger {
        events: batch.iter().enumerate().map(checked).collect::<Result<_, _>>()?,
        idempotency_key: body.idempotency_key.map(|key| key.0.into_owned()),
        form: Form::Batch,
    })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(ApiError::bad("The request body is not UTF-8."));
    };
    // Derive would take an array of the fields in order as well.
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::bad("The request body is not a JSON object."));
    }
    serde_json::from_str(text).map_err(|error| {
        // Once more, and slower, to learn which field it was.
        let mut deserializer = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Err(e) if error.is_data() && e.path().iter().next().is_some() => {
                ApiError::bad(format!("`{}`: {}.", e.path(), e.inner()))
            }
            _ => ApiError::bad(format!("The request body is malformed: {error}.")),
        }
    })
}

/// What one event is told: counts of its channel, or a map of them.
#[derive(Serialize)]
#[serde(untagged)]
enum EventAnswer<'a> {
    Counts(Counts),
    Channels { channels: ChannelMap<'a> },
}

#[derive(Serialize)]
struct BatchAnswer<'a> {
    batch: Vec<EventAnswer<'a>>,
}

impl Trigger {
    /// What the caller is told, `{}` unless an event asked for `info`. `detail` looks a channel up.
    pub(super) fn answer(&self, detail: impl Fn(&ChannelName) -> ChannelDetail) -> Bytes {
        if self.events.iter().all(|event| event.info.is_none()) {
            return Bytes::from_static(b"{}");
        }
        let text = match &self.events[..] {
            [event] if self.form == Form::Event => serde_json::to_vec(&answer(event, false, &detail)),
            events => {
                let batch = events.iter().map(|event| answer(event, true, &detail)).collect();
                serde_json::to_vec(&BatchAnswer { batch })
            }
        };
        text.unwrap_or_default().into()
    }
}

/// An event of a batch names one channel as a rule, and then it is told the bare counts.
fn answer(event: &Event, is_batch: bool, detail: impl Fn(&ChannelName) -> ChannelDetail) -> EventAnswer<'_> {
    let Some(wanted) = event.info else {
        return EventAnswer::Counts(Counts::default());
    };
    let counts = |name| (name, Counts::new(wanted, name, &detail(name)));
    match &event.publication.channels[..] {
        [name] if is_batch => EventAnswer::Counts(counts(name).1),
        names => EventAnswer::Channels {
            channels: ChannelMap(names.iter().map(counts).collect()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppConfig;

    type Parse = fn(&[u8], &Settings) -> Result<Trigger, ApiError>;

    fn settings() -> Settings {
        Settings::new(AppConfig::demo()).expect("the demo app is valid")
    }

    /// Every channel has three subscribers and, if it is a presence channel, two users.
    fn detail(name: &ChannelName) -> ChannelDetail {
        ChannelDetail {
            subscription_count: 3,
            user_count: name.kind().is_presence().then_some(2),
            cache: None,
        }
    }

    #[test]
    fn the_events_of_a_batch_stay_in_order() {
        let body = br#"{"batch":[
            {"name":"e1","data":"1","channel":"a","socket_id":"1.2"},
            {"name":"e2","data":"2","channels":["b","c"]},
            {"name":"e3","data":"3","channel":"private-encrypted-d"}
        ],"more":[1]}"#;
        let trigger = parse_batch(body, &settings()).expect("a valid batch");
        let shown = trigger.events.iter().map(|Event { publication: p, .. }| {
            let channels: Vec<_> = p.channels.iter().map(ChannelName::as_str).collect();
            format!("{} {} {}", p.event, p.data, channels.join(","))
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            ["e1 1 a", "e2 2 b,c", "e3 3 private-encrypted-d"]
        );
    }

    #[test]
    fn one_bad_event_refuses_the_batch_and_is_named() {
        let event = r#"{"name":"e","data":"","channel":"a"}"#;
        let big = format!(r#"{{"name":"e","channel":"a","data":"{}"}}"#, "x".repeat(10_241));
        let batch = |events: &[&str]| format!(r#"{{"batch":[{}]}}"#, events.join(","));
        assert!(parse_batch(batch(&[event; 10]).as_bytes(), &settings()).is_ok());
        for (body, status, part) in [
            (batch(&[event; 11]), 400, "`batch` has 11 events; the limit is 10"),
            (batch(&[]), 400, "`batch` is empty"),
            ("{}".into(), 400, "`batch` is missing"),
            (r#"{"batch":{}}"#.into(), 400, "`batch`: invalid type: map"),
            (
                batch(&[event, r#"{"name":"e","channel":"a"}"#]),
                400,
                "`batch[1]`: `data` is missing",
            ),
            (
                batch(&[event, r#"{"name":5}"#]),
                400,
                "`batch[1].name`: invalid type: integer `5`",
            ),
            (
                batch(&[event, event, &big]),
                413,
                "`batch[2]`: `data` has 10241 bytes",
            ),
        ] {
            let refusal = parse_batch(body.as_bytes(), &settings()).expect_err("an event is bad");
            assert_eq!(refusal.status(), status, "{body}");
            assert!(refusal.text().contains(part), "{}", refusal.text());
        }
    }

    #[test]
    fn a_body_that_cannot_be_read_says_where() {
        for (body, part) in [
            (&b""[..], "not a JSON object"),
            (b"[]", "not a JSON object"),
            (br#"["e",null]"#, "not a JSON object"),
            (br#""{}""#, "not a JSON object"),
            (b"{\"name\":\"\xff\"}", "not UTF-8"),
            (b"{", "malformed: EOF"),
            (b"{} {}", "malformed: trailing characters"),
            (br#"{"name":"e","name":"f"}"#, "duplicate field `name`"),
            (
                br#"{"name":"e","channels":["a",5]}"#,
                "`channels[1]`: invalid type: integer `5`",
            ),
            (
                br#"{"name":"e","channels":"a"}"#,
                "`channels`: invalid type: string \"a\"",
            ),
            (
                br#"{"name":"e","socket_id":1.2}"#,
                "`socket_id`: invalid type: floating point `1.2`",
            ),
            (br#"{"name":"\ud800"}"#, "malformed: "),
        ] {
            let refusal = parse_event(body, &settings()).expect_err("it cannot be read");
            assert_eq!(refusal.status(), 400);
            assert!(refusal.text().contains(part), "{}", refusal.text());
        }
    }

    #[test]
    fn answers_tell_what_was_asked_as_objects() {
        for (parse, body, answer) in [
            (
                parse_event as Parse,
                r#"{"name":"e","data":"","channel":"a"}"#,
                "{}",
            ),
            (
                parse_event,
                r#"{"name":"e","data":"","channel":"a","info":""}"#,
                "{}",
            ),
            (
                parse_event,
                r##"{"name":"e","data":"","channels":["presence-a","b","#server-to-user-c","b"],
                     "info":"user_count,subscription_count,mood"}"##,
                concat!(
                    r#"{"channels":{"presence-a":{"user_count":2,"subscription_count":3},"#,
                    r##""b":{"subscription_count":3},"#server-to-user-c":{}}}"##
                ),
            ),
            (
                parse_event,
                r#"{"name":"e","data":"","channel":"a","info":"user_count,cache"}"#,
                r#"{"channels":{"a":{}}}"#,
            ),
            (
                parse_batch,
                r#"{"batch":[{"name":"e","data":"","channel":"a"}]}"#,
                "{}",
            ),
            (
                parse_batch,
                r#"{"batch":[
                    {"name":"e","data":"","channel":"presence-a","info":"user_count"},
                    {"name":"e","data":"","channel":"b"},
                    {"name":"e","data":"","channels":["b"],"info":"subscription_count"},
                    {"name":"e","data":"","channels":["b","c"],"info":"subscription_count"}]}"#,
                concat!(
                    r#"{"batch":[{"user_count":2},{},{"subscription_count":3},"#,
                    r#"{"channels":{"b":{"subscription_count":3},"c":{"subscription_count":3}}}]}"#
                ),
            ),
            (
                parse_batch,
                r#"{"batch":[{"name":"e","data":"","channel":"b","info":"user_count"}]}"#,
                r#"{"batch":[{}]}"#,
            ),
        ] {
            let trigger = parse(body.as_bytes(), &settings()).expect("a valid call");
            assert_eq!(trigger.answer(detail), answer, "{body}");
        }
    }

    #[test]
    fn the_idempotency_key_stands_beside_the_event_or_the_batch() {
        let event = r#"{"name":"e","data":"","channel":"a","idempotency_key":"k"}"#;
        let batch = r#"{"batch":[{"name":"e","data":"","channel":"a"}],"idempotency_key":"k"}"#;
        for (parse, body) in [(parse_event as Parse, event), (parse_batch, batch)] {
            let trigger = parse(body.as_bytes(), &settings()).expect("a valid call");
            assert_eq!(trigger.idempotency_key.as_deref(), Some("k"));
        }
    }
}
