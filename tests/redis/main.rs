//! The way over Redis, against real servers: every kind of Redis, and what befalls it.

mod node;
mod servers;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fanwire::adapter::redis::{RedisConfig, RedisUrl};
use fanwire::adapter::{Adapter, Event, NodeId, Topic};
use fanwire::app::Secret;
use node::Node;
use servers::{Server, cluster, eventually, free_port};

const CHANNELS: Topic = Topic::Channels(7);

/// Five seconds are promised, and a busy machine may take as long again.
const SOON: Duration = Duration::from_secs(10);

fn config(url: &str) -> RedisConfig {
    RedisConfig {
        url: RedisUrl::new(url),
        ..RedisConfig::default()
    }
}

fn at(server: &Server) -> RedisConfig {
    config(&format!("redis://127.0.0.1:{}", server.port))
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_each_other_in_order_and_to_the_byte() {
    let server = Server::start(&[]);
    let mut first = Node::connected(&at(&server)).await;
    let second = Node::connected(&at(&server)).await;
    for topic in [
        Topic::Beats,
        Topic::Roster,
        Topic::Node(NodeId(1)),
        CHANNELS,
        Topic::Channels(8),
    ] {
        first.want(topic, 1).await;
        let texts = || (0..500).map(|number| format!("{number}\r\n\0é"));
        assert_eq!(second.publish(topic, texts()).await, [true; 500]);
        for text in texts() {
            assert_eq!(first.hear(topic).await, text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_wish_holds_and_a_new_one_is_confirmed_anew() {
    let server = Server::start(&[]);
    let mut node = Node::connected(&at(&server)).await;
    node.want(CHANNELS, 1).await;
    node.want(CHANNELS, 2).await;
    node.adapter.want(CHANNELS, false, 3);
    node.adapter.want(CHANNELS, true, 2);
    let subscribed = || server.ask(&["PUBSUB", "CHANNELS"]);
    eventually("the topic is left", || !subscribed().contains("channels.7"));
    node.want(CHANNELS, 4).await;
    assert_eq!(subscribed(), "fanwire.channels.7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wishes_at_once_are_all_confirmed() {
    let server = Server::start(&[]);
    let mut node = Node::connected(&at(&server)).await;
    for number in 0..5000 {
        node.adapter.want(Topic::Channels(number), true, 1);
    }
    let mut confirmed = 0;
    let all = |event: &Event| {
        confirmed += u32::from(matches!(event, Event::Confirmed(_, 1)));
        confirmed == 5000
    };
    node.until("all confirmations", all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_in_with_a_password() {
    let acl = "--user default on >sesame ~* +@all --user fan on >hunter2 resetchannels &fanwire.* -@all +@pubsub +hello";
    let acl: Vec<_> = acl.split(' ').collect();
    let server = Server::start(&acl);
    let mut in_url = config(&format!("redis://fan:hunter2@127.0.0.1:{}", server.port));
    Node::connected(&in_url).await;
    in_url = at(&server);
    in_url.username = Some("fan".into());
    in_url.password = Secret::new("hunter2");
    let mut node = Node::connected(&in_url).await;
    node.want(CHANNELS, 1).await;
    node.passes(CHANNELS, "x").await;

    in_url.password = Secret::new("hunter3");
    let refused = Node::open(&in_url);
    let failed = || server.ask(&["-a", "sesame", "ACL", "LOG"]).contains("auth");
    eventually("the password is wrong", failed);
    assert_eq!(refused.adapter.health().connected, 0);
    assert_eq!(refused.publish(CHANNELS, ["x".to_owned()]).await, [false]);
}

/// A CA of its own, a key that it signed for 127.0.0.1, for servers and for us.
fn certificates(directory: &std::path::Path) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
            -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout key.pem -out request.pem
        echo 'subjectAltName=IP:127.0.0.1,DNS:localhost' > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem";
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_ca_it_is_told_and_shows_a_certificate() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name);
    let text = |name: &str| file(name).display().to_string();
    let port = free_port().to_string();
    let mut server = Server::prepared(&[
        "--port",
        "0",
        "--tls-port",
        &port,
        "--tls-cert-file",
        &text("cert.pem"),
        "--tls-key-file",
        &text("key.pem"),
        "--tls-ca-cert-file",
        &text("ca.pem"),
    ]);
    server.port = port.parse().expect("a port");
    server.restart();
    let trusting = RedisConfig {
        ca_file: Some(file("ca.pem")),
        cert_file: Some(file("cert.pem")),
        key_file: Some(file("key.pem")),
        ..config(&format!("rediss://127.0.0.1:{port}"))
    };
    assert_eq!(trusting.faults(), []);
    let mut node = Node::connected(&trusting).await;
    node.want(CHANNELS, 1).await;
    node.passes(CHANNELS, &"x".repeat(100_000)).await;

    let nameless = RedisConfig {
        cert_file: None,
        key_file: None,
        ..trusting.clone()
    };
    let suspicious = RedisConfig {
        ca_file: None,
        ..trusting
    };
    let failed = || {
        let log = std::fs::read_to_string(server.path("log")).unwrap_or_default();
        log.matches("Error accepting a client connection").count()
    };
    for config in [nameless, suspicious] {
        // A machine without a store of trusted certificates says so at once.
        if config.faults().is_empty() {
            let before = failed();
            let refused = Node::open(&config);
            eventually("connections fail", || failed() > before + 10);
            assert_eq!(refused.adapter.health().connected, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_heard_again() {
    let mut server = Server::start(&[]);
    let mut node = Node::connected(&at(&server)).await;
    for topic in [Topic::Beats, CHANNELS, Topic::Channels(8)] {
        node.want(topic, 5).await;
    }
    server.kill();
    node.lost(CHANNELS).await;
    let begun = Instant::now();
    while node.adapter.health().connected > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.publish(CHANNELS, ["x".to_owned()]).await, [false]);
    assert!(begun.elapsed() < SOON, "refused at once");
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.restart();
    let back = Instant::now();
    node.confirmed(CHANNELS, 5).await;
    node.passes(CHANNELS, "after").await;
    assert!(back.elapsed() < SOON, "delivered after {:?}", back.elapsed());
    node.passes(Topic::Beats, "after").await;
    node.passes(Topic::Channels(8), "after").await;
    node.whole().await;
    assert!(node.adapter.health().reconnects >= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut server = Server::prepared(&[]);
    let mut node = Node::open(&at(&server));
    assert!(!node.adapter.health().is_whole());
    node.adapter.want(CHANNELS, true, 1);
    assert_eq!(node.publish(CHANNELS, ["x".to_owned()]).await, [false]);
    server.restart();
    node.confirmed(CHANNELS, 1).await;
    node.passes(CHANNELS, "x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_counts_as_lost_until_it_thaws() {
    let server = Server::start(&[]);
    let mut node = Node::connected(&at(&server)).await;
    node.want(CHANNELS, 1).await;
    server.signal("-STOP");
    let frozen = Instant::now();
    let published = node.publish(CHANNELS, ["x".to_owned()]).await;
    assert_eq!(published, [false]);
    node.lost(CHANNELS).await;
    assert!(frozen.elapsed() < SOON, "noticed after {:?}", frozen.elapsed());
    while node.adapter.health().connected > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.publish(CHANNELS, ["x".to_owned()]).await, [false]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.signal("-CONT");
    let back = Instant::now();
    node.confirmed(CHANNELS, 1).await;
    node.passes(CHANNELS, "after").await;
    assert!(back.elapsed() < SOON, "delivered after {:?}", back.elapsed());
    node.whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_are_made_anew() {
    let server = Server::start(&[]);
    let mut node = Node::connected(&at(&server)).await;
    node.want(CHANNELS, 1).await;
    node.want(Topic::Roster, 1).await;
    for (round, kind) in ["pubsub", "normal", "pubsub"].into_iter().enumerate() {
        server.ask(&["CLIENT", "KILL", "TYPE", kind]);
        if kind == "pubsub" {
            node.lost(CHANNELS).await;
            node.confirmed(CHANNELS, 1).await;
        }
        node.passes(CHANNELS, &format!("round {round}")).await;
        node.passes(Topic::Roster, &format!("round {round}")).await;
    }
    node.whole().await;
}

/// A master with a replica, and three sentinels that watch it.
fn sentinels() -> (Server, Server, Vec<Server>) {
    let master = Server::start(&["--requirepass", "hunter2", "--masterauth", "hunter2"]);
    let of = format!("127.0.0.1 {}", master.port);
    let replica = Server::start(&[
        "--requirepass",
        "hunter2",
        "--masterauth",
        "hunter2",
        "--replicaof",
        &of,
    ]);
    eventually("the replica follows", || {
        replica
            .ask(&["-a", "hunter2", "INFO", "replication"])
            .contains("master_link_status:up")
    });
    let sentinels = (0..3).map(|_| {
        let sentinel = Server::start(&["--sentinel", "--requirepass", "sesame"]);
        let port = master.port.to_string();
        for command in [
            &["SENTINEL", "CONFIG", "SET", "sentinel-pass", "sesame"][..],
            &["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &port, "2"],
            &["SENTINEL", "SET", "mymaster", "auth-pass", "hunter2"],
            &["SENTINEL", "SET", "mymaster", "down-after-milliseconds", "1000"],
            &["SENTINEL", "SET", "mymaster", "failover-timeout", "5000"],
        ] {
            let answer = sentinel.ask(&[&["-a", "sesame"], command].concat());
            assert_eq!(answer.trim(), "OK", "{command:?}");
        }
        sentinel
    });
    let sentinels: Vec<_> = sentinels.collect();
    for sentinel in &sentinels {
        eventually("the sentinels know each other and the replica", || {
            let said = sentinel.ask(&["-a", "sesame", "SENTINEL", "MASTER", "mymaster"]);
            let is = |name: &str, value: &str| said.contains(&format!("{name}\n{value}\n"));
            is("num-other-sentinels", "2") && is("num-slaves", "1")
        });
    }
    (master, replica, sentinels)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_that_sentinels_name_is_followed() {
    let (mut master, replica, sentinels) = sentinels();
    let hosts: Vec<_> = sentinels
        .iter()
        .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
        .collect();
    let url = format!("redis-sentinel://:hunter2@{}/mymaster", hosts.join(","));
    let config = RedisConfig {
        sentinel_password: Secret::new("sesame"),
        ..config(&url)
    };
    let mut node = Node::connected(&config).await;
    node.want(CHANNELS, 1).await;
    node.passes(CHANNELS, "before").await;
    master.kill();
    node.lost(CHANNELS).await;
    node.confirmed(CHANNELS, 1).await;
    node.passes(CHANNELS, "after").await;
    assert!(replica.ask(&["-a", "hunter2", "ROLE"]).starts_with("master"));
    // The old master comes back as it was, and is made a replica: nobody stays with it.
    master.restart();
    eventually("the old master is a replica", || {
        master.ask(&["-a", "hunter2", "ROLE"]).starts_with("slave")
    });
    node.whole().await;
    node.passes(CHANNELS, "at last").await;
    assert!(
        replica
            .ask(&["-a", "hunter2", "PUBSUB", "CHANNELS"])
            .contains("channels.7")
    );
}

fn at_cluster(servers: &[Server]) -> RedisConfig {
    let hosts: Vec<_> = servers
        .iter()
        .take(3)
        .map(|server| format!("127.0.0.1:{}", server.port))
        .collect();
    config(&format!("redis-cluster://{}", hosts.join(",")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_may_lose_a_master() {
    let mut servers = cluster(3, 3);
    let mut node = Node::connected(&at_cluster(&servers)).await;
    let topics: Vec<_> = (0..1024)
        .step_by(32)
        .map(Topic::Channels)
        .chain([Topic::Beats])
        .collect();
    for topic in &topics {
        node.adapter.want(*topic, true, 1);
    }
    for topic in &topics {
        node.pass(*topic, "before").await;
    }
    let carried: Vec<_> = servers[..3]
        .iter()
        .map(|server| server.ask(&["PUBSUB", "SHARDCHANNELS"]).lines().count())
        .collect();
    assert!(
        carried.iter().all(|count| *count >= 10),
        "spread evenly: {carried:?}"
    );
    servers[0].kill();
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
    servers[0].restart();
    node.whole().await;
    for topic in &topics {
        node.passes(*topic, "at last").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_does_not_hold_up_the_others() {
    let servers = cluster(3, 0);
    let mut node = Node::connected(&at_cluster(&servers)).await;
    let [frozen, other] = [Topic::Channels(0), Topic::Channels(1022)];
    node.want(frozen, 1).await;
    node.want(other, 1).await;
    servers[0].signal("-STOP");
    let begun = Instant::now();
    for number in 0..5 {
        assert_eq!(node.publish(frozen, ["x".to_owned()]).await, [false]);
        node.passes(other, &number.to_string()).await;
    }
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
    node.lost(frozen).await;
    servers[0].signal("-CONT");
    node.confirmed(frozen, 1).await;
    node.passes(frozen, "thawed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_may_move() {
    let servers = cluster(3, 0);
    let mut node = Node::connected(&at_cluster(&servers)).await;
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
