//! What the cluster costs the bus, counted by the one in memory. Heartbeats are left aside: they come by the clock.

use std::collections::BTreeMap;
use std::time::Instant;

use fanwire::adapter::Topic;
use fanwire::adapter::memory::Traffic;
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::Nodes;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::server::app;

/// What was published, and what arrived, in the topics that are asked for.
#[derive(Debug, PartialEq)]
struct Cost {
    published: Traffic,
    heard: Traffic,
}

fn cost(nodes: &Nodes, counts: impl Fn(&Topic) -> bool) -> Cost {
    let bus = nodes.line().memory.as_ref().expect("the bus is in memory");
    let sum = |all: BTreeMap<Topic, Traffic>| {
        let counted = all.into_iter().filter(|(topic, _)| counts(topic));
        counted.fold(Traffic::default(), |sum, (_, traffic)| Traffic {
            messages: sum.messages + traffic.messages,
            bytes: sum.bytes + traffic.bytes,
        })
    };
    Cost {
        published: sum(bus.published()),
        heard: sum(bus.heard()),
    }
}

/// All but heartbeats.
fn any(topic: &Topic) -> bool {
    *topic != Topic::Beats
}

fn minus(after: Traffic, before: Traffic) -> Traffic {
    Traffic {
        messages: after.messages - before.messages,
        bytes: after.bytes - before.bytes,
    }
}

/// What was spent since.
fn since(nodes: &Nodes, before: &Cost) -> Cost {
    let after = cost(nodes, any);
    Cost {
        published: minus(after.published, before.published),
        heard: minus(after.heard, before.heard),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_costs_the_same_with_three_and_with_ten_nodes() {
    const EVENTS: u64 = 100;
    let data = "x".repeat(200);
    let text = json!({ "event": "ev", "channel": "news", "data": data }).to_string();
    let frame_bytes = text.len() as u64 + 4;
    for count in [3, 10] {
        let nodes = Nodes::own(Bus::Memory, count, app()).await;
        let mut client = nodes.node(1).connect().await;
        client.subscribe("news").await;
        nodes.agree("/connections", &json!({ "connections": 1 })).await;
        nodes.count("news", 1).await;
        let mut backend = nodes.node(0).backend().await;
        let before = cost(&nodes, any);
        for _ in 0..EVENTS {
            // One at a time, so that none travels along with another.
            backend.publish("news", "ev", &data).await;
            client.expect("ev").await;
        }
        let spent = since(&nodes, &before);
        assert_eq!(spent.published, spent.heard, "{count} nodes: by one other node");
        assert_eq!(spent.published.messages, EVENTS, "{count} nodes");
        let bytes = spent.published.bytes / EVENTS;
        assert!(
            bytes * 10 <= frame_bytes * 12,
            "{count} nodes: {bytes} bytes for a frame of {frame_bytes}"
        );
        // What nobody else subscribes to, nobody hears.
        let before = cost(&nodes, any);
        for _ in 0..EVENTS {
            backend.publish("nobody", "ev", &data).await;
        }
        backend.publish("news", "ev", &data).await;
        client.expect("ev").await;
        assert_eq!(since(&nodes, &before).heard.messages, 1, "{count} nodes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_and_subscribing_send_a_few_messages_and_querying_none() {
    for count in [3, 10] {
        let nodes = Nodes::own(Bus::Memory, count, app()).await;
        let before = cost(&nodes, any);
        let mut client = nodes.node(0).connect().await;
        client.subscribe("news").await;
        client.join("presence-a", "1").await;
        client.sign_in(&json!({ "id": "1" })).await;
        client.subscribe("last").await;
        nodes.agree("/connections", &json!({ "connections": 1 })).await;
        nodes.count("last", 1).await;
        let spent = since(&nodes, &before);
        // One for each of the five, if none travelled along with another.
        assert!(spent.published.messages <= 5, "{count} nodes: {spent:?}");

        let before = cost(&nodes, any);
        for mut backend in nodes.backends().await {
            for path in [
                "/channels?info=subscription_count",
                "/channels/news?info=subscription_count",
                "/channels/presence-a/users",
                "/channels/nobody",
                "/connections",
            ] {
                assert_eq!(backend.get(path).await.status, 200);
            }
        }
        let nothing = Traffic::default();
        assert_eq!(since(&nodes, &before).published, nothing, "{count} nodes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_at_once_are_a_handful_of_announcements() {
    const SOCKETS: usize = 10;
    const CHANNELS: usize = 1_000;
    let nodes = Nodes::own(Bus::Memory, 3, app()).await;
    let mut sockets: Vec<Client> = nodes.node(0).connect_many(SOCKETS).await;
    nodes
        .agree("/connections", &json!({ "connections": SOCKETS }))
        .await;
    let before = cost(&nodes, any);
    let begun = Instant::now();
    for (place, socket) in sockets.iter_mut().enumerate() {
        let channels = (0..CHANNELS).map(|number| format!("channel-{place}-{number}"));
        let asked: Vec<Value> = channels
            .map(|channel| socket.subscription(&channel, ""))
            .collect();
        socket.say_together(&asked).await;
    }
    for socket in &mut sockets {
        for _ in 0..CHANNELS {
            socket.expect("pusher_internal:subscription_succeeded").await;
        }
    }
    let mut backend = nodes.node(2).backend().await;
    eventually("another node to know all", async || {
        let channels = backend.get("/channels").await.json()["channels"].take();
        (channels.as_object()?.len() == SOCKETS * CHANNELS).then_some(())
    })
    .await;
    let spent = since(&nodes, &before);
    // However long the machine takes for them: one in ten milliseconds at most, and some large ones in parts.
    let intervals = begun.elapsed().as_millis() as u64 / 10;
    assert!(
        spent.published.messages <= intervals + 20,
        "{spent:?} in {intervals} times 10 ms"
    );
    assert!(
        spent.published.messages <= (SOCKETS * CHANNELS / 50) as u64,
        "{spent:?}"
    );
}
