//! The suite over a NATS server with JetStream, and what befalls only NATS.

use std::collections::BTreeSet;
use std::time::Duration;

use fanwire::adapter::nats::{NatsConfig, NatsUrl};
use fanwire::app::Secret;
use fanwire::webhook::queue::{self, OpenJournal, Partitions, Room};
use serde_json::Value;

use crate::brokers::nats::{Nats, Options};
use crate::ground::{Ground, Node};
use crate::suite::suite;

struct Server {
    broker: Nats,
    config: NatsConfig,
}

fn server(user: Option<(&'static str, &'static str)>) -> Server {
    let broker = Nats::start_with(&Options {
        jetstream: true,
        user,
        ..Options::default()
    });
    let mut config = at(&broker);
    if let Some((name, password)) = user {
        config.username = Some(name.into());
        config.password = Secret::new(password);
    }
    Server { broker, config }
}

fn at(broker: &Nats) -> NatsConfig {
    NatsConfig {
        urls: vec![NatsUrl::new(&broker.url())],
        ..NatsConfig::default()
    }
}

/// What JetStream answers.
async fn ask(broker: &Nats, subject: &str) -> Value {
    let client = async_nats::connect(broker.url()).await.expect("it lets us in");
    let answer = client.request(format!("$JS.API.{subject}"), "".into()).await;
    serde_json::from_slice(&answer.expect("JetStream answers").payload).expect("JSON")
}

impl Ground for Server {
    async fn open(&self, prefix: &str, room: Room) -> OpenJournal {
        assert_eq!(self.config.faults(), []);
        queue::nats::open(&self.config, prefix, room)
            .await
            .expect("the server can be used")
    }

    fn stop(&mut self) {
        self.broker.process.stop();
    }

    fn start(&mut self) {
        self.broker.process.start();
    }

    fn freeze(&mut self) {
        self.broker.process.freeze();
    }

    fn thaw(&mut self) {
        self.broker.process.thaw();
    }

    async fn left(&self, prefix: &str) -> (usize, Vec<String>) {
        let client = async_nats::connect(self.broker.url()).await.expect("it answers");
        let name = format!("{}=webhooks", prefix.replace('.', "="));
        let ask = async |subject: String| -> Value {
            let answer = client
                .request(subject, "".into())
                .await
                .expect("JetStream answers");
            serde_json::from_slice(&answer.payload).expect("JSON")
        };
        let info = ask(format!("$JS.API.STREAM.INFO.{name}")).await;
        let consumers = ask(format!("$JS.API.CONSUMER.NAMES.{name}")).await;
        let traces = consumers["consumers"].as_array().expect("names").iter();
        let traces = traces
            .filter_map(Value::as_str)
            .filter(|name| !name.starts_with("partition-"))
            .map(str::to_owned);
        let messages = info["state"]["messages"].as_u64().expect("a number");
        (messages as usize, traces.collect())
    }
}

suite!(server(None));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_few_rights_is_enough() {
    let ground = server(Some(("fan", "hunter2")));
    let mut node = ground.node("fanwire").await;
    node.journal.own(Partitions::ALL);
    node.put(3, "1");
    assert_eq!(node.texts(1).await, ["1"]);
    node.sent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_is_refused_at_the_start() {
    let broker = Nats::start();
    let config = at(&broker);
    let opened = queue::nats::open(&config, "fanwire", Room::default());
    let opened = tokio::time::timeout(Duration::from_secs(20), opened).await;
    let fault = opened
        .expect("it does not hang")
        .expect_err("there is no JetStream");
    assert!(fault.contains("JetStream"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_at_the_start_is_found_later() {
    let mut ground = server(None);
    ground.broker.process.stop();
    let mut node = ground.node("late").await;
    node.put(3, "before");
    node.journal.own(Partitions::ALL);
    ground.broker.process.start();
    assert_eq!(node.texts(1).await, ["before"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_a_server_keeps_everything() {
    const ENTRIES: usize = 200;
    let mut servers = Nats::cluster_with(
        3,
        &Options {
            jetstream: true,
            ..Options::default()
        },
    );
    let config = NatsConfig {
        urls: servers.iter().map(|server| NatsUrl::new(&server.url())).collect(),
        ..NatsConfig::default()
    };
    let opened = queue::nats::open(&config, "copies", Room::default()).await;
    let mut node = Node::over(opened.expect("the servers can be used"));
    for number in 0..ENTRIES {
        node.put((number % 64) as u8, number.to_string());
    }
    node.sent().await;
    let info = ask(&servers[0], "STREAM.INFO.copies=webhooks").await;
    assert_eq!(info["config"]["num_replicas"], 3, "{info}");
    servers[0].process.stop();
    node.put(0, "afterwards");
    node.journal.own(Partitions::ALL);
    let all: BTreeSet<_> = node.texts(ENTRIES + 1).await.into_iter().collect();
    assert_eq!(all.len(), ENTRIES + 1);
    node.sent().await;
}
