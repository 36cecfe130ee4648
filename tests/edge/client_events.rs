//! Events that clients send to each other.

use fanwire::app::AppConfig;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::server::{TestServer, app, config};

async fn two(server: &TestServer, channel: &str) -> (Client, Client) {
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    ada.subscribe(channel).await;
    bob.subscribe(channel).await;
    (ada, bob)
}

/// Nothing reached `bob`: the next it hears on the channel is what the back end publishes now.
async fn expect_nothing(server: &TestServer, bob: &mut Client, channel: &str) {
    server.backend().await.publish(channel, "marker", "").await;
    bob.expect("marker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reaches_every_other_subscriber_and_not_the_sender() {
    let server = TestServer::start().await;
    for channel in ["private-a", "private-encrypted-a", "private-cache-a"] {
        let mut clients = server.connect_many(6).await;
        for client in &mut clients {
            client.subscribe(channel).await;
            if channel.contains("cache") {
                client.expect("pusher:cache_miss").await;
            }
        }
        clients[0]
            .whisper(channel, "client-typing", json!({ "x": 1 }))
            .await;
        for client in &mut clients[1..] {
            assert_eq!(
                client.next().await,
                json!({ "event": "client-typing", "channel": channel, "data": r#"{"x":1}"# })
            );
        }
        expect_nothing(&server, &mut clients[0], channel).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_channels_tell_who_sent_it_and_a_spoofed_user_id_is_dropped() {
    let server = TestServer::start().await;
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    ada.ask_for("presence-a", r#"{"user_id":42}"#).await;
    ada.expect_subscribed("presence-a").await;
    bob.join("presence-a", "2").await;
    ada.expect("pusher_internal:member_added").await;
    ada.say(
        &json!({ "event": "client-x", "channel": "presence-a", "data": {}, "user_id": "2", "more": [1] }),
    )
    .await;
    assert_eq!(
        bob.next().await,
        json!({ "event": "client-x", "channel": "presence-a", "data": "{}", "user_id": "42" })
    );
    // On a private channel there is no such thing, whoever is signed in.
    ada.sign_in(&json!({ "id": "42" })).await;
    ada.subscribe("private-a").await;
    bob.subscribe("private-a").await;
    ada.say(&json!({ "event": "client-x", "channel": "private-a", "data": "", "user_id": "7" }))
        .await;
    assert_eq!(
        bob.next().await,
        json!({ "event": "client-x", "channel": "private-a", "data": "" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_data_is_it_arrives_as_a_string() {
    let server = TestServer::with_app(AppConfig {
        client_events_per_s: 1_000,
        ..app()
    })
    .await;
    let (mut ada, mut bob) = two(&server, "private-a").await;
    let mut backend = server.backend().await;
    for (sent, heard) in [
        (r#""text""#, "text"),
        (r#""""#, ""),
        (r#""{\"x\":1}""#, r#"{"x":1}"#),
        (r#"{ "x" : [ 1 , 2.50 ] }"#, r#"{"x":[1,2.50]}"#),
        ("7", "7"),
        ("1e400", "1e400"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("null", "null"),
        ("true", "true"),
        ("[]", "[]"),
        (r#""é \u00e9 🙂 \u0000""#, "é é 🙂 \u{0}"),
    ] {
        ada.say_text(&format!(
            r#"{{"event":"client-x","channel":"private-a","data":{sent}}}"#
        ))
        .await;
        assert_eq!(bob.expect("client-x").await["data"], heard, "client event {sent}");
        let body = format!(r#"{{"name":"ev","channel":"private-a","data":{sent}}}"#);
        if sent != "null" {
            let call = backend.call("POST", "/events", &body);
            backend.http.write(call).await;
            assert_eq!(
                backend.http.answer().await.expect("an answer").status,
                200,
                "{sent}"
            );
            for client in [&mut ada, &mut bob] {
                assert_eq!(client.expect("ev").await["data"], heard, "trigger {sent}");
            }
        }
    }
    // Missing data becomes an empty object.
    ada.say(&json!({ "event": "client-x", "channel": "private-a" }))
        .await;
    assert_eq!(bob.expect("client-x").await["data"], "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_client_events_refuses_them() {
    let server = TestServer::with_app(AppConfig {
        client_events: false,
        ..app()
    })
    .await;
    let (mut ada, mut bob) = two(&server, "private-a").await;
    ada.whisper("private-a", "client-x", "{}").await;
    let error = ada.expect_error(4301).await;
    assert_eq!(error["channel"], "private-a");
    expect_nothing(&server, &mut bob, "private-a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_channels_wrong_names_and_too_much_are_refused_and_nothing_is_closed() {
    let server = TestServer::start().await;
    let (mut ada, mut bob) = two(&server, "private-a").await;
    ada.subscribe("public").await;
    bob.subscribe("public").await;
    bob.subscribe("private-b").await;
    let (name_of_200, name_of_201) = (
        format!("client-{}", "é".repeat(193)),
        format!("client-{}", "é".repeat(194)),
    );
    let (data_of_10k, data_over_10k) = ("x".repeat(10_240), "x".repeat(10_241));
    for (channel, event, data, code) in [
        // Only channels that were signed for, and only subscribers.
        ("public", "client-x", json!({}), Value::Null),
        ("private-b", "client-x", json!({}), Value::Null),
        ("nowhere", "client-x", json!({}), Value::Null),
        ("private a", "client-x", json!({}), Value::Null),
        ("#server-to-user-1", "client-x", json!({}), Value::Null),
        // Only events that begin so.
        ("private-a", "xclient-x", json!({}), Value::Null),
        ("private-a", "Client-x", json!({}), Value::Null),
        ("private-a", "client", json!({}), Value::Null),
        ("private-a", " client-x", json!({}), Value::Null),
        ("private-a", "pusher:x", json!({}), Value::Null),
        (
            "private-a",
            "pusher_internal:member_added",
            json!({}),
            Value::Null,
        ),
        ("private-a", "", json!({}), Value::Null),
        // Not too much of anything.
        ("private-a", &name_of_201, json!({}), 4301.into()),
        ("private-a", "client-x", json!(data_over_10k), 4301.into()),
        ("private-a", "client-x", json!([&data_of_10k]), 4301.into()),
    ] {
        ada.whisper(channel, event, data).await;
        let error = ada.expect_error(code).await;
        assert_eq!(error["channel"], channel, "{error}");
    }
    for channel in ["private-a", "private-b", "public"] {
        expect_nothing(&server, &mut bob, channel).await;
    }
    for channel in ["private-a", "public"] {
        assert_eq!(ada.expect("marker").await["channel"], channel);
    }
    // The bounds themselves are inside, and so is a name that is only the prefix.
    ada.whisper("private-a", &name_of_200, "{}").await;
    bob.expect(&name_of_200).await;
    ada.whisper("private-a", "client-x", data_of_10k).await;
    assert_eq!(
        bob.expect("client-x").await["data"].as_str().map(str::len),
        Some(10_240)
    );
    ada.whisper("private-a", "client-", "{}").await;
    bob.expect("client-").await;
    // No channel at all.
    ada.say(&json!({ "event": "client-x", "data": {} })).await;
    ada.expect_error(Value::Null).await;
    ada.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_may_not_speak_any_more() {
    let server = TestServer::start().await;
    let (mut ada, mut bob) = two(&server, "private-a").await;
    ada.unsubscribe("private-a").await;
    ada.whisper("private-a", "client-x", "{}").await;
    ada.expect_error(Value::Null).await;
    expect_nothing(&server, &mut bob, "private-a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_rate_allows_is_refused_with_4301_and_not_delivered() {
    let server = TestServer::with_app(AppConfig {
        client_events_per_s: 5,
        ..app()
    })
    .await;
    let (mut ada, mut bob) = two(&server, "private-a").await;
    for number in 0..50 {
        ada.whisper("private-a", "client-n", number).await;
    }
    let mut refused = 0;
    for message in ada.hear_out().await {
        assert_eq!(
            message,
            json!({ "event": "pusher:error", "channel": "private-a",
                "data": { "code": 4301, "message": "Client event rejected: over 5 messages per second" } })
        );
        refused += 1;
    }
    server.backend().await.publish("private-a", "marker", "").await;
    let mut delivered = Vec::new();
    loop {
        let message = bob.next().await;
        if message["event"] == "marker" {
            break;
        }
        delivered.push(
            message["data"]
                .as_str()
                .and_then(|text| text.parse::<u32>().ok())
                .expect("a number"),
        );
    }
    assert!(delivered.is_sorted());
    assert_eq!(
        &delivered[..5],
        [0, 1, 2, 3, 4],
        "a burst of one second's worth goes through"
    );
    assert_eq!(refused + delivered.len(), 50, "each was delivered or refused");
    assert!(
        refused >= 25,
        "the machine took several seconds for 50 messages? {refused}"
    );
    assert_eq!(server.metric("rate_limit_checks_total", &[]).await, 50);
    assert_eq!(
        server.metric("rate_limit_triggered_total", &[]).await,
        refused as u64
    );
    // Another socket has a rate of its own, and pings are never limited.
    bob.whisper("private-a", "client-n", 0).await;
    ada.expect("marker").await;
    ada.expect("client-n").await;
}

/// Room for one publication on each shard: whoever speaks waits for the others' words to be delivered.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_they_wait_and_none_is_lost_or_doubled() {
    const CLIENTS: usize = 6;
    const EVENTS: u64 = 100;
    let mut config = config([AppConfig {
        client_events_per_s: 100_000,
        ..app()
    }]);
    config.server.inbox_bytes_max = 1;
    let server = TestServer::with_config(config).await;
    let mut clients = server.connect_many(CLIENTS).await;
    for client in &mut clients {
        client.subscribe("private-a").await;
    }
    for number in 0..EVENTS {
        for (sender, client) in clients.iter_mut().enumerate() {
            client
                .whisper("private-a", "client-n", json!([sender, number]))
                .await;
        }
    }
    for (place, client) in clients.iter_mut().enumerate() {
        let mut next = [0; CLIENTS];
        for _ in 0..(CLIENTS as u64 - 1) * EVENTS {
            let event = client.expect("client-n").await;
            let (sender, number): (usize, u64) =
                serde_json::from_str(event["data"].as_str().expect("a string")).expect("two numbers");
            assert_eq!(number, next[sender], "{place} hears {sender}");
            next[sender] += 1;
        }
        assert_eq!(next[place], 0, "nobody hears itself");
        client.expect_silence().await;
    }
}
