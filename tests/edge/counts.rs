//! `subscription_count`: how many subscribers a channel has.

use std::time::{Duration, Instant};

use fanwire::app::AppConfig;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::{Client, data};
use crate::support::server::{TestServer, app};

fn counting() -> AppConfig {
    AppConfig {
        subscription_count_events: true,
        ..app()
    }
}

async fn expect_count(client: &mut Client, count: u64) {
    let message = client.expect("pusher_internal:subscription_count").await;
    assert_eq!(data(&message)["subscription_count"], count, "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscriber_hears_each_change() {
    let server = TestServer::with_app(counting()).await;
    let mut ada = server.connect().await;
    ada.subscribe("news").await;
    assert_eq!(
        ada.next().await,
        json!({ "event": "pusher_internal:subscription_count", "channel": "news",
            "data": r#"{"subscription_count":1}"# })
    );
    let mut bob = server.connect().await;
    bob.subscribe("news").await;
    expect_count(&mut bob, 2).await;
    expect_count(&mut ada, 2).await;
    bob.unsubscribe("news").await;
    expect_count(&mut ada, 1).await;
    bob.expect_silence().await;
    // Connections count, not users; and signed channels do as well.
    for channel in ["private-a", "private-encrypted-a"] {
        bob.subscribe(channel).await;
        expect_count(&mut bob, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn off_means_off() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("news").await;
    client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_channels_and_users_own_channels_have_none() {
    let server = TestServer::with_app(counting()).await;
    let mut client = server.connect().await;
    client.join("presence-a", "1").await;
    client.sign_in(&json!({ "id": "u" })).await;
    client.subscribe("#server-to-user-u").await;
    client.ask_for("presence-cache-a", r#"{"user_id":"1"}"#).await;
    client.expect_subscribed("presence-cache-a").await;
    client.expect("pusher:cache_miss").await;
    client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_a_hundred_counts_are_paced_and_the_last_is_told() {
    let server = TestServer::with_app(counting()).await;
    let mut watcher = server.connect().await;
    watcher.subscribe("big").await;
    expect_count(&mut watcher, 1).await;
    let mut others = server.connect_many(149).await;
    for client in &mut others {
        client.ask_for("big", "").await;
        client.expect_subscribed("big").await;
    }
    let mut counts = Vec::new();
    let begun = Instant::now();
    loop {
        let message = watcher.expect("pusher_internal:subscription_count").await;
        let count = data(&message)["subscription_count"].as_u64().expect("a number");
        assert!(
            counts.last().is_none_or(|last| *last < count),
            "no count twice: {counts:?}, {count}"
        );
        counts.push(count);
        if count == 150 {
            break;
        }
    }
    let above = counts.iter().filter(|count| **count > 100).count();
    assert!(
        above <= 3,
        "150 joins within some seconds are told in a few messages: {counts:?}"
    );
    assert!(
        counts.len() - above >= 99,
        "up to 100 each change is told: {counts:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "the final value comes within the pace"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_count_is_the_truth_after_any_comings_and_goings() {
    let server = TestServer::with_app(counting()).await;
    let mut watcher = server.connect().await;
    watcher.subscribe("news").await;
    let mut others = JoinSet::new();
    for number in 0..20 {
        let address = server.address;
        others.spawn(async move {
            for _ in 0..5 {
                let mut client = Client::connect(address, "/app/key?protocol=7").await;
                client.subscribe("news").await;
                if number % 2 == 0 {
                    client.unsubscribe("news").await;
                }
            }
            let mut client = Client::connect(address, "/app/key?protocol=7").await;
            client.subscribe("news").await;
            (number % 3 == 0).then_some(client)
        });
    }
    let staying: Vec<Client> = others.join_all().await.into_iter().flatten().collect();
    let mut backend = server.backend().await;
    backend
        .wait_for_subscribers("news", staying.len() as u64 + 1)
        .await;
    backend.publish("news", "marker", "").await;
    let mut last = None;
    loop {
        let message = watcher.next().await;
        if message["event"] == "marker" {
            break;
        }
        last = Some(data(&message)["subscription_count"].take());
    }
    assert_eq!(last, Some(json!(staying.len() + 1)));
}
