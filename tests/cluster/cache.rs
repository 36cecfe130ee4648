//! Cache channels: the last event that was published at any node is remembered by all.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes, answers};
use crate::support::eventually;
use crate::support::http::Backend;
use crate::support::server::TestServer;

over_each_bus![
    who_comes_later_is_served_by_any_node_and_by_one_that_starts_later,
    a_miss_is_told_where_nobody_published,
    what_is_remembered_expires_everywhere_at_the_same_time,
    of_two_events_the_last_one_holds,
    of_events_at_once_all_nodes_keep_the_same,
    no_event_between_the_remembered_and_the_live_ones_is_lost_or_doubled,
];

/// What a node remembers: the data, and for how long yet in seconds.
async fn remembered(backend: &mut Backend, channel: &str) -> Option<(String, u64)> {
    let answer = backend
        .get(&format!("/channels/{channel}?info=cache"))
        .await
        .json();
    let cache = &answer["cache"];
    Some((cache["data"].as_str()?.to_owned(), cache["ttl"].as_u64()?))
}

/// Waits until every node remembers this.
async fn remember(nodes: &Nodes, channel: &str, data: &str) {
    for mut backend in nodes.backends().await {
        eventually(&format!("a node to remember {data}"), async || {
            remembered(&mut backend, channel)
                .await
                .filter(|(kept, _)| kept == data)
        })
        .await;
    }
}

async fn expect_hit(node: &TestServer, channel: &str, data: &str) {
    let mut client = node.connect().await;
    if channel.starts_with("presence-") {
        client.join(channel, "someone").await;
    } else {
        client.subscribe(channel).await;
    }
    assert_eq!(
        client.next().await,
        json!({ "event": "price", "channel": channel, "data": data })
    );
    client.expect_silence().await;
    client.close().await;
}

async fn who_comes_later_is_served_by_any_node_and_by_one_that_starts_later(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut backend = nodes.node(0).backend().await;
    let channels = [
        "cache-a",
        "private-cache-a",
        "private-encrypted-cache-a",
        "presence-cache-a",
    ];
    let data = "é🙂".repeat(1_000);
    for channel in channels {
        backend.publish(channel, "price", &data).await;
    }
    // One that is not for who was left out is remembered all the same.
    let except = json!({ "name": "price", "channel": "cache-x", "data": &data, "socket_id": "1.1" });
    backend.trigger(&except).await;
    for channel in channels {
        remember(&nodes, channel, &data).await;
        for node in nodes.all() {
            expect_hit(node, channel, &data).await;
        }
    }
    remember(&nodes, "cache-x", &data).await;
    let late = nodes.one_more().await;
    for channel in channels {
        expect_hit(&late, channel, &data).await;
    }
    late.drain().await;
}

async fn a_miss_is_told_where_nobody_published(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    nodes.node(0).backend().await.publish("a", "ev", "").await;
    for node in nodes.all() {
        let mut client = node.connect().await;
        client.subscribe("cache-a").await;
        let miss = json!({ "event": "pusher:cache_miss", "channel": "cache-a", "data": "{}" });
        assert_eq!(client.next().await, miss);
    }
}

async fn what_is_remembered_expires_everywhere_at_the_same_time(bus: Bus) {
    // Remembers for two seconds.
    let nodes = Nodes::shared(bus, Kind::Forgetful).await;
    let published = Instant::now();
    nodes.node(0).backend().await.publish("cache-a", "ev", "1").await;
    remember(&nodes, "cache-a", "1").await;
    // A node that starts meanwhile is told how much is left.
    let late = nodes.one_more().await;
    for node in nodes.all().iter().chain([&late]) {
        let mut backend = node.backend().await;
        let gone = json!({ "occupied": false, "cache": null });
        answers(&mut backend, "/channels/cache-a?info=cache", &gone).await;
        let after = published.elapsed();
        assert!(after >= Duration::from_millis(1_900), "expired after {after:?}");
        assert!(
            after <= Duration::from_millis(3_500),
            "still there after {after:?}"
        );
        let mut client = node.connect().await;
        client.subscribe("cache-a").await;
        client.expect("pusher:cache_miss").await;
    }
    late.drain().await;
}

async fn of_two_events_the_last_one_holds(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut backends = nodes.backends().await;
    for round in 0..12 {
        let data = round.to_string();
        backends[round % 3].publish("cache-a", "price", &data).await;
        remember(&nodes, "cache-a", &data).await;
        expect_hit(nodes.node((round + 1) % 3), "cache-a", &data).await;
    }
}

async fn of_events_at_once_all_nodes_keep_the_same(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let publishing = (0..3).map(|place| {
        let nodes = &nodes;
        async move {
            let mut backend = nodes.node(place).backend().await;
            for round in 0..50 {
                backend
                    .publish("cache-a", "price", &format!("{place}:{round}"))
                    .await;
            }
        }
    });
    futures_util::future::join_all(publishing).await;
    let mut backends = nodes.backends().await;
    // Which of the three it is, is nobody's business; but it is the last of one.
    let kept = eventually("all nodes to remember the same", async || {
        let mut kept = Vec::new();
        for backend in &mut backends {
            kept.push(remembered(backend, "cache-a").await?.0);
        }
        kept.dedup();
        (kept.len() == 1).then(|| kept.remove(0))
    })
    .await;
    assert!(kept.ends_with(":49"), "{kept}");
}

/// A node that had not heard of the channel answers with what was announced, and goes on with what is published: each
/// event behind the one before.
async fn no_event_between_the_remembered_and_the_live_ones_is_lost_or_doubled(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut backend = nodes.node(0).backend().await;
    let publishing = tokio::spawn(async move {
        for number in 0..400 {
            backend.publish("cache-n", "n", &number.to_string()).await;
        }
        backend.publish("cache-n", "end", "").await;
    });
    let mut last_one = None;
    for visit in 0.. {
        let mut client = nodes.node(visit % 3).connect().await;
        client.subscribe("cache-n").await;
        let (mut last, mut live): (Option<u32>, u32) = (None, 0);
        let ended = loop {
            let message = client.next().await;
            match message["event"].as_str() {
                Some("pusher:cache_miss") => assert_eq!((last, live), (None, 0)),
                Some("end") => break true,
                _ => {
                    let text = message["data"].as_str().expect("a string");
                    let number: u32 = text.parse().expect("a number");
                    match (last, live) {
                        (None, 0) => {}
                        // The remembered one may be a little older than the first that is live.
                        (Some(last), 1) => assert!(number > last, "{number} behind {last}"),
                        (last, _) => assert_eq!(Some(number), last.map(|last| last + 1)),
                    }
                    (last, live) = (Some(number), live + 1);
                    if live > 20 {
                        break false;
                    }
                }
            }
        };
        if ended {
            last_one = last;
            break;
        }
        client.close().await;
    }
    publishing.await.expect("all were published");
    assert!(last_one.is_none_or(|last| last == 399), "{last_one:?}");
    remember(&nodes, "cache-n", "").await;
    let answer = nodes
        .node(1)
        .backend()
        .await
        .get("/channels/cache-n?info=cache")
        .await;
    assert_ne!(answer.json()["cache"], Value::Null);
}
