//! What the back end is told: of each change of what all nodes together have, by one of them.

use fanwire::app::{AppConfig, WebhookConfig, WebhookKind, WebhookUrl};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::Nodes;
use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::server::{TestServer, app};

over_each_bus![
    each_change_is_told_once_wherever_it_happens,
    who_is_back_on_another_node_within_the_grace_never_went,
    what_a_node_was_to_tell_is_told_by_another_when_it_leaves,
    a_node_that_joins_late_tells_nothing_that_was_told,
    counts_are_told_once_and_whispers_where_they_are_heard,
];

/// Long enough to come back within it on a busy machine, and short enough to wait for its end.
const GRACE_MS: u32 = 2_500;

/// Three nodes that tell of this, and the back end.
async fn telling(bus: Bus, webhook_grace_ms: u32, kinds: &[WebhookKind]) -> (Nodes, Receiver) {
    let receiver = Receiver::start().await;
    let app = AppConfig {
        webhooks: vec![WebhookConfig {
            url: WebhookUrl::new(&receiver.url("/")),
            event_types: kinds.to_vec(),
            ..WebhookConfig::default()
        }],
        webhook_grace_ms,
        ..app()
    };
    let nodes = Nodes::own(bus, 3, app).await;
    for node in nodes.all() {
        takes_turns(node).await;
    }
    (nodes, receiver)
}

/// Waits until a node has its turns, so that nobody has to wait for another one's patience.
async fn takes_turns(node: &TestServer) {
    eventually("a node to take its turns", async || {
        let cluster = node.server.node().cluster()?;
        cluster.has_turns().then_some(())
    })
    .await;
}

const MEMBERSHIP: [WebhookKind; 4] = [
    WebhookKind::ChannelOccupied,
    WebhookKind::ChannelVacated,
    WebhookKind::MemberAdded,
    WebhookKind::MemberRemoved,
];

/// No node has anything left that it might tell.
async fn all_is_told(nodes: impl IntoIterator<Item = &TestServer>) {
    for node in nodes {
        eventually("nothing to be untold", async || {
            (node.metric("webhook_untold", &[]).await == 0).then_some(())
        })
        .await;
    }
}

fn of_channel(name: &str, channel: &str) -> Value {
    json!({ "name": name, "channel": channel })
}

fn of_member(name: &str, channel: &str, user_id: &str) -> Value {
    json!({ "name": name, "channel": channel, "user_id": user_id })
}

async fn each_change_is_told_once_wherever_it_happens(bus: Bus) {
    let (nodes, receiver) = telling(bus, 0, &MEMBERSHIP).await;
    // Enough for each node to tell of some.
    let channels: Vec<String> = (0..9).map(|number| format!("presence-{number}")).collect();
    let mut clients = nodes.connect().await;
    let mut told = vec![Vec::new(); channels.len()];
    for (place, client) in clients.iter_mut().enumerate() {
        for (channel, told) in channels.iter().zip(&mut told) {
            // One comes on two nodes, another on the third.
            let user = ["ada", "ada", "bob"][place];
            client.join(channel, user).await;
            match place {
                0 => told.extend([
                    of_channel("channel_occupied", channel),
                    of_member("member_added", channel, user),
                ]),
                2 => told.push(of_member("member_added", channel, user)),
                _ => {}
            }
        }
        for channel in &channels {
            nodes.count(channel, place as u64 + 1).await;
        }
    }
    for (place, client) in clients.iter_mut().enumerate() {
        for (channel, told) in channels.iter().zip(&mut told) {
            client.unsubscribe(channel).await;
            match place {
                1 => told.push(of_member("member_removed", channel, "ada")),
                2 => told.extend([
                    of_member("member_removed", channel, "bob"),
                    of_channel("channel_vacated", channel),
                ]),
                _ => {}
            }
        }
        for channel in &channels {
            nodes.count(channel, 2 - place as u64).await;
        }
    }
    for (channel, told) in channels.iter().zip(&told) {
        receiver.expect(channel, told).await;
    }
    all_is_told(nodes.all()).await;
    for (channel, told) in channels.iter().zip(&told) {
        receiver.expect(channel, told).await;
    }
}

async fn who_is_back_on_another_node_within_the_grace_never_went(bus: Bus) {
    let (nodes, receiver) = telling(bus, GRACE_MS, &MEMBERSHIP).await;
    let mut clients = nodes.connect().await;
    let channels: Vec<String> = (0..4).map(|number| format!("presence-{number}")).collect();
    for channel in &channels {
        clients[0].join(channel, "ada").await;
    }
    for channel in &channels {
        nodes.count(channel, 1).await;
    }
    for place in [1, 2, 0] {
        let before = (place + 2) % 3;
        for channel in &channels {
            clients[before].unsubscribe(channel).await;
            clients[place].join(channel, "ada").await;
        }
        for channel in &channels {
            nodes.count(channel, 1).await;
        }
    }
    all_is_told(nodes.all()).await;
    for channel in &channels {
        let told = [
            of_channel("channel_occupied", channel),
            of_member("member_added", channel, "ada"),
        ];
        receiver.expect(channel, &told).await;
    }
}

