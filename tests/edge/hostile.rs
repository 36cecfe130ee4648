//! Clients that do not keep to the rules, in frames and messages. After each of them a normal client is served.

use std::time::Duration;

use fanwire::app::AppConfig;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::raw::{BINARY, CLOSE, FIN, PING, Raw, TEXT, frame, head};
use crate::support::server::{TestServer, app};

/// The bit of a frame's second byte that says "masked".
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;

/// The head of a frame that promises so many bytes, in the long form.
fn promise(length: u64) -> Vec<u8> {
    let mut bytes = vec![FIN | TEXT, MASKED | 127];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[1, 2, 3, 4]);
    bytes
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head(first, 0, payload.len() as u64)[..], payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_are_answered_with_the_close_code_for_it() {
    let server = TestServer::start().await;
    let (ping, text) = (br#"{"event":"pusher:ping"}"#, "é🙂".as_bytes());
    let begun = frame(TEXT, b"{");
    let after = |more: Vec<u8>| [begun.clone(), more].concat();
    let mut counts = [0, 0];
    for (what, bytes, code) in [
        ("RSV1", frame(FIN | 0x40 | TEXT, ping), 1002),
        ("RSV2", frame(FIN | 0x20 | TEXT, ping), 1002),
        ("RSV3", frame(FIN | 0x10 | TEXT, ping), 1002),
        ("RSV1 on a ping", frame(FIN | 0x40 | PING, b""), 1002),
        ("opcode 3", frame(FIN | 3, ping), 1002),
        ("opcode 7", frame(FIN | 7, b""), 1002),
        ("opcode 11", frame(FIN | 11, b""), 1002),
        ("opcode 15", frame(FIN | 15, ping), 1002),
        ("no mask", unmasked(FIN | TEXT, ping), 1002),
        ("no mask on a ping", unmasked(FIN | PING, b""), 1002),
        ("no mask on a close", unmasked(FIN | CLOSE, b"\x03\xe8"), 1002),
        ("a ping in fragments", frame(PING, b"half"), 1002),
        ("a close in fragments", frame(CLOSE, b""), 1002),
        ("a ping of 126 bytes", frame(FIN | PING, &[0; 126]), 1002),
        ("a close of 126 bytes", frame(FIN | CLOSE, &[b'x'; 126]), 1002),
        (
            "a continuation of nothing",
            frame(FIN | CONTINUATION, b"{}"),
            1002,
        ),
        ("a text inside a text", after(frame(FIN | TEXT, ping)), 1002),
        ("a binary inside a text", after(frame(FIN | BINARY, ping)), 1002),
        ("binary", frame(FIN | BINARY, ping), 1003),
        ("empty binary", frame(FIN | BINARY, b""), 1003),
        ("the beginning of a binary", frame(BINARY, b"x"), 1003),
        (
            "a byte that is never UTF-8",
            frame(FIN | TEXT, b"{\"event\":\"\xff\"}"),
            1007,
        ),
        (
            "half a character",
            frame(FIN | TEXT, &text[..text.len() - 1]),
            1007,
        ),
        ("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ("an overlong slash", frame(FIN | TEXT, b"\xc0\xaf"), 1007),
        ("not UTF-8 in a first fragment", frame(TEXT, b"\xff"), 1007),
        (
            "not UTF-8 over two",
            [frame(TEXT, b"\xc3"), frame(FIN | CONTINUATION, b"(")].concat(),
            1007,
        ),
        ("one byte too many", frame(FIN | TEXT, &vec![b' '; 65_537]), 1009),
        ("a promise of 64 KiB and one", promise(65_537), 1009),
        ("a promise of 4 GiB", promise(1 << 32), 1009),
        ("a promise of 2^63 - 1", promise((1 << 63) - 1), 1009),
        ("a promise of 2^63", promise(1 << 63), 1002),
        ("a promise of 2^64 - 1", promise(u64::MAX), 1002),
        (
            "too many bytes in fragments",
            [
                frame(TEXT, &vec![b' '; 40_000]),
                frame(CONTINUATION, &vec![b' '; 40_000]),
            ]
            .concat(),
            1009,
        ),
        ("a close of one byte", frame(FIN | CLOSE, b"\x03"), 1002),
        ("close code 0", frame(FIN | CLOSE, &[0, 0]), 1002),
        ("close code 999", frame(FIN | CLOSE, &999_u16.to_be_bytes()), 1002),
        (
            "close code 1005",
            frame(FIN | CLOSE, &1005_u16.to_be_bytes()),
            1002,
        ),
        (
            "close code 1006",
            frame(FIN | CLOSE, &1006_u16.to_be_bytes()),
            1002,
        ),
        (
            "close code 5000",
            frame(FIN | CLOSE, &5000_u16.to_be_bytes()),
            1002,
        ),
        (
            "a close reason that is not UTF-8",
            frame(FIN | CLOSE, b"\x03\xe8\xff"),
            1007,
        ),
    ] {
        let (mut raw, _) = Raw::greeted(server.address).await;
        raw.send(&bytes).await;
        // What follows is not heard any more.
        raw.send(frame(FIN | TEXT, ping)).await;
        assert_eq!(raw.expect_close().await.0, code, "{what}");
        counts[usize::from(code == 1009)] += 1;
        server.serves().await;
    }
    server.connected_becomes(0).await;
    for (reason, count) in ["protocol_error", "too_big"].into_iter().zip(counts) {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(server.metric("closed_total", &[&label]).await, count, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unusual_but_allowed_is_understood() {
    let server = TestServer::start().await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    let message = br#"{"event":"pusher:ping","data":{"text":"\u00e9 \xc3\xa9"}}"#;
    let message = String::from_utf8_lossy(message)
        .replace("\\xc3\\xa9", "é")
        .into_bytes();
    // Fragments of every size, empty ones among them, with a ping frame between any two.
    for size in [1, 2, 3, 7, message.len()] {
        let mut bytes = frame(TEXT, b"");
        let mut pings = 0;
        for part in message.chunks(size) {
            bytes.extend(frame(FIN | PING, b"between"));
            bytes.extend(frame(CONTINUATION, part));
            pings += 1;
        }
        bytes.extend(frame(FIN | CONTINUATION, b""));
        raw.send(bytes).await;
        for _ in 0..pings {
            assert_eq!(
                raw.frame().await.expect("a pong").payload,
                b"between",
                "size {size}"
            );
        }
        assert_eq!(raw.next().await["event"], "pusher:pong", "size {size}");
    }
    // A whole message of exactly the limit.
    let mut long = br#"{"event":"pusher:ping","data":""#.to_vec();
    long.resize(65_534, b'x');
    long.extend_from_slice(b"\"}");
    raw.send(frame(FIN | TEXT, &long)).await;
    assert_eq!(raw.next().await["event"], "pusher:pong");
    // Many messages in one write.
    let many: Vec<u8> = (0..500).flat_map(|_| frame(FIN | TEXT, &message)).collect();
    raw.send(many).await;
    for _ in 0..500 {
        assert_eq!(raw.next().await["event"], "pusher:pong");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_sense_are_answered_and_close_nothing() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let subscribe = |data: &str| format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
    let texts: Vec<String> = [
        "",
        " ",
        "{",
        "}",
        "null",
        "true",
        "7",
        "\"pusher:ping\"",
        "[]",
        "{}",
        "{{}}",
        "\u{feff}{}",
        "\u{0}",
        r#"{"event":7}"#,
        r#"{"event":null}"#,
        r#"{"event":["pusher:ping"]}"#,
        r#"{"Event":"pusher:ping"}"#,
        r#"{"event":"pusher:ping""#,
        r#"{"event":"pusher:ping"}}"#,
        r#"{"event":"pusher:ping"} {}"#,
        r#"{'event':'pusher:ping'}"#,
        r#"{"event":"\ud800"}"#,
        r#"{"event":"pusher:ping","event":"pusher:ping"}"#,
        r#"{"event":"pusher:no_such_event"}"#,
        r#"{"event":"pusher:"}"#,
        r#"{"event":"pusher_internal:x"}"#,
        r#"{"event":"my-event","channel":"a","data":{}}"#,
        r#"{"event":""}"#,
        r#"{"event":"pusher:subscribe"}"#,
        r#"{"event":"pusher:unsubscribe"}"#,
        r#"{"event":"pusher:unsubscribe","data":{"channel":1}}"#,
        r#"{"event":"client-x"}"#,
        r#"{"event":"client-x","channel":{}}"#,
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(
        [
            "",
            "7",
            "null",
            "[]",
            "\"\"",
            "\"{\"",
            "\"7\"",
            "{}",
            r#"{"channel":null}"#,
        ]
        .map(subscribe)
        .into_iter()
        .skip(1),
    )
    .chain([
        deep(30_000),
        subscribe(&deep(30_000)),
        subscribe(&json!(deep(30_000)).to_string()),
    ])
    .chain([
        format!(r#"{{"event":"{}"}}"#, "x".repeat(60_000)),
        "x".repeat(65_536),
    ])
    .collect();
    for text in &texts {
        client.say_text(text).await;
        let answer = client.next().await;
        let shown: String = text.chars().take(80).collect();
        assert_eq!(
            (&answer["event"], &answer["data"]["code"]),
            (&json!("pusher:error"), &Value::Null),
            "{shown}"
        );
        assert!(answer["data"]["message"].is_string(), "{shown}");
        assert!(answer.to_string().len() < 1_000, "an answer is no echo: {shown}");
    }
    client.subscribe("a").await;
    server.serves().await;
    assert_eq!(
        server.metric("ws_messages_received_total", &[]).await,
        texts.len() as u64 + 2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_data_in_an_event_is_relayed_as_it_is() {
    let server = TestServer::start().await;
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    ada.subscribe("private-a").await;
    bob.subscribe("private-a").await;
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    ada.say_text(&format!(
        r#"{{"event":"client-x","channel":"private-a","data":{deep}}}"#
    ))
    .await;
    assert_eq!(bob.expect("client-x").await["data"], deep);
    ada.ask_for(
        "presence-a",
        &format!(
            r#"{{"user_id":"1","user_info":{}}}"#,
            "[".repeat(500) + &"]".repeat(500)
        ),
    )
    .await;
    ada.expect_subscribed("presence-a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_is_stood() {
    let server = TestServer::start().await;
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut noise = vec![0; random.random_range(1..3_000)];
        random.fill(&mut noise[..]);
        if seed % 2 == 0 {
            // In a socket; on odd seeds in place of HTTP.
            let (mut raw, _) = Raw::greeted(server.address).await;
            raw.send(&noise).await;
            drop(raw);
        } else {
            let mut raw = Raw::connect(server.address).await;
            raw.send(&noise).await;
            drop(raw);
        }
    }
    server.connected_becomes(0).await;
    server.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_off_anywhere_leave_nothing_behind() {
    let server = TestServer::start().await;
    let upgrade = Raw::upgrade("/app/key?protocol=7", "").into_bytes();
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "a" } }).to_string();
    let talk = [upgrade, frame(FIN | TEXT, subscribe.as_bytes())].concat();
    for cut in (0..talk.len()).step_by(9).chain([talk.len() - 1, talk.len()]) {
        let mut raw = Raw::connect(server.address).await;
        raw.send(&talk[..cut]).await;
        if cut % 2 == 0 {
            // A reset instead of a goodbye.
            raw.stream.set_zero_linger().expect("a socket takes options");
        }
        drop(raw);
    }
    server.connected_becomes(0).await;
    let mut backend = server.backend().await;
    backend.wait_for_subscribers("a", 0).await;
    server.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_on_one_socket_are_borne() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let mut backend = server.backend().await;
    let server_is_at_hand = tokio::spawn(async move {
        for _ in 0..20 {
            server.serves().await;
        }
        server
    });
    const CHANNELS: usize = 10_000;
    const AT_ONCE: usize = 500;
    for begin in (0..CHANNELS).step_by(AT_ONCE) {
        for number in begin..begin + AT_ONCE {
            client.ask_for(&format!("c{number}"), "").await;
        }
        for number in begin..begin + AT_ONCE {
            client.expect_subscribed(&format!("c{number}")).await;
        }
    }
    let server = server_is_at_hand.await.expect("others are served meanwhile");
    backend.publish("c0", "first", "").await;
    backend.publish("c9999", "last", "").await;
    let mut heard = [client.next().await, client.next().await].map(|message| message["event"].to_string());
    heard.sort();
    assert_eq!(heard, [r#""first""#, r#""last""#]);
    let channels = backend.channels().await;
    assert_eq!(channels.as_object().map(serde_json::Map::len), Some(CHANNELS));
    drop(client);
    server.connected_becomes(0).await;
    // The directory is told of so many over some turns, so that nobody else waits for all of them.
    eventually("all channels to be vacated", async || {
        (backend.channels().await == json!({})).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_joins_and_leaves_without_end_is_slowed_and_delays_nobody() {
    let server = TestServer::start().await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    let pair: Vec<u8> = ["subscribe", "unsubscribe"]
        .iter()
        .flat_map(|what| {
            frame(
                FIN | TEXT,
                json!({ "event": format!("pusher:{what}"), "data": { "channel": "a" } })
                    .to_string()
                    .as_bytes(),
            )
        })
        .collect();
    let flood = tokio::spawn(async move {
        let many = pair.repeat(3_000);
        raw.send(many).await;
        raw
    });
    for _ in 0..10 {
        server.serves().await;
    }
    drop(flood.await.expect("all was sent"));
    server.connected_becomes(0).await;
    server.backend().await.wait_for_subscribers("a", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_that_nobody_reads_the_answers_of_is_borne() {
    let server = TestServer::with_app(AppConfig {
        outbox_bytes_max: 16_384,
        ..app()
    })
    .await;
    let mut raw = Raw::connect_with_buffer(server.address, 4_096)
        .await
        .upgraded("/app/key", "")
        .await;
    let pings = frame(FIN | PING, &[b'p'; 125]).repeat(20_000);
    let sent = tokio::time::timeout(Duration::from_secs(5), raw.send(pings)).await;
    assert!(sent.is_ok(), "it is read on: pongs take the place of pongs");
    server.serves().await;
    drop(raw);
    server.connected_becomes(0).await;
}
