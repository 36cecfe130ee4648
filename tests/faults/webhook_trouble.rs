//! A node is killed with webhooks in hand, and others have yet to be given: the nodes that are left deliver all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::brokers::{Broker, Kind};
use crate::case::Case;
use crate::stage::{LEASE, Stage};
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{KEY, SECRET};
use crate::{Entry, entry};

pub(crate) fn cases() -> Vec<Entry> {
    vec![
        entry!(redis_node_killed_with_webhooks_in_hand, 30),
        entry!(nats_node_killed_with_webhooks_in_hand, 30),
    ]
}

async fn redis_node_killed_with_webhooks_in_hand(case: &Case) {
    node_killed_with_webhooks_in_hand(case, Kind::Redis).await;
}

async fn nats_node_killed_with_webhooks_in_hand(case: &Case) {
    node_killed_with_webhooks_in_hand(case, Kind::Nats).await;
}

/// Each of them falls into one partition or another, so that each node has some of them.
const CHANNELS: usize = 24;
const EVENTS: usize = 5;

/// Clients of node A send events while the back end refuses everything: so each event is with the broker, and in the
/// hands of the node that owns its part of the queue, A among them. A is killed. When the back end is well again, it is
/// told of every event, in the order of each channel, by B and C.
async fn node_killed_with_webhooks_in_hand(case: &Case, kind: Kind) {
    let broker = Broker::start_keeping(kind);
    let receiver = Receiver::start().await;
    receiver.answer(Reply::Status(500));
    let mut config = broker.config();
    config["webhooks"] = json!({
        "queue": match kind {
            Kind::Redis => "redis",
            Kind::Nats => "nats",
        },
        "retry_first_ms": 100,
        "retry_max_ms": 1000,
    });
    config["apps"] = json!([{
        "id": "1", "key": KEY, "secret": SECRET, "client_events": true, "client_events_per_s": 1000,
        "webhooks": [{ "url": receiver.url("/"), "event_types": ["client_event"] }],
    }]);
    let mut stage = Stage::set(case, &[config.clone(), config.clone(), config]).await;

    let mut client = stage.nodes[0].connect().await;
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for channel in (0..CHANNELS).map(|number| format!("private-{number}")) {
        client.subscribe(&channel).await;
        for number in 0..EVENTS {
            let text = number.to_string();
            client.whisper(&channel, "client-number", &*text).await;
            sent.entry(channel.clone()).or_default().push(text);
        }
    }
    client.expect_silence().await;
    let (all, begun) = (CHANNELS * EVENTS, Instant::now());
    while broker.webhooks_kept().await < all {
        assert!(
            begun.elapsed() < case.bound(Duration::from_secs(10)),
            "{} of {all} webhooks are at the broker",
            broker.webhooks_kept().await
        );
        sleep(Duration::from_millis(20)).await;
    }
    // Each owner has its part in hand, and has tried it.
    let tried = |receiver: &Receiver| -> BTreeSet<String> {
        let events = receiver.events().into_iter();
        events.map(|event| text(&event["channel"])).collect()
    };
    while tried(&receiver).len() < CHANNELS {
        assert!(
            begun.elapsed() < case.bound(Duration::from_secs(20)),
            "of {} channels nothing was tried",
            CHANNELS - tried(&receiver).len()
        );
        sleep(Duration::from_millis(20)).await;
    }
    stage.kill(0);
    let refused = receiver.received().len();
    receiver.answer(Reply::Status(200));
    case.say(format!("{all} webhooks are kept, and node A is killed"));

    let killed = Instant::now();
    loop {
        let told = told(&receiver, refused);
        if told == sent {
            break;
        }
        assert!(
            killed.elapsed() < case.bound(2 * LEASE + Duration::from_secs(10)),
            "of {all} events {} were told of: {told:?}",
            told.values().map(Vec::len).sum::<usize>()
        );
        sleep(Duration::from_millis(50)).await;
    }
    case.say(format!(
        "all were told of {:.1} s after node A was killed",
        killed.elapsed().as_secs_f64()
    ));
    let done = Instant::now();
    while broker.webhooks_kept().await > 0 {
        assert!(
            done.elapsed() < case.bound(Duration::from_secs(10)),
            "{} webhooks are still at the broker",
            broker.webhooks_kept().await
        );
        sleep(Duration::from_millis(20)).await;
    }
    stage.readiness.never_failed();
}

/// What the back end was told behind those requests, each the first time, by channel.
fn told(receiver: &Receiver, refused: usize) -> BTreeMap<String, Vec<String>> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let requests = receiver.received().into_iter().skip(refused);
    for event in requests.flat_map(|request| request.events()) {
        let line = told.entry(text(&event["channel"])).or_default();
        let number = text(&event["data"]);
        if !line.contains(&number) {
            line.push(number);
        }
    }
    told
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
