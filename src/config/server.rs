//! Settings of the door: where the server listens, and how much it takes in.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{ForwardedHeader, TrustedProxies, UNIX};

/// Owner and group.
const DEFAULT_MODE: &str = "0660";
/// What fits the address of a Unix socket, with the zero at its end. Bytes.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where the server listens for sockets and API requests, and the bounds of the whole process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address or name to listen on. `0.0.0.0` or `::` listens everywhere, and asks for configured `apps`.
    pub host: String,
    /// Port for sockets, API and health checks. 0 lets the system choose.
    pub port: u16,
    /// Path of a Unix socket to listen on beside `port`, for a proxy on the same machine. Always plain HTTP. Empty: none.
    pub unix_socket: String,
    /// Who may connect to `unix_socket`, as `chmod` has it: `0660` is the owner and the group.
    pub unix_socket_mode: String,
    /// What stands before `/app/…` and `/apps/…` in every path, such as `/ws`; clients set it as `wsPath`.
    pub path_prefix: String,
    /// Proxies that are believed when they say for whom they speak: networks such as `10.0.0.0/8`, single addresses, and
    /// `unix` for whoever comes by `unix_socket`. Nobody else is.
    pub trusted_proxies: Vec<String>,
    /// The header in which `trusted_proxies` say for whom they speak; the other one is not read.
    pub forwarded_header: ForwardedHeader,
    /// Every connection to `port` begins with a header of the PROXY protocol, version 1 or 2, and comes from
    /// `trusted_proxies`; others are dropped.
    pub proxy_protocol: bool,
    /// Connections that may be in what comes before HTTP: the header of the PROXY protocol, the handshake of TLS. Those who
    /// say nothing make room for others; while there are so many that do, further ones wait in the kernel. Less where the
    /// limit of open files is low: a sixteenth of what it bears.
    #[schemars(range(min = 16, max = 1_048_576))]
    pub porch_connections_max: usize,
    /// Connections that may be there without having sent the head of a request. Beyond it, the one that has waited longest
    /// is dropped.
    #[schemars(range(min = 16, max = 1_048_576))]
    pub pending_connections_max: usize,
    /// Connections of one address, or of one /64 of IPv6. Further sockets are closed with 4100, API calls answered 429.
    /// Behind proxies it needs `trusted_proxies`, or everybody has the address of the proxy. 0 is any number.
    #[schemars(range(max = 1_000_000))]
    pub address_connections_max: u32,
    /// Sockets that one address, or one /64 of IPv6, may ask for each second; further ones are closed with 4100. Where the
    /// server speaks TLS itself, it is connections, and further ones are dropped before their handshake. 0 is any number.
    #[schemars(range(max = 1_000_000))]
    pub address_handshakes_per_s: u32,
    /// Threads that own sockets. 0 is one for each core.
    #[schemars(range(max = 1_024))]
    pub shards: usize,
    /// Connections that may wait in the kernel to be accepted. The system's own bound (`somaxconn`) applies
    /// too.
    #[schemars(range(min = 1, max = 65_535))]
    pub backlog: u32,
    /// Time a client has to send the head of a request, and for its part of what comes before HTTP.
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
    /// Memory up to which sockets are taken in; above it further ones are closed with 4100. Percent of the nearest
    /// limit: that of a control group, or what the machine has.
    #[schemars(range(min = 1, max = 100))]
    pub memory_percent_max: u8,
    /// HTTP connections the process serves at once, kept ones included, and health checks. Beyond it the longest idle one
    /// is closed; where none is idle, API calls are answered 503. 0 derives it from the limit of open files.
    pub http_connections_max: usize,
    /// A client that is refused for want of room is told so after a random time of up to this long. Stock clients come
    /// back a second after they were told, all that were told together; much more than a second looks to them like a
    /// connection that does not work.
    #[schemars(range(max = 10_000))]
    pub refusal_delay_ms_max: u32,
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
            unix_socket: String::new(),
            unix_socket_mode: DEFAULT_MODE.into(),
            path_prefix: String::new(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            proxy_protocol: false,
            porch_connections_max: 4096,
            pending_connections_max: 8192,
            address_connections_max: 0,
            address_handshakes_per_s: 0,
            shards: 0,
            backlog: 4096,
            header_timeout_s: 10,
            request_timeout_s: 30,
            keep_alive_s: 75,
            header_bytes_max: 16 * 1024,
            body_bytes_max: 2 * 1024 * 1024,
            strict_protocol: false,
            sockets_max: 0,
            memory_percent_max: 90,
            http_connections_max: 0,
            refusal_delay_ms_max: 900,
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
    /// What `unix_socket_mode` spells, if it spells a mode.
    pub fn unix_socket_mode_bits(&self) -> Option<u32> {
        let digits = &self.unix_socket_mode;
        let is_octal = digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let bits = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
        bits.filter(|bits| matches!(digits.len(), 3 | 4) && *bits <= 0o777)
    }

    /// What is wrong with these settings together: the key, and what to do.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (place, fault) in TrustedProxies::parse(&self.trusted_proxies)
            .err()
            .into_iter()
            .flatten()
        {
            faults.push((format!("trusted_proxies[{place}]"), fault.to_owned()));
        }
        let unix_socket = self.unix_socket.as_str();
        if unix_socket.len() > UNIX_PATH_BYTES_MAX {
            let text = format!("is longer than the system allows, which is {UNIX_PATH_BYTES_MAX} bytes");
            faults.push(("unix_socket".into(), text));
        }
        if self.unix_socket_mode_bits().is_none() {
            let text = "must be three or four octal digits as `chmod` has them, such as `0660`";
            faults.push(("unix_socket_mode".into(), text.into()));
        }
        if unix_socket.is_empty() {
            let text = "does nothing without `server.unix_socket`";
            if self.unix_socket_mode != DEFAULT_MODE {
                faults.push(("unix_socket_mode".into(), text.into()));
            }
            if let Some(index) = self.trusted_proxies.iter().position(|proxy| proxy == UNIX) {
                faults.push((format!("trusted_proxies[{index}]"), text.into()));
            }
        }
        if self.forwarded_header != ForwardedHeader::default() && self.trusted_proxies.is_empty() {
            let text = "does nothing without `server.trusted_proxies`: nobody else is believed";
            faults.push(("forwarded_header".into(), text.into()));
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
