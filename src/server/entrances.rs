//! The ways in: which sockets are listened to, whom to believe there, and what comes before HTTP.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use super::listener::Entrance;
use super::porch::{Porch, Steps};
use crate::address::TrustedProxies;
use crate::config::Config;
use crate::node::Node;

/// All ways in. `listener` listens on the port.
pub(super) fn open(config: &Config, listener: TcpListener, node: &Arc<Node>) -> io::Result<Vec<Entrance>> {
    let server = &config.server;
    let trusted = TrustedProxies::of(&server.trusted_proxies);
    let steps = Steps {
        proxy_header: server.proxy_protocol.then(|| trusted.clone()),
    };
    let porch = match steps.is_any() {
        true => {
            let patience = Duration::from_secs(server.header_timeout_s.into());
            let porch = Porch::open(steps, server.porch_connections_max, patience, node.clone())?;
            Some(Arc::new(porch))
        }
        false => None,
    };
    Ok(vec![Entrance {
        listener,
        porch,
        trusted,
        only_proxies: server.proxy_protocol,
    }])
}
