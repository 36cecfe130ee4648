//! Who is at the other end of a connection, as far as an address tells it.
//!
//! Knows nothing of sockets, of HTTP as such, or of what a client asks for.

mod forwarded;
mod limits;
mod network;
pub mod proxy_header;
mod trust;

use std::fmt;
use std::net::IpAddr;

pub use self::forwarded::{ForwardedHeader, Forwarding};
pub use self::limits::{AddressLimits, Place, TooMany};
pub use self::network::Network;
pub use self::trust::{TrustedProxies, UNIX};

/// Who is at the other end of a connection, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address, or that of the nearest proxy that does not say for whom it speaks. None: it came by the Unix socket,
    /// or a proxy does not know either.
    pub address: Option<IpAddr>,
    /// It is a trusted proxy, which may say for whom it speaks.
    pub is_proxy: bool,
    /// Its connection is encrypted, up to this server or up to a trusted proxy that says so.
    pub is_tls: bool,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}
