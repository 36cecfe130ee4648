//! Which webhook events there are on one node, as the app's back end gets them. How they are sent is told elsewhere.

use std::time::{Duration, Instant};

use fanwire::app::{AppConfig, WebhookConfig, WebhookKind, WebhookUrl};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::server::{self, TestServer};

/// Long enough to come back within it on a busy machine, and short enough to wait for its end.
const GRACE_MS: u32 = 2_000;

use WebhookKind::{
    CacheMiss, ChannelOccupied, ChannelVacated, ClientEvent, MemberAdded, MemberRemoved, SubscriptionCount,
};

const MEMBERSHIP: [WebhookKind; 4] = [ChannelOccupied, ChannelVacated, MemberAdded, MemberRemoved];

/// A server whose app has its back end told of this, and that back end.
async fn told_of(kinds: &[WebhookKind], webhook_grace_ms: u32) -> (TestServer, Receiver) {
    let receiver = Receiver::start().await;
    let app = AppConfig {
        webhooks: vec![WebhookConfig {
            url: WebhookUrl::new(&receiver.url("/webhooks")),
            event_types: kinds.to_vec(),
            ..WebhookConfig::default()
        }],
        webhook_grace_ms,
        ..server::app()
    };
    (TestServer::with_app(app).await, receiver)
}

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

fn added(channel: &str, user_id: &str) -> Value {
    json!({ "name": "member_added", "channel": channel, "user_id": user_id })
}

fn removed(channel: &str, user_id: &str) -> Value {
    json!({ "name": "member_removed", "channel": channel, "user_id": user_id })
}

fn counted(channel: &str, subscription_count: u64) -> Value {
    json!({ "name": "subscription_count", "channel": channel, "subscription_count": subscription_count })
}

/// Waits until all is told that was to be told before now, graces included.
async fn all_is_told(server: &TestServer, receiver: &Receiver) {
    let mut client = server.connect().await;
    client.subscribe("marker").await;
    client.unsubscribe("marker").await;
    receiver
        .expect("marker", &[occupied("marker"), vacated("marker")])
        .await;
}

#[tokio::test]
async fn a_channel_is_occupied_with_its_first_subscriber_and_vacated_with_its_last() {
    let (server, receiver) = told_of(&MEMBERSHIP, 0).await;
    let mut clients = server.connect_many(3).await;
    for round in 1..=2 {
        for client in &mut clients {
            client.subscribe("a").await;
        }
        for client in &mut clients {
            client.unsubscribe("a").await;
        }
        let told = vec![[occupied("a"), vacated("a")]; round].concat();
        receiver.expect("a", &told).await;
    }
}

#[tokio::test]
async fn who_is_back_within_the_grace_never_went() {
    let (server, receiver) = told_of(&MEMBERSHIP, GRACE_MS).await;
    let mut client = server.connect().await;
    client.join("presence-a", "1").await;
    client.close().await;
    // A page that is reloaded: another socket, perhaps on another shard.
    let mut again = server.connect().await;
    server.backend().await.wait_for_subscribers("presence-a", 0).await;
    again.join("presence-a", "1").await;
    all_is_told(&server, &receiver).await;
    receiver
        .expect("presence-a", &[occupied("presence-a"), added("presence-a", "1")])
        .await;
}

#[tokio::test]
async fn who_is_back_after_the_grace_went_and_came() {
    let (server, receiver) = told_of(&MEMBERSHIP, GRACE_MS).await;
    let mut client = server.connect().await;
    client.join("presence-a", "1").await;
    let mut told = vec![occupied("presence-a"), added("presence-a", "1")];
    receiver.expect("presence-a", &told).await;
    let left = Instant::now();
    client.unsubscribe("presence-a").await;
    told.extend([removed("presence-a", "1"), vacated("presence-a")]);
    receiver.expect("presence-a", &told).await;
    let waited = left.elapsed();
    assert!(waited >= Duration::from_millis(GRACE_MS.into()), "{waited:?}");
    client.join("presence-a", "1").await;
    told.extend([occupied("presence-a"), added("presence-a", "1")]);
    receiver.expect("presence-a", &told).await;
}

#[tokio::test]
async fn members_come_after_their_channel_and_go_before_it() {
    let (server, receiver) = told_of(&MEMBERSHIP, 0).await;
    let channel = "presence-room";
    let mut clients = server.connect_many(3).await;
    // The second socket of a user is nothing new.
    for (client, user) in clients.iter_mut().zip(["ada", "ada", "bob"]) {
        client.join(channel, user).await;
    }
    let mut told = vec![occupied(channel), added(channel, "ada"), added(channel, "bob")];
    receiver.expect(channel, &told).await;
    for client in &mut clients {
        client.unsubscribe(channel).await;
        // They are on different shards: the next one goes when this one has gone.
        client.hear_out().await;
    }
    told.extend([removed(channel, "ada"), removed(channel, "bob"), vacated(channel)]);
    receiver.expect(channel, &told).await;
}

#[tokio::test]
async fn another_user_within_the_grace_keeps_the_channel_and_not_the_member() {
    let (server, receiver) = told_of(&MEMBERSHIP, GRACE_MS).await;
    let channel = "presence-room";
    let mut clients = server.connect_many(2).await;
    clients[0].join(channel, "ada").await;
    clients[0].unsubscribe(channel).await;
    clients[1].join(channel, "bob").await;
    all_is_told(&server, &receiver).await;
    let told = [
        occupied(channel),
        added(channel, "ada"),
        added(channel, "bob"),
        removed(channel, "ada"),
    ];
    receiver.expect(channel, &told).await;
}

