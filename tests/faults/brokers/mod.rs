//! Private brokers: started for one case on free ports, killed, frozen and moved about by it, gone with it.

mod nats;
#[path = "../../support/brokers/mod.rs"]
mod private;
mod proxy;
mod redis;

use std::net::SocketAddr;

use serde_json::{Value, json};

pub(crate) use self::nats::{Nats, NatsCluster};
pub(crate) use self::proxy::{Proxy, Way};
pub(crate) use self::redis::{Redis, RedisCluster, Sentinels};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
}

/// One server of either kind.
pub(crate) enum Broker {
    Redis(Redis),
    Nats(Nats),
}

impl Broker {
    pub(crate) fn start(kind: Kind) -> Broker {
        match kind {
            Kind::Redis => Broker::Redis(Redis::start()),
            Kind::Nats => Broker::Nats(Nats::start()),
        }
    }

    /// One that keeps what it is given to keep.
    pub(crate) fn start_keeping(kind: Kind) -> Broker {
        match kind {
            Kind::Redis => Broker::Redis(Redis::start()),
            Kind::Nats => Broker::Nats(Nats::start_keeping()),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Broker::Redis(redis) => redis.address(),
            Broker::Nats(nats) => nats.address(),
        }
    }

    /// The sections of a node's configuration that lead to it.
    pub(crate) fn config(&self) -> Value {
        self.config_at(self.address())
    }

    /// Those that lead to another address, behind which it is.
    pub(crate) fn config_at(&self, address: SocketAddr) -> Value {
        match self {
            Broker::Redis(redis) => redis.config_at(address),
            Broker::Nats(nats) => nats.config_at(address),
        }
    }

    pub(crate) fn kill(&mut self) {
        match self {
            Broker::Redis(redis) => redis.kill(),
            Broker::Nats(nats) => nats.kill(),
        }
    }

    /// On the same port, and empty.
    pub(crate) fn start_again(&mut self) {
        match self {
            Broker::Redis(redis) => redis.start_again(),
            Broker::Nats(nats) => nats.start_again(),
        }
    }

    pub(crate) fn freeze(&self) {
        match self {
            Broker::Redis(redis) => redis.freeze(),
            Broker::Nats(nats) => nats.freeze(),
        }
    }

    pub(crate) fn thaw(&self) {
        match self {
            Broker::Redis(redis) => redis.thaw(),
            Broker::Nats(nats) => nats.thaw(),
        }
    }

    /// Everything at the broker whose name holds the id of a node: keys, channels, subscriptions.
    pub(crate) async fn traces_of(&self, id: &str) -> Vec<String> {
        match self {
            Broker::Redis(redis) => redis.traces_of(id).await,
            Broker::Nats(nats) => nats.traces_of(id).await,
        }
    }

    /// How many webhooks it keeps that are not done.
    pub(crate) async fn webhooks_kept(&self) -> usize {
        match self {
            Broker::Redis(redis) => redis.webhooks_kept().await,
            Broker::Nats(nats) => nats.webhooks_kept().await,
        }
    }
}

/// The adapter's section: what all cases share.
fn adapter(driver: &str) -> Value {
    json!({ "driver": driver, "prefix": "faults", "lease_s": crate::stage::LEASE.as_secs() })
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
