//! What clients say: the text of one message, to a value that is one of the things a client may say.
//!
//! Only form is judged here. Signatures, names, limits and whether the app allows it at all are for the
//! session; of the many keys a client may send, only those named in [`ClientMessage`] survive, so nothing
//! else can be relayed.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

use super::json;

/// One message of a client. It borrows from the text of the message where that needed no unescaping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// `pusher:ping`: wants a `pusher:pong` at once.
    Ping,
    /// `pusher:pong`: the answer to ours.
    Pong,
    /// `pusher:subscribe`.
    Subscribe {
        /// The name as sent, not yet checked.
        channel: Cow<'a, str>,
        /// `KEY:HEX`; the empty text for public channels.
        auth: Text<'a>,
        /// The JSON text that was signed.
        channel_data: Text<'a>,
    },
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// The name as sent, not yet checked.
        channel: Cow<'a, str>,
    },
    /// `pusher:signin`.
    SignIn {
        /// `KEY:HEX`.
        auth: Text<'a>,
        /// The JSON text that was signed.
        user_data: Text<'a>,
    },
    /// Anything that begins with `client-`.
    ClientEvent {
        /// The event's name, prefix included; its length is not yet checked.
        event: Cow<'a, str>,
        /// The name as sent, not yet checked.
        channel: Cow<'a, str>,
        /// The data as receivers shall see it: a string as it was, any other JSON as its compact text.
        data: Cow<'a, str>,
    },
}

/// A key of which the protocol says: text, or absent. `null` counts as absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Text<'a> {
    /// Not there, or `null`.
    #[default]
    Absent,
    /// A string, which may be empty.
    Given(Cow<'a, str>),
    /// Some other JSON, or a string with half a surrogate pair: refused wherever the key means something.
    NotText,
}

/// Why a message is none. Its text is the message of the `pusher:error` (code `null`) that answers it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Not the text of a JSON object with a string `event`, or one with a known key given twice.
    #[error("Invalid message format")]
    NotAMessage,
    /// `data` is neither an object nor a string that holds one.
    #[error("Invalid message format: {0} needs data, an object or a string that holds one")]
    NoData(&'static str),
    /// A message about a channel that does not name one with a string.
    #[error("Invalid message format: {0} needs a channel, named with a string")]
    NoChannel(String),
    /// `pusher:` and then something no client says.
    #[error("Unknown event {event}")]
    UnknownEvent {
        /// Its name, cut when long.
        event: String,
        /// The channel it was meant for, cut when long.
        channel: Option<String>,
    },
    /// An event name that only servers may use.
    #[error("Event {event} refused: clients may only trigger events that begin with client-")]
    ForeignEvent {
        /// Its name, cut when long.
        event: String,
        /// The channel it was meant for, cut when long.
        channel: Option<String>,
    },
}

impl ParseError {
    /// The channel that the message named.
    pub fn channel(&self) -> Option<&str> {
        match self {
            ParseError::UnknownEvent { channel, .. } | ParseError::ForeignEvent { channel, .. } => {
                channel.as_deref()
            }
            _ => None,
        }
    }
}

/// The outermost object.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    event: Text<'a>,
    #[serde(borrow, default)]
    channel: Text<'a>,
    /// `Option` by itself would take `null` for absent, and a client event may well carry `null`.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What `data` may hold in the `pusher:` messages that need it.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    channel: Text<'a>,
    #[serde(borrow, default)]
    auth: Text<'a>,
    #[serde(borrow, default)]
    channel_data: Text<'a>,
    #[serde(borrow, default)]
    user_data: Text<'a>,
}

