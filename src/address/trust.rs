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
    /// Reads what the settings say: networks, addresses, and [`UNIX`].
    ///
    /// # Errors
    /// Some are none of them: their places, and what is wrong with each.
    pub fn parse(texts: &[String]) -> Result<TrustedProxies, Vec<(usize, &'static str)>> {
        let (mut proxies, mut faults) = (TrustedProxies::default(), Vec::new());
        for (place, text) in texts.iter().enumerate() {
            match text.parse() {
                _ if text == UNIX => proxies.by_unix_socket = true,
                Ok(network) => proxies.networks.push(network),
                Err(fault) => faults.push((place, fault)),
            }
        }
        match faults.is_empty() {
            true => Ok(proxies),
            false => Err(faults),
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
