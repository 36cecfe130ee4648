//! One event as a server's library describes it, and the rules it must keep to be published. Pure, and about
//! one event: what a call makes of several is `events`.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::info::Wanted;
use crate::app::{Limits, Settings};
use crate::node::Publication;
use crate::protocol::{ChannelName, SocketId, json};

/// The prefixes of events that only this server may send.
const RESERVED: [&str; 2] = ["pusher:", "pusher_internal:"];

/// An event to publish, and what its caller wants to know of the channels.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    pub(super) publication: Publication,
    /// `None` if `info` was not given; an empty one counts as not given.
    pub(super) info: Option<Wanted>,
}

/// A string of the body. A field of type `Cow<str>` borrows, an `Option` or `Vec` of it would not: so this.
#[derive(Deserialize)]
pub(super) struct Str<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// An event as it stands in the body. What else stands there is passed over, and never relayed.
#[derive(Deserialize)]
pub(super) struct EventBody<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<Str<'a>>,
    #[serde(borrow)]
    channels: Option<Vec<Str<'a>>>,
    #[serde(borrow)]
    socket_id: Option<Str<'a>>,
    #[serde(borrow)]
    info: Option<Str<'a>>,
    /// Of the call, not of the event; only here because `events` has both in one object.
    #[serde(borrow)]
    pub(super) idempotency_key: Option<Str<'a>>,
}

/// A `null` is data like any other, not a missing field.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl EventBody<'_> {
    /// The event, if it keeps every rule.
    pub(super) fn checked(&self, settings: &Settings) -> Result<Event, ApiError> {
        let event = self.checked_name(&settings.limits)?;
        let channels = self.checked_channels(&settings.limits)?;
        let except = self.checked_socket_id()?;
        // The smallest of all channels' limits.
        let bound = |name| (settings.policy(name).event_data_bytes_max, name);
        let bounds = channels.iter().map(bound).min_by_key(|(max, _)| *max);
        let publication = Publication {
            data: self.checked_data(bounds)?,
            event,
            channels,
            except,
        };
        let info = self.info.as_ref().filter(|info| !info.0.is_empty());
        Ok(Event {
            publication,
            info: info.map(|info| Wanted::lenient(&info.0)),
        })
    }

    fn checked_name(&self, limits: &Limits) -> Result<String, ApiError> {
        let Some(Str(name)) = &self.name else {
            return Err(ApiError::bad("`name` is missing: the name of the event."));
        };
        if name.is_empty() {
            return Err(ApiError::bad("`name` is empty: the event needs a name."));
        }
        let max = limits.event_name_length_max;
        if name.len() > max && name.chars().count() > max {
            return Err(ApiError::bad(format!(
                "`name` has {} characters; the limit is {max}. Shorten it, or raise the app's \
                 `event_name_length_max`.",
                name.chars().count()
            )));
        }
        match RESERVED.iter().find(|prefix| name.starts_with(**prefix)) {
            Some(prefix) => Err(ApiError::bad(format!(
                "`name` begins with {prefix:?}, which is reserved for the server's own events."
            ))),
            None => Ok(name.as_ref().to_owned()),
        }
    }

    fn checked_channels(&self, limits: &Limits) -> Result<Vec<ChannelName>, ApiError> {
        let names = match (&self.channels, &self.channel) {
            (Some(names), _) => &names[..],
            (None, Some(name)) => std::slice::from_ref(name),
            (None, None) => return Err(ApiError::bad("`channels` is missing: an array of channel names.")),
        };
        if let [Str(name)] = names {
            return Ok(vec![channel_name(name, limits)?]);
        }
        if names.is_empty() {
            return Err(ApiError::bad("`channels` is empty: name at least one channel."));
        }
        if names.len() > limits.channels_per_publish_max {
            return Err(ApiError::bad(format!(
                "`channels` has {} names; the limit is {}. Publish in several calls, or raise the app's \
                 `channels_per_publish_max`.",
                names.len(),
                limits.channels_per_publish_max
            )));
        }
        let mut seen = HashSet::with_capacity(names.len());
        let mut channels = Vec::with_capacity(names.len());
        for Str(name) in names {
            if !seen.insert(name.as_ref()) {
                continue;
            }
            let channel = channel_name(name, limits)?;
            if channel.kind().is_encrypted() {
                return Err(ApiError::bad(format!(
                    "{channel} is encrypted with a key of its own: an event for it can name no other channel."
                )));
            }
            channels.push(channel);
        }
        Ok(channels)
    }

    /// An id that is nobody's excludes nobody; a text that is no id is a mistake.
    fn checked_socket_id(&self) -> Result<Option<SocketId>, ApiError> {
        match &self.socket_id {
            Some(Str(id)) if !SocketId::is_well_formed(id) => Err(ApiError::bad(
                "`socket_id` is not of the form \"123.456\"; leave it out to reach every subscriber.",
            )),
            id => Ok(id.as_ref().and_then(|id| SocketId::parse(&id.0))),
        }
    }

    /// The data as the string that subscribers get: itself if it is one, else its compact JSON.
    /// `bound` is how large it may be, and the channel that says so.
    fn checked_data(&self, bound: Option<(usize, &ChannelName)>) -> Result<String, ApiError> {
        let Some(data) = self.data else {
            return Err(ApiError::bad("`data` is missing: a string, which may be empty."));
        };
        let raw = data.get();
        let text = match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            None => json::compact(raw).into_owned(),
            Some(plain) if !plain.contains('\\') => plain.to_owned(),
            Some(_) => serde_json::from_str(raw).map_err(|e| ApiError::bad(format!("`data`: {e}.")))?,
        };
        match bound {
            Some((max, channel)) if text.len() > max => Err(ApiError::TooLarge(format!(
                "`data` has {} bytes; the limit is {max} for {channel}. Send a reference instead of the thing itself, \
                 or raise the app's `event_data_bytes_max`.",
                text.len()
            ))),
            _ => Ok(text),
        }
    }
}

