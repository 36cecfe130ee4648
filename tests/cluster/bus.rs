//! What carries messages between the nodes: memory of this process, or a private broker that all cases share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fanwire::adapter::config::Driver;
use fanwire::adapter::memory::{self, Memory};
use fanwire::adapter::nats::NatsUrl;
use fanwire::adapter::redis::RedisUrl;
use fanwire::adapter::{self, Link};
use fanwire::config::Config;
use fanwire::server::{Server, StartError};

use crate::broker;

/// A kind of bus.
#[derive(Clone, Copy)]
pub(crate) enum Bus {
    Memory,
    Redis,
    Nats,
}

/// What the nodes of one cluster share: the name of the cluster, and the way to each other.
#[derive(Clone)]
pub(crate) struct Line {
    config: Config,
    /// The bus, if it is no broker.
    pub(crate) memory: Option<memory::Bus>,
}

impl Bus {
    /// A way for the nodes of a new cluster, which have this configuration.
    pub(crate) async fn line(self, mut config: Config) -> Line {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        config.adapter.prefix = format!("cluster-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut memory = None;
        match self {
            Bus::Memory => memory = Some(memory::Bus::new(0)),
            Bus::Redis => {
                config.adapter.driver = Driver::Redis;
                config.redis.url = RedisUrl::new(&broker::redis().await);
            }
            Bus::Nats => {
                config.adapter.driver = Driver::Nats;
                config.nats.urls = vec![NatsUrl::new(&broker::nats().await)];
            }
        }
        Line { config, memory }
    }
}

impl Line {
    /// What each node is started with.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Starts a node that is joined to the others. Its configuration may differ in what does not lead to them.
    pub(crate) async fn start(&self, config: Config) -> Result<Server, StartError> {
        let Some(bus) = &self.memory else {
            return Server::start(config).await;
        };
        let lanes = usize::from(config.adapter.connections);
        let (sink, events) = adapter::events(lanes, config.adapter.inbox_bytes_max);
        let link = Link {
            driver: "memory",
            adapter: Arc::new(Memory::join(bus, sink.clone())),
            events,
            sink,
        };
        Server::start_on(config, link).await
    }
}
