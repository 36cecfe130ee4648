//! One client: the way from a connection to a socket with all its subscriptions, and what it answers.
//!
//! It reads nothing by itself: `mod.rs` gives it what arrived, and sends what it says.

use std::ops::Range;

use crate::target::Target;

use super::end::End;
use super::frames::{Frames, put_pong, put_text};
use super::ledger::Seat;
use super::rally::Role;
use super::stamp::Stamp;
use super::stream::Stream;

/// A connection of the swarm.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) stage: Stage,
    pub(super) frames: Frames,
    /// Its subscriptions.
    pub(super) seats: Range<Seat>,
    /// Those that are not acknowledged yet.
    pub(super) pending: u16,
    /// Its number in the run.
    pub(super) number: u32,
    /// When something was last heard of it. Seconds since the epoch.
    pub(super) heard_s: u32,
    /// When it began to connect.
    pub(super) began_ns: u64,
    pub(super) role: Role,
    /// Since when it does not read any more.
    pub(super) stalled_ns: Option<u64>,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    Connecting,
    /// The answer to the handshake, as far as it has come.
    Upgrading(Vec<u8>),
    Greeting,
    Subscribing,
    Live,
}

/// What a message without a stamp means to a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Established {
        socket_id: &'a str,
        activity_timeout_s: u32,
    },
    /// With the channel's name as it stands in the message.
    Subscribed {
        channel: &'a str,
    },
    Refused {
        code: u32,
        text: &'a str,
    },
    /// Another member of a presence channel has come, or gone. Its id is its client's number.
    Added {
        member: u32,
    },
    Removed {
        member: u32,
    },
    Ping,
    Other,
}

/// What of a message in pieces is looked at, once a client is live.
const HEAD_BYTES: usize = 1024;
/// An acknowledgement may carry ten thousand members.
const WHOLE_BYTES: usize = 16 * 1024 * 1024;
const WORDS_MAX: usize = 300;

impl Client {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live)
    }

    /// How much of a message must be kept when it comes in pieces.
    #[inline]
    pub(super) fn keep(&self) -> usize {
        if self.is_live() { HEAD_BYTES } else { WHOLE_BYTES }
    }

    /// Takes in a piece of the answer to the handshake. The answer is what remains behind it, once it has come.
    pub(super) fn upgrade<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, End> {
        let Stage::Upgrading(answer) = &mut self.stage else {
            return Ok(Some(input));
        };
        let known = answer.len();
        answer.extend_from_slice(input);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        if !answer.starts_with(b"HTTP/1.1 101") {
            let words = format!("the handshake was answered with: {}", words(answer));
            // A server that is too busy may have time later.
            let is_hopeless = answer.starts_with(b"HTTP/1.1 4") && !answer.starts_with(b"HTTP/1.1 429");
            return Err(if is_hopeless {
                End::Hopeless(words)
            } else {
                End::Ended(words)
            });
        }
        self.stage = Stage::Greeting;
        Ok(Some(&input[end + 4 - known..]))
    }

    /// Answers a WebSocket ping.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        let mut out = Vec::new();
        put_pong(&mut out, payload);
        // What fails here fails at the next read too, and is told there.
        let _ = self.stream.send(&out);
    }

    /// Says something.
    pub(super) fn say<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        let mut out = Vec::new();
        texts.into_iter().for_each(|text| put_text(&mut out, text));
        let _ = self.stream.send(&out);
    }

    /// Says a client event on the channel that the stamp names.
    pub(super) fn say_event(&mut self, target: &Target, stamp: &Stamp, padding: &str) {
        let text = target.client_event(stamp.channel, &(stamp.text() + padding));
        self.say([text.as_str()]);
    }

    /// Says something that asks for nothing. The answer is whether it could be said.
    pub(super) fn nudge(&mut self) -> bool {
        let mut out = Vec::new();
        put_pong(&mut out, &[]);
        self.stream.send(&out).is_ok()
    }
}

/// For a person to read: the beginning of what a server said.
pub(crate) fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(WORDS_MAX)]).replace("\r\n", " | ")
}

/// What a message means. Keys may stand in any order.
pub(super) fn message(text: &str) -> Message<'_> {
    match string_after(text, r#""event""#) {
        Some("pusher:connection_established") => Message::Established {
            socket_id: run_after(text, "socket_id", |letter| {
                letter.is_ascii_digit() || letter == '.'
            }),
            activity_timeout_s: number_after(text, "activity_timeout"),
        },
        Some("pusher_internal:subscription_succeeded" | "pusher:subscription_succeeded") => {
            Message::Subscribed {
                channel: string_after(text, r#""channel""#).unwrap_or_default(),
            }
        }
        Some("pusher:error" | "pusher:subscription_error" | "pusher_internal:subscription_error") => {
            Message::Refused {
                code: number_after(text, "\"code"),
                text,
            }
        }
        Some("pusher_internal:member_added") => Message::Added {
            member: number_after(text, "user_id"),
        },
        Some("pusher_internal:member_removed") => Message::Removed {
            member: number_after(text, "user_id"),
        },
        Some("pusher:ping") => Message::Ping,
        _ => Message::Other,
    }
}

/// The string behind a key.
fn string_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(key)?;
    let rest = rest
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    rest.split('"').next()
}

/// The first letters of a kind behind a word, before the value's end.
fn run_after<'a>(text: &'a str, word: &str, is_of_kind: impl Fn(char) -> bool) -> &'a str {
    let Some((_, rest)) = text.split_once(word) else {
        return "";
    };
    let rest = rest.trim_start_matches(|letter: char| !is_of_kind(letter) && !matches!(letter, ',' | '}'));
    let end = rest.find(|letter| !is_of_kind(letter)).unwrap_or(rest.len());
    &rest[..end]
}

fn number_after(text: &str, word: &str) -> u32 {
    run_after(text, word, |letter| letter.is_ascii_digit())
        .parse()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood_in_any_order_and_spacing() {
        for (text, expected) in [
            (
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1184.44\",\"activity_timeout\":120}"}"#,
                Message::Established {
                    socket_id: "1184.44",
                    activity_timeout_s: 120,
                },
            ),
            (
                r#"{ "data" : "{\"activity_timeout\": 30, \"socket_id\": \"7.8\"}", "event" : "pusher:connection_established" }"#,
                Message::Established {
                    socket_id: "7.8",
                    activity_timeout_s: 30,
                },
            ),
            (
                r#"{"channel":"a","data":"{\"event\":\"pusher:ping\"}","event":"pusher_internal:subscription_succeeded"}"#,
                Message::Subscribed { channel: "a" },
            ),
            (
                r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{\"user_id\":\"42\",\"user_info\":null}"}"#,
                Message::Added { member: 42 },
            ),
            (r#"{"event":"pusher:ping","data":"{}"}"#, Message::Ping),
            (r#"{"event":"other","data":"pusher:ping"}"#, Message::Other),
            ("no JSON", Message::Other),
        ] {
            assert_eq!(message(text), expected, "{text}");
        }
    }

    #[test]
    fn refusals_tell_their_code() {
        for (text, code) in [
            (
                r#"{"event":"pusher:error","data":{"code":4001,"message":"No such app"}}"#,
                4001,
            ),
            (
                r#"{"event":"pusher:error","data":"{\"message\":\"x\",\"code\": 4009}"}"#,
                4009,
            ),
            (
                r#"{"event":"pusher:error","data":{"code":null,"message":"on 127.0.0.1"}}"#,
                0,
            ),
        ] {
            assert_eq!(message(text), Message::Refused { code, text });
        }
    }
}