impl<'a> ClientMessage<'a> {
    /// Reads one text message, whatever it holds: never panics, and takes time in proportion to its length.
    pub fn parse(text: &'a str) -> Result<ClientMessage<'a>, ParseError> {
        let Envelope { event, channel, data } = json::object(text).ok_or(ParseError::NotAMessage)?;
        let Text::Given(event) = event else {
            return Err(ParseError::NotAMessage);
        };
        match &*event {
            "pusher:ping" => Ok(ClientMessage::Ping),
            "pusher:pong" => Ok(ClientMessage::Pong),
            "pusher:subscribe" => {
                let Data {
                    channel,
                    auth,
                    channel_data,
                    ..
                } = Data::parse(data, "pusher:subscribe")?;
                Ok(ClientMessage::Subscribe {
                    channel: name(channel, &event)?,
                    auth,
                    channel_data,
                })
            }
            "pusher:unsubscribe" => {
                let Data { channel, .. } = Data::parse(data, "pusher:unsubscribe")?;
                Ok(ClientMessage::Unsubscribe {
                    channel: name(channel, &event)?,
                })
            }
            "pusher:signin" => {
                let Data { auth, user_data, .. } = Data::parse(data, "pusher:signin")?;
                Ok(ClientMessage::SignIn { auth, user_data })
            }
            unknown if unknown.starts_with("pusher:") => Err(ParseError::UnknownEvent {
                event: cut(&event),
                channel: channel.as_str().map(cut),
            }),
            own if own.starts_with("client-") => {
                let channel = name(channel, &event)?;
                let data = data
                    .map_or(Some(Cow::Borrowed("{}")), string_form)
                    .ok_or(ParseError::NotAMessage)?;
                Ok(ClientMessage::ClientEvent { event, channel, data })
            }
            _ => Err(ParseError::ForeignEvent {
                event: cut(&event),
                channel: channel.as_str().map(cut),
            }),
        }
    }
}

impl<'a> Data<'a> {
    fn parse(data: Option<&'a RawValue>, event: &'static str) -> Result<Data<'a>, ParseError> {
        let data = data.map_or("", RawValue::get);
        let parsed = match json::unescaped(data) {
            Some(text) => json::object(&text).map(Data::into_owned),
            None => json::object(data),
        };
        parsed.ok_or(ParseError::NoData(event))
    }

    fn into_owned(self) -> Data<'static> {
        Data {
            channel: self.channel.into_owned(),
            auth: self.auth.into_owned(),
            channel_data: self.channel_data.into_owned(),
            user_data: self.user_data.into_owned(),
        }
    }
}

/// The data of a client event as receivers shall see it. `None`: a string with half a surrogate pair, which
/// is no text.
fn string_form(data: &RawValue) -> Option<Cow<'_, str>> {
    let json = data.get();
    if json.starts_with('"') {
        json::unescaped(json)
    } else {
        Some(json::compact(json))
    }
}

fn name<'a>(channel: Text<'a>, event: &str) -> Result<Cow<'a, str>, ParseError> {
    match channel {
        Text::Given(name) => Ok(name),
        Text::Absent | Text::NotText => Err(ParseError::NoChannel(cut(event))),
    }
}

/// A name for an error message: as much of it as a legal one may have.
fn cut(name: &str) -> String {
    name.chars().take(200).collect()
}

impl<'a> Text<'a> {
    fn of(json: &'a str) -> Text<'a> {
        match json::unescaped(json) {
            Some(text) => Text::Given(text),
            None if json == "null" => Text::Absent,
            None => Text::NotText,
        }
    }

    /// The text, if one was given.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Text::Given(text) => Some(text),
            Text::Absent | Text::NotText => None,
        }
    }

    /// The same text, no longer tied to the message it came from.
    pub fn into_owned(self) -> Text<'static> {
        match self {
            Text::Absent => Text::Absent,
            Text::Given(text) => Text::Given(Cow::Owned(text.into_owned())),
            Text::NotText => Text::NotText,
        }
    }
}

/// By hand: derive would refuse the whole message over one key of another type, and copies every `Cow`.
impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|json| Text::of(json.get()))
    }
}

#[cfg(test)]
mod tests;
