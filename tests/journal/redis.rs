//! The suite over one Redis server with the rights that the documentation names, and over a cluster.

use std::time::Duration;

use fanwire::adapter::redis::{RedisConfig, RedisUrl};
use fanwire::app::Secret;
use fanwire::webhook::queue::{self, OpenJournal, Room};
use tokio::time::sleep;

use crate::brokers::eventually;
use crate::brokers::redis::{Options, Redis, RedisCluster};
use crate::ground::{Ground, set};
use crate::suite::suite;

struct Servers<T> {
    broker: T,
    config: RedisConfig,
    servers: fn(&T) -> Vec<&Redis>,
    servers_mut: fn(&mut T) -> Vec<&mut Redis>,
}

/// What a user needs who keeps webhooks in Redis, and carries nothing between nodes with it.
const RIGHTS: &str = "on >hunter2 resetchannels ~{*.webhooks}.* -@all +hello +multi +exec +xadd +xlen +xreadgroup +xack \
                      +xdel +xpending +xgroup|create";

fn single() -> Servers<Redis> {
    let mut more = vec![
        "--appendonly".to_owned(),
        "yes".into(),
        "--user".into(),
        "fan".into(),
    ];
    more.extend(RIGHTS.split_whitespace().map(str::to_owned));
    let broker = Redis::start_with(&Options {
        more,
        ..Options::default()
    });
    Servers {
        config: RedisConfig {
            url: RedisUrl::new(&broker.url()),
            username: Some("fan".into()),
            password: Secret::new("hunter2"),
            ..RedisConfig::default()
        },
        broker,
        servers: |broker| vec![broker],
        servers_mut: |broker| vec![broker],
    }
}

fn cluster() -> Servers<RedisCluster> {
    let broker = RedisCluster::on_disk();
    Servers {
        config: RedisConfig {
            url: RedisUrl::new(&broker.url()),
            ..RedisConfig::default()
        },
        broker,
        servers: |broker| broker.servers.iter().collect(),
        servers_mut: |broker| broker.servers.iter_mut().collect(),
    }
}

impl<T> Ground for Servers<T> {
    async fn open(&self, prefix: &str, room: Room) -> OpenJournal {
        assert_eq!(self.config.faults(), []);
        queue::redis::open(&self.config, prefix, room).expect("a valid configuration")
    }

    fn stop(&mut self) {
        let servers = (self.servers_mut)(&mut self.broker);
        servers.into_iter().for_each(|server| server.process.stop());
    }

    fn start(&mut self) {
        let servers = (self.servers_mut)(&mut self.broker);
        servers.into_iter().for_each(|server| server.process.start());
    }

    fn freeze(&mut self) {
        let servers = (self.servers)(&self.broker);
        servers.into_iter().for_each(|server| server.process.freeze());
    }

    fn thaw(&mut self) {
        let servers = (self.servers)(&self.broker);
        servers.into_iter().for_each(|server| server.process.thaw());
    }

    async fn left(&self, prefix: &str) -> (usize, Vec<String>) {
        let (mut entries, mut traces) = (0, Vec::new());
        for server in (self.servers)(&self.broker) {
            for partition in 0..64 {
                let stream = format!("{{{prefix}.webhooks}}.{partition}");
                // Where it is elsewhere, the answer is no number.
                let length = server.ask(&["XLEN", &stream]);
                let Ok(length) = length.trim().parse::<usize>() else {
                    break;
                };
                if length == 0 && server.ask(&["EXISTS", &stream]).trim() == "0" {
                    continue;
                }
                entries += length;
                let pending = server.ask(&["XPENDING", &stream, "fanwire"]);
                let pending = pending.lines().next().unwrap_or_default();
                if length == 0 && pending != "0" && !pending.starts_with("NOGROUP") {
                    traces.push(format!("{pending} pending of {stream}"));
                }
                let consumers = server.ask(&["XINFO", "CONSUMERS", &stream, "fanwire"]);
                let names = consumers.lines().skip_while(|line| *line != "name").skip(1);
                for name in names.step_by(8).filter(|name| *name != "owner") {
                    traces.push(format!("consumer {name} of {stream}"));
                }
            }
        }
        (entries, traces)
    }
}

mod plain {
    use super::*;
    suite!(single());
}

mod of_a_cluster {
    use super::*;
    suite!(in one test: cluster());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_emptied_is_used_again() {
    let ground = single();
    let mut node = ground.node("emptied").await;
    node.journal.own(set(0..64));
    node.put(3, "before");
    assert_eq!(node.texts(1).await, ["before"]);
    node.sent().await;
    ground.broker.ask(&["FLUSHALL"]);
    node.put(3, "after");
    assert_eq!(node.texts(1).await, ["after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_keeps_what_waits_waiting() {
    let ground = single();
    let mut node = ground.node("narrow").await;
    node.journal.own(set([3]));
    node.put(3, "0");
    let taken = node.take().await;
    ground.broker.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    node.put(3, "1");
    node.put(3, "2");
    sleep(Duration::from_millis(600)).await;
    assert_eq!(node.journal.unsent(), 2);
    // What is done frees memory.
    node.journal.done(taken.receipt);
    eventually("what is done is let go of", || node.journal.unsent() == 2);
    assert_eq!(ground.broker.ask(&["XLEN", "{narrow.webhooks}.3"]).trim(), "0");
    let mut successor = ground.node("narrow").await;
    ground.broker.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    node.sent().await;
    successor.journal.own(set([3]));
    assert_eq!(successor.texts(2).await, ["1", "2"]);
}
