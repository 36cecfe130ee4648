//! Whom does the server believe when they say for whom they speak? What proxies do send, only they can tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::TrustedProxies;
use crate::checkup::Report;
use crate::config::ServerConfig;

/// Addresses that are nobody's, of documents (RFC 5737, RFC 3849): whom these are believed, anybody is.
const NOBODYS: [&[IpAddr]; 2] = [
    &[
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    ],
    &[IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))],
];

pub(super) fn examine(server: &ServerConfig, report: &mut Report<'_>) {
    // What is none was told when the settings were read.
    let believed = TrustedProxies::parse(&server.trusted_proxies).unwrap_or_default();
    let is_anybody = |nobodys: &&[IpAddr]| nobodys.iter().all(|address| believed.trusts(*address));
    if server.trusted_proxies.is_empty() {
        report.note("server.trusted_proxies is empty: whoever connects is taken for the client itself");
    } else if NOBODYS.iter().any(is_anybody) {
        report.warning(
            "server.trusted_proxies holds everybody: each client may say that it is somebody else",
            "name the networks of the proxies alone",
        );
    } else {
        report.good(format!(
            "believed when they say for whom they speak: {}",
            server.trusted_proxies.join(", ")
        ));
    }
    if server.proxy_protocol {
        report.note(
            "server.proxy_protocol is on: who connects to server.port without its header, or is no trusted proxy, is \
             dropped; health checks belong on the admin port",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_believes_everybody_is_warned() {
        for (proxies, verdict) in [
            (&[][..], "note"),
            (&["unix"], "ok"),
            (&["10.0.0.0/8", "fd00::/8", "unix"], "ok"),
            (&["192.0.2.0/24"], "ok"),
            (&["10.0.0.0/8", "0.0.0.0/0"], "warning"),
            (&["0.0.0.0/1", "128.0.0.0/1"], "warning"),
            (&["::/0"], "warning"),
        ] {
            let server = ServerConfig {
                trusted_proxies: proxies.iter().map(|text| (*text).to_owned()).collect(),
                ..ServerConfig::default()
            };
            let mut out = Vec::new();
            examine(&server, &mut Report::new(&mut out));
            let told = String::from_utf8(out).expect("text");
            assert!(told.trim_start().starts_with(verdict), "{proxies:?}: {told}");
        }
    }
}
