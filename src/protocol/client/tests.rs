use proptest::prelude::*;

use super::*;

fn given(text: &str) -> Text<'static> {
    Text::Given(Cow::Owned(text.to_owned()))
}

fn subscribe(
    channel: &'static str,
    auth: Text<'static>,
    channel_data: Text<'static>,
) -> ClientMessage<'static> {
    ClientMessage::Subscribe {
        channel: channel.into(),
        auth,
        channel_data,
    }
}

fn client_event(data: &'static str) -> ClientMessage<'static> {
    ClientMessage::ClientEvent {
        event: "client-typing".into(),
        channel: "private-a".into(),
        data: data.into(),
    }
}

#[test]
fn what_clients_say() {
    for (text, message) in [
        (r#"{"event":"pusher:ping","data":{}}"#, ClientMessage::Ping),
        (r#"{"event":"pusher:pong","data":{}}"#, ClientMessage::Pong),
        (
            r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"news"}}"#,
            subscribe("news", given(""), Text::Absent),
        ),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"KEY:HEX","channel_data":"{\"user_id\":\"42\"}"}}"#,
            subscribe("private-a", given("KEY:HEX"), given(r#"{"user_id":"42"}"#)),
        ),
        (
            r#"{"event":"pusher:unsubscribe","data":{"channel":"private-a"}}"#,
            ClientMessage::Unsubscribe {
                channel: "private-a".into(),
            },
        ),
        (
            r#"{"event":"pusher:signin","data":{"auth":"KEY:HEX","user_data":"{\"id\":\"42\"}"}}"#,
            ClientMessage::SignIn {
                auth: given("KEY:HEX"),
                user_data: given(r#"{"id":"42"}"#),
            },
        ),
        (
            r#"{"event":"client-typing","channel":"private-a","data":{"x":1}}"#,
            client_event(r#"{"x":1}"#),
        ),
    ] {
        assert_eq!(ClientMessage::parse(text), Ok(message), "{text}");
    }
}

#[test]
fn the_same_said_otherwise() {
    for (text, message) in [
        // Java sends no data, Python an empty string; nobody reads it.
        (r#"{"event":"pusher:ping"}"#, ClientMessage::Ping),
        (r#"{"event":"pusher:ping","data":""}"#, ClientMessage::Ping),
        (
            r#"{"event":"pusher:ping","data":null,"channel":7}"#,
            ClientMessage::Ping,
        ),
        // Data in a string that holds JSON.
        (
            r#"{"event":"pusher:subscribe","data":"{\"channel\":\"private-a\",\"auth\":\"K:H\",\"channel_data\":\"{\\\"user_id\\\":1}\"}"}"#,
            subscribe("private-a", given("K:H"), given(r#"{"user_id":1}"#)),
        ),
        (
            r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"news\"}"}"#,
            ClientMessage::Unsubscribe {
                channel: "news".into(),
            },
        ),
        // Order, white space, escapes and unknown keys mean nothing.
        (
            "\r\n\t { \"x\" : [ { } ] , \"data\" : { \"y\" : 1 , \"channel\" : \"new\\u0073\" } , \"event\" : \"pusher\\u003Asubscribe\" } ",
            subscribe("news", Text::Absent, Text::Absent),
        ),
        // `null` is absent; another type is told apart, for it is refused where the key matters.
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":null,"channel_data":{"user_id":"1"}}}"#,
            subscribe("a", Text::Absent, Text::NotText),
        ),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":1e999,"channel_data":"\ud83d"}}"#,
            subscribe("a", Text::NotText, Text::NotText),
        ),
        (
            r#"{"event":"pusher:signin","data":{"auth":["K:H"]}}"#,
            ClientMessage::SignIn {
                auth: Text::NotText,
                user_data: Text::Absent,
            },
        ),
    ] {
        assert_eq!(ClientMessage::parse(text), Ok(message), "{text}");
    }
}

#[test]
fn client_event_data_becomes_a_string_once() {
    for (data, string) in [
        (r#""plain""#, "plain"),
        (r#""{\"x\":1}""#, r#"{"x":1}"#),
        (r#""\"quoted\"""#, r#""quoted""#),
        (r#""tab\t\u00e9\ud83d\ude00""#, "tab\té😀"),
        (r#""""#, ""),
        (r#"{ "x" : [1, 2.0] }"#, r#"{"x":[1,2.0]}"#),
        ("[]", "[]"),
        ("null", "null"),
        ("true", "true"),
        ("1e3", "1e3"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        // Not decoded, so the half of a pair does no harm.
        (r#"{"x":"\ud83d"}"#, r#"{"x":"\ud83d"}"#),
    ] {
        let text =
            format!(r#"{{"event":"client-typing","channel":"private-a","data":{data},"user_id":"9"}}"#);
        assert_eq!(ClientMessage::parse(&text), Ok(client_event(string)), "{data}");
    }
    let without = r#"{"event":"client-typing","channel":"private-a"}"#;
    assert_eq!(ClientMessage::parse(without), Ok(client_event("{}")));
}

#[test]
fn what_needs_no_unescaping_is_borrowed() {
    let text = r#"{"event":"client-typing","channel":"private-a","data":{"a b":"c d"}}"#;
    let Ok(ClientMessage::ClientEvent { event, channel, data }) = ClientMessage::parse(text) else {
        panic!("a client event")
    };
    assert!(
        [event, channel, data]
            .iter()
            .all(|text| matches!(text, Cow::Borrowed(_)))
    );
}

#[test]
fn what_is_no_message() {
    for text in [
        "",
        " ",
        "ping",
        "null",
        "42",
        r#""pusher:ping""#,
        r#"["pusher:ping"]"#,
        r#"{"event":"pusher:ping""#,
        r#"{"event":"pusher:ping"}}"#,
        r#"{"event":"pusher:ping"} {"event":"pusher:ping"}"#,
        r#"{"event":'pusher:ping'}"#,
        r#"{"event":"pusher:ping",}"#,
        "{\"event\":\"pusher:ping\n\"}",
        "\u{feff}{\"event\":\"pusher:ping\"}",
        "{}",
        r#"{"Event":"pusher:ping"}"#,
        r#"{"event":null}"#,
        r#"{"event":1}"#,
        r#"{"event":["pusher:ping"]}"#,
        r#"{"event":"\ud83d"}"#,
        // Which of the two would be meant?
        r#"{"event":"pusher:ping","event":"pusher:pong"}"#,
        r#"{"event":"client-a","channel":"private-a","data":"\ud83d"}"#,
    ] {
        assert_eq!(
            ClientMessage::parse(text),
            Err(ParseError::NotAMessage),
            "{text:?}"
        );
    }
    assert_eq!(ParseError::NotAMessage.to_string(), "Invalid message format");
}

#[test]
fn what_is_a_message_but_says_too_little() {
    for (text, error) in [
        (
            r#"{"event":"pusher:subscribe"}"#,
            ParseError::NoData("pusher:subscribe"),
        ),
        (
            r#"{"event":"pusher:subscribe","data":null}"#,
            ParseError::NoData("pusher:subscribe"),
        ),
        (
            r#"{"event":"pusher:subscribe","data":"news"}"#,
            ParseError::NoData("pusher:subscribe"),
        ),
        (
            r#"{"event":"pusher:subscribe","data":["news"]}"#,
            ParseError::NoData("pusher:subscribe"),
        ),
        (
            r#"{"event":"pusher:subscribe","data":"[\"news\"]"}"#,
            ParseError::NoData("pusher:subscribe"),
        ),
        (
            r#"{"event":"pusher:subscribe","data":"\"{}\""}"#,
            ParseError::NoData("pusher:subscribe"),
        ),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"a","channel":"b"}}"#,
            ParseError::NoData("pusher:subscribe"),
        ),
        (
            r#"{"event":"pusher:signin","data":7}"#,
            ParseError::NoData("pusher:signin"),
        ),
        (
            r#"{"event":"pusher:subscribe","data":{}}"#,
            ParseError::NoChannel("pusher:subscribe".into()),
        ),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
            ParseError::NoChannel("pusher:subscribe".into()),
        ),
        (
            r#"{"event":"pusher:unsubscribe","data":{"channel":null}}"#,
            ParseError::NoChannel("pusher:unsubscribe".into()),
        ),
        (
            r#"{"event":"client-a","data":{}}"#,
            ParseError::NoChannel("client-a".into()),
        ),
        (
            r#"{"event":"client-a","channel":["private-a"]}"#,
            ParseError::NoChannel("client-a".into()),
        ),
    ] {
        assert_eq!(ClientMessage::parse(text), Err(error), "{text}");
    }
}

#[test]
fn what_clients_may_not_say() {
    for event in [
        "pusher:",
        "pusher:subscription_succeeded",
        "pusher:Ping",
        "pusher:error",
    ] {
        let text = format!(r#"{{"event":"{event}","channel":"private-a","data":{{}}}}"#);
        let error = ClientMessage::parse(&text).expect_err(event);
        assert_eq!(error.to_string(), format!("Unknown event {event}"));
        assert_eq!(error.channel(), Some("private-a"));
    }
    for event in [
        "",
        "price",
        "client",
        "Client-a",
        "xclient-a",
        " client-a",
        "pusher_internal:member_added",
    ] {
        let text = format!(r#"{{"event":"{event}","channel":7}}"#);
        let error = ClientMessage::parse(&text).expect_err(event);
        assert!(matches!(error, ParseError::ForeignEvent { .. }), "{event}");
        assert_eq!(error.channel(), None);
    }
}

#[test]
fn an_error_repeats_only_the_beginning_of_a_long_name() {
    let text = format!(r#"{{"event":"{0}","channel":"{0}"}}"#, "é".repeat(10_000));
    let error = ClientMessage::parse(&text).expect_err("no client event");
    assert!(error.to_string().len() < 600);
    assert_eq!(error.channel().map(|name| name.chars().count()), Some(200));
}

/// Values that are passed over or passed on are scanned without recursion.
#[test]
fn deep_nesting_takes_no_stack() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    for key in ["data", "channel", "unknown"] {
        let text = format!(r#"{{"event":"pusher:ping","{key}":{deep}}}"#);
        assert_eq!(ClientMessage::parse(&text), Ok(ClientMessage::Ping), "{key}");
    }
    let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":{deep}}}}}"#);
    assert!(matches!(
        ClientMessage::parse(&text),
        Err(ParseError::NoChannel(_))
    ));
    let text = format!(r#"{{"event":{deep}}}"#);
    assert_eq!(ClientMessage::parse(&text), Err(ParseError::NotAMessage));
    let text = format!(r#"{{"event":"client-a","channel":"private-a","data":{deep}}}"#);
    assert!(ClientMessage::parse(&text).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = ClientMessage::parse(&text);
    }

    #[test]
    fn anything_like_a_message_is_answered(
        event in r#"(pusher:(subscribe|signin|unsubscribe|ping|x)|client-a|\\ud83d|x)"#,
        data in r#"(\{"?(channel|auth|user_data|channel_data)"?:|"|\\"|\\\\|\}|\[|\]|null|1e9|,|é| ){0,12}"#,
    ) {
        let _ = ClientMessage::parse(&format!(r#"{{"event":"{event}","channel":"a","data":{data}}}"#));
    }

    #[test]
    fn texts_arrive_as_they_were_sent(channel in any::<String>(), auth in any::<String>(), data in any::<String>()) {
        let object = serde_json::json!({"channel": channel, "auth": auth, "channel_data": data});
        for sent in [object.clone(), object.to_string().into()] {
            let text = serde_json::json!({"event": "pusher:subscribe", "data": sent}).to_string();
            prop_assert_eq!(ClientMessage::parse(&text), Ok(ClientMessage::Subscribe {
                channel: channel.as_str().into(),
                auth: given(&auth),
                channel_data: given(&data),
            }));
        }
        let event = format!("client-{channel}");
        let text = serde_json::json!({"event": event, "channel": channel, "data": data}).to_string();
        prop_assert_eq!(ClientMessage::parse(&text), Ok(ClientMessage::ClientEvent {
            event: event.into(),
            channel: channel.into(),
            data: data.into(),
        }));
    }
}
