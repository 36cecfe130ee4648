//! What the back end is told while nodes and brokers fail: each change once, by whoever is left, and nothing that only
//! the fault made.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::brokers::{Broker, Kind};
use crate::case::Case;
use crate::stage::{LEASE, Stage};
use crate::support::client::Client;
use crate::support::receiver::Receiver;
use crate::support::server::{KEY, SECRET};
use crate::{Entry, entry};

pub(crate) fn cases() -> Vec<Entry> {
    vec![
        entry!(redis_killed_node_is_told_of_once, 35),
        entry!(nats_killed_node_is_told_of_once, 35),
        entry!(redis_outage_is_no_webhook, 85),
        entry!(nats_outage_is_no_webhook, 85),
    ]
}

const GRACE: Duration = Duration::from_secs(3);
/// A change is told within so much of its grace, patience with a node that does not do its part included.
const TOLD: Duration = Duration::from_secs(10);
/// A node that hears nothing for so long knows it.
const NOTICED: Duration = Duration::from_secs(5);
/// Then the broker is away for so long.
const AWAY: Duration = Duration::from_secs(55);
/// The sockets of a node that is killed: users in each of its channels.
const CHANNELS: usize = 8;
const USERS: usize = 3;

async fn redis_killed_node_is_told_of_once(case: &Case) {
    killed_node_is_told_of_once(case, Kind::Redis).await;
}

async fn nats_killed_node_is_told_of_once(case: &Case) {
    killed_node_is_told_of_once(case, Kind::Nats).await;
}

async fn redis_outage_is_no_webhook(case: &Case) {
    outage_is_no_webhook(case, Kind::Redis).await;
}

async fn nats_outage_is_no_webhook(case: &Case) {
    outage_is_no_webhook(case, Kind::Nats).await;
}

/// Three nodes whose app has its back end told.
async fn telling<'a>(case: &'a Case, broker: &Broker, receiver: &Receiver) -> Stage<'a> {
    let mut config = broker.config();
    config["apps"] = json!([{
        "id": "1", "key": KEY, "secret": SECRET,
        "webhook_grace_ms": GRACE.as_millis() as u64,
        "webhooks": [{
            "url": receiver.url("/"),
            "event_types": ["channel_occupied", "channel_vacated", "member_added", "member_removed"],
        }],
    }]);
    Stage::set(case, &[config.clone(), config.clone(), config]).await
}

fn channel(number: usize) -> String {
    format!("presence-{number}")
}

/// Users who are in each channel on this node alone.
async fn enter(stage: &Stage<'_>, node: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    let name = &stage.nodes[node].name;
    for user in 0..USERS {
        let mut client = stage.nodes[node].connect().await;
        for number in 0..CHANNELS {
            client.join(&channel(number), &format!("{name}{user}")).await;
        }
        clients.push(client);
    }
    clients
}

/// How often each was told of this.
fn told(receiver: &Receiver, event: &str) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for event in receiver.events().iter().filter(|told| told["name"] == event) {
        let user = event["user_id"].as_str().unwrap_or_default();
        let channel = event["channel"].as_str().expect("a channel");
        *told.entry(format!("{channel} {user}")).or_default() += 1;
    }
    told
}

/// Waits until so many different things were told of.
async fn are_told(case: &Case, receiver: &Receiver, event: &str, count: usize, within: Duration) {
    let begun = Instant::now();
    while told(receiver, event).len() < count {
        assert!(
            begun.elapsed() < case.bound(within),
            "after {within:?} {event} was told of {} of {count}",
            told(receiver, event).len()
        );
        sleep(Duration::from_millis(50)).await;
    }
    case.say(format!(
        "{event} of {count} was told within {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
}

/// Waits until no node of these has anything left to tell.
async fn nothing_is_untold(stage: &Stage<'_>, nodes: &[usize]) {
    for node in nodes {
        let begun = Instant::now();
        while stage.nodes[*node].metric("webhook_untold").await > 0.0 {
            assert!(
                begun.elapsed() < stage.case.bound(TOLD),
                "node {} has something untold",
                stage.nodes[*node].name
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn all_once(receiver: &Receiver, event: &str) {
    let told = told(receiver, event);
    assert!(told.values().all(|times| *times == 1), "{event}: {told:?}");
}

/// In each channel: the members go before it is vacated.
fn in_order(receiver: &Receiver) {
    for number in 0..CHANNELS {
        let events = receiver.events_of(&channel(number));
        let name = |event: Option<&Value>| event.map(|event| event["name"].clone());
        assert_eq!(
            name(events.first()),
            Some("channel_occupied".into()),
            "{events:?}"
        );
        let vacated = events.iter().position(|event| event["name"] == "channel_vacated");
        assert_eq!(vacated, Some(events.len() - 1), "{events:?}");
    }
}

/// A node with all members of some channels is killed, whichever of the nodes was to tell of them.
async fn killed_node_is_told_of_once(case: &Case, kind: Kind) {
    let (broker, receiver) = (Broker::start(kind), Receiver::start().await);
    let mut stage = telling(case, &broker, &receiver).await;
    let clients = enter(&stage, 1).await;
    are_told(case, &receiver, "channel_occupied", CHANNELS, TOLD).await;
    are_told(case, &receiver, "member_added", CHANNELS * USERS, TOLD).await;
    stage.kill(1);
    drop(clients);
    let within = LEASE + GRACE + TOLD;
    are_told(case, &receiver, "member_removed", CHANNELS * USERS, within).await;
    are_told(case, &receiver, "channel_vacated", CHANNELS, TOLD).await;
    nothing_is_untold(&stage, &[0, 2]).await;
    for event in [
        "channel_occupied",
        "member_added",
        "member_removed",
        "channel_vacated",
    ] {
        all_once(&receiver, event);
    }
    in_order(&receiver);
    stage.readiness.never_failed();
}

/// The broker is away for longer than graces and patience. Who stays is not told of; who left meanwhile is, once.
async fn outage_is_no_webhook(case: &Case, kind: Kind) {
    let (mut broker, receiver) = (Broker::start(kind), Receiver::start().await);
    let stage = telling(case, &broker, &receiver).await;
    let staying = enter(&stage, 0).await;
    let mut leaving = enter(&stage, 1).await;
    are_told(case, &receiver, "member_added", CHANNELS * USERS * 2, TOLD).await;
    nothing_is_untold(&stage, &[0, 1, 2]).await;
    let before = receiver.events().len();
    broker.kill();
    sleep(NOTICED).await;
    let left = leaving.pop();
    drop(left);
    sleep(AWAY).await;
    assert_eq!(receiver.events().len(), before, "while the broker was away");
    broker.start_again();
    are_told(case, &receiver, "member_removed", CHANNELS, GRACE + TOLD).await;
    nothing_is_untold(&stage, &[0, 1, 2]).await;
    all_once(&receiver, "member_removed");
    assert_eq!(receiver.events().len(), before + CHANNELS);
    drop((staying, leaving));
}
