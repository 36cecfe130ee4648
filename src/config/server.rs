//! Settings of the door: where the server listens, and how much it takes in.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{Network, UNIX};

/// Where the server listens for sockets and API requests, and the bounds of the whole process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address or name to listen on. `0.0.0.0` or `::` listens everywhere, and asks for configured `apps`.
    pub host: String,
    /// Port for sockets, API and health checks. 0 lets the system choose.
    pub port: u16,
    /// What stands before `/app/…` and `/apps/…` in every path, such as `/ws`; clients set it as `wsPath`.
    pub path_prefix: String,
    /// Proxies that are believed when they say for whom they speak: networks such as `10.0.0.0/8`, single addresses, and
    /// `unix` for whoever comes by `unix_socket`. Nobody else is.
    pub trusted_proxies: Vec<String>,
    /// Every connection to `port` begins with a header of the PROXY protocol, version 1 or 2, and comes from
    /// `trusted_proxies`; others are dropped.
    pub proxy_protocol: bool,
    /// Connections that may be in what comes before HTTP: the header of the PROXY protocol. While there are so many,
    /// further ones wait in the kernel.
    #[schemars(range(min = 16, max = 1_048_576))]
    pub porch_connections_max: usize,
    /// Threads that own sockets. 0 is one for each core.
    #[schemars(range(max = 1_024))]
    pub shards: usize,
    /// Connections that may wait in the kernel to be accepted. The system's own bound (`somaxconn`) applies
    /// too.
    #[schemars(range(min = 1, max = 65_535))]
    pub backlog: u32,
    /// Time a client has to send the head of a request.
    #[schemars(range(min = 1, max = 3_600))]
    pub header_timeout_s: u32,
    /// Time a client has to send the rest of a request.
    #[schemars(range(min = 1, max = 3_600))]
    pub request_timeout_s: u32,
    /// Time an API connection may stay idle between two requests.
    #[schemars(range(min = 1, max = 86_400))]
    pub keep_alive_s: u32,
    /// Largest head of a request, in bytes.
    #[schemars(range(min = 8_192, max = 1_048_576))]
    pub header_bytes_max: usize,
    /// Largest body of an API request, in bytes.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Answer as the hosted service does where it is stricter than its clients need: a connection must name
    /// its protocol, and a second subscription or an unsubscription without one is an error.
    pub strict_protocol: bool,
    /// Sockets the process takes at once; further ones are closed with 4100. 0 derives it from the limit of
    /// open files, less a reserve for API, admin and the rest.
    pub sockets_max: usize,
    /// Bytes that may wait in front of one shard before new publications have to wait.
    #[schemars(range(min = 65_536))]
    pub inbox_bytes_max: usize,
    /// Bytes that may wait for slow sockets in the whole process; above it the slowest are closed first.
    #[schemars(range(min = 1_048_576))]
    pub outbox_total_bytes_max: usize,
    /// Take over what changes about `apps` in the configuration file, and in the files of their secrets, while the
    /// server runs. SIGHUP does it once, also where this is off.
    pub watch_config: bool,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            host: "127.0.0.1".into(),
            port: 6001,
            path_prefix: String::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            porch_connections_max: 4096,
            shards: 0,
            backlog: 4096,
            header_timeout_s: 10,
            request_timeout_s: 30,
            keep_alive_s: 75,
            header_bytes_max: 16 * 1024,
            body_bytes_max: 2 * 1024 * 1024,
            strict_protocol: false,
            sockets_max: 0,
            inbox_bytes_max: 16 * 1024 * 1024,
            outbox_total_bytes_max: 256 * 1024 * 1024,
            watch_config: true,
        }
    }
}

impl ServerConfig {
    /// Whether only this machine can reach the server. A name other than `localhost` is not looked up and
    /// counts as reachable.
    pub fn is_loopback(&self) -> bool {
        match address(&self.host) {
            Some(address) => address.to_canonical().is_loopback(),
            None => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl ServerConfig {
    /// What is wrong with these settings together: the key, and what to do.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (index, text) in self.trusted_proxies.iter().enumerate() {
            if text != UNIX
                && let Err(fault) = text.parse::<Network>()
            {
                faults.push((format!("trusted_proxies[{index}]"), fault.to_owned()));
            }
        }
        if self.proxy_protocol && self.trusted_proxies.iter().all(|text| text == UNIX) {
            let text =
                "would let nobody in: name the proxies that send the header in `server.trusted_proxies`";
            faults.push(("proxy_protocol".into(), text.into()));
        }
        faults
    }
}

/// The address a `host` setting spells, if it is one and not a name. IPv6 may stand in brackets.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_only_this_machine_reaches() {
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "localhost",
            "LocalHost",
        ] {
            assert!(
                ServerConfig {
                    host: host.into(),
                    ..ServerConfig::default()
                }
                .is_loopback(),
                "{host}"
            );
        }
        for host in [
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "example.org",
            "localhost.example",
            "",
        ] {
            assert!(
                !ServerConfig {
                    host: host.into(),
                    ..ServerConfig::default()
                }
                .is_loopback(),
                "{host}"
            );
        }
    }
}
