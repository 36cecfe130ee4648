//! Redis as operators run it: one server, a master with sentinels, a cluster.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::private::redis;
use super::{adapter, local};

/// A failover takes no longer, however busy the machine is.
const FAILOVER_MAX: Duration = Duration::from_secs(40);

fn config(url: &str) -> Value {
    json!({ "adapter": adapter("redis"), "redis": { "url": url } })
}

/// What `redis-cli` answers on this port, without holding up the thread on which the case hears.
async fn ask(port: u16, command: &[&str]) -> String {
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &port.to_string()]).args(command);
    cli.stdin(Stdio::null());
    let output = spawn_blocking(move || cli.output()).await.expect("the call ends");
    let output = output.expect("redis-cli runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// One server.
pub(crate) struct Redis(redis::Redis);

impl Redis {
    pub(crate) fn start() -> Redis {
        Redis(redis::Redis::start())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        local(self.0.process.port)
    }

    pub(crate) fn config(&self) -> Value {
        self.config_at(self.address())
    }

    pub(crate) fn config_at(&self, address: SocketAddr) -> Value {
        config(&format!("redis://{address}"))
    }

    pub(crate) fn kill(&mut self) {
        self.0.process.stop();
    }

    pub(crate) fn start_again(&mut self) {
        self.0.process.start();
    }

    pub(crate) fn freeze(&self) {
        self.0.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.0.process.thaw();
    }

    pub(crate) async fn ask(&self, command: &[&str]) -> String {
        ask(self.0.process.port, command).await
    }

    pub(crate) async fn traces_of(&self, id: &str) -> Vec<String> {
        let mut traces = Vec::new();
        let pattern = format!("*{id}*");
        for command in [
            &["KEYS", &pattern][..],
            &["PUBSUB", "CHANNELS", &pattern],
            &["PUBSUB", "SHARDCHANNELS", &pattern],
        ] {
            let answer = self.ask(command).await;
            let lines = answer.lines().filter(|line| !line.is_empty());
            traces.extend(lines.map(str::to_owned));
        }
        traces
    }

    pub(crate) async fn webhooks_kept(&self) -> usize {
        let mut kept = 0;
        for partition in 0..64 {
            let stream = format!("{{faults.webhooks}}.{partition}");
            kept += self.ask(&["XLEN", &stream]).await.parse::<usize>().unwrap_or(0);
        }
        kept
    }
}

/// A master with a replica, and three sentinels that watch it.
pub(crate) struct Sentinels(redis::Sentinel);

impl Sentinels {
    pub(crate) fn start() -> Sentinels {
        Sentinels(redis::Sentinel::start())
    }

    pub(crate) fn config(&self) -> Value {
        config(&self.0.url())
    }

    pub(crate) fn kill_master(&mut self) {
        self.0.master.process.stop();
    }

    /// Waits until the replica has been made the master.
    pub(crate) async fn wait_for_another_master(&self) {
        let (port, begun) = (self.0.replica.process.port, Instant::now());
        while !ask(port, &["ROLE"]).await.starts_with("master") {
            assert!(
                begun.elapsed() < FAILOVER_MAX,
                "no failover within {FAILOVER_MAX:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Three masters, each with a replica.
pub(crate) struct RedisCluster {
    servers: Vec<redis::Redis>,
}

impl RedisCluster {
    pub(crate) fn start() -> RedisCluster {
        RedisCluster {
            servers: redis::RedisCluster::start().servers,
        }
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.servers.iter().map(|server| server.process.port)
    }

    fn masters(&self) -> Vec<u16> {
        self.ports().take(redis::RedisCluster::MASTERS).collect()
    }

    pub(crate) fn config(&self) -> Value {
        let hosts: Vec<_> = self.ports().map(|port| local(port).to_string()).collect();
        config(&format!("redis-cluster://{}", hosts.join(",")))
    }

    /// Kills the first master, which the configuration names first.
    pub(crate) fn kill_a_master(&mut self) {
        self.servers[0].process.stop();
    }

    /// Waits until those that are left have noticed, and have all slots.
    pub(crate) async fn wait_until_whole(&self) {
        let begun = Instant::now();
        let lost = format!("{}@", local(self.servers[0].process.port));
        for port in self.ports().skip(1) {
            loop {
                let nodes = ask(port, &["CLUSTER", "NODES"]).await;
                let has_noticed = nodes
                    .lines()
                    .any(|line| line.contains(&lost) && line.contains("fail"));
                let state = ask(port, &["CLUSTER", "INFO"]).await;
                if has_noticed && state.contains("cluster_state:ok") {
                    break;
                }
                assert!(
                    begun.elapsed() < FAILOVER_MAX,
                    "the cluster is not whole: {nodes}"
                );
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Moves the slots of all topics that the master with most of them has to the next master; the answer is how many.
    pub(crate) async fn move_slots_in_use(&self) -> usize {
        let masters = self.masters();
        let mut most = (0, Vec::new());
        for (index, port) in masters.iter().enumerate() {
            let names = ask(*port, &["PUBSUB", "SHARDCHANNELS"]).await;
            let names: Vec<_> = names
                .lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect();
            if names.len() > most.1.len() {
                most = (index, names);
            }
        }
        let (from, names) = most;
        let (from, to) = (masters[from], masters[(from + 1) % masters.len()]);
        let source = ask(from, &["CLUSTER", "MYID"]).await;
        let target = ask(to, &["CLUSTER", "MYID"]).await;
        let mut slots = Vec::new();
        for name in &names {
            slots.push(ask(to, &["CLUSTER", "KEYSLOT", name]).await);
        }
        slots.sort();
        slots.dedup();
        for slot in &slots {
            // As the specification has it, so that all believe the new owner; there are no keys to move.
            let rest = masters.iter().filter(|port| **port != to);
            let steps = [(&to, ["IMPORTING", &source]), (&from, ["MIGRATING", &target])];
            let last = [&to]
                .into_iter()
                .chain(rest)
                .map(|port| (port, ["NODE", &*target]));
            for (port, step) in steps.into_iter().chain(last) {
                let command = [&["CLUSTER", "SETSLOT", slot][..], &step].concat();
                assert_eq!(ask(*port, &command).await, "OK", "{command:?}");
            }
        }
        slots.len()
    }
}
