//! Several nodes in this process, as one app of theirs knows them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fanwire::app::{AppConfig, Secret};
use fanwire::config::Config;
use fanwire::server::Server;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::OnceCell;

use crate::bus::{Bus, Line};
use crate::support::client::Client;
use crate::support::http::Backend;
use crate::support::server::{self, SECRET, TestServer};
use crate::support::{DEADLINE, eventually, soon};

/// Nodes of a shared cluster.
const SHARED: usize = 3;
/// Apps of each kind that the shared nodes serve.
const APPS_OF_A_KIND: usize = 64;

/// What an app of the shared nodes is like.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// As in most tests, and its clients may say a lot.
    Plain,
    /// Tells the subscribers of a channel how many they are.
    Counting,
    /// Tells at once who comes and goes.
    Watching,
    /// Waits a while for those who may only reload their page.
    Patient,
    /// Takes two members, and three connections.
    Small,
    /// Remembers for two seconds.
    Forgetful,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::Plain,
        Kind::Counting,
        Kind::Watching,
        Kind::Patient,
        Kind::Small,
        Kind::Forgetful,
    ];

    fn app(self, number: usize) -> AppConfig {
        let id = (self as usize * APPS_OF_A_KIND + number).to_string();
        let app = AppConfig {
            key: format!("key-{id}"),
            secret: Secret::new(SECRET),
            id,
            client_events_per_s: 100_000,
            ..server::app()
        };
        match self {
            Kind::Plain => app,
            Kind::Counting => AppConfig {
                subscription_count_events: true,
                ..app
            },
            Kind::Watching => AppConfig {
                watchlist: true,
                watch_grace_ms: 0,
                ..app
            },
            Kind::Patient => AppConfig {
                watchlist: true,
                watch_grace_ms: 1_500,
                ..app
            },
            Kind::Small => AppConfig {
                presence_members_max: 2,
                connections_max: 3,
                ..app
            },
            Kind::Forgetful => AppConfig {
                cache_ttl_s: 2,
                ..app
            },
        }
    }
}

/// Nodes that are joined by a bus.
struct Cluster {
    line: Line,
    servers: Vec<Arc<Server>>,
    /// How many apps of each kind were taken.
    taken: [AtomicUsize; Kind::ALL.len()],
}

impl Cluster {
    /// Starts nodes with this configuration, and waits until each knows all.
    async fn start(bus: Bus, count: usize, config: Config, runtime: &Handle) -> Cluster {
        let line = bus.line(config).await;
        let starts = (0..count).map(|_| {
            let line = line.clone();
            runtime.spawn(async move { line.start(line.config().clone()).await })
        });
        let servers = join_all(starts).await.into_iter().map(|started| {
            let server = started.expect("nothing panics");
            Arc::new(server.expect("free ports and a sound configuration"))
        });
        let cluster = Cluster {
            line,
            servers: servers.collect(),
            taken: Default::default(),
        };
        for server in &cluster.servers {
            knows(server, count).await;
        }
        cluster
    }
}

