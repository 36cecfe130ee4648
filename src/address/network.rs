//! Addresses that share their leading bits, as `203.0.113.0/24`. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that share so many leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = &'static str;

    /// Reads `203.0.113.0/24`, `2001:db8::/32`, or an address alone.
    fn from_str(text: &str) -> Result<Network, &'static str> {
        const SHAPE: &str = "must be a network such as 203.0.113.0/24 or 2001:db8::/32, or one address";
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| SHAPE)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match text.contains('/') {
            true => bits.parse().ok().filter(|bits| *bits <= all).ok_or(SHAPE)?,
            false => all,
        };
        // Addresses are compared in their plain form: `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
        match address {
            IpAddr::V6(mapped) if bits >= 96 && mapped.to_ipv4_mapped().is_some() => Ok(Network {
                address: address.to_canonical(),
                bits: bits - 96,
            }),
            address => Ok(Network { address, bits }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    /// Whether the address is one of these. An IPv4 address in the form of IPv6 is to be brought into its plain form before
    /// ([`IpAddr::to_canonical`]).
    pub fn contains(&self, address: IpAddr) -> bool {
        // To shift by the whole width would be an overflow; a network of no bits is everything.
        match (self.address, address) {
            _ if self.bits == 0 => self.address.is_ipv4() == address.is_ipv4(),
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (one.to_bits() ^ other.to_bits()) >> (32 - self.bits) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                (one.to_bits() ^ other.to_bits()) >> (128 - self.bits) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_address_and_a_number_of_bits() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::ffff:0:0/90", "::ffff:0.0.0.0/90"),
            ("fd00::1", "fd00::1/128"),
        ] {
            assert_eq!(text.parse::<Network>().map(|it| it.to_string()), Ok(shown.into()));
        }
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "a/8",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let everything: Network = "0.0.0.0/0".parse().expect("a network");
        let is_in = |address: &str| everything.contains(address.parse().expect("an address"));
        assert!(is_in("8.8.8.8") && !is_in("::1"));
    }
}
