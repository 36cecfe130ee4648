//! The suite over every kind of Redis, and in `faults` what befalls only Redis.

mod faults;

use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::redis::{RedisAdapter, RedisConfig, RedisUrl};
use fanwire::adapter::{Adapter, Sink};
use fanwire::app::Secret;

use crate::brokers::redis::{Options, Redis, RedisCluster, Sentinel};
use crate::node::{Ground, Process};
use crate::suite::suite;

/// The servers that are stopped and started, others that stay, and how to get in.
struct Servers<T> {
    broker: T,
    config: RedisConfig,
    servers: fn(&mut T) -> Vec<&mut Redis>,
}

fn at(url: &str) -> RedisConfig {
    RedisConfig {
        url: RedisUrl::new(url),
        ..RedisConfig::default()
    }
}

fn single(options: &Options) -> Servers<Redis> {
    let broker = Redis::start_with(options);
    Servers {
        config: at(&broker.url()),
        broker,
        servers: |broker| vec![broker],
    }
}

fn user() -> Servers<Redis> {
    let options = Options {
        user: Some(("fan", "hunter2")),
        ..Options::default()
    };
    let mut servers = single(&options);
    servers.config.username = Some("fan".into());
    servers.config.password = Secret::new("hunter2");
    servers
}

fn tls() -> Servers<Redis> {
    let options = Options {
        tls: true,
        ..Options::default()
    };
    let mut servers = single(&options);
    let files = servers.broker.certificates.clone().expect("it speaks TLS");
    servers.config.ca_file = Some(files.ca);
    servers.config.cert_file = Some(files.cert);
    servers.config.key_file = Some(files.key);
    servers
}

fn sentinel() -> Servers<Sentinel> {
    let broker = Sentinel::start();
    Servers {
        config: at(&broker.url()),
        broker,
        // Without its replica there is nobody to take its place: it comes back as what it was.
        servers: |broker| vec![&mut broker.replica, &mut broker.master],
    }
}

fn cluster() -> Servers<RedisCluster> {
    let broker = RedisCluster::start();
    Servers {
        config: at(&broker.url()),
        broker,
        servers: |broker| broker.servers.iter_mut().collect(),
    }
}

impl<T> Servers<T> {
    fn each(&mut self, act: impl Fn(&mut Redis)) {
        (self.servers)(&mut self.broker).into_iter().for_each(act);
    }
}

impl<T> Ground for Servers<T> {
    fn open(&self, adapter: &AdapterConfig, sink: Sink) -> Box<dyn Adapter> {
        assert_eq!(self.config.faults(), []);
        Box::new(RedisAdapter::open(&self.config, adapter, sink).expect("a valid configuration"))
    }

    fn stop(&mut self) {
        self.each(|server| server.process.stop());
    }

    fn start(&mut self) {
        self.each(|server| server.process.start());
    }
}

impl<T> Process for Servers<T> {
    fn freeze(&mut self) {
        self.each(|server| server.process.freeze());
    }

    fn thaw(&mut self) {
        self.each(|server| server.process.thaw());
    }
}

mod plain {
    use super::*;
    suite!(of processes: single(&Options::default()));
}

mod user_of_few_rights {
    use super::*;
    suite!(of another way in: user());
}

mod with_tls {
    use super::*;
    suite!(of another way in: tls());
    suite!(each; tls(); a_frozen_broker_is_left_and_found_again);
}

mod of_sentinels {
    use super::*;
    suite!(one after the other: sentinel());
}

mod of_a_cluster {
    use super::*;
    suite!(one after the other: cluster());
}
