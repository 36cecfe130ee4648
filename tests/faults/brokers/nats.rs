//! NATS: one server, or several that form a cluster.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::adapter;
use super::servers::free_port;
use crate::case::Case;

/// A start takes no longer, however busy the machine is.
const START_MAX: Duration = Duration::from_secs(10);

/// One server.
pub(crate) struct Nats {
    port: u16,
    monitor_port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Nats {
    pub(crate) async fn start(_: &Case) -> Nats {
        let mut nats = Nats::prepared(&[]);
        nats.start_again().await;
        nats
    }

    fn prepared(arguments: &[String]) -> Nats {
        Nats {
            port: free_port(),
            monitor_port: free_port(),
            arguments: arguments.to_vec(),
            process: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn config(&self) -> Value {
        self.config_at(self.address())
    }

    pub(crate) fn config_at(&self, address: SocketAddr) -> Value {
        config(&[address])
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A frozen one dies of this, too.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// On the same port, until it listens.
    pub(crate) async fn start_again(&mut self) {
        let process = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-m", &self.monitor_port.to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.expect("nats-server starts"));
        let begun = Instant::now();
        while TcpStream::connect(self.address()).await.is_err() {
            assert!(begun.elapsed() < START_MAX, "nats-server does not listen");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("it runs");
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    async fn monitored(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitor_port))
            .await
            .expect("the monitor listens");
        // HTTP/1.0: an answer in one piece, that ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        serde_json::from_str(body).expect("the monitor speaks JSON")
    }

    pub(crate) async fn traces_of(&self, id: &str) -> Vec<String> {
        let told = self.monitored("/subsz?subs=1&limit=100000").await;
        let subscriptions = told["subscriptions_list"].as_array().expect("a list");
        subscriptions
            .iter()
            .filter_map(|subscription| subscription["subject"].as_str())
            .filter(|subject| subject.contains(id))
            .map(str::to_owned)
            .collect()
    }

    async fn routes(&self) -> u64 {
        self.monitored("/routez").await["num_routes"]
            .as_u64()
            .expect("a number")
    }
}

fn config(addresses: &[SocketAddr]) -> Value {
    let urls: Vec<_> = addresses
        .iter()
        .map(|address| format!("nats://{address}"))
        .collect();
    json!({ "adapter": adapter("nats"), "nats": { "urls": urls } })
}

/// Servers that know each other.
pub(crate) struct NatsCluster {
    servers: Vec<Nats>,
}

impl NatsCluster {
    pub(crate) async fn start(_: &Case, size: usize) -> NatsCluster {
        let route = |_| format!("nats://127.0.0.1:{}", free_port());
        let routes: Vec<_> = (0..size).map(route).collect();
        let server = |own: &String| {
            let arguments = [
                "--cluster_name",
                "faults",
                "--cluster",
                own,
                "--routes",
                &routes.join(","),
            ];
            Nats::prepared(&arguments.map(str::to_owned))
        };
        let mut servers: Vec<_> = routes.iter().map(server).collect();
        for server in &mut servers {
            server.start_again().await;
        }
        let cluster = NatsCluster { servers };
        cluster.wait_until_whole().await;
        cluster
    }

    async fn wait_until_whole(&self) {
        let begun = Instant::now();
        for server in &self.servers {
            while server.routes().await < self.servers.len() as u64 - 1 {
                assert!(begun.elapsed() < START_MAX, "the servers do not find each other");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// For as many nodes as there are servers: each knows all of them, its own first.
    pub(crate) fn configs(&self) -> Vec<Value> {
        let mut addresses: Vec<_> = self.servers.iter().map(Nats::address).collect();
        let mut configs = Vec::new();
        for _ in &self.servers {
            configs.push(config(&addresses));
            addresses.rotate_left(1);
        }
        configs
    }

    pub(crate) fn kill(&mut self, server: usize) {
        self.servers[server].kill();
    }

    pub(crate) async fn start_again(&mut self, server: usize) {
        self.servers[server].start_again().await;
        self.wait_until_whole().await;
    }
}
