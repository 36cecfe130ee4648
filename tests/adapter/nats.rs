//! The suite over every kind of NATS.

use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::nats::{NatsAdapter, NatsConfig, NatsUrl};
use fanwire::adapter::{Adapter, Sink};
use fanwire::app::Secret;
use tempfile::NamedTempFile;

use crate::brokers::nats::{Nats, Options};
use crate::node::{Ground, Process};
use crate::suite::suite;

/// Servers, and how to get in.
struct Servers {
    servers: Vec<Nats>,
    config: NatsConfig,
    /// Each node is connected to another server.
    spread: bool,
    opened: std::cell::Cell<usize>,
    _nkey: Option<NamedTempFile>,
}

impl Servers {
    fn new(servers: Vec<Nats>) -> Servers {
        let config = NatsConfig {
            urls: servers.iter().map(|server| NatsUrl::new(&server.url())).collect(),
            ..NatsConfig::default()
        };
        Servers {
            spread: servers.len() > 1,
            servers,
            config,
            opened: Default::default(),
            _nkey: None,
        }
    }

    fn plain() -> Servers {
        Servers::new(vec![Nats::start()])
    }

    fn user() -> Servers {
        let options = Options {
            user: Some(("fan", "hunter2")),
            ..Options::default()
        };
        let mut servers = Servers::new(vec![Nats::start_with(&options)]);
        servers.config.username = Some("fan".into());
        servers.config.password = Secret::new("hunter2");
        servers
    }

    fn nkey() -> Servers {
        let pair = nkeys::KeyPair::new_user();
        let options = Options {
            nkey: Some(pair.public_key()),
            ..Options::default()
        };
        let mut servers = Servers::new(vec![Nats::start_with(&options)]);
        let file = NamedTempFile::new().expect("a temporary file");
        let seed = pair.seed().expect("a pair of our own has its seed");
        std::fs::write(file.path(), format!("{seed}\n")).expect("a file can be written");
        servers.config.nkey_file = Some(file.path().into());
        servers._nkey = Some(file);
        servers
    }

    fn tls() -> Servers {
        let options = Options {
            tls: true,
            ..Options::default()
        };
        let server = Nats::start_with(&options);
        let files = server.certificates.clone().expect("it speaks TLS");
        let mut servers = Servers::new(vec![server]);
        servers.config.ca_file = Some(files.ca);
        servers.config.cert_file = Some(files.cert);
        servers.config.key_file = Some(files.key);
        servers
    }

    fn cluster() -> Servers {
        Servers::new(Nats::cluster(3))
    }
}

impl Ground for Servers {
    fn open(&self, adapter: &AdapterConfig, sink: Sink) -> Box<dyn Adapter> {
        let mut config = self.config.clone();
        let opened = self.opened.replace(self.opened.get() + 1);
        if self.spread {
            config.urls = vec![config.urls[opened % self.servers.len()].clone()];
        }
        assert_eq!(config.faults(), []);
        Box::new(NatsAdapter::open(&config, adapter, sink).expect("a valid configuration"))
    }

    fn stop(&mut self) {
        self.servers.iter_mut().for_each(|server| server.process.stop());
    }

    fn start(&mut self) {
        self.servers.iter_mut().for_each(|server| server.process.start());
    }

    fn message_bytes_max(&self) -> Option<usize> {
        Some(1 << 20)
    }
}

impl Process for Servers {
    fn freeze(&mut self) {
        self.servers.iter().for_each(|server| server.process.freeze());
    }

    fn thaw(&mut self) {
        self.servers.iter().for_each(|server| server.process.thaw());
    }
}

mod plain {
    use super::*;
    suite!(of processes: Servers::plain());
}

mod user {
    use super::*;
    suite!(of another way in: Servers::user());
}

mod nkey {
    use super::*;
    suite!(of another way in: Servers::nkey());
}

mod tls {
    use super::*;
    suite!(of another way in: Servers::tls());
    suite!(each; Servers::tls(); a_frozen_broker_is_left_and_found_again);
}

mod cluster {
    use super::*;
    suite!(of processes: Servers::cluster());
}
