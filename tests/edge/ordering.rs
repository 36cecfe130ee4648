//! What a subscriber is promised: the acknowledgement first, then every event published after it, each once, and for
//! each publisher and channel in its order, whoever else comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanwire::app::{AppConfig, Secret};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::http::Backend;
use crate::support::server::{TestServer, app, config};

const PUBLISHERS: usize = 4;

/// Publisher and number in an event's data.
fn mark(message: &Value) -> (usize, u64) {
    assert_eq!(message["event"], "n", "{message}");
    let text = message["data"].as_str().expect("a string");
    let (publisher, number) = text.split_once(':').expect("two numbers");
    (
        publisher.parse().expect("a number"),
        number.parse().expect("a number"),
    )
}

/// Publishes until told to stop, each event after the answer to the one before; the answer is how many.
async fn publish(
    server: &TestServer,
    channel: &str,
    publisher: usize,
    stop: Arc<AtomicBool>,
) -> impl Future<Output = u64> + use<> {
    let mut backend = server.backend().await;
    let channel = channel.to_owned();
    async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            backend
                .publish(&channel, "n", &format!("{publisher}:{number}"))
                .await;
            number += 1;
        }
        number
    }
}

/// Follows the publishers: no gap, nothing twice, nothing out of order.
struct Follower {
    next: [Option<u64>; PUBLISHERS],
}

