//! Two nodes with everything that has figures: a broker between them, a store of apps, webhooks, sockets and events.

use fanwire::adapter::config::Driver;
use fanwire::adapter::redis::RedisUrl;
use fanwire::app::{AppConfig, WebhookConfig, WebhookUrl};
use fanwire::store::{StoreConfig, StoreUrl};
use fanwire::webhook::WebhookQueue;
use tempfile::TempDir;

use crate::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::receiver::Receiver;
use crate::support::server::{TestServer, app, config};

pub(crate) struct Watched {
    pub(crate) nodes: Vec<TestServer>,
    clients: Vec<Client>,
    _receiver: Receiver,
    _redis: Redis,
    _folder: TempDir,
}

impl Watched {
    /// Each node has a socket, has published, and has told the back end something.
    pub(crate) async fn start() -> Watched {
        let (redis, receiver) = (Redis::start(), Receiver::start().await);
        let folder = TempDir::new().expect("a folder");
        let (mut nodes, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let mut config = config([AppConfig {
                webhooks: vec![WebhookConfig {
                    url: WebhookUrl::new(&receiver.url("/webhooks")),
                    ..WebhookConfig::default()
                }],
                ..app()
            }]);
            config.adapter.driver = Driver::Redis;
            config.redis.url = RedisUrl::new(&redis.url());
            config.webhooks.queue = WebhookQueue::Redis;
            config.store = StoreConfig {
                url: StoreUrl::new(&format!("sqlite://{}/apps.db", folder.path().display())),
                migrate_on_start: true,
                ..StoreConfig::default()
            };
            nodes.push(TestServer::with_config(config).await);
        }
        let mut watched = Watched {
            nodes,
            clients: Vec::new(),
            _receiver: receiver,
            _redis: redis,
            _folder: folder,
        };
        for node in &watched.nodes {
            node.metric_becomes("cluster_nodes", &[], 2).await;
            clients.push(node.connect().await);
        }
        watched.clients = clients;
        watched.go_on().await;
        watched
    }

    /// Something more happens on each node.
    pub(crate) async fn go_on(&mut self) {
        for (number, node) in self.nodes.iter().enumerate() {
            // Which node tells of a channel is drawn: of so many, each has some.
            for channel in 0..16 {
                let channel = format!("news-{number}-{channel}");
                self.clients[number].subscribe(&channel).await;
                node.backend().await.publish(&channel, "n", "x").await;
                self.clients[number].expect("n").await;
                self.clients[number].unsubscribe(&channel).await;
            }
        }
    }
}
