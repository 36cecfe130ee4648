//! What holds for some channels of an app and not for others: the first rule whose pattern fits the name counts.

use std::time::Duration;

use fanwire::app::AppConfig;
use serde_json::{Value, json};

use crate::support::client::data;
use crate::support::server::{TestServer, app};

async fn start(rules: Value) -> TestServer {
    TestServer::with_app(AppConfig {
        channels: serde_json::from_value(rules).expect("rules"),
        ..app()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn client_events_are_on_or_off_by_channel() {
    let server = start(json!([
        { "pattern": "private-read-only-*", "client_events": false },
        { "pattern": "private-small-*", "event_data_bytes_max": 10 },
    ]))
    .await;
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    for channel in ["private-read-only-1", "private-small-1", "private-other"] {
        ada.subscribe(channel).await;
        bob.subscribe(channel).await;
    }
    ada.whisper("private-read-only-1", "client-x", "1").await;
    let error = ada.expect_error(4301).await;
    let text = error["data"]["message"].as_str().expect("a text");
    assert!(text.contains("for this channel"), "{text}");
    ada.whisper("private-small-1", "client-x", "12345678901").await;
    ada.expect_error(4301).await;
    ada.whisper("private-small-1", "client-x", "1234567890").await;
    assert_eq!(bob.expect("client-x").await["channel"], "private-small-1");
    ada.whisper("private-other", "client-x", "12345678901").await;
    assert_eq!(bob.expect("client-x").await["channel"], "private-other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_of_its_own_is_counted_apart() {
    let server = start(json!([
        { "pattern": "private-cursor-*", "client_events_per_s": 1000 },
        { "pattern": "private-chat-*", "client_events_per_s": 1 },
    ]))
    .await;
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    for channel in [
        "private-cursor-1",
        "private-chat-1",
        "private-chat-2",
        "private-other",
    ] {
        ada.subscribe(channel).await;
        bob.subscribe(channel).await;
    }
    // Many to one pattern leave the others what they have.
    for _ in 0..50 {
        ada.whisper("private-cursor-1", "client-x", "").await;
    }
    for _ in 0..50 {
        assert_eq!(bob.expect("client-x").await["channel"], "private-cursor-1");
    }
    ada.whisper("private-chat-1", "client-x", "").await;
    assert_eq!(bob.expect("client-x").await["channel"], "private-chat-1");
    // Channels of one pattern share theirs.
    ada.whisper("private-chat-2", "client-x", "").await;
    let error = ada.expect_error(4301).await;
    let text = error["data"]["message"].as_str().expect("a text");
    assert!(text.contains("over 1 messages per second"), "{text}");
    ada.whisper("private-other", "client-x", "").await;
    assert_eq!(bob.expect("client-x").await["channel"], "private-other");
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_channels_have_the_size_of_their_rule() {
    let server = start(json!([{ "pattern": "presence-duel-*", "presence_members_max": 2 }])).await;
    let mut clients = server.connect_many(3).await;
    for (channel, third) in [("presence-duel-1", false), ("presence-hall", true)] {
        for (user, client) in clients.iter_mut().enumerate() {
            client
                .ask_for(channel, &json!({ "user_id": user.to_string() }).to_string())
                .await;
            if user < 2 || third {
                client.expect_subscribed(channel).await;
            } else {
                client.expect_refusal(channel, "LimitReached", 4100).await;
            }
        }
        // The others have heard of those who came after them.
        let came = if third { 2 } else { 1 };
        for (user, client) in clients.iter_mut().enumerate() {
            for _ in user..came {
                client.expect("pusher_internal:member_added").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_told_where_a_rule_says_so() {
    let server = start(json!([
        { "pattern": "live-quiet-*" },
        { "pattern": "live-*", "subscription_count_events": true },
    ]))
    .await;
    let mut client = server.connect().await;
    client.subscribe("live-1").await;
    let count = client.expect("pusher_internal:subscription_count").await;
    assert_eq!(data(&count)["subscription_count"], 1);
    // A rule that says nothing keeps the next one from its channels.
    for channel in ["live-quiet-1", "other"] {
        client.subscribe(channel).await;
    }
    client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_events_live_as_long_as_their_rule_says() {
    let server = start(json!([{ "pattern": "cache-price-*", "cache_ttl_s": 1 }])).await;
    let mut backend = server.backend().await;
    for channel in ["cache-price-1", "cache-other"] {
        backend.publish(channel, "price", "7").await;
        let cached = backend
            .get(&format!("/channels/{channel}?info=cache"))
            .await
            .json();
        assert_eq!(cached["cache"]["data"], "7", "{cached}");
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut client = server.connect().await;
    client.subscribe("cache-price-1").await;
    client.expect("pusher:cache_miss").await;
    client.subscribe("cache-other").await;
    client.expect("price").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_several_channels_keeps_to_the_smallest_limit() {
    let server = start(json!([{ "pattern": "small-*", "event_data_bytes_max": 5 }])).await;
    let mut backend = server.backend().await;
    for (channels, data, status) in [
        (json!(["small-1"]), "123456", 413),
        (json!(["other", "small-1"]), "123456", 413),
        (json!(["other", "small-1"]), "12345", 200),
        (json!(["other"]), "123456", 200),
    ] {
        let answer = backend
            .post(
                "/events",
                &json!({ "name": "e", "channels": channels, "data": data }),
            )
            .await;
        assert_eq!(answer.status, status, "{channels} {data} {answer:?}");
    }
}
