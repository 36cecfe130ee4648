//! Redis as operators run it: one server, a master with sentinels, a cluster.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::adapter;
use super::servers::{self, Server};
use crate::case::Case;

/// A failover takes no longer, however busy the machine is.
const FAILOVER_MAX: Duration = Duration::from_secs(40);

fn config(url: &str) -> Value {
    json!({ "adapter": adapter("redis"), "redis": { "url": url } })
}

fn address(server: &Server) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port))
}

/// Work that waits, off the thread on which the case hears.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("the work ends")
}

/// What `redis-cli` answers on this port.
async fn ask(port: u16, command: &[&str]) -> String {
    let mut cli = std::process::Command::new("redis-cli");
    cli.args(["-p", &port.to_string()]).args(command);
    let output = aside(move || cli.output()).await.expect("redis-cli runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// One server.
pub(crate) struct Redis(Option<Server>);

impl Redis {
    pub(crate) async fn start(_: &Case) -> Redis {
        Redis(Some(aside(|| Server::start(&[])).await))
    }

    fn server(&self) -> &Server {
        self.0.as_ref().expect("it is lent out only while it starts")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        address(self.server())
    }

    pub(crate) fn config(&self) -> Value {
        self.config_at(self.address())
    }

    pub(crate) fn config_at(&self, address: SocketAddr) -> Value {
        config(&format!("redis://{address}"))
    }

    pub(crate) fn kill(&mut self) {
        self.0.as_mut().expect("it is there").kill();
    }

    pub(crate) async fn start_again(&mut self) {
        let mut server = self.0.take().expect("it is there");
        self.0 = Some(
            aside(move || {
                server.restart();
                server
            })
            .await,
        );
    }

    pub(crate) fn freeze(&self) {
        self.server().signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.server().signal("-CONT");
    }

    pub(crate) async fn ask(&self, command: &[&str]) -> String {
        ask(self.server().port, command).await
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
}

/// A master with a replica, and three sentinels that watch it.
pub(crate) struct Sentinels {
    master: Server,
    replica: Server,
    sentinels: Vec<Server>,
}

const MASTER: &str = "mymaster";

impl Sentinels {
    pub(crate) async fn start(_: &Case) -> Sentinels {
        aside(Sentinels::start_all).await
    }

    fn start_all() -> Sentinels {
        let master = Server::start(&[]);
        let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
        servers::eventually("the replica follows", || {
            replica
                .ask(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
        let watch = |_| {
            let sentinel = Server::start(&["--sentinel"]);
            let port = master.port.to_string();
            for command in [
                &["SENTINEL", "MONITOR", MASTER, "127.0.0.1", &port, "2"][..],
                &["SENTINEL", "SET", MASTER, "down-after-milliseconds", "1000"],
                &["SENTINEL", "SET", MASTER, "failover-timeout", "5000"],
            ] {
                assert_eq!(sentinel.ask(command).trim(), "OK", "{command:?}");
            }
            sentinel
        };
        let sentinels: Vec<_> = (0..3).map(watch).collect();
        for sentinel in &sentinels {
            servers::eventually("the sentinels know each other and the replica", || {
                let said = sentinel.ask(&["SENTINEL", "MASTER", MASTER]);
                let is = |name: &str, value: &str| said.contains(&format!("{name}\n{value}\n"));
                is("num-other-sentinels", "2") && is("num-slaves", "1")
            });
        }
        Sentinels {
            master,
            replica,
            sentinels,
        }
    }

    pub(crate) fn config(&self) -> Value {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| address(sentinel).to_string())
            .collect();
        config(&format!("redis-sentinel://{}/{MASTER}", hosts.join(",")))
    }

    pub(crate) fn kill_master(&mut self) {
        self.master.kill();
    }

    /// Waits until the replica has been made the master.
    pub(crate) async fn wait_for_another_master(&self) {
        let begun = Instant::now();
        while !ask(self.replica.port, &["ROLE"]).await.starts_with("master") {
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
    servers: Vec<Server>,
}

impl RedisCluster {
    pub(crate) async fn start(_: &Case) -> RedisCluster {
        RedisCluster {
            servers: aside(|| servers::cluster(3, 3)).await,
        }
    }

    fn masters(&self) -> &[Server] {
        &self.servers[..3]
    }

    pub(crate) fn config(&self) -> Value {
        let hosts: Vec<_> = self
            .servers
            .iter()
            .map(|server| address(server).to_string())
            .collect();
        config(&format!("redis-cluster://{}", hosts.join(",")))
    }

    /// Kills the first master, which the configuration names first.
    pub(crate) fn kill_a_master(&mut self) {
        self.servers[0].kill();
    }

    /// Waits until those that are left have all slots.
    pub(crate) async fn wait_until_whole(&self) {
        let begun = Instant::now();
        for server in &self.servers[1..] {
            loop {
                let said = ask(server.port, &["CLUSTER", "NODES"]).await;
                let lost = format!("127.0.0.1:{}@", self.servers[0].port);
                let noticed = said
                    .lines()
                    .any(|line| line.contains(&lost) && line.contains("fail"));
                let said = ask(server.port, &["CLUSTER", "INFO"]).await;
                if noticed && said.contains("cluster_state:ok") {
                    break;
                }
                assert!(begun.elapsed() < FAILOVER_MAX, "the cluster is not whole: {said}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Moves the slots of all topics that the master with most of them has to the next master; the answer is how many.
    pub(crate) async fn move_slots_in_use(&self) -> usize {
        let mut most = (0, Vec::new());
        for (index, master) in self.masters().iter().enumerate() {
            let names = ask(master.port, &["PUBSUB", "SHARDCHANNELS"]).await;
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
        let to = &self.masters()[(from + 1) % 3];
        let target = ask(to.port, &["CLUSTER", "MYID"]).await;
        let mut slots = Vec::new();
        for name in &names {
            slots.push(ask(to.port, &["CLUSTER", "KEYSLOT", name]).await);
        }
        slots.sort();
        slots.dedup();
        for slot in &slots {
            // The new owner first, as the specification has it; there are no keys to move.
            let others = self.masters().iter().filter(|server| server.port != to.port);
            for server in [to].into_iter().chain(others) {
                let said = ask(server.port, &["CLUSTER", "SETSLOT", slot, "NODE", &target]).await;
                assert_eq!(said, "OK", "slot {slot}");
            }
        }
        slots.len()
    }
}
