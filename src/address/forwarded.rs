//! For whom a trusted proxy speaks, as the headers of a request tell: `X-Forwarded-For` with `X-Forwarded-Proto`, or
//! `Forwarded` (RFC 7239). Pure.
//!
//! Each proxy adds whom it heard at the right end, so what is there is looked at from the right: an entry is believed if a
//! trusted proxy wrote it, and the first one that names somebody else names the client. What is left of that the client
//! has written itself, and is not even parsed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Client, TrustedProxies};

/// The header in which trusted proxies say for whom they speak. Only one: a proxy that writes the one passes on what the
/// client wrote into the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` for whether the client's connection is encrypted.
    #[default]
    XForwardedFor,
    /// `Forwarded`, as RFC 7239 has it.
    Forwarded,
}

/// Whom to believe, and what to read.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    trusted: TrustedProxies,
    header: ForwardedHeader,
}

/// Lines of one header, in their order; more than one or two are not usual.
type Lines<'a> = SmallVec<[&'a [u8]; 2]>;

/// What an entry says.
struct Entry {
    address: Option<IpAddr>,
    is_tls: Option<bool>,
}

impl Forwarding {
    /// To believe these proxies, when they say so in this header.
    pub fn new(trusted: TrustedProxies, header: ForwardedHeader) -> Forwarding {
        Forwarding { trusted, header }
    }

    /// Who has sent a request with these headers, which came from `client`: itself, or for whom it speaks if it is a
    /// trusted proxy.
    pub fn client_of<'a>(
        &self,
        client: Client,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Client {
        // Almost always nothing is looked at.
        match client.is_proxy {
            true => self.behind(client, headers),
            false => client,
        }
    }

    fn behind<'a>(&self, proxy: Client, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Client {
        let (mut chain, mut protocols) = (Lines::new(), Lines::new());
        for (name, value) in headers {
            match self.header {
                ForwardedHeader::Forwarded if name.eq_ignore_ascii_case("forwarded") => chain.push(value),
                ForwardedHeader::XForwardedFor if name.eq_ignore_ascii_case("x-forwarded-for") => {
                    chain.push(value);
                }
                ForwardedHeader::XForwardedFor if name.eq_ignore_ascii_case("x-forwarded-proto") => {
                    protocols.push(value);
                }
                _ => {}
            }
        }
        let chain = chain.iter().rev();
        match self.header {
            ForwardedHeader::Forwarded => self.walk(proxy, chain.flat_map(|line| entries(line)).map(entry)),
            ForwardedHeader::XForwardedFor => {
                let mut protocols = protocols.iter().rev().flat_map(|line| parts(line));
                // Proxies that are nearer may tell only what the first one told: it holds for those behind, too.
                let mut last = None;
                let entries = chain.flat_map(|line| parts(line)).map(|part| {
                    last = protocols.next().or(last);
                    Entry {
                        address: node(part),
                        is_tls: last.map(is_tls),
                    }
                });
                let client = self.walk(proxy, entries);
                match last {
                    Some(_) => client,
                    // A proxy that says how, and not for whom.
                    None => Client {
                        is_tls: protocols.next().map_or(client.is_tls, is_tls),
                        ..client
                    },
                }
            }
        }
    }

    /// Goes back from a proxy, past those that are trusted.
    fn walk(&self, proxy: Client, entries: impl Iterator<Item = Entry>) -> Client {
        let mut client = proxy;
        for Entry { address, is_tls } in entries {
            client = Client {
                address,
                is_proxy: address.is_some_and(|address| self.trusted.trusts(address)),
                is_tls: is_tls.unwrap_or(client.is_tls),
            };
            if !client.is_proxy {
                break;
            }
        }
        client
    }
}

/// The parts of a list, from the right.
fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The entries of a line of `Forwarded`, from the right: a comma between quotes does not part them. However the client has
/// written what is at the left, the quotes of what is right of it come in pairs.
fn entries(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut is_quoted = false;
        for at in (0..line.len()).rev() {
            match line[at] {
                b'"' if !is_escaped(line, at) => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    rest = Some(&line[..at]);
                    return Some(&line[at + 1..]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(line)
    })
}

/// Whether so many backslashes stand before this byte that it is one of a text.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text[..at].iter().rev();
    before.take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Reads `for=192.0.2.7;proto=https;by=…`. Of several of a name the first counts: what is quoted may be the client's words,
/// as those of `host` are.
fn entry(text: &[u8]) -> Entry {
    let mut entry = Entry {
        address: None,
        is_tls: None,
    };
    let mut has_address = false;
    let (mut is_quoted, mut at) = (false, 0);
    let pairs = text.split(|byte| {
        if *byte == b'"' && !is_escaped(text, at) {
            is_quoted = !is_quoted;
        }
        at += 1;
        *byte == b';' && !is_quoted
    });
    for pair in pairs.map(<[u8]>::trim_ascii) {
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = (&pair[..equals], unquoted(&pair[equals + 1..]));
        if name.eq_ignore_ascii_case(b"for") && !has_address {
            has_address = true;
            entry.address = node(value);
        } else if name.eq_ignore_ascii_case(b"proto") {
            entry.is_tls.get_or_insert(is_tls(value));
        }
    }
    entry
}

/// A value without its quotes. What is escaped in them is no address and no protocol, and stays as it is.
fn unquoted(value: &[u8]) -> &[u8] {
    value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""))
        .unwrap_or(value)
}