/// Whichever of the nodes it was that had to tell: one of four leaves while all waits for its grace.
async fn what_a_node_was_to_tell_is_told_by_another_when_it_leaves(bus: Bus) {
    let (nodes, receiver) = telling(bus, GRACE_MS, &MEMBERSHIP).await;
    let leaving = nodes.one_more().await;
    takes_turns(&leaving).await;
    let channels: Vec<String> = (0..12).map(|number| format!("presence-{number}")).collect();
    let (mut stays, mut leaves) = (nodes.node(0).connect().await, leaving.connect().await);
    for channel in &channels {
        stays.join(channel, "ada").await;
    }
    // Heard before bob joins, so that it is not news to him.
    let mut backend = leaving.backend().await;
    for channel in &channels {
        backend.wait_for_subscribers(channel, 1).await;
    }
    drop(backend);
    for channel in &channels {
        leaves.join(channel, "bob").await;
    }
    for channel in &channels {
        nodes.count(channel, 2).await;
    }
    for channel in &channels {
        stays.unsubscribe(channel).await;
    }
    // With it goes the last subscriber of each.
    drop(leaves);
    leaving.drain().await;
    for channel in &channels {
        nodes.count(channel, 0).await;
    }
    let sorted = |mut events: Vec<Value>| {
        events.sort_by_key(Value::to_string);
        events
    };
    for channel in &channels {
        eventually("all to be told", async || {
            (receiver.events_of(channel).len() == 6).then_some(())
        })
        .await;
        let told = receiver.events_of(channel);
        assert_eq!(told[0], of_channel("channel_occupied", channel));
        assert_eq!(told[5], of_channel("channel_vacated", channel));
        let of_members = ["ada", "bob"].map(|user| {
            let added = of_member("member_added", channel, user);
            [added, of_member("member_removed", channel, user)]
        });
        assert_eq!(sorted(told[1..5].to_vec()), sorted(of_members.concat()));
    }
    all_is_told(nodes.all()).await;
    assert_eq!(receiver.events().len(), channels.len() * 6);
}

async fn a_node_that_joins_late_tells_nothing_that_was_told(bus: Bus) {
    let (nodes, receiver) = telling(bus, 0, &MEMBERSHIP).await;
    let channels: Vec<String> = (0..12).map(|number| format!("presence-{number}")).collect();
    let mut client = nodes.node(0).connect().await;
    for channel in &channels {
        client.join(channel, "ada").await;
    }
    for channel in &channels {
        let told = [
            of_channel("channel_occupied", channel),
            of_member("member_added", channel, "ada"),
        ];
        receiver.expect(channel, &told).await;
    }
    let late = nodes.one_more().await;
    takes_turns(&late).await;
    let mut other = late.connect().await;
    for channel in &channels {
        other.join(channel, "bob").await;
    }
    for channel in &channels {
        eventually("bob to be told of", async || {
            (receiver.events_of(channel).last() == Some(&of_member("member_added", channel, "bob")))
                .then_some(())
        })
        .await;
    }
    all_is_told(nodes.all().iter().chain([&late])).await;
    assert_eq!(receiver.events().len(), channels.len() * 3);
    // It takes its turns: what it is to tell as the last one of three that go, it tells.
    for channel in &channels {
        other.unsubscribe(channel).await;
        client.unsubscribe(channel).await;
    }
    for channel in &channels {
        eventually("the channel to be vacated", async || {
            (receiver.events_of(channel).last() == Some(&of_channel("channel_vacated", channel)))
                .then_some(())
        })
        .await;
    }
    drop((client, other));
    late.drain().await;
    all_is_told(nodes.all()).await;
    assert_eq!(receiver.events().len(), channels.len() * 6);
}

async fn counts_are_told_once_and_whispers_where_they_are_heard(bus: Bus) {
    let kinds = [WebhookKind::SubscriptionCount, WebhookKind::ClientEvent];
    let (nodes, receiver) = telling(bus, 0, &kinds).await;
    let mut clients = nodes.connect().await;
    let channel = "private-a";
    for (place, client) in clients.iter_mut().enumerate() {
        client.subscribe(channel).await;
        nodes.count(channel, place as u64 + 1).await;
    }
    let mut told: Vec<Value> = (1..=3)
        .map(|count| json!({ "name": "subscription_count", "channel": channel, "subscription_count": count }))
        .collect();
    receiver.expect(channel, &told).await;
    clients[1].whisper(channel, "client-x", "y").await;
    told.push(json!({
        "name": "client_event", "channel": channel, "event": "client-x", "data": "y",
        "socket_id": clients[1].socket_id
    }));
    receiver.expect(channel, &told).await;
    for client in [0, 2] {
        clients[client].expect("client-x").await;
    }
    assert_eq!(receiver.events().len(), told.len());
}
