//! The server as a child: the library's own server with one generous app, on a free port.

use std::io::stdin;

use anyhow::Result;
use fanwire::app::{AppConfig, Secret};
use fanwire::config::Config;
use fanwire::server::Server;

use crate::child;

/// The app of all scenarios.
pub(crate) const APP_ID: &str = "1";
/// Its key.
pub(crate) const KEY: &str = "bench-key";
/// Its secret.
pub(crate) const SECRET: &str = "bench-secret";
/// Where everybody is.
pub(crate) const CHANNEL: &str = "bench";
/// What they get.
pub(crate) const EVENT: &str = "news";

/// The `data` of every event: 200 bytes.
pub(crate) fn data() -> String {
    "x".repeat(200)
}

/// Serves until the parent goes away.
pub(crate) fn serve() -> Result<()> {
    let mut config = Config {
        apps: vec![AppConfig {
            id: APP_ID.into(),
            key: KEY.into(),
            secret: Secret::new(SECRET),
            ..AppConfig::default()
        }],
        ..Config::default()
    };
    config.server.port = 0;
    config.admin.enabled = false;
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = Server::start(config).await?;
        child::announce(server.address().port())?;
        tokio::task::spawn_blocking(|| stdin().lines().for_each(drop)).await?;
        // With ten thousand sockets still open, a drain would take its time.
        std::process::exit(0);
    })
}
