//! What the server says: one function for each message, from values to a finished [`Frame`].
//!
//! `data` is a JSON *string* in all of them but [`error`], whose data is an object: clients exist that read
//! only the one or the other. Channel events are not here but in `EncodedEvent`: they are encoded once for
//! many channels.

use std::fmt::Write;

use serde::Serialize;

use super::channel_name::ChannelName;
use super::code::{CloseCode, RefusalKind};
use super::frame::{Frame, FrameBuffer};
use super::json::{self, quoted};
use super::socket_id::SocketId;

/// The first message on every accepted connection. `activity_timeout_s` must not be 0: pusher-js would give
/// up on us.
pub fn connection_established(socket_id: SocketId, activity_timeout_s: u64) -> Frame {
    // 35 bytes, two numbers of at most 20 for the id and one more.
    let mut data = String::with_capacity(96);
    let _ = write!(
        data,
        r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_s}}}"#
    );
    message("pusher:connection_established", None, &data)
}

/// `pusher:ping`, for transports and apps that do not use WebSocket's own.
pub fn ping() -> Frame {
    Frame::of_static(b"\x81\x23{\"event\":\"pusher:ping\",\"data\":\"{}\"}")
}

/// The answer to a client's `pusher:ping`.
pub fn pong() -> Frame {
    Frame::of_static(b"\x81\x23{\"event\":\"pusher:pong\",\"data\":\"{}\"}")
}

/// `pusher:error`. Closes nothing by itself. `channel` is any text: it may be what the client sent in place
/// of a name.
pub fn error(code: Option<u16>, message: &str, channel: Option<&str>) -> Frame {
    #[derive(Serialize)]
    struct Data<'a> {
        code: Option<u16>,
        message: &'a str,
    }
    let length = message.len() + channel.map_or(0, str::len);
    encode(
        &Message {
            event: "pusher:error",
            channel,
            data: Data { code, message },
        },
        length,
    )
}

/// The `pusher:error` that goes before a close, see [`CloseCode::is_told_first`].
pub fn closing_error(code: CloseCode) -> Frame {
    error(Some(code.number()), code.reason(), None)
}

/// The subscription is in force; nothing of this channel comes before it. For all but presence channels.
pub fn subscription_succeeded(channel: &ChannelName) -> Frame {
    message(
        "pusher_internal:subscription_succeeded",
        Some(channel.as_str()),
        "{}",
    )
}

/// The same for presence channels, with the members as [`presence_json`] lists them.
pub fn subscription_succeeded_presence(channel: &ChannelName, presence_json: &str) -> Frame {
    message(
        "pusher_internal:subscription_succeeded",
        Some(channel.as_str()),
        presence_json,
    )
}

/// Every member of a presence channel, the new one included, each user once: the data of
/// `subscription_succeeded`. Members are `(user id, user info as compact JSON text)`.
pub fn presence_json<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut count = 0;
    let mut ids = String::new();
    let mut hash = String::new();
    for (user_id, user_info) in members {
        let comma = if count == 0 { "" } else { "," };
        let user_id = quoted(user_id);
        ids.extend([comma, &user_id]);
        hash.extend([comma, &user_id, ":", user_info]);
        count += 1;
    }
    format!(r#"{{"presence":{{"count":{count},"ids":[{ids}],"hash":{{{hash}}}}}}}"#)
}

