//! A server in this process, on a free port, mounted under a prefix.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use fanwire::app::{AppConfig, Secret};
use fanwire::config::Config;
use fanwire::server::Server;

/// Where the server says it is mounted.
pub(crate) const PREFIX: &str = "/chat";

/// Largest body it takes: the default.
pub(crate) const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Where a server listens.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) main: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Starts a server with the apps `1` and `2` and, disabled, `3`, whose keys are `key-1` and so on. It serves until
/// the process of the tests ends.
pub(crate) fn start() -> Ports {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let control = tokio::runtime::Runtime::new().expect("a runtime starts");
        control.block_on(async {
            let server = Server::start(config()).await.expect("ports are free");
            let admin = server.admin_address().expect("it is on");
            let ports = Ports {
                main: server.address(),
                admin,
            };
            tell.send(ports).expect("the test waits");
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("the server starts")
}

fn config() -> Config {
    let app = |id: &str, enabled| AppConfig {
        id: id.into(),
        key: format!("key-{id}"),
        secret: Secret::new(&format!("secret-{id}")),
        enabled,
        ..AppConfig::default()
    };
    let mut config = Config {
        apps: vec![app("1", true), app("2", true), app("3", false)],
        ..Config::default()
    };
    config.server.port = 0;
    config.admin.port = 0;
    config.server.shards = 2;
    config.server.path_prefix = PREFIX.into();
    config
}