/// Waits until a node is ready and knows so many nodes, with all that they have.
async fn knows(server: &Arc<Server>, count: usize) {
    let node = TestServer::serving(server.clone(), AppConfig::default());
    let mut last = String::new();
    let known = async {
        loop {
            let ready = node.admin("/ready").await;
            let snapshot = server.node().cluster_snapshot();
            let snapshot = snapshot.expect("a node of a cluster");
            if ready.status == 200 && snapshot.nodes == count as u64 && snapshot.nodes_unknown == 0 {
                return;
            }
            last = format!("{} {snapshot:?}", ready.body);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let known = tokio::time::timeout(DEADLINE, known).await;
    assert!(
        known.is_ok(),
        "a node does not come to know {count} nodes: {last}"
    );
}

/// Nodes of one cluster, as one of its apps knows them.
#[derive(Clone)]
pub(crate) struct Nodes {
    cluster: Arc<Cluster>,
    nodes: Arc<[TestServer]>,
}

impl Nodes {
    /// Three nodes that other cases use too, with an app of this kind that they do not.
    pub(crate) async fn shared(bus: Bus, kind: Kind) -> Nodes {
        static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));
        static CLUSTERS: [OnceCell<Arc<Cluster>>; 3] = [const { OnceCell::const_new() }; 3];
        let start = async || {
            let apps = Kind::ALL.into_iter();
            let apps = apps.flat_map(|kind| (0..APPS_OF_A_KIND).map(move |number| kind.app(number)));
            let config = server::config(apps);
            Arc::new(Cluster::start(bus, SHARED, config, RUNTIME.handle()).await)
        };
        let cluster = CLUSTERS[bus as usize].get_or_init(start).await;
        let number = cluster.taken[kind as usize].fetch_add(1, Ordering::Relaxed);
        assert!(number < APPS_OF_A_KIND, "more cases than apps");
        Nodes::of(cluster.clone(), kind.app(number))
    }

    /// So many nodes that no other case uses.
    pub(crate) async fn own(bus: Bus, count: usize, app: AppConfig) -> Nodes {
        Nodes::configured(bus, count, server::config([app])).await
    }

    /// So many nodes that no other case uses, with this configuration.
    pub(crate) async fn configured(bus: Bus, count: usize, config: Config) -> Nodes {
        let app = config.apps[0].clone();
        let cluster = Cluster::start(bus, count, config, &Handle::current()).await;
        Nodes::of(Arc::new(cluster), app)
    }

    fn of(cluster: Arc<Cluster>, app: AppConfig) -> Nodes {
        let servers = cluster.servers.iter();
        let nodes = servers.map(|server| TestServer::serving(server.clone(), app.clone()));
        Nodes {
            nodes: nodes.collect(),
            cluster,
        }
    }

    pub(crate) fn node(&self, index: usize) -> &TestServer {
        &self.nodes[index]
    }

    pub(crate) fn all(&self) -> &[TestServer] {
        &self.nodes
    }

    /// What joins the nodes.
    pub(crate) fn line(&self) -> &Line {
        &self.cluster.line
    }

    /// A node more. To be drained, or the others will wait for it.
    pub(crate) async fn start(&self, config: Config) -> TestServer {
        let server = self.cluster.line.start(config).await;
        let server = server.expect("free ports and a sound configuration");
        TestServer::serving(Arc::new(server), self.nodes[0].app.clone())
    }

    /// A node more, like the others, which is ready. To be drained, or the others will wait for it.
    pub(crate) async fn one_more(&self) -> TestServer {
        let node = self.start(self.cluster.line.config().clone()).await;
        eventually("a newcomer to be ready", async || {
            (node.admin("/ready").await.status == 200).then_some(())
        })
        .await;
        node
    }

    /// A client on each node.
    pub(crate) async fn connect(&self) -> Vec<Client> {
        join_all(self.all().iter().map(TestServer::connect)).await
    }

    /// A subscriber on each node.
    pub(crate) async fn subscribe(&self, channel: &str) -> Vec<Client> {
        let mut clients = self.connect().await;
        for client in &mut clients {
            client.subscribe(channel).await;
        }
        clients
    }

    /// A back end's connection to each node.
    pub(crate) async fn backends(&self) -> Vec<Backend> {
        join_all(self.nodes.iter().map(TestServer::backend)).await
    }

    /// Waits until every node gives this answer.
    pub(crate) async fn agree(&self, path: &str, expected: &Value) {
        for mut backend in self.backends().await {
            answers(&mut backend, path, expected).await;
        }
    }

    /// Waits until every node counts so many subscribers of a channel.
    pub(crate) async fn count(&self, channel: &str, count: u64) {
        for mut backend in self.backends().await {
            backend.wait_for_subscribers(channel, count).await;
        }
    }

    /// Nothing else is on its way to the subscribers of a channel: what each node publishes now comes next.
    pub(crate) async fn expect_nothing_more(
        &self,
        channel: &str,
        clients: impl IntoIterator<Item = &mut Client>,
    ) {
        for (number, mut backend) in self.backends().await.into_iter().enumerate() {
            backend.publish(channel, "marker", &number.to_string()).await;
        }
        for client in clients {
            let mut numbers = Vec::new();
            for _ in self.all() {
                let marker = client.expect("marker").await;
                numbers.push(marker["data"].as_str().expect("a string").to_owned());
            }
            numbers.sort();
            numbers.dedup();
            assert_eq!(numbers.len(), self.nodes.len(), "one of each node");
        }
    }
}

/// Waits until a node gives this answer.
pub(crate) async fn answers(backend: &mut Backend, path: &str, expected: &Value) {
    let mut last = Value::Null;
    let asked = async {
        loop {
            last = backend.get(path).await.json();
            if last == *expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(&format!("{path} to be {expected}"), asked).await;
}