/// Reads the name of a channel, from a body or a path.
pub(super) fn channel_name(name: &str, limits: &Limits) -> Result<ChannelName, ApiError> {
    ChannelName::parse(name, limits.channel_name_length_max).map_err(|reason| {
        let shown: String = name.chars().take(100).collect();
        ApiError::bad(format!("{shown:?} is not the name of a channel: {reason}."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppConfig;
    use serde_json::{Value, json as value};

    fn settings() -> Settings {
        Settings::new(AppConfig::demo()).expect("the demo app is valid")
    }

    /// Checks an event as the body of a call would give it.
    fn check(body: &str) -> Result<Event, ApiError> {
        let body: EventBody<'_> = serde_json::from_str(body).expect("the fields have the right types");
        body.checked(&settings())
    }

    /// A valid event with some fields changed; one that becomes `null` counts as not given.
    fn check_with(changes: &Value) -> Result<Event, ApiError> {
        let mut body = value!({"name": "e", "data": "d", "channels": ["a"]});
        for (key, changed) in changes.as_object().expect("changes are an object") {
            body[key] = changed.clone();
        }
        check(&body.to_string())
    }

    fn channels(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("c{n}")).collect()
    }

    #[test]
    fn an_event_is_taken_as_the_libraries_send_it() {
        // PHP names one channel as `channel`, Node always as `channels`; fields nobody knows are passed over.
        let event = check(r#"{"name":"e","data":"{\"a\":1}","channel":"a","socket_id":"12.34","x":[1]}"#);
        let expected = Publication {
            event: "e".into(),
            data: r#"{"a":1}"#.into(),
            channels: vec![ChannelName::parse("a", 200).expect("a legal name")],
            except: SocketId::parse("12.34"),
        };
        assert_eq!(
            event,
            Ok(Event {
                publication: expected,
                info: None
            })
        );
    }

    #[test]
    fn data_becomes_the_string_that_subscribers_get() {
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        for (raw, data) in [
            (r#""""#, ""),
            (r#""plain""#, "plain"),
            (r#""{\"a\":\"\u00e9\\n\"}""#, r#"{"a":"é\n"}"#),
            ("5", "5"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("null", "null"),
            ("true", "true"),
            (
                r#"{ "b" : [ 1, 2.0 ], "a" : " x " }"#,
                r#"{"b":[1,2.0],"a":" x "}"#,
            ),
            (&deep, &deep),
        ] {
            let event = check(&format!(r#"{{"name":"e","channel":"a","data": {raw} }}"#));
            assert_eq!(event.map(|event| event.publication.data).as_deref(), Ok(data));
        }
    }

    #[test]
    fn limits_hold_to_the_last_unit() {
        for (changes, passes) in [
            (value!({"name": "x".repeat(200)}), true),
            (value!({"name": "é".repeat(200)}), true),
            (value!({"name": "x".repeat(201)}), false),
            (value!({"channels": channels(100)}), true),
            (value!({"channels": channels(101)}), false),
            (value!({"channels": ["x".repeat(200)]}), true),
            (value!({"channels": ["x".repeat(201)]}), false),
            (
                value!({"channels": [format!("#server-to-user-{}", "x".repeat(200))]}),
                true,
            ),
            (value!({"data": "x".repeat(10_240)}), true),
            (value!({"data": "x".repeat(10_241)}), false),
            (value!({"data": "é".repeat(5_120)}), true),
            (value!({"data": "é".repeat(5_121)}), false),
        ] {
            assert_eq!(check_with(&changes).is_ok(), passes, "{changes}");
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for (changes, status, part) in [
            (value!({"name": null}), 400, "`name` is missing"),
            (value!({"name": ""}), 400, "`name` is empty"),
            (value!({"name": "pusher:ping"}), 400, r#"begins with "pusher:""#),
            (
                value!({"name": "pusher_internal:x"}),
                400,
                r#"begins with "pusher_internal:""#,
            ),
            (value!({"channels": null}), 400, "`channels` is missing"),
            (value!({"channels": []}), 400, "`channels` is empty"),
            (
                value!({"channels": [], "channel": "a"}),
                400,
                "`channels` is empty",
            ),
            (
                value!({"channels": channels(101)}),
                400,
                "has 101 names; the limit is 100",
            ),
            (
                value!({"channels": ["a", "b!"]}),
                400,
                r#""b!" is not the name of a channel"#,
            ),
            (
                value!({"channels": [""]}),
                400,
                r#""" is not the name of a channel"#,
            ),
            (
                value!({"channels": ["#a"]}),
                400,
                r##""#a" is not the name of a channel"##,
            ),
            (
                value!({"channels": ["a", "private-encrypted-b"]}),
                400,
                "can name no other channel",
            ),
            (value!({"socket_id": "1"}), 400, "`socket_id` is not of the form"),
            (value!({"socket_id": ""}), 400, "`socket_id` is not of the form"),
            (
                value!({"socket_id": "1.2\n"}),
                400,
                "`socket_id` is not of the form",
            ),
            (
                value!({"data": "x".repeat(10_241)}),
                413,
                "`data` has 10241 bytes; the limit is 10240 for a.",
            ),
        ] {
            let refusal = check_with(&changes).expect_err("it breaks a rule");
            assert_eq!(refusal.status(), status, "{changes}");
            assert!(refusal.text().contains(part), "{}", refusal.text());
        }
        let refusal = check(r#"{"name":"e","channel":"a"}"#).expect_err("there is no data");
        assert!(refusal.text().contains("`data` is missing"), "{}", refusal.text());
    }

    #[test]
    fn some_things_that_look_wrong_are_right() {
        for changes in [
            value!({"name": "client-x"}),
            value!({"name": "pusher-x"}),
            value!({"socket_id": "0.0"}),
            value!({"socket_id": null, "info": null, "channel": null}),
            value!({"channels": ["private-encrypted-a"]}),
            value!({"channels": null, "channel": "private-encrypted-a"}),
            value!({"channels": ["#server-to-user-1", "b"]}),
            value!({"info": "mood"}),
        ] {
            assert!(check_with(&changes).is_ok(), "{changes}");
        }
    }

    #[test]
    fn a_channel_named_twice_gets_the_event_once() {
        let event = check_with(&value!({"channels": ["b", "a", "b", "a"]})).expect("a valid event");
        let names: Vec<_> = event
            .publication
            .channels
            .iter()
            .map(ChannelName::as_str)
            .collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn an_event_for_several_channels_keeps_to_the_smallest_limit() {
        let channels = value!([
            {"pattern": "small-*", "event_data_bytes_max": 5},
            {"pattern": "large-*", "event_data_bytes_max": 20_000},
        ]);
        let settings = Settings::new(AppConfig {
            channels: serde_json::from_value(channels).expect("rules"),
            ..AppConfig::demo()
        })
        .expect("rules in order");
        for (channels, bytes, passes) in [
            (value!(["large-1"]), 20_000, true),
            (value!(["large-1"]), 20_001, false),
            (value!(["large-1", "a"]), 10_241, false),
            (value!(["large-1", "a"]), 10_240, true),
            (value!(["large-1", "small-1", "a"]), 6, false),
            (value!(["large-1", "small-1", "a"]), 5, true),
        ] {
            let body = value!({"name": "e", "channels": channels, "data": "x".repeat(bytes)}).to_string();
            let body: EventBody<'_> = serde_json::from_str(&body).expect("the fields have the right types");
            let checked = body.checked(&settings);
            assert_eq!(checked.is_ok(), passes, "{channels} {bytes}");
            if channels.as_array().map(Vec::len) == Some(3) && !passes {
                let refusal = checked.expect_err("it is too large");
                assert!(refusal.text().contains("is 5 for small-1"), "{}", refusal.text());
            }
        }
    }
}
