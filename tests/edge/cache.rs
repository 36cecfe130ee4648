//! Cache channels remember the last event that a back end published.

use std::time::Duration;

use fanwire::app::AppConfig;
use serde_json::json;

use crate::support::server::{TestServer, app};

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_comes_right_after_the_acknowledgement_and_before_the_count() {
    let server = TestServer::with_app(AppConfig {
        subscription_count_events: true,
        ..app()
    })
    .await;
    let mut backend = server.backend().await;
    backend.publish("cache-btc", "old", "{}").await;
    backend.publish("cache-btc", "price", r#"{"p":1}"#).await;
    let mut client = server.connect().await;
    client.subscribe("cache-btc").await;
    assert_eq!(
        client.next().await,
        json!({ "event": "price", "channel": "cache-btc", "data": r#"{"p":1}"# })
    );
    client.expect("pusher_internal:subscription_count").await;
    client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_is_told() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("cache-btc").await;
    assert_eq!(
        client.next().await,
        json!({ "event": "pusher:cache_miss", "channel": "cache-btc", "data": "{}" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_cache_channel_has_a_cache_and_no_other() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    for (channel, is_cache) in [
        ("cache-a", true),
        ("private-cache-a", true),
        ("private-encrypted-cache-a", true),
        ("presence-cache-a", true),
        ("a", false),
        ("cached-a", false),
        ("my-cache-a", false),
        ("private-my-cache-1", false),
        ("presence-a", false),
    ] {
        backend.publish(channel, "ev", "remembered").await;
        let channel_data = if channel.starts_with("presence-") {
            r#"{"user_id":"1"}"#
        } else {
            ""
        };
        client.ask_for(channel, channel_data).await;
        client.expect_subscribed(channel).await;
        if is_cache {
            assert_eq!(client.expect("ev").await["channel"], channel);
        } else {
            client.expect_silence().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_outlives_the_last_subscriber_and_excluded_sockets() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut publisher = server.connect().await;
    publisher.subscribe("cache-a").await;
    publisher.expect("pusher:cache_miss").await;
    // The publisher itself is left out, yet what it sent is the last event.
    let id = publisher.socket_id.clone();
    backend
        .trigger(&json!({ "name": "ev", "channel": "cache-a", "data": "1", "socket_id": id }))
        .await;
    publisher.expect_silence().await;
    publisher.close().await;
    backend.wait_for_subscribers("cache-a", 0).await;
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.subscribe("cache-a").await;
        assert_eq!(client.expect("ev").await["data"], "1");
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_events_and_member_events_are_not_remembered() {
    let server = TestServer::start().await;
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    for (client, id) in [(&mut ada, "1"), (&mut bob, "2")] {
        client.join("presence-cache-a", id).await;
        client.expect("pusher:cache_miss").await;
    }
    ada.expect("pusher_internal:member_added").await;
    ada.whisper("presence-cache-a", "client-x", "{}").await;
    bob.expect("client-x").await;
    let mut late = server.connect().await;
    late.join("presence-cache-a", "3").await;
    late.expect("pusher:cache_miss").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_expires() {
    let server = TestServer::with_app(AppConfig {
        cache_ttl_s: 1,
        ..app()
    })
    .await;
    let mut backend = server.backend().await;
    let mut clients = server.connect_many(2).await;
    backend.publish("cache-a", "ev", "1").await;
    clients[0].subscribe("cache-a").await;
    clients[0].expect("ev").await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    clients[1].subscribe("cache-a").await;
    clients[1].expect("pusher:cache_miss").await;
    let answer = backend.get("/channels/cache-a?info=cache").await.json();
    assert_eq!(answer, json!({ "occupied": true, "cache": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_shows_what_is_remembered() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    backend.publish("cache-a", "ev", r#"{"p":1}"#).await;
    let answer = backend.get("/channels/cache-a?info=cache").await.json();
    assert_eq!(answer["occupied"], false);
    assert_eq!(answer["cache"]["data"], r#"{"p":1}"#);
    let ttl = answer["cache"]["ttl"].as_u64().expect("whole seconds");
    assert!((1_790..=1_800).contains(&ttl), "{ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_between_the_remembered_and_the_live_ones_is_lost_or_doubled() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let publishing = tokio::spawn(async move {
        for number in 0..600 {
            backend.publish("cache-n", "n", &number.to_string()).await;
        }
    });
    let mut clients = server.connect_many(12).await;
    for client in &mut clients {
        client.subscribe("cache-n").await;
        let mut expected = None;
        loop {
            let message = client.next().await;
            if message["event"] == "pusher:cache_miss" {
                assert_eq!(expected, None);
                expected = Some(0);
                continue;
            }
            let number: u32 = message["data"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a number");
            assert_eq!(number, expected.unwrap_or(number));
            expected = Some(number + 1);
            // A few are enough here; the last one reads to the end below.
            if number >= 599 || number % 40 == 39 {
                break;
            }
        }
        client.unsubscribe("cache-n").await;
    }
    publishing.await.expect("all were published");
}
