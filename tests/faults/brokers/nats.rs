//! NATS: one server, or several that form a cluster.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::private::{free_port, nats};
use super::{adapter, local};

/// Servers find each other again within so much, however busy the machine is.
const WHOLE_MAX: Duration = Duration::from_secs(20);

fn config(addresses: &[SocketAddr]) -> Value {
    let urls: Vec<_> = addresses
        .iter()
        .map(|address| format!("nats://{address}"))
        .collect();
    json!({ "adapter": adapter("nats"), "nats": { "urls": urls } })
}

/// One server, which can be asked what it knows.
pub(crate) struct Nats {
    server: nats::Nats,
    monitor: SocketAddr,
}

impl Nats {
    pub(crate) fn start() -> Nats {
        Nats::monitored(nats::Nats::start())
    }

    /// One with JetStream.
    pub(crate) fn start_keeping() -> Nats {
        Nats::monitored(nats::Nats::start_with(&nats::Options {
            jetstream: true,
            ..nats::Options::default()
        }))
    }

    /// The same server with a port on which it tells about itself, which takes a restart.
    fn monitored(mut server: nats::Nats) -> Nats {
        let port = free_port();
        server.process.arguments(["-m", &port.to_string()]);
        server.process.start();
        Nats {
            server,
            monitor: local(port),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        local(self.server.process.port)
    }

    pub(crate) fn config(&self) -> Value {
        self.config_at(self.address())
    }

    pub(crate) fn config_at(&self, address: SocketAddr) -> Value {
        config(&[address])
    }

    pub(crate) fn kill(&mut self) {
        self.server.process.stop();
    }

    pub(crate) fn start_again(&mut self) {
        self.server.process.start();
    }

    pub(crate) fn freeze(&self) {
        self.server.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.server.process.thaw();
    }

    async fn tells(&self, path: &str) -> Value {
        let connected = TcpStream::connect(self.monitor).await;
        let mut stream = connected.expect("the monitor listens");
        // HTTP/1.0: an answer in one piece, that ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        serde_json::from_str(body).expect("the monitor speaks JSON")
    }

    pub(crate) async fn traces_of(&self, id: &str) -> Vec<String> {
        let told = self.tells("/subsz?subs=1&limit=100000").await;
        let subscriptions = told["subscriptions_list"].as_array().expect("a list");
        subscriptions
            .iter()
            .filter_map(|subscription| subscription["subject"].as_str())
            .filter(|subject| subject.contains(id))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) async fn webhooks_kept(&self) -> usize {
        let messages = self.tells("/jsz").await["messages"].as_u64();
        messages.expect("a number") as usize
    }

    async fn routes(&self) -> u64 {
        self.tells("/routez").await["num_routes"]
            .as_u64()
            .expect("a number")
    }
}

/// Servers that know each other.
pub(crate) struct NatsCluster {
    servers: Vec<Nats>,
}

impl NatsCluster {
    pub(crate) async fn start(size: usize) -> NatsCluster {
        let servers = nats::Nats::cluster(size).into_iter();
        let cluster = NatsCluster {
            servers: servers.map(Nats::monitored).collect(),
        };
        cluster.wait_until_whole().await;
        cluster
    }

    async fn wait_until_whole(&self) {
        let begun = Instant::now();
        for server in &self.servers {
            while server.routes().await < self.servers.len() as u64 - 1 {
                assert!(begun.elapsed() < WHOLE_MAX, "the servers do not find each other");
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
        self.servers[server].start_again();
        self.wait_until_whole().await;
    }
}
