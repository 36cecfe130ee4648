//! A channel event on its way to many subscribers, in one channel or in several.

use super::channel_name::ChannelName;
use super::frame::Frame;
use super::json::{push_escaped, push_string};

/// An event whose name and data are encoded once, whatever the number of channels it goes to.
#[derive(Debug, Clone)]
pub struct EncodedEvent {
    /// All that stands before the channel's name, and all after it.
    head: String,
    tail: String,
}

impl EncodedEvent {
    /// `data` is the string as receivers shall see it. `user_id` is the sender's member id, for client events on presence channels.
    pub fn new(event: &str, data: &str, user_id: Option<&str>) -> EncodedEvent {
        let mut head = String::with_capacity(event.len() + 32);
        head.push_str(r#"{"event":"#);
        push_string(&mut head, event);
        head.push_str(r#","channel":""#);

        // JSON inside JSON: every quote of the data takes two bytes.
        let mut tail = String::with_capacity(data.len() + data.len() / 4 + 64);
        tail.push_str(r#"","data":""#);
        push_escaped(&mut tail, data);
        tail.push('"');
        if let Some(user_id) = user_id {
            tail.push_str(r#","user_id":"#);
            push_string(&mut tail, user_id);
        }
        tail.push('}');
        EncodedEvent { head, tail }
    }

    /// The finished message for the subscribers of one channel. A channel's name needs no escapes: its alphabet has none.
    pub fn frame(&self, channel: &ChannelName) -> Frame {
        Frame::text_of([&self.head, channel.as_str(), &self.tail])
    }
}
