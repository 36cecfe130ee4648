//! An event that is published at one node comes to every subscriber on every node: once, whole, and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::support::client::Client;
use crate::support::server::TestServer;

over_each_bus![
    an_event_comes_once_to_every_subscriber_of_every_node,
    the_events_of_many_publishers_are_heard_by_each_in_its_order,
    those_who_come_and_go_hear_everything_between,
    an_event_for_many_channels_comes_once_on_each,
    a_batch_keeps_its_order,
    data_arrives_to_the_byte,
    the_answer_to_a_trigger_counts_all_nodes,
];

async fn an_event_comes_once_to_every_subscriber_of_every_node(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.subscribe("news").await;
    clients.extend(nodes.subscribe("news").await);
    let mut elsewhere = nodes.subscribe("other").await;
    for mut backend in nodes.backends().await {
        backend.publish("news", "ev", r#"{"a":1}"#).await;
        for client in &mut clients {
            assert_eq!(
                client.next().await,
                json!({ "event": "ev", "channel": "news", "data": r#"{"a":1}"# })
            );
        }
    }
    nodes.expect_nothing_more("news", &mut clients).await;
    nodes.expect_nothing_more("other", &mut elsewhere).await;
}

/// Who published an event on which channel, and as the how manieth.
fn mark(message: &Value) -> (usize, usize, usize) {
    assert_eq!(message["event"], "n", "{message}");
    let text = message["data"].as_str().expect("a string");
    let channel = message["channel"].as_str().expect("a channel");
    let (publisher, number) = text.split_once(':').expect("two numbers");
    let number_of = |text: &str| text.parse().expect("a number");
    (
        number_of(publisher),
        number_of(channel.trim_start_matches("c")),
        number_of(number),
    )
}

async fn the_events_of_many_publishers_are_heard_by_each_in_its_order(bus: Bus) {
    const PUBLISHERS: usize = 10;
    const CHANNELS: usize = 20;
    const ROUNDS: usize = 20;
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.connect().await;
    for client in &mut clients {
        for channel in 0..CHANNELS {
            client.subscribe(&format!("c{channel}")).await;
        }
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let mut backend = nodes.node(publisher % 3).backend().await;
        publishers.spawn(async move {
            for round in 0..ROUNDS {
                let event = |channel: usize| {
                    json!({ "name": "n", "channel": format!("c{channel}"), "data": format!("{publisher}:{round}") })
                };
                for half in [0..CHANNELS / 2, CHANNELS / 2..CHANNELS] {
                    let batch: Vec<Value> = half.map(event).collect();
                    let answer = backend.post("/batch_events", &json!({ "batch": batch })).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            }
        });
    }
    let mut listeners = JoinSet::new();
    for mut client in clients {
        listeners.spawn(async move {
            let mut next = [[0; CHANNELS]; PUBLISHERS];
            for _ in 0..PUBLISHERS * CHANNELS * ROUNDS {
                let (publisher, channel, number) = mark(&client.next().await);
                let expected = &mut next[publisher][channel];
                assert_eq!(number, *expected, "publisher {publisher} on channel {channel}");
                *expected += 1;
            }
            client
        });
    }
    publishers.join_all().await;
    let mut clients = listeners.join_all().await;
    for channel in 0..CHANNELS {
        nodes
            .expect_nothing_more(&format!("c{channel}"), &mut clients)
            .await;
    }
}

/// Publishes until told to stop, each event after the answer to the one before; the answer is how many.
async fn publish(
    node: &TestServer,
    publisher: usize,
    stop: Arc<AtomicBool>,
) -> impl Future<Output = usize> + use<> {
    let mut backend = node.backend().await;
    async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            backend.publish("c0", "n", &format!("{publisher}:{number}")).await;
            number += 1;
        }
        number
    }
}

/// Follows the publishers: no gap, nothing twice, nothing out of order.
#[derive(Default)]
struct Follower {
    next: [Option<usize>; 3],
}

impl Follower {
    fn hear(&mut self, message: &Value) {
        let (publisher, _, number) = mark(message);
        let expected = self.next[publisher].unwrap_or(number);
        assert_eq!(
            number, expected,
            "publisher {publisher}: missing, doubled or late"
        );
        self.next[publisher] = Some(number + 1);
    }
}

async fn those_who_come_and_go_hear_everything_between(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut steady = nodes.subscribe("c0").await;
    let mut publishers = JoinSet::new();
    for (publisher, node) in nodes.all().iter().enumerate() {
        publishers.spawn(publish(node, publisher, stop.clone()).await);
    }
    let mut churn = JoinSet::new();
    for number in 0..6 {
        let mut client = nodes.node(number % 3).connect().await;
        churn.spawn(async move {
            for stay in 0..12 {
                client.subscribe("c0").await;
                let mut follower = Follower::default();
                for _ in 0..(stay + number) % 7 + 1 {
                    follower.hear(&client.next().await);
                }
                client.unsubscribe("c0").await;
                // Until it is out, it still hears all, in order; afterwards nothing.
                for message in client.hear_out().await {
                    follower.hear(&message);
                }
            }
        });
    }
    churn.join_all().await;
    stop.store(true, Ordering::Relaxed);
    let published: usize = publishers.join_all().await.into_iter().sum();
    for client in &mut steady {
        let mut follower = Follower { next: [Some(0); 3] };
        for _ in 0..published {
            follower.hear(&client.next().await);
        }
    }
    nodes.expect_nothing_more("c0", &mut steady).await;
}

async fn an_event_for_many_channels_comes_once_on_each(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let channels: Vec<String> = (0..100).map(|number| format!("many-{number}")).collect();
    let mut clients = nodes.connect().await;
    for (place, client) in clients.iter_mut().enumerate() {
        for channel in channels.iter().skip(place).step_by(2) {
            client.subscribe(channel).await;
        }
    }
    let body = json!({ "name": "n", "channels": channels, "data": "x" });
    nodes.node(0).backend().await.trigger(&body).await;
    for (place, client) in clients.iter_mut().enumerate() {
        let mut expected: Vec<&String> = channels.iter().skip(place).step_by(2).collect();
        expected.sort();
        let mut heard = Vec::new();
        for _ in &expected {
            heard.push(client.expect("n").await["channel"].take());
        }
        heard.sort_by_key(Value::to_string);
        assert_eq!(json!(heard), json!(expected));
        client.expect_silence().await;
    }
}

async fn a_batch_keeps_its_order(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.subscribe("a").await;
    let mut backend = nodes.node(1).backend().await;
    for round in 0..20 {
        let event =
            |number: usize| json!({ "name": "n", "channel": "a", "data": format!("{round}:{number}") });
        let batch: Vec<Value> = (0..10).map(event).collect();
        let answer = backend.post("/batch_events", &json!({ "batch": batch })).await;
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
    }
    for client in &mut clients {
        for number in 0..200 {
            let expected = format!("{}:{}", number / 10, number % 10);
            assert_eq!(client.expect("n").await["data"], expected);
        }
    }
}

async fn data_arrives_to_the_byte(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let long_name = "x".repeat(200);
    let encrypted = r#"{"nonce":"4sVYwy4j/8dCcjyxtPCWyk19GaaViaW9","ciphertext":"g3Wm5QwKZWvfhWLYJ8mPzQ=="}"#;
    for (channel, event, data) in [
        ("a", "ev", json!("")),
        ("a", "ev", json!("x".repeat(10_240))),
        ("a", "ev", json!("🙂".repeat(2_560))),
        ("a", "ev", json!("é\"\\\u{0}\u{1f}\u{7f}\u{2028}\r\n🙂")),
        ("a", "ïvent 🙂", json!({ "ä": [1, 2.5, null, true] })),
        (&long_name, &*"ö".repeat(200), json!("x".repeat(10_000))),
        ("private-encrypted-a", "ev", json!(encrypted)),
    ] {
        let mut clients = nodes.subscribe(channel).await;
        let body = json!({ "name": event, "channel": channel, "data": data });
        nodes.node(2).backend().await.trigger(&body).await;
        let text = match &data {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        for client in &mut clients {
            let heard = client.next().await;
            assert_eq!(heard, json!({ "event": event, "channel": channel, "data": text }));
        }
    }
    // The largest that a client may send.
    let mut clients = nodes.subscribe("private-a").await;
    let data = "🙂".repeat(2_560);
    clients[0].whisper("private-a", "client-x", &*data).await;
    for client in &mut clients[1..] {
        assert_eq!(client.expect("client-x").await["data"], data);
    }
}

async fn the_answer_to_a_trigger_counts_all_nodes(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut members: Vec<Client> = nodes.connect().await;
    members.extend(nodes.connect().await);
    for (number, client) in members.iter_mut().enumerate() {
        client.join("presence-a", &(number / 2).to_string()).await;
    }
    let _subscribers = nodes.subscribe("b").await;
    nodes.count("presence-a", 6).await;
    nodes.count("b", 3).await;
    let info = "user_count,subscription_count";
    for mut backend in nodes.backends().await {
        let body = json!({ "name": "n", "channels": ["presence-a", "b", "c"], "data": "", "info": info });
        let expected = json!({ "channels": {
            "presence-a": { "user_count": 3, "subscription_count": 6 },
            "b": { "subscription_count": 3 },
            "c": { "subscription_count": 0 },
        }});
        assert_eq!(backend.trigger(&body).await.json(), expected);
    }
}