#[tokio::test]
async fn who_wants_one_half_of_a_pair_gets_that_half() {
    let (server, receiver) = told_of(&[ChannelVacated], GRACE_MS).await;
    let mut client = server.connect().await;
    client.join("presence-a", "1").await;
    for _ in 0..2 {
        client.unsubscribe("presence-a").await;
        client.join("presence-a", "1").await;
    }
    client.unsubscribe("presence-a").await;
    receiver.expect("presence-a", &[vacated("presence-a")]).await;
}

#[tokio::test]
async fn an_accepted_client_event_is_told_as_its_receivers_get_it() {
    let (server, receiver) = told_of(&[ClientEvent], 0).await;
    let mut client = server.connect().await;
    let socket_id = client.socket_id.clone();
    client.subscribe("private-a").await;
    client.join("presence-a", "ada").await;
    client
        .whisper("private-a", "client-typing", json!({ "x": [1, "é\""] }))
        .await;
    client.whisper("presence-a", "client-typing", "as it is").await;
    // Refused, so nobody hears of it.
    client.whisper("private-a", "typing", "").await;
    client.whisper("private-b", "client-typing", "").await;
    client.whisper("private-a", "client-last", "").await;
    let event = |event: &str, data: &str| {
        json!({
            "name": "client_event", "channel": "private-a", "event": event, "data": data, "socket_id": socket_id
        })
    };
    let of_private = [
        event("client-typing", "{\"x\":[1,\"é\\\"\"]}"),
        event("client-last", ""),
    ];
    receiver.expect("private-a", &of_private).await;
    let mut of_presence = event("client-typing", "as it is");
    of_presence["channel"] = "presence-a".into();
    of_presence["user_id"] = "ada".into();
    receiver.expect("presence-a", &[of_presence]).await;
    receiver.expect("private-b", &[]).await;
}

#[tokio::test]
async fn a_cache_channel_that_keeps_nothing_is_one_miss_for_all_who_come_at_once() {
    let (server, receiver) = told_of(&[ChannelOccupied, ChannelVacated, CacheMiss], 0).await;
    let mut clients = server.connect_many(3).await;
    for client in &mut clients[..2] {
        client.subscribe("cache-a").await;
        client.expect("pusher:cache_miss").await;
    }
    server.backend().await.publish("cache-a", "event", "data").await;
    clients[2].subscribe("cache-a").await;
    clients[2].expect("event").await;
    for client in &mut clients {
        client.unsubscribe("cache-a").await;
    }
    let miss = json!({ "name": "cache_miss", "channel": "cache-a" });
    receiver
        .expect("cache-a", &[occupied("cache-a"), miss, vacated("cache-a")])
        .await;
}

#[tokio::test]
async fn each_count_of_a_small_channel_is_told_whether_subscribers_are_told_or_not() {
    let (server, receiver) = told_of(&[SubscriptionCount], 0).await;
    let mut clients = server.connect_many(2).await;
    for client in &mut clients {
        client.join("presence-a", "ada").await;
        client.subscribe("a").await;
    }
    for client in &mut clients {
        client.unsubscribe("a").await;
    }
    let told = [1, 2, 1, 0].map(|count| counted("a", count));
    receiver.expect("a", &told).await;
    // Members are counted instead.
    receiver.expect("presence-a", &[]).await;
    for client in &mut clients {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn the_counts_of_a_big_channel_are_paced_and_the_last_one_is_told() {
    let (server, receiver) = told_of(&[SubscriptionCount], 0).await;
    let mut clients = server.connect_many(110).await;
    for client in &mut clients {
        client.subscribe("a").await;
    }
    let last = counted("a", 110);
    eventually("the last count", async || {
        (receiver.events_of("a").last() == Some(&last)).then_some(())
    })
    .await;
    let told = receiver.events_of("a").len();
    assert!((101..=104).contains(&told), "{told} were told");
}

#[tokio::test]
async fn users_who_sign_in_and_those_who_watch_them_are_no_news() {
    let receiver = Receiver::start().await;
    let app = AppConfig {
        webhooks: vec![WebhookConfig {
            url: WebhookUrl::new(&receiver.url("/")),
            event_types: vec![ChannelOccupied, ChannelVacated, SubscriptionCount],
            ..WebhookConfig::default()
        }],
        webhook_grace_ms: 0,
        watchlist: true,
        ..server::app()
    };
    let server = TestServer::with_app(app).await;
    let mut client = server.connect().await;
    client
        .sign_in(&json!({ "id": "ada", "watchlist": ["bob"] }))
        .await;
    client.expect("pusher_internal:watchlist_events").await;
    client.subscribe("marker").await;
    client.close().await;
    let told = [
        occupied("marker"),
        counted("marker", 1),
        vacated("marker"),
        counted("marker", 0),
    ];
    receiver.expect("marker", &told).await;
    assert_eq!(receiver.events().len(), told.len());
}

/// Whoever is left when the server ends has nobody else to tell of it.
#[tokio::test]
async fn a_drain_tells_of_all_who_were_there() {
    let (server, receiver) = told_of(&MEMBERSHIP, 60_000).await;
    let mut client = server.connect().await;
    client.join("presence-a", "1").await;
    let mut told = vec![occupied("presence-a"), added("presence-a", "1")];
    receiver.expect("presence-a", &told).await;
    drop(client);
    server.drain().await;
    told.extend([removed("presence-a", "1"), vacated("presence-a")]);
    receiver.expect("presence-a", &told).await;
}
