//! A channel event on its way to many subscribers, in one channel or in several.

use super::channel_name::ChannelName;
use super::frame::Frame;
use super::json;

/// An event whose name and data are encoded once, whatever the number of channels it goes to.
#[derive(Debug, Clone)]
pub struct EncodedEvent {
    /// The message, but for the channel's name.
    message: Vec<u8>,
    /// Where the name goes.
    channel_at: usize,
}

impl EncodedEvent {
    /// `data` is the string as receivers shall see it. `user_id` is the sender's member id, for client events
    /// on presence channels.
    pub fn new(event: &str, data: &str, user_id: Option<&str>) -> EncodedEvent {
        // JSON inside JSON: a quote takes two bytes. A guess that is too low costs a copy, no more.
        let mut message = Vec::with_capacity(event.len() + data.len() + data.len() / 4 + 64);
        message.extend_from_slice(br#"{"event":"#);
        json::push(&mut message, &event);
        message.extend_from_slice(br#","channel":""#);
        let channel_at = message.len();
        message.extend_from_slice(br#"","data":"#);
        json::push(&mut message, &data);
        if let Some(user_id) = user_id {
            message.extend_from_slice(br#","user_id":"#);
            json::push(&mut message, &user_id);
        }
        message.push(b'}');
        EncodedEvent { message, channel_at }
    }

    /// The finished message for the subscribers of one channel. A channel's name needs no escapes: its
    /// alphabet has none.
    pub fn frame(&self, channel: &ChannelName) -> Frame {
        let (head, tail) = self.message.split_at(self.channel_at);
        Frame::text_of([head, channel.as_str().as_bytes(), tail])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name, 200).expect("legal")
    }

    #[test]
    fn one_encoding_serves_several_channels() {
        let event = EncodedEvent::new("price", r#"{"p":1}"#, None);
        for name in ["a", "cache-btc", "#server-to-user-42"] {
            let json = format!(r#"{{"event":"price","channel":"{name}","data":"{{\"p\":1}}"}}"#);
            assert_eq!(event.frame(&channel(name)), Frame::text(json));
        }
    }

    #[test]
    fn a_client_event_names_its_sender() {
        let event = EncodedEvent::new("client-typing", r#"{"x":1}"#, Some("42"));
        let json = r#"{"event":"client-typing","channel":"presence-a","data":"{\"x\":1}","user_id":"42"}"#;
        assert_eq!(event.frame(&channel("presence-a")), Frame::text(json));
    }

    proptest! {
        #[test]
        fn any_text_comes_out_as_it_went_in(
            event in any::<String>(),
            data in prop_oneof![any::<String>(), r#"[\\"\x00-\x1f\x7f{}é😀]{0,300}"#],
            user_id in any::<Option<String>>(),
            name in "(private-|#server-to-user-)?[A-Za-z0-9_=@,.;-]{1,40}",
        ) {
            let frame = EncodedEvent::new(&event, &data, user_id.as_deref()).frame(&channel(&name));
            let mut expected = json!({"event": event, "channel": name, "data": data});
            if let Some(user_id) = user_id {
                expected["user_id"] = user_id.into();
            }
            let message: Value = serde_json::from_slice(frame.payload()).expect("JSON");
            prop_assert_eq!(message, expected);
            prop_assert_eq!(Frame::from_bytes(frame.clone().into_bytes()), Some(frame));
        }
    }
}
