//! Which addresses may be connected to. Pure.
//!
//! The address itself is judged, not the name it came from: whoever owns a name can have it resolve to anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::Network;
use crate::webhook::config::WebhooksConfig;

/// The rules for addresses.
#[derive(Debug, Default)]
pub(in crate::webhook) struct Guard {
    block_private: bool,
    block: Vec<Network>,
    allow: Vec<Network>,
}

impl Guard {
    /// What the settings say; what is no network there was told when they were read.
    pub(in crate::webhook) fn of(config: &WebhooksConfig) -> Guard {
        let networks = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        Guard {
            block_private: config.block_private,
            block: networks(&config.block),
            allow: networks(&config.allow),
        }
    }

    /// Whether this address may be connected to.
    pub(in crate::webhook) fn allows(&self, address: IpAddr) -> bool {
        // However an IPv4 address is written, that is where the connection goes, or may be taken to by a gateway.
        let inner = embedded(address);
        let plain = inner.map_or(address, IpAddr::V4);
        let any = |networks: &[Network]| {
            let mut forms = [address, plain].into_iter().chain(reached_by_unspecified(plain));
            forms.any(|form| networks.iter().any(|network| network.contains(form)))
        };
        if any(&self.block) {
            return false;
        }
        if !self.block_private || any(&self.allow) {
            return true;
        }
        match (address, inner) {
            (_, Some(inner)) => is_public_v4(inner),
            (IpAddr::V4(address), None) => is_public_v4(address),
            (IpAddr::V6(address), None) => is_public_v6(address),
        }
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, of 6to4, or of the well-known prefix of NAT64.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let segments = address.segments();
    let from = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] => from(high, low),
        // `::` and `::1` are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => from(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

/// Where a connection to the unspecified address goes: to this very machine.
fn reached_by_unspecified(address: IpAddr) -> Option<IpAddr> {
    address.is_unspecified().then_some(match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    })
}

/// What the registry of special-purpose addresses does not list as local or reserved.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || a >= 240
        // Shared by the customers of a carrier, 100.64.0.0/10; a cloud's metadata is there too (100.100.100.200).
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18)
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113))
}

/// Of IPv6 only what is given out for the public, less what is for documentation and tunnels.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let is_global_unicast = segments[0] & 0xe000 == 0x2000;
    let is_documentation = segments[0] == 0x2001 && segments[1] == 0xdb8 || segments[0] & 0xfff0 == 0x3ff0;
    // Teredo, benchmarks, ORCHID and the like: 2001::/23.
    let is_special = segments[0] == 0x2001 && segments[1] < 0x200;
    is_global_unicast && !is_documentation && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(block_private: bool, block: &[&str], allow: &[&str]) -> Guard {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Guard::of(&WebhooksConfig {
            block_private,
            block: texts(block),
            allow: texts(allow),
            ..WebhooksConfig::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_public_addresses_are_left_where_private_ones_are_blocked() {
        let (open, closed) = (guard(false, &[], &[]), guard(true, &[], &[]));
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "203.0.113.7",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "2001::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "64:ff9b:1::1",
            "5f00::1",
        ] {
            assert!(!closed.allows(address(text)), "{text}");
            assert!(open.allows(address(text)), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "169.253.0.1",
            "192.1.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::8844",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(closed.allows(address(text)), "{text}");
        }
    }

    #[test]
    fn networks_are_refused_and_allowed_by_name() {
        let guard = guard(
            true,
            &["8.8.8.0/24", "2606:4700::/32"],
            &["10.1.0.0/16", "::1", "8.8.8.8"],
        );
        for (text, is_allowed) in [
            ("8.8.8.8", false),
            ("8.8.9.8", true),
            ("::ffff:8.8.8.8", false),
            ("2606:4700::1", false),
            ("2606:4701::1", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.2.3", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(guard.allows(address(text)), is_allowed, "{text}");
        }
    }

    #[test]
    fn the_unspecified_address_is_this_machine() {
        let blocked = guard(false, &["127.0.0.0/8", "::1"], &[]);
        let mapped = guard(false, &["::ffff:127.0.0.0/104"], &[]);
        for (text, by_blocked, by_mapped) in [
            ("0.0.0.0", false, false),
            ("::ffff:0.0.0.0", false, false),
            ("127.0.0.1", false, false),
            ("::ffff:127.0.0.1", false, false),
            ("::", false, true),
            ("::1", false, true),
            ("8.8.8.8", true, true),
        ] {
            assert_eq!(blocked.allows(address(text)), by_blocked, "{text}");
            assert_eq!(mapped.allows(address(text)), by_mapped, "{text}");
        }
    }
}
