//! How many subscribers a channel has, on all nodes together, and which channels there are.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::support::client::{Client, Heard, data};

over_each_bus![
    every_subscriber_hears_each_change_wherever_it_was,
    the_last_count_is_the_truth_after_any_comings_and_goings,
    every_node_lists_the_channels_of_all,
    a_channel_is_occupied_and_vacated_for_all_nodes,
    every_node_counts_the_connections_of_all,
    the_quota_of_connections_holds_for_all_nodes,
];

async fn expect_count(client: &mut Client, count: u64) {
    let message = client.expect("pusher_internal:subscription_count").await;
    assert_eq!(message["channel"], "news");
    assert_eq!(data(&message)["subscription_count"], count, "{message}");
}

async fn every_subscriber_hears_each_change_wherever_it_was(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Counting).await;
    let mut clients: Vec<Client> = Vec::new();
    for place in 0..6 {
        let mut client = nodes.node(place % 3).connect().await;
        client.subscribe("news").await;
        clients.push(client);
        for client in &mut clients {
            expect_count(client, place as u64 + 1).await;
        }
        nodes.count("news", place as u64 + 1).await;
    }
    for left in (1..6).rev() {
        let mut client = clients.remove(0);
        if left % 2 == 0 {
            client.unsubscribe("news").await;
            client.expect_silence().await;
        } else {
            client.close().await;
        }
        for client in &mut clients {
            expect_count(client, left).await;
        }
        nodes.count("news", left).await;
    }
    nodes.expect_nothing_more("news", &mut clients).await;
}

async fn the_last_count_is_the_truth_after_any_comings_and_goings(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Counting).await;
    let mut watchers = nodes.subscribe("news").await;
    let mut others = JoinSet::new();
    for number in 0..15 {
        let nodes = nodes.clone();
        others.spawn(async move {
            for life in 0..4 {
                let mut client = nodes.node((number + life) % 3).connect().await;
                client.subscribe("news").await;
                if number % 2 == 0 {
                    client.unsubscribe("news").await;
                }
            }
            let mut client = nodes.node(number % 3).connect().await;
            client.subscribe("news").await;
            (number % 3 != 0).then_some(client)
        });
    }
    let staying: Vec<Client> = others.join_all().await.into_iter().flatten().collect();
    let count = staying.len() as u64 + 3;
    nodes.count("news", count).await;
    for (place, watcher) in watchers.iter_mut().enumerate() {
        // What its own node publishes comes behind the news of a count that this node has told already.
        let marker = format!("behind-{place}");
        let mut backend = nodes.node(place).backend().await;
        backend.publish("news", &marker, "").await;
        let mut last = Value::Null;
        loop {
            let message = watcher.next().await;
            match message["event"].as_str() {
                Some(event) if event == marker => break,
                Some("pusher_internal:subscription_count") => {
                    last = data(&message)["subscription_count"].take();
                }
                // That of a watcher before.
                _ => {}
            }
        }
        assert_eq!(last, count);
    }
}

async fn every_node_lists_the_channels_of_all(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.connect().await;
    for (place, client) in clients.iter_mut().enumerate() {
        client.subscribe("everywhere").await;
        client.subscribe(&format!("private-{place}")).await;
        client.join("presence-a", &(place / 2).to_string()).await;
    }
    nodes.count("everywhere", 3).await;
    for (query, expected) in [
        (
            "/channels",
            json!({ "everywhere": {}, "private-0": {}, "private-1": {}, "private-2": {}, "presence-a": {} }),
        ),
        (
            "/channels?filter_by_prefix=private-&info=subscription_count",
            json!({
                "private-0": { "subscription_count": 1 },
                "private-1": { "subscription_count": 1 },
                "private-2": { "subscription_count": 1 },
            }),
        ),
        (
            "/channels?filter_by_prefix=presence-&info=user_count,subscription_count",
            json!({ "presence-a": { "user_count": 2, "subscription_count": 3 } }),
        ),
        ("/channels?filter_by_prefix=nobody-", json!({})),
    ] {
        nodes.agree(query, &json!({ "channels": expected })).await;
    }
    drop(clients);
    nodes.agree("/channels", &json!({ "channels": {} })).await;
}

async fn a_channel_is_occupied_and_vacated_for_all_nodes(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let path = "/channels/a?info=subscription_count";
    let answer = |count: u64| json!({ "occupied": count > 0, "subscription_count": count });
    nodes.agree(path, &answer(0)).await;
    let mut one = nodes.node(0).connect().await;
    let mut other = nodes.node(1).connect().await;
    one.subscribe("a").await;
    nodes.agree(path, &answer(1)).await;
    other.subscribe("a").await;
    nodes.agree(path, &answer(2)).await;
    one.unsubscribe("a").await;
    nodes.agree(path, &answer(1)).await;
    other.close().await;
    nodes.agree(path, &answer(0)).await;
    one.subscribe("a").await;
    nodes.agree(path, &answer(1)).await;
}

async fn every_node_counts_the_connections_of_all(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.connect().await;
    clients.extend(nodes.node(0).connect_many(2).await);
    nodes.agree("/connections", &json!({ "connections": 5 })).await;
    clients.pop().expect("a client").close().await;
    nodes.agree("/connections", &json!({ "connections": 4 })).await;
    drop(clients);
    nodes.agree("/connections", &json!({ "connections": 0 })).await;
}

async fn the_quota_of_connections_holds_for_all_nodes(bus: Bus) {
    // Two members, and three connections.
    let nodes = Nodes::shared(bus, Kind::Small).await;
    let mut clients = nodes.connect().await;
    nodes.agree("/connections", &json!({ "connections": 3 })).await;
    let target = format!("/app/{}?protocol=7", nodes.node(0).app.key);
    for node in nodes.all() {
        let mut refused = Client::open(node.address, &target).await;
        refused.expect_error(4004).await;
        assert!(matches!(refused.hear().await, Heard::Closed(4004, _)));
    }
    clients.remove(0).close().await;
    nodes.agree("/connections", &json!({ "connections": 2 })).await;
    let _welcome = nodes.node(2).connect().await;
}
