//! Any text as a client's message: no panic, and what is relayed of a client event says what the client said.
#![no_main]

use fanwire::protocol::{ChannelName, ClientMessage, EncodedEvent};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let message = match ClientMessage::parse(text) {
        Ok(message) => message,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // Deeper or larger than a `Value` may be, it still has to be a message: then nothing is known to compare with.
    let Ok(said) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let name = said["event"]
        .as_str()
        .expect("a message has a string for its event");

    let ClientMessage::ClientEvent { event, channel, data } = message else {
        return assert!(name.starts_with("pusher:"));
    };
    assert_eq!((&*event, Some(&*channel)), (name, said["channel"].as_str()));
    match &said["data"] {
        Value::String(text) => assert_eq!(*text, data),
        Value::Null if said.get("data").is_none() => assert_eq!(data, "{}"),
        json => assert_eq!(
            *json,
            serde_json::from_str::<Value>(&data).expect("JSON stays JSON")
        ),
    }

    let Ok(channel) = ChannelName::parse(&channel, 200) else {
        return;
    };
    let frame = EncodedEvent::new(&event, &data, Some("user \"1\"")).frame(&channel);
    let relayed: Value = serde_json::from_slice(frame.payload()).expect("a frame's text is JSON");
    let expected = serde_json::json!({
        "event": event, "channel": channel.as_str(), "data": data, "user_id": "user \"1\"",
    });
    assert_eq!(relayed, expected);
});