impl Follower {
    fn hear(&mut self, message: &Value) -> (usize, u64) {
        let (publisher, number) = mark(message);
        let expected = self.next[publisher].unwrap_or(number);
        assert_eq!(
            number, expected,
            "publisher {publisher}: an event is missing, doubled or late"
        );
        self.next[publisher] = Some(number + 1);
        (publisher, number)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_subscribers_see_each_publisher_in_its_order_while_others_come_and_go() {
    let server = TestServer::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut steady = server.connect_many(9).await;
    for client in &mut steady {
        client.subscribe("a").await;
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(&server, "a", publisher, stop.clone()).await);
    }
    // Those who come and go: each stay begins with the acknowledgement and has no gap.
    let mut churn = JoinSet::new();
    for number in 0..9 {
        let address = server.address;
        churn.spawn(async move {
            let mut client = Client::connect(address, "/app/key?protocol=7").await;
            for stay in 0..25 {
                client.subscribe("a").await;
                let mut follower = Follower {
                    next: [None; PUBLISHERS],
                };
                for _ in 0..(stay + number) % 7 + 1 {
                    follower.hear(&client.next().await);
                }
                client.unsubscribe("a").await;
                // Until it is out, it still hears all, in order; afterwards nothing.
                for message in client.hear_out().await {
                    follower.hear(&message);
                }
                if stay % 5 == 4 {
                    client = Client::connect(address, "/app/key?protocol=7").await;
                }
            }
        });
    }
    churn.join_all().await;
    stop.store(true, Ordering::Relaxed);
    let published: u64 = publishers.join_all().await.into_iter().sum();
    server.backend().await.publish("a", "end", "").await;
    let mut orders = Vec::new();
    for client in &mut steady {
        let mut follower = Follower {
            next: [Some(0); PUBLISHERS],
        };
        let mut order = Vec::new();
        loop {
            let message = client.next().await;
            if message["event"] == "end" {
                break;
            }
            order.push(follower.hear(&message));
        }
        assert_eq!(order.len() as u64, published, "everything, once");
        orders.push(order);
    }
    // More than was promised: one order for all publishers together, the same for all on every shard.
    assert!(orders.windows(2).all(|two| two[0] == two[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_sent_after_the_acknowledgement_is_never_missed() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let noise = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn(publish(&server, "busy", 0, noise.clone()).await);
    let mut clients = server.connect_many(6).await;
    for round in 0..50 {
        let channel = format!("c{}", round % 3);
        for client in &mut clients {
            client.subscribe(&channel).await;
        }
        backend.publish(&channel, "after", &round.to_string()).await;
        for client in &mut clients {
            assert_eq!(client.expect("after").await["data"], round.to_string());
            client.unsubscribe(&channel).await;
        }
    }
    noise.store(true, Ordering::Relaxed);
    publishing.await.expect("the noise ends");
}

/// All at once: nothing of a channel comes before its acknowledgement, and what comes has no gap.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_before_the_acknowledgement() {
    let server = TestServer::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(&server, &format!("c{publisher}"), publisher, stop.clone()).await);
    }
    let mut clients = JoinSet::new();
    for _ in 0..12 {
        let address = server.address;
        clients.spawn(async move {
            for _ in 0..8 {
                let mut client = Client::connect(address, "/app/key?protocol=7").await;
                for publisher in 0..PUBLISHERS {
                    client.ask_for(&format!("c{publisher}"), "").await;
                }
                let mut follower = Follower {
                    next: [None; PUBLISHERS],
                };
                let mut acknowledged = [false; PUBLISHERS];
                for _ in 0..60 {
                    let message = client.next().await;
                    let channel = message["channel"].as_str().expect("a channel");
                    let place: usize = channel[1..].parse().expect("a number");
                    if message["event"] == "pusher_internal:subscription_succeeded" {
                        assert!(!std::mem::replace(&mut acknowledged[place], true), "once");
                    } else {
                        assert!(acknowledged[place], "{message} came before its acknowledgement");
                        follower.hear(&message);
                    }
                }
                assert_eq!(acknowledged, [true; PUBLISHERS]);
            }
        });
    }
    clients.join_all().await;
    stop.store(true, Ordering::Relaxed);
    publishers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_several_channels_comes_once_for_each_and_a_batch_in_its_order() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    for channel in ["a", "b", "c"] {
        client.subscribe(channel).await;
    }
    backend
        .trigger(&json!({ "name": "n", "channels": ["c", "a", "a", "b", "c"], "data": "x" }))
        .await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(
            client.expect("n").await["channel"]
                .as_str()
                .expect("a channel")
                .to_owned(),
        );
    }
    heard.sort();
    assert_eq!(heard, ["a", "b", "c"]);
    let batch: Vec<Value> = (0..10)
        .map(|number| json!({ "name": "n", "channel": "a", "data": number.to_string() }))
        .collect();
    for _ in 0..20 {
        let answer = backend.post("/batch_events", &json!({ "batch": batch })).await;
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
        for number in 0..10 {
            assert_eq!(client.expect("n").await["data"], number.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_that_is_left_out_misses_only_that_event() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut clients = server.connect_many(7).await;
    for client in &mut clients {
        client.subscribe("a").await;
    }
    let ids: Vec<String> = clients.iter().map(|client| client.socket_id.clone()).collect();
    // One write of many events, so that they are joined on the way; each leaves out another socket.
    let mut calls = String::new();
    for number in 0..70 {
        let body =
            json!({ "name": "n", "channel": "a", "data": number.to_string(), "socket_id": ids[number % 7] });
        calls += &backend.call("POST", "/events", &body.to_string());
    }
    backend.http.write(calls).await;
    for _ in 0..70 {
        assert_eq!(backend.http.answer().await.expect("an answer").status, 200);
    }
    for (place, client) in clients.iter_mut().enumerate() {
        for number in (0..70).filter(|number| number % 7 != place) {
            assert_eq!(
                client.expect("n").await["data"],
                number.to_string(),
                "socket {place}"
            );
        }
    }
    // An id that nobody has leaves nobody out.
    backend
        .trigger(&json!({ "name": "n", "channel": "a", "data": "", "socket_id": "1.1" }))
        .await;
    for client in &mut clients {
        client.expect("n").await;
    }
}

/// The same channel of another app, whose subscribers sit at the same places of the same shards.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_one_app_leaves_out_nobody_in_another() {
    let mut config = config([
        app(),
        AppConfig {
            id: "2".into(),
            key: "key2".into(),
            secret: Secret::new("secret2"),
            ..app()
        },
    ]);
    config.server.shards = 1;
    let server = TestServer::with_config(config).await;
    let mut theirs = server.connect_many(3).await;
    let mut ours = Vec::new();
    for client in &mut theirs {
        client.subscribe("news").await;
        let mut client = Client::connect(server.address, "/app/key2?protocol=7").await;
        client.subscribe("news").await;
        ours.push(client);
    }
    let mut backend = Backend {
        app_id: "2".into(),
        key: "key2".into(),
        secret: "secret2".into(),
        ..server.backend().await
    };
    for their in &mut theirs {
        backend
            .trigger(&json!({ "name": "n", "channel": "news", "data": "", "socket_id": their.socket_id }))
            .await;
        for client in &mut ours {
            client.expect("n").await;
        }
        their.expect_silence().await;
    }
}
