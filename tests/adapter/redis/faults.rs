//! What befalls only Redis, and what only Redis says of itself. Each test has servers of its own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire::adapter::redis::RedisUrl;
use fanwire::adapter::{Event, Topic};
use fanwire::app::Secret;

use super::{Servers, at, single, tls};
use crate::brokers::eventually;
use crate::brokers::redis::{Options, Passwords, Redis, RedisCluster, Sentinel};
use crate::node::{Ground, Node};

const CHANNELS: Topic = Topic::Channels(7);

/// Five seconds are promised, and a busy machine may take as long again.
const SOON: Duration = Duration::from_secs(10);

fn plain() -> Servers<Redis> {
    single(&Options::default())
}

/// A node that has just begun to connect.
fn opened(servers: &impl Ground) -> Node {
    servers.opened("fanwire", 64 << 20)
}

const X: [Bytes; 1] = [Bytes::from_static(b"x")];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_wanted_is_left_at_the_server() {
    let servers = plain();
    let mut node = servers.node().await;
    node.want(CHANNELS, 1).await;
    node.want(CHANNELS, 2).await;
    node.adapter.want(CHANNELS, false, 3);
    // A late one, which was overtaken.
    node.adapter.want(CHANNELS, true, 2);
    let subscribed = || servers.broker.ask(&["PUBSUB", "CHANNELS"]);
    eventually("the topic is left", || !subscribed().contains("channels.7"));
    node.want(CHANNELS, 4).await;
    assert_eq!(subscribed(), "fanwire.channels.7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_wishes_than_there_are_topics_by_default_are_all_confirmed() {
    let servers = plain();
    let mut node = servers.node().await;
    for number in 0..5000 {
        node.adapter.want(Topic::Channels(number), true, 1);
    }
    for lane in [Topic::Channels(0), Topic::Channels(1)] {
        let mut confirmed = 0;
        while confirmed < 2500 {
            confirmed += u32::from(matches!(node.next(lane, "all").await, Event::Confirmed(_, 1)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_in_with_a_password() {
    let mut servers = single(&Options {
        password: Some("sesame"),
        user: Some(("fan", "hunter2")),
        ..Options::default()
    });
    let url = servers.broker.url();
    servers.config.url = RedisUrl::new(&url.replace("://", "://fan:hunter2@"));
    servers.node().await;
    servers.config = at(&url);
    servers.config.username = Some("fan".into());
    servers.config.password = Secret::new("hunter2");
    let mut node = servers.node().await;
    node.want(CHANNELS, 1).await;
    node.passes(CHANNELS, "x").await;

    servers.config.password = Secret::new("hunter3");
    let refused = opened(&servers);
    let failed = || servers.broker.ask(&["ACL", "LOG"]).contains("auth");
    eventually("the password is wrong", failed);
    assert_eq!(refused.adapter.health().connected, 0);
    assert_eq!(refused.publish(CHANNELS, X).await, [false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_ca_it_is_told_and_shows_a_certificate() {
    let mut servers = tls();
    let mut node = servers.node().await;
    node.want(CHANNELS, 1).await;
    node.passes(CHANNELS, &"x".repeat(100_000)).await;

    let trusting = servers.config.clone();
    let mut nameless = trusting.clone();
    (nameless.cert_file, nameless.key_file) = (None, None);
    let mut suspicious = trusting;
    suspicious.ca_file = None;
    for config in [nameless, suspicious] {
        // A machine without a store of trusted certificates says so at once.
        if config.faults().is_empty() {
            servers.config = config;
            let failed = || {
                let log = servers.broker.process.log();
                log.matches("Error accepting a client connection").count()
            };
            let before = failed();
            let refused = opened(&servers);
            eventually("connections fail", || failed() > before + 10);
            assert_eq!(refused.adapter.health().connected, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_waited_for_before_it_is_there_and_after_it_has_gone() {
    let mut servers = plain();
    servers.stop();
    let mut node = opened(&servers);
    assert!(!node.adapter.health().is_whole());
    node.adapter.want(CHANNELS, true, 1);
    for round in ["first", "again"] {
        assert_eq!(node.publish(CHANNELS, X).await, [false]);
        // Long enough for many attempts in vain.
        tokio::time::sleep(Duration::from_secs(2)).await;
        servers.start();
        let back = Instant::now();
        node.confirmed(CHANNELS, 1).await;
        node.passes(CHANNELS, round).await;
        assert!(back.elapsed() < SOON, "delivered after {:?}", back.elapsed());
        node.whole().await;
        servers.stop();
        node.lost(CHANNELS).await;
        node.cut_off().await;
    }
    let health = node.adapter.health();
    assert!(health.reconnects >= health.wanted as u64, "{health:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_frozen_for_long_is_found_when_it_thaws() {
    let servers = plain();
    let mut node = servers.node().await;
    node.want(CHANNELS, 1).await;
    servers.broker.process.freeze();
    node.lost(CHANNELS).await;
    node.cut_off().await;
    // Long enough for new connections to be tried, which the kernel accepts and nobody answers.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.publish(CHANNELS, X).await, [false]);
    servers.broker.process.thaw();
    let back = Instant::now();
    node.confirmed(CHANNELS, 1).await;
    node.passes(CHANNELS, "after").await;
    assert!(back.elapsed() < SOON, "delivered after {:?}", back.elapsed());
    node.whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_are_made_anew() {
    let servers = plain();
    let mut node = servers.node().await;
    node.want(CHANNELS, 1).await;
    node.want(Topic::Roster, 1).await;
    for (round, kind) in ["pubsub", "normal", "pubsub"].into_iter().enumerate() {
        servers.broker.ask(&["CLIENT", "KILL", "TYPE", kind]);
        if kind == "pubsub" {
            node.lost(CHANNELS).await;
            node.confirmed(CHANNELS, 1).await;
        }
        node.passes(CHANNELS, &format!("round {round}")).await;
        node.passes(Topic::Roster, &format!("round {round}")).await;
    }
    node.whole().await;
}

/// Servers, each as its own broker, and how to get in.
fn of<T>(broker: T, url: &str) -> Servers<T> {
    Servers {
        broker,
        config: at(url),
        // The tests choose whom they stop.
        servers: |_| Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_that_sentinels_name_is_followed() {
    let broker = Sentinel::start_with(Passwords {
        servers: Some("hunter2"),
        sentinels: Some("sesame"),
    });
    let url = broker.url().replace("://", "://:hunter2@");
    let mut servers = of(broker, &url);
    servers.config.sentinel_password = Secret::new("sesame");
    let mut node = servers.node().await;
    let Sentinel { master, replica, .. } = &mut servers.broker;
    node.want(CHANNELS, 1).await;
    node.passes(CHANNELS, "before").await;
    master.process.stop();
    node.lost(CHANNELS).await;
    node.confirmed(CHANNELS, 1).await;
    node.passes(CHANNELS, "after").await;
    assert!(replica.ask(&["ROLE"]).starts_with("master"));
    // The old master comes back as it was, and is made a replica: nobody stays with it.
    master.process.start();
    eventually("the old master is a replica", || {
        master.ask(&["ROLE"]).starts_with("slave")
    });
    node.whole().await;
    node.passes(CHANNELS, "at last").await;
    assert!(replica.ask(&["PUBSUB", "CHANNELS"]).contains("channels.7"));
}

fn of_cluster(broker: RedisCluster) -> Servers<RedisCluster> {
    let url = broker.url();
    of(broker, &url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_may_lose_a_master() {
    let mut cluster = of_cluster(RedisCluster::start());
    let mut node = cluster.node().await;
    let servers = &mut cluster.broker.servers;
    let topics: Vec<_> = (0..1024)
        .step_by(32)
        .map(Topic::Channels)
        .chain([Topic::Beats])
        .collect();
    for topic in &topics {
        node.want(*topic, 1).await;
        node.pass(*topic, "before").await;
    }
    let carried: Vec<_> = servers[..RedisCluster::MASTERS]
        .iter()
        .map(|server| server.ask(&["PUBSUB", "SHARDCHANNELS"]).lines().count())
        .collect();
    assert!(
        carried.iter().all(|count| *count >= 10),
        "spread evenly: {carried:?}"
    );
    servers[0].process.stop();
    let killed = Instant::now();
    // What the others carry goes on.
    let of_others: Vec<_> = topics
        .iter()
        .copied()
        .filter(|topic| *topic > Topic::Channels(400))
        .collect();
    for topic in &of_others {
        node.pass(*topic, "meanwhile").await;
    }
    assert!(killed.elapsed() < SOON, "nobody was held up");
    for topic in &topics {
        node.passes(*topic, "after").await;
    }
    servers[0].process.start();
    node.whole().await;
    for topic in &topics {
        node.passes(*topic, "at last").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_does_not_hold_up_the_others() {
    let cluster = of_cluster(RedisCluster::without_replicas());
    let mut node = cluster.node().await;
    let servers = &cluster.broker.servers;
    let [frozen, other] = [Topic::Channels(0), Topic::Channels(1022)];
    node.want(frozen, 1).await;
    node.want(other, 1).await;
    servers[0].process.freeze();
    let begun = Instant::now();
    for number in 0..5 {
        assert_eq!(node.publish(frozen, X).await, [false]);
        node.passes(other, &number.to_string()).await;
    }
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
    node.lost(frozen).await;
    servers[0].process.thaw();
    node.confirmed(frozen, 1).await;
    node.passes(frozen, "thawed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_may_move() {
    let cluster = of_cluster(RedisCluster::without_replicas());
    let mut node = cluster.node().await;
    let servers = &cluster.broker.servers;
    node.want(Topic::Channels(0), 3).await;
    node.want(Topic::Channels(32), 1).await;
    let ids: Vec<_> = servers
        .iter()
        .map(|server| server.ask(&["CLUSTER", "MYID"]).trim().to_owned())
        .collect();
    // Both topics are at the first server; the slot of one of them goes to the second.
    for server in [1, 0, 2] {
        let answer = servers[server].ask(&["CLUSTER", "SETSLOT", "0", "NODE", &ids[1]]);
        assert_eq!(answer.trim(), "OK");
    }
    node.lost(Topic::Channels(0)).await;
    node.confirmed(Topic::Channels(0), 3).await;
    for topic in [Topic::Channels(0), Topic::Channels(32)] {
        node.passes(topic, "after").await;
    }
    assert!(
        servers[1]
            .ask(&["PUBSUB", "SHARDCHANNELS"])
            .contains("channels.0{")
    );
}