/// The subscription was refused; the socket stays open. `channel` is what the client asked for. Goes out
/// together with an [`error`] of the kind's own code, see [`subscription_refused`].
pub fn subscription_error(channel: &str, kind: RefusalKind, message: &str) -> Frame {
    let (name, error, status) = (kind.type_name(), quoted(message), kind.status());
    let data = format!(r#"{{"type":"{name}","error":{error},"status":{status}}}"#);
    self::message("pusher:subscription_error", Some(channel), &data)
}

/// Both messages of a refused subscription, in order: one reaches handlers bound on the channel, the other
/// those on the connection. `short` names the fault ("Invalid signature"), `full` also says what was
/// expected.
pub fn subscription_refused(channel: &str, kind: RefusalKind, short: &str, full: &str) -> [Frame; 2] {
    [
        subscription_error(channel, kind, short),
        error(kind.error_code(), full, Some(channel)),
    ]
}

/// A user's first socket joined. `user_info` is compact JSON text.
pub fn member_added(channel: &ChannelName, user_id: &str, user_info: &str) -> Frame {
    let data = format!(r#"{{"user_id":{},"user_info":{user_info}}}"#, quoted(user_id));
    message("pusher_internal:member_added", Some(channel.as_str()), &data)
}

/// A user's last socket left.
pub fn member_removed(channel: &ChannelName, user_id: &str) -> Frame {
    let data = format!(r#"{{"user_id":{}}}"#, quoted(user_id));
    message("pusher_internal:member_removed", Some(channel.as_str()), &data)
}

/// A cache channel has nothing kept.
pub fn cache_miss(channel: &ChannelName) -> Frame {
    message("pusher:cache_miss", Some(channel.as_str()), "{}")
}

/// How many sockets of the cluster are subscribed.
pub fn subscription_count(channel: &ChannelName, count: usize) -> Frame {
    let data = format!(r#"{{"subscription_count":{count}}}"#);
    message(
        "pusher_internal:subscription_count",
        Some(channel.as_str()),
        &data,
    )
}

/// The sign-in is in force. `user_data` is echoed as it was received.
pub fn signin_success(user_data: &str) -> Frame {
    let data = format!(r#"{{"user_data":{}}}"#, quoted(user_data));
    message("pusher:signin_success", None, &data)
}

/// Which of the watched users came or went (or, after sign-in, are there or not). `None` if that is nobody.
pub fn watchlist_events<T: AsRef<str>>(online: &[T], offline: &[T]) -> Option<Frame> {
    let groups = [("online", online), ("offline", offline)];
    let groups: Vec<String> = groups
        .iter()
        .filter(|(_, ids)| !ids.is_empty())
        .map(|(name, ids)| {
            let ids: Vec<String> = ids.iter().map(|id| quoted(id.as_ref())).collect();
            format!(r#"{{"name":"{name}","user_ids":[{}]}}"#, ids.join(","))
        })
        .collect();
    let data = format!(r#"{{"events":[{}]}}"#, groups.join(","));
    (!groups.is_empty()).then(|| message("pusher_internal:watchlist_events", None, &data))
}

/// Every message, its keys in the order in which they are written.
#[derive(Serialize)]
struct Message<'a, T> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    data: T,
}

/// A message whose data is a string, which is all but `pusher:error`.
fn message(event: &'static str, channel: Option<&str>, data: &str) -> Frame {
    // JSON inside JSON: a quote takes two bytes.
    let length = channel.map_or(0, str::len) + data.len() + data.len() / 4;
    encode(&Message { event, channel, data }, length)
}

/// `length` is an estimate of what the values take.
fn encode<T: Serialize>(message: &Message<'_, T>, length: usize) -> Frame {
    let mut buffer = FrameBuffer::with_capacity(message.event.len() + 64 + length);
    json::push(&mut buffer.json, message);
    buffer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages as the Pusher protocol prints them, byte for byte.
    #[test]
    fn messages_are_what_clients_expect() {
        let channel = |name| ChannelName::parse(name, 200).expect("legal");
        let (public, presence) = (channel("news"), channel("presence-a"));
        for (frame, json) in [
            (
                connection_established(SocketId::from_parts(1184713, 4403225), 120),
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1184713.4403225\",\"activity_timeout\":120}"}"#,
            ),
            (ping(), r#"{"event":"pusher:ping","data":"{}"}"#),
            (pong(), r#"{"event":"pusher:pong","data":"{}"}"#),
            (
                closing_error(CloseCode::NoSuchApp),
                r#"{"event":"pusher:error","data":{"code":4001,"message":"Application does not exist"}}"#,
            ),
            (
                error(None, "No \"current\" subscription", Some("a\"b\n")),
                r#"{"event":"pusher:error","channel":"a\"b\n","data":{"code":null,"message":"No \"current\" subscription"}}"#,
            ),
            (
                subscription_succeeded(&public),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}"#,
            ),
            (
                subscription_succeeded_presence(
                    &presence,
                    &presence_json([("1", r#"{"name":"Ada"}"#), ("2", "{}")].into_iter()),
                ),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-a","data":"{\"presence\":{\"count\":2,\"ids\":[\"1\",\"2\"],\"hash\":{\"1\":{\"name\":\"Ada\"},\"2\":{}}}}"}"#,
            ),
            (
                member_added(&presence, "2", "{}"),
                r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{\"user_id\":\"2\",\"user_info\":{}}"}"#,
            ),
            (
                member_removed(&presence, "2"),
                r#"{"event":"pusher_internal:member_removed","channel":"presence-a","data":"{\"user_id\":\"2\"}"}"#,
            ),
            (
                cache_miss(&channel("cache-btc")),
                r#"{"event":"pusher:cache_miss","channel":"cache-btc","data":"{}"}"#,
            ),
            (
                subscription_count(&public, 13),
                r#"{"event":"pusher_internal:subscription_count","channel":"news","data":"{\"subscription_count\":13}"}"#,
            ),
            (
                signin_success(r#"{"id":"42", "x":"\u00e9"}"#),
                r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"42\\\", \\\"x\\\":\\\"\\\\u00e9\\\"}\"}"}"#,
            ),
        ] {
            assert_eq!(frame, Frame::text(json), "{json}");
        }
    }

    #[test]
    fn a_refused_subscription_is_told_twice() {
        let full = "Invalid signature: expected HMAC SHA256 hex digest of 1.2:private-a";
        assert_eq!(
            subscription_refused("private-a", RefusalKind::Auth, "Invalid signature", full),
            [
                r#"{"event":"pusher:subscription_error","channel":"private-a","data":"{\"type\":\"AuthError\",\"error\":\"Invalid signature\",\"status\":401}"}"#,
                r#"{"event":"pusher:error","channel":"private-a","data":{"code":4009,"message":"Invalid signature: expected HMAC SHA256 hex digest of 1.2:private-a"}}"#,
            ]
            .map(Frame::text)
        );
    }

    #[test]
    fn the_list_of_no_members_is_still_made_of_the_same_types() {
        assert_eq!(
            presence_json(std::iter::empty()),
            r#"{"presence":{"count":0,"ids":[],"hash":{}}}"#
        );
    }

    #[test]
    fn watched_users_come_in_groups_and_an_empty_group_is_left_out() {
        for (online, offline, events) in [
            (
                &["7"][..],
                &["9", "a"][..],
                r#"{\"name\":\"online\",\"user_ids\":[\"7\"]},{\"name\":\"offline\",\"user_ids\":[\"9\",\"a\"]}"#,
            ),
            (&["7"], &[], r#"{\"name\":\"online\",\"user_ids\":[\"7\"]}"#),
            (&[], &["9"], r#"{\"name\":\"offline\",\"user_ids\":[\"9\"]}"#),
        ] {
            let json = format!(
                r#"{{"event":"pusher_internal:watchlist_events","data":"{{\"events\":[{events}]}}"}}"#
            );
            assert_eq!(watchlist_events(online, offline), Some(Frame::text(json)));
        }
        assert_eq!(watchlist_events::<&str>(&[], &[]), None);
    }

    #[test]
    fn ids_that_need_escapes_stay_json_on_both_levels() {
        let channel = ChannelName::parse("presence-a", 200).expect("legal");
        let id = "a\"\\\u{1}é😀";
        let data = |frame: Frame| {
            let message: serde_json::Value = serde_json::from_slice(frame.payload()).expect("JSON");
            serde_json::from_str::<serde_json::Value>(message["data"].as_str().expect("string"))
                .expect("JSON")
        };
        let list = presence_json([(id, r#"{"n":"\""}"#)].into_iter());
        let list = data(subscription_succeeded_presence(&channel, &list));
        assert_eq!(
            list,
            serde_json::json!({"presence": {"count": 1, "ids": [id], "hash": {id: {"n": "\""}}}})
        );
        assert_eq!(
            data(member_removed(&channel, id)),
            serde_json::json!({"user_id": id})
        );
        assert_eq!(
            data(member_added(&channel, id, r#"{"n":"\""}"#)),
            serde_json::json!({"user_id": id, "user_info": {"n": "\""}})
        );
    }
}
