//! Events that clients send to each other, from node to node.

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::support::client::{Client, data};

over_each_bus![
    it_reaches_the_subscribers_of_every_node_and_never_its_sender,
    presence_channels_tell_who_sent_it,
    the_events_of_one_sender_stay_in_order,
    nobody_whispers_before_he_is_there,
    it_is_not_remembered_by_cache_channels,
];

async fn it_reaches_the_subscribers_of_every_node_and_never_its_sender(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    for channel in ["private-a", "private-encrypted-a"] {
        let mut clients = nodes.subscribe(channel).await;
        clients.extend(nodes.subscribe(channel).await);
        for sender in 0..clients.len() {
            clients[sender]
                .whisper(channel, "client-typing", json!({ "from": sender }))
                .await;
            let expected = json!({
                "event": "client-typing", "channel": channel, "data": json!({ "from": sender }).to_string()
            });
            for (place, client) in clients.iter_mut().enumerate() {
                if place != sender {
                    assert_eq!(client.next().await, expected);
                }
            }
        }
        nodes.expect_nothing_more(channel, &mut clients).await;
    }
}

/// A member on each node, who know each other: `0`, `1` and so on.
async fn members(nodes: &Nodes, channel: &str) -> Vec<Client> {
    let mut clients = nodes.connect().await;
    for place in 0..clients.len() {
        clients[place].join(channel, &place.to_string()).await;
        nodes.count(channel, place as u64 + 1).await;
        for client in &mut clients[..place] {
            client.expect("pusher_internal:member_added").await;
        }
    }
    clients
}

async fn presence_channels_tell_who_sent_it(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let channel = "presence-a";
    let mut clients = members(&nodes, channel).await;
    for sender in 0..clients.len() {
        let spoofed = json!({ "event": "client-x", "channel": channel, "data": "", "user_id": "9" });
        clients[sender].say(&spoofed).await;
        let expected =
            json!({ "event": "client-x", "channel": channel, "data": "", "user_id": sender.to_string() });
        for (place, client) in clients.iter_mut().enumerate() {
            if place != sender {
                assert_eq!(client.next().await, expected);
            }
        }
    }
    nodes.expect_nothing_more(channel, &mut clients).await;
}

async fn the_events_of_one_sender_stay_in_order(bus: Bus) {
    const EVENTS: usize = 200;
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let channel = "presence-a";
    let mut clients = members(&nodes, channel).await;
    for number in 0..EVENTS {
        for client in &mut clients {
            client.whisper(channel, "client-n", number).await;
        }
    }
    for (place, client) in clients.iter_mut().enumerate() {
        let mut next = [0; 3];
        for _ in 0..2 * EVENTS {
            let event = client.expect("client-n").await;
            let sender: usize =
                serde_json::from_str(event["user_id"].as_str().expect("an id")).expect("a number");
            assert_ne!(sender, place, "nobody hears itself");
            assert_eq!(event["data"], next[sender].to_string(), "of {sender}");
            next[sender] += 1;
        }
    }
    nodes.expect_nothing_more(channel, &mut clients).await;
}

/// Who whispers in the same packet as he joins is heard, and was announced to everybody who hears it.
async fn nobody_whispers_before_he_is_there(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let channel = "presence-a";
    let mut witnesses = members(&nodes, channel).await;
    for round in 0..60 {
        let user = format!("new-{round}");
        let mut client = nodes.node(round % 3).connect().await;
        let channel_data = json!({ "user_id": user }).to_string();
        let join = client.subscription(channel, &channel_data);
        let whisper = json!({ "event": "client-hi", "channel": channel, "data": "" });
        client.say_together(&[join, whisper]).await;
        client.expect_subscribed(channel).await;
        for witness in &mut witnesses {
            let added = witness.expect("pusher_internal:member_added").await;
            assert_eq!(data(&added)["user_id"], *user);
            assert_eq!(witness.expect("client-hi").await["user_id"], *user);
        }
        client.expect_silence().await;
        drop(client);
        for witness in &mut witnesses {
            let removed = witness.expect("pusher_internal:member_removed").await;
            assert_eq!(data(&removed), json!({ "user_id": user }));
        }
    }
}

async fn it_is_not_remembered_by_cache_channels(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let channel = "private-cache-a";
    let mut clients = nodes.subscribe(channel).await;
    for client in &mut clients {
        client.expect("pusher:cache_miss").await;
    }
    clients[0].whisper(channel, "client-x", "").await;
    for client in &mut clients[1..] {
        client.expect("client-x").await;
    }
    let path = format!("/channels/{channel}?info=cache");
    for mut backend in nodes.backends().await {
        assert_eq!(backend.get(&path).await.json()["cache"], Value::Null);
    }
}