/// An address with or without a port: `192.0.2.7:1234`, `2001:db8::7`, `[2001:db8::7]`. None: "unknown", a name that only
/// the proxy understands, or what is nothing at all.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let in_brackets = || {
        text.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
    };
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| in_brackets().map(IpAddr::V6));
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

fn is_tls(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"https") || protocol.eq_ignore_ascii_case(b"wss")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const X: ForwardedHeader = ForwardedHeader::XForwardedFor;
    const RFC: ForwardedHeader = ForwardedHeader::Forwarded;

    fn forwarding(header: ForwardedHeader) -> Forwarding {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(str::to_owned);
        Forwarding::new(TrustedProxies::parse(&trusted).expect("networks"), header)
    }

    /// Who comes from this address without saying anything.
    fn peer(address: &str) -> Client {
        let address = address.parse().expect("an address");
        Client {
            address: Some(address),
            is_proxy: forwarding(X).trusted.trusts(address),
            is_tls: false,
        }
    }

    /// The client that requests with these headers come from, as the server shows it.
    fn client(header: ForwardedHeader, peer: Client, lines: &[(&str, &str)]) -> (String, bool) {
        let lines = lines.iter().map(|(name, value)| (*name, value.as_bytes()));
        let client = forwarding(header).client_of(peer, lines);
        (client.to_string(), client.is_tls)
    }

    #[test]
    fn the_client_is_the_first_from_the_right_who_is_no_trusted_proxy() {
        for (value, address) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, 10.1.1.1", "192.0.2.7"),
            ("192.0.2.7,10.1.1.1,10.2.2.2", "192.0.2.7"),
            // Written by the client, before the first proxy heard it.
            ("10.9.9.9, 192.0.2.7", "192.0.2.7"),
            ("198.51.100.1, 192.0.2.7, 10.1.1.1", "192.0.2.7"),
            ("::1, 127.0.0.1, 192.0.2.7", "192.0.2.7"),
            ("\", for=198.51.100.1, 192.0.2.7", "192.0.2.7"),
            // As other proxies write it.
            ("192.0.2.7:50000", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:50000, 2001:db8:ffff::1", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, ::ffff:10.1.1.1", "192.0.2.7"),
            // Whom nobody knows.
            ("192.0.2.7, unknown", "unknown"),
            ("192.0.2.7, ", "unknown"),
            ("192.0.2.7, 300.0.2.7", "unknown"),
            // All of them are proxies: the one farthest away speaks for itself.
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ] {
            let found = client(X, peer("10.0.0.1"), &[("X-Forwarded-For", value)]);
            assert_eq!(found.0, address, "{value}");
        }
        let two_lines = [
            ("x-forwarded-for", "198.51.100.1"),
            ("X-FORWARDED-FOR", "192.0.2.7, 10.1.1.1"),
        ];
        assert_eq!(client(X, peer("10.0.0.1"), &two_lines).0, "192.0.2.7");
        assert_eq!(client(X, peer("10.0.0.1"), &[]).0, "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_the_rfc_has_it() {
        for (value, expected) in [
            ("for=192.0.2.7", ("192.0.2.7", false)),
            ("For=192.0.2.7;Proto=HTTPS;by=203.0.113.43", ("192.0.2.7", true)),
            ("proto=https; for=\"192.0.2.7:50000\"", ("192.0.2.7", true)),
            ("for=\"[2001:db8::7]:50000\";proto=wss", ("2001:db8::7", true)),
            (
                "for=192.0.2.7;proto=https, for=10.1.1.1;proto=http",
                ("192.0.2.7", true),
            ),
            (
                "for=192.0.2.7;proto=http, for=10.1.1.1;proto=https",
                ("192.0.2.7", false),
            ),
            ("for=192.0.2.7, for=10.1.1.1;proto=https", ("192.0.2.7", true)),
            ("for=unknown", ("unknown", false)),
            ("for=_hidden, for=\"_gateway\"", ("unknown", false)),
            ("by=10.1.1.1;proto=https", ("unknown", true)),
            // Written by the client: at the left, or in what a proxy quotes.
            ("for=198.51.100.1, for=192.0.2.7", ("192.0.2.7", false)),
            ("for=\"198.51.100.1, for=192.0.2.7", ("192.0.2.7", false)),
            ("for=\"\\, for=\"192.0.2.7\"", ("192.0.2.7", false)),
            ("for=192.0.2.7;host=\"a;for=198.51.100.1\"", ("192.0.2.7", false)),
            ("host=\"a, for=198.51.100.1\";for=192.0.2.7", ("192.0.2.7", false)),
            (
                "host=\"\\\";for=198.51.100.1;a=\\\"\";for=192.0.2.7",
                ("192.0.2.7", false),
            ),
            ("for=192.0.2.7;for=198.51.100.1", ("192.0.2.7", false)),
        ] {
            let found = client(RFC, peer("10.0.0.1"), &[("Forwarded", value)]);
            assert_eq!((found.0.as_str(), found.1), expected, "{value}");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        let lines = [
            ("X-Forwarded-For", "192.0.2.7"),
            ("X-Forwarded-Proto", "https"),
            ("Forwarded", "for=192.0.2.7;proto=https"),
        ];
        for address in ["198.51.100.1", "11.0.0.1", "2001:db8::1"] {
            for header in [X, RFC] {
                let found = client(header, peer(address), &lines);
                assert_eq!(found, (address.to_owned(), false));
            }
        }
        // Of a proxy, only the header that it is known to write.
        assert_eq!(client(RFC, peer("10.0.0.1"), &lines[..2]).0, "10.0.0.1");
        assert_eq!(client(X, peer("10.0.0.1"), &lines[2..]).0, "10.0.0.1");
    }

    #[test]
    fn the_protocol_is_the_one_that_the_client_was_heard_by() {
        for (chain, protocols, is_tls) in [
            ("192.0.2.7", "https", true),
            ("192.0.2.7", "wss", true),
            ("192.0.2.7", "http", false),
            ("192.0.2.7", "HTTPS", true),
            // The client's own word is left of what the proxy heard.
            ("192.0.2.7", "https, http", false),
            ("198.51.100.1, 192.0.2.7", "https, http", false),
            // The second proxy was spoken to in plain text.
            ("192.0.2.7, 10.1.1.1", "https, http", true),
            ("192.0.2.7, 10.1.1.1", "http, https", false),
            // It did not add how, or replaced what was there.
            ("192.0.2.7, 10.1.1.1", "https", true),
        ] {
            let lines = [("X-Forwarded-For", chain), ("X-Forwarded-Proto", protocols)];
            let found = client(X, peer("10.0.0.1"), &lines);
            assert_eq!(found, ("192.0.2.7".to_owned(), is_tls), "{chain} by {protocols}");
        }
        let alone = [("X-Forwarded-Proto", "https")];
        assert_eq!(client(X, peer("10.0.0.1"), &alone), ("10.0.0.1".to_owned(), true));
        // What the header of the PROXY protocol said before holds where no header says otherwise.
        let by_tls = Client {
            is_tls: true,
            ..peer("10.0.0.1")
        };
        assert!(client(X, by_tls, &[("X-Forwarded-For", "192.0.2.7")]).1);
        assert!(!client(X, by_tls, &[("X-Forwarded-Proto", "http")]).1);
    }

    #[test]
    fn who_comes_by_the_unix_socket_may_be_a_trusted_proxy() {
        let lines = [("X-Forwarded-For", "192.0.2.7")];
        let by_unix = |is_proxy| Client {
            is_proxy,
            ..Client::default()
        };
        assert_eq!(client(X, by_unix(true), &lines).0, "192.0.2.7");
        assert_eq!(client(X, by_unix(false), &lines).0, "unknown");
    }

    proptest! {
        /// Whatever a client writes, the entry that the proxy adds is the one that counts.
        #[test]
        fn a_client_cannot_say_who_it_is(written in "[ -~]{0,60}", quoted: bool) {
            let added = if quoted { "for=\"192.0.2.7\";proto=http" } else { "for=192.0.2.7;proto=http" };
            let line = format!("{written}, {added}");
            prop_assert_eq!(client(RFC, peer("10.0.0.1"), &[("Forwarded", &line)]), ("192.0.2.7".to_owned(), false));
            let line = format!("{written}, 192.0.2.7");
            prop_assert_eq!(client(X, peer("10.0.0.1"), &[("X-Forwarded-For", &line)]).0, "192.0.2.7");
        }
    }
}
