//! Who is alive, and how the server finds out.

use std::time::{Duration, Instant};

use fanwire::app::{AppConfig, PingMode};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Heard;
use crate::support::raw::{CLOSE, FIN, PING, PONG, Raw, TEXT, frame};
use crate::support::server::{TestServer, app};

fn impatient() -> AppConfig {
    AppConfig {
        activity_timeout_s: 1,
        pong_wait_s: 1,
        ..app()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_event_is_answered_whatever_its_data() {
    let server = TestServer::start().await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    for ping in [
        r#"{"event":"pusher:ping","data":{}}"#,
        r#"{"event":"pusher:ping"}"#,
        r#"{"event":"pusher:ping","data":""}"#,
        r#"{"event":"pusher:ping","data":"{}"}"#,
        r#"{"event":"pusher:ping","data":null,"channel":7,"more":[1]}"#,
    ] {
        raw.send(frame(FIN | TEXT, ping.as_bytes())).await;
        let pong = raw.frame().await.expect("a pong");
        assert_eq!(pong.payload, br#"{"event":"pusher:pong","data":"{}"}"#, "{ping}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_frame_is_answered_with_its_payload() {
    let server = TestServer::start().await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    for payload in [&b""[..], b"hello", &[0xff; 125]] {
        raw.send(frame(FIN | PING, payload)).await;
        let pong = raw.frame().await.expect("a pong");
        assert_eq!((pong.first, &*pong.payload), (FIN | PONG, payload));
    }
    // A pong that nobody asked for, and the pong event, are taken without a word.
    raw.send(frame(FIN | PONG, b"unasked")).await;
    raw.say(&json!({ "event": "pusher:pong", "data": {} })).await;
    raw.send(frame(FIN | PING, b"last")).await;
    assert_eq!(raw.frame().await.expect("a pong").payload, b"last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_asked_and_then_closed_with_4201() {
    let server = TestServer::with_app(impatient()).await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    let begun = Instant::now();
    let ping = raw.frame().await.expect("a ping");
    assert_eq!(ping.first, FIN | PING);
    assert_eq!(raw.expect_close().await, (4201, "Pong reply not received".into()));
    assert!(
        begun.elapsed() >= Duration::from_millis(1_000),
        "not before its time"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "within a second of each deadline"
    );
    server.connected_becomes(0).await;
    assert_eq!(
        server.metric("closed_total", &["reason=\"pong_timeout\""]).await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_have_its_clients_asked_by_an_event() {
    let server = TestServer::with_app(AppConfig {
        ping_mode: PingMode::Event,
        ..impatient()
    })
    .await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    let mut old = Raw::connect(server.address)
        .await
        .upgraded("/app/key?protocol=4", "")
        .await;
    old.greeting().await;
    assert_eq!(raw.next().await, json!({ "event": "pusher:ping", "data": "{}" }));
    raw.say(&json!({ "event": "pusher:pong", "data": {} })).await;
    assert_eq!(
        raw.next().await["event"],
        "pusher:ping",
        "the answer counted: it is asked again, not closed"
    );
    // Protocol 4 knows no such event.
    assert_eq!(old.frame().await.expect("a ping").first, FIN | PING);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_anything_at_all_is_alive() {
    let server = TestServer::with_app(impatient()).await;
    let message = frame(FIN | TEXT, br#"{"event":"pusher:pong","data":"spoken slowly"}"#);
    let lives = [
        ("pong frames", vec![frame(FIN | PONG, b"")]),
        ("messages", vec![frame(FIN | TEXT, b"not even JSON")]),
        (
            "parts of a message",
            message.chunks(6).map(<[u8]>::to_vec).collect(),
        ),
    ]
    .map(async |(what, signs)| {
        let (mut raw, _) = Raw::greeted(server.address).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            for sign in &signs {
                raw.send(sign).await;
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        }
        raw.send(frame(FIN | PING, b"end")).await;
        loop {
            let frame = raw
                .frame()
                .await
                .unwrap_or_else(|| panic!("cut off in spite of {what}"));
            assert_ne!(frame.first, FIN | CLOSE, "closed in spite of {what}");
            if frame.first == FIN | PONG {
                return;
            }
        }
    });
    futures_util::future::join_all(lives).await;
}

/// A client that receives a steady stream sends nothing of its own; only its stack answers pings.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_listens_stays() {
    let server = TestServer::with_app(impatient()).await;
    let mut client = server.connect().await;
    client.subscribe("stream").await;
    let mut backend = server.backend().await;
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        backend.publish("stream", "n", &number.to_string()).await;
        assert_eq!(client.expect("n").await["data"], number.to_string());
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The other way round: what is sent to a dead client does not keep it alive.
#[tokio::test(flavor = "multi_thread")]
async fn traffic_to_a_dead_client_does_not_keep_it() {
    let server = TestServer::with_app(impatient()).await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    raw.say(&json!({ "event": "pusher:subscribe", "data": { "channel": "stream" } }))
        .await;
    let mut backend = server.backend().await;
    let begun = Instant::now();
    while server.metric("closed_total", &["reason=\"pong_timeout\""]).await == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it lives for as long as traffic flows"
        );
        backend.publish("stream", "n", "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_goodbye_is_answered_and_counted() {
    let server = TestServer::start().await;
    for (payload, echo) in [
        (&b"\x03\xe8bye"[..], &b"\x03\xe8"[..]),
        (b"\x0f\xa0", b"\x0f\xa0"),
        (b"", b""),
    ] {
        let (mut raw, _) = Raw::greeted(server.address).await;
        raw.send(frame(FIN | CLOSE, payload)).await;
        let close = raw.frame().await.expect("an echo");
        assert_eq!((close.first, &*close.payload), (FIN | CLOSE, echo));
        assert_eq!(raw.frame().await, None);
    }
    let mut client = server.connect().await;
    client.send_frame(Message::Close(None)).await;
    assert!(matches!(client.hear().await, Heard::Closed(1005, _)));
    server
        .metric_becomes("closed_total", &["reason=\"client\""], 4)
        .await;
    server.connected_becomes(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vanishes_without_a_word_leaves_its_channels() {
    let server = TestServer::start().await;
    let mut stays = server.connect().await;
    stays.join("presence-a", "1").await;
    let mut goes = server.connect().await;
    goes.join("presence-a", "2").await;
    stays.expect("pusher_internal:member_added").await;
    drop(goes);
    let left = stays.expect("pusher_internal:member_removed").await;
    assert_eq!(left["data"], r#"{"user_id":"2"}"#);
    server.connected_becomes(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_prove_itself_in_time_is_closed_with_4009() {
    let server = TestServer::with_app(AppConfig {
        authorized_connections: true,
        auth_timeout_s: 1,
        ..app()
    })
    .await;
    let mut stranger = server.connect().await;
    let (mut reader, mut member, mut user) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    stranger.subscribe("public").await;
    reader.subscribe("private-a").await;
    member.join("presence-a", "1").await;
    user.sign_in(&json!({ "id": "u" })).await;
    let text = "Connection not authorized within timeout";
    assert_eq!(stranger.expect_error(4009).await["data"]["message"], text);
    assert_eq!(stranger.expect_close().await, (4009, text.into()));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for client in [&mut reader, &mut member, &mut user] {
        client.expect_silence().await;
    }
}
