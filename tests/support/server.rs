//! A server in this process, on free ports.

use std::net::SocketAddr;
use std::sync::Arc;

use fanwire::app::{AppConfig, Secret};
use fanwire::config::Config;
use fanwire::node::Publication;
use fanwire::server::Server;

use super::client::Client;
use super::eventually;
use super::http::{Answer, Backend, Http};

pub(crate) const KEY: &str = "key";
pub(crate) const SECRET: &str = "secret";

/// The app of most tests: all features on, except those that make everybody hear more than was asked for.
pub(crate) fn app() -> AppConfig {
    AppConfig {
        id: "1".into(),
        key: KEY.into(),
        secret: Secret::new(SECRET),
        client_events: true,
        ..AppConfig::default()
    }
}

/// A configuration with these apps, on free ports.
pub(crate) fn config(apps: impl IntoIterator<Item = AppConfig>) -> Config {
    let mut config = Config {
        apps: apps.into_iter().collect(),
        ..Config::default()
    };
    config.server.port = 0;
    config.admin.port = 0;
    // Sockets of one test land on several shards, whatever the machine.
    config.server.shards = 3;
    config.drain.drain_s = 0;
    config
}

/// A server at work, with the first app of its configuration, or the demo app.
pub(crate) struct TestServer {
    pub(crate) server: Arc<Server>,
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    pub(crate) app: AppConfig,
}

impl TestServer {
    /// Serves [`app`].
    pub(crate) async fn start() -> TestServer {
        TestServer::with_app(app()).await
    }

    pub(crate) async fn with_app(app: AppConfig) -> TestServer {
        TestServer::with_config(config([app])).await
    }

    pub(crate) async fn with_config(config: Config) -> TestServer {
        let app = config.apps.first().cloned().unwrap_or_else(AppConfig::demo);
        let server = Server::start(config)
            .await
            .expect("a free port and a sound configuration");
        TestServer::serving(Arc::new(server), app)
    }

    /// A server at work, as one of its apps knows it.
    pub(crate) fn serving(server: Arc<Server>, app: AppConfig) -> TestServer {
        TestServer {
            address: server.address(),
            admin_address: server.admin_address().expect("the admin port is on"),
            server,
            app,
        }
    }

    /// A client that was greeted.
    pub(crate) async fn connect(&self) -> Client {
        let key = &self.app.key;
        Client::connect(
            self.address,
            &format!("/app/{key}?protocol=7&client=js&version=8.6.0&flash=false"),
        )
        .await
    }

    /// So many of them, spread over the shards.
    pub(crate) async fn connect_many(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.connect().await);
        }
        clients
    }

    /// The back end of the first app, with a connection of its own.
    pub(crate) async fn backend(&self) -> Backend {
        Backend {
            http: Http::connect(self.address).await,
            app_id: self.app.id.clone(),
            key: self.app.key.clone(),
            secret: self.app.secret.expose().to_owned(),
        }
    }

    /// A GET on the port of the operators.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        Http::connect(self.admin_address).await.ask("GET", path, "").await
    }

    /// The sum of a metric's samples that carry all of these `label="value"` texts. The prefix is left out.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.admin("/metrics").await.body;
        let name = format!("fanwire_{name}");
        let samples = text
            .lines()
            .filter_map(|line| line.strip_prefix(&*name))
            .filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)));
        samples
            .map(|sample| {
                sample
                    .rsplit(' ')
                    .next()
                    .and_then(|value| value.parse::<f64>().ok())
            })
            .map(|value| value.expect("a number") as u64)
            .sum()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn metric_becomes(&self, name: &str, labels: &[&str], expected: u64) {
        let what = format!("{name} {labels:?} to be {expected}");
        let reached = eventually(&what, async || {
            Some(self.metric(name, labels).await).filter(|value| *value >= expected)
        })
        .await;
        assert_eq!(reached, expected, "{what}");
    }

    /// Waits until so many sockets are connected, more or fewer than now.
    pub(crate) async fn connected_becomes(&self, expected: u64) {
        eventually(&format!("{expected} connected"), async || {
            (self.metric("connected", &[]).await == expected).then_some(())
        })
        .await;
    }

    /// A normal client is served: greeted, subscribed, reached by an event. What every hostile test ends with.
    pub(crate) async fn serves(&self) {
        let mut client = self.connect().await;
        client.subscribe("still-alive").await;
        self.backend().await.publish("still-alive", "tick", "tock").await;
        let event = client.next().await;
        assert_eq!(
            (&event["event"], &event["data"]),
            (&"tick".into(), &"tock".into())
        );
        client.close().await;
    }

    /// What a call of the HTTP API comes to in the end, at once.
    pub(crate) fn publish_now(&self, publication: &Publication) {
        let app = self.server.node().apps().by_id(&self.app.id);
        let app = app.expect("the first app of the configuration");
        self.server.node().publish(&app, [publication]);
    }

    pub(crate) async fn drain(self) {
        let server = Arc::into_inner(self.server).expect("nobody else holds the server");
        server.drain().await;
    }
}
