//! What the server says: one function for each message, from values to a finished [`Frame`].
//!
//! `data` is a JSON *string* in all of them but [`error`], whose data is an object: clients exist that read only the one
//! or the other. Channel events are not here but in `EncodedEvent`: they are encoded once for many channels.

use std::fmt::Write;

use super::channel_name::ChannelName;
use super::code::{CloseCode, RefusalKind};
use super::frame::{Frame, FrameBuffer};
use super::json::push_string;
use super::socket_id::SocketId;

/// The first message on every accepted connection. `activity_timeout_s` must not be 0: pusher-js would give up on us.
pub fn connection_established(socket_id: SocketId, activity_timeout_s: u64) -> Frame {
    let data = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_s}}}"#);
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

/// `pusher:error`. Closes nothing by itself. `channel` is any text: it may be what the client sent in place of a name.
pub fn error(code: Option<u16>, error: &str, channel: Option<&str>) -> Frame {
    let mut buffer = FrameBuffer::with_capacity(96 + error.len() + channel.map_or(0, str::len));
    let json = &mut buffer.json;
    json.push_str(r#"{"event":"pusher:error""#);
    push_channel(json, channel);
    json.push_str(r#","data":{"code":"#);
    match code {
        Some(code) => json.push_str(&code.to_string()),
        None => json.push_str("null"),
    }
    json.push_str(r#","message":"#);
    push_string(json, error);
    json.push_str("}}");
    buffer.finish()
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

/// Every member of a presence channel, the new one included, each user once: the data of `subscription_succeeded`.
/// Members are `(user id, user info as compact JSON text)`.
pub fn presence_json<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut count = 0;
    let mut ids = String::new();
    let mut hash = String::new();
    for (user_id, user_info) in members {
        if count > 0 {
            ids.push(',');
            hash.push(',');
        }
        count += 1;
        push_string(&mut ids, user_id);
        push_string(&mut hash, user_id);
        hash.push(':');
        hash.push_str(user_info);
    }
    format!(r#"{{"presence":{{"count":{count},"ids":[{ids}],"hash":{{{hash}}}}}}}"#)
}

/// The subscription was refused; the socket stays open. `channel` is what the client asked for. Goes out together
/// with an [`error`] of the kind's own code, see [`subscription_refused`].
pub fn subscription_error(channel: &str, kind: RefusalKind, error: &str) -> Frame {
    let mut data = String::with_capacity(64 + error.len());
    data.push_str(r#"{"type":""#);
    data.push_str(kind.type_name());
    data.push_str(r#"","error":"#);
    push_string(&mut data, error);
    // Writing to a String cannot fail.
    let _ = write!(data, r#","status":{}}}"#, kind.status());
    message("pusher:subscription_error", Some(channel), &data)
}

/// Both messages of a refused subscription, in order: one reaches handlers bound on the channel, the other those on the
/// connection. `short` names the fault ("Invalid signature"), `full` also says what was expected.
pub fn subscription_refused(channel: &str, kind: RefusalKind, short: &str, full: &str) -> [Frame; 2] {
    [
        subscription_error(channel, kind, short),
        error(kind.error_code(), full, Some(channel)),
    ]
}

/// A user's first socket joined. `user_info` is compact JSON text.
pub fn member_added(channel: &ChannelName, user_id: &str, user_info: &str) -> Frame {
    let mut data = String::with_capacity(40 + user_id.len() + user_info.len());
    data.push_str(r#"{"user_id":"#);
    push_string(&mut data, user_id);
    data.push_str(r#","user_info":"#);
    data.push_str(user_info);
    data.push('}');
    message("pusher_internal:member_added", Some(channel.as_str()), &data)
}

/// A user's last socket left.
pub fn member_removed(channel: &ChannelName, user_id: &str) -> Frame {
    let mut data = String::from(r#"{"user_id":"#);
    push_string(&mut data, user_id);
    data.push('}');
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
    let mut data = String::with_capacity(user_data.len() + user_data.len() / 4 + 16);
    data.push_str(r#"{"user_data":"#);
    push_string(&mut data, user_data);
    data.push('}');
    message("pusher:signin_success", None, &data)
}

/// Which of the watched users came or went (or, after sign-in, are there or not). `None` if that is nobody.
pub fn watchlist_events<T: AsRef<str>>(online: &[T], offline: &[T]) -> Option<Frame> {
    let groups = [("online", online), ("offline", offline)];
    let groups: Vec<String> = groups
        .iter()
        .filter(|(_, ids)| !ids.is_empty())
        .map(group)
        .collect();
    let data = format!(r#"{{"events":[{}]}}"#, groups.join(","));
    (!groups.is_empty()).then(|| message("pusher_internal:watchlist_events", None, &data))
}

fn group<T: AsRef<str>>((name, ids): &(&str, &[T])) -> String {
    let mut text = format!(r#"{{"name":"{name}","user_ids":["#);
    for (at, id) in ids.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        push_string(&mut text, id.as_ref());
    }
    text + "]}"
}

/// A message whose data is a string, which is all but `pusher:error`. Event names of ours need no escapes.
fn message(event: &'static str, channel: Option<&str>, data: &str) -> Frame {
    let length = event.len() + channel.map_or(0, str::len) + data.len() + data.len() / 4 + 64;
    let mut buffer = FrameBuffer::with_capacity(length);
    let json = &mut buffer.json;
    json.push_str(r#"{"event":""#);
    json.push_str(event);
    json.push('"');
    push_channel(json, channel);
    json.push_str(r#","data":"#);
    push_string(json, data);
    json.push('}');
    buffer.finish()
}

fn push_channel(json: &mut String, channel: Option<&str>) {
    if let Some(channel) = channel {
        json.push_str(r#","channel":"#);
        push_string(json, channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_messages_have_the_header_of_their_length() {
        assert_eq!(ping(), Frame::text(r#"{"event":"pusher:ping","data":"{}"}"#));
        assert_eq!(pong(), Frame::text(r#"{"event":"pusher:pong","data":"{}"}"#));
    }
}
