//! Which proxies are believed when they say for whom they speak. Pure.

use std::net::IpAddr;

use super::Network;

/// Stands among the networks for whoever comes by the Unix socket.
pub const UNIX: &str = "unix";

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    by_unix_socket: bool,
}

impl TrustedProxies {
    /// What the settings say: networks, addresses, and [`UNIX`]. What is none of them was told when they were read.
    pub fn of(texts: &[String]) -> TrustedProxies {
        TrustedProxies {
            networks: texts.iter().filter_map(|text| text.parse().ok()).collect(),
            by_unix_socket: texts.iter().any(|text| text == UNIX),
        }
    }

    /// Whether the one at this address is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        if self.networks.is_empty() {
            return false;
        }
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether those are believed who come by the Unix socket.
    pub fn trusts_unix_socket(&self) -> bool {
        self.by_unix_socket
    }
}
