//! `fanwire doctor`: looks at everything that a node needs before it is started, one thing after the other, and says
//! what to do about what is wrong.
//!
//! Nothing is changed: ports are tried and let go, and what is written to the broker is a few probes on topics that
//! no node listens to. How a broker is checked is the business of its adapter; not here: what is right about settings
//! by themselves, which loading them tells.

mod certificate;
mod machine;
mod ports;
mod proxies;
mod unix_socket;

use std::time::SystemTime;

use crate::adapter::config::Driver;
use crate::adapter::{nats, redis};
use crate::app::AppConfig;
use crate::checkup::Report;
use crate::config::Config;
use crate::store;
use crate::webhook::queue;

/// Checks all that the configuration asks for.
///
/// # Panics
/// Outside a tokio runtime with time and I/O.
pub async fn examine(config: &Config, report: &mut Report<'_>) {
    report.section("configuration");
    configuration(config, report);
    report.section("tls");
    certificate::examine(&config.tls, SystemTime::now(), report);
    report.section("ports");
    ports::examine(config, report).await;
    unix_socket::examine(&config.server.unix_socket, report).await;
    report.section("proxies");
    proxies::examine(&config.server, report);
    report.section("machine");
    machine::examine(config, report);
    report.section("store");
    store::checkup(&config.store, report).await;
    report.section("cluster");
    cluster(config, report).await;
    report.section("webhooks");
    if let Err(text) = config.webhooks.authorities() {
        report.failure(format!("webhooks.ca_file: {text}"), "");
    }
    queue::checkup(
        &config.webhooks,
        &config.adapter,
        &config.redis,
        &config.nats,
        report,
    )
    .await;
}

fn configuration(config: &Config, report: &mut Report<'_>) {
    match config.development() {
        true => report.note(format!(
            "no app is configured: development mode, with the demo app, on {} only",
            config.server.host
        )),
        false => {
            let disabled = config.apps.iter().filter(|app| !app.enabled).count();
            let disabled = match disabled {
                0 => String::new(),
                disabled => format!(", {disabled} of them switched off"),
            };
            report.good(format!("sound; apps: {}{disabled}", config.apps.len()));
        }
    }
    if !config.admin.enabled {
        report.warning(
            "the admin port is switched off: nobody can scrape metrics",
            "leave `admin.enabled` true, on a loopback or inner address",
        );
    }
}

async fn cluster(config: &Config, report: &mut Report<'_>) {
    match config.adapter.driver {
        Driver::None => report.note(
            "adapter.driver is none: this node is alone, so no broker is checked; more than one node needs redis or nats",
        ),
        Driver::Redis => redis::checkup(&config.redis, &config.adapter, report).await,
        Driver::Nats => {
            let data_bytes_max = config.apps.iter().map(|app| app.event_data_bytes_max).max();
            let data_bytes_max = data_bytes_max.unwrap_or(AppConfig::demo().event_data_bytes_max);
            nats::checkup(&config.nats, &config.adapter, data_bytes_max, report).await;
        }
    }
}
