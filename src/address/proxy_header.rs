//! The header of the PROXY protocol, versions 1 and 2, with which a proxy says for whom it opened a connection. Pure.
//!
//! Of what a header can hold only the client's address is read, and whether its connection is encrypted; all else is
//! skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A header of more bytes is refused. The protocol allows 64 KiB for what is skipped here; proxies send some hundred.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Version 1 in full, with its line end.
const TEXT_BYTES_MAX: usize = 107;
const TEXT_BEGIN: &[u8] = b"PROXY ";
const BINARY_BEGIN: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length of the rest.
const BINARY_FIXED_BYTES: usize = 16;
/// The type of what tells how the client is connected to the proxy, and the bit in it for "encrypted".
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;

/// For whom a proxy opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// For itself: it looks whether the server is well.
    Proxy,
    /// For the client at this address.
    Client(IpAddr),
    /// For a client that has no address, or none that the proxy knows.
    Unknown,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// For whom the connection is.
    pub source: Source,
    /// The client's connection to the proxy is encrypted. Only version 2 can say so.
    pub is_tls: bool,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, all of it.
    Incomplete,
    /// A header of so many bytes, and perhaps what follows it.
    Complete(Header, usize),
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// They begin like none.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Missing,
    /// They begin like one and break its rules.
    #[error("the header of the PROXY protocol is malformed")]
    Malformed,
    /// It is longer than is read here.
    #[error("the header of the PROXY protocol is too long")]
    TooLong,
}

/// Reads the header at the beginning of a connection.
///
/// # Errors
/// The bytes do not begin with one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Broken> {
    if begins(bytes, TEXT_BEGIN) {
        parse_text(bytes)
    } else if begins(bytes, BINARY_BEGIN) {
        parse_binary(bytes)
    } else {
        Err(Broken::Missing)
    }
}

/// Whether as many bytes as there are, are those of the beginning.
fn begins(bytes: &[u8], beginning: &[u8]) -> bool {
    bytes.iter().zip(beginning).all(|(one, other)| one == other)
}

fn parse_text(bytes: &[u8]) -> Result<Parsed, Broken> {
    let line = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match line.len() {
            TEXT_BYTES_MAX => Err(Broken::TooLong),
            _ => Ok(Parsed::Incomplete),
        };
    };
    let text = str::from_utf8(&line[TEXT_BEGIN.len()..end]).map_err(|_| Broken::Malformed)?;
    let header = Header {
        source: text_source(text).ok_or(Broken::Malformed)?,
        is_tls: false,
    };
    Ok(Parsed::Complete(header, end + 2))
}

fn text_source(text: &str) -> Option<Source> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows says nothing.
        return Some(Source::Unknown);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse::<u16>().ok().filter(|_| is_number)
    };
    let _ports = (port()?, port()?);
    words.next().is_none().then_some(Source::Client(source))
}

fn parse_binary(bytes: &[u8]) -> Result<Parsed, Broken> {
    // What is wrong is said as soon as it is there.
    let is_version_2 = bytes.get(12).is_none_or(|byte| byte >> 4 == 2);
    if !is_version_2 {
        return Err(Broken::Malformed);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<BINARY_FIXED_BYTES>() else {
        return Ok(Parsed::Incomplete);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if BINARY_FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err(Broken::TooLong);
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(Parsed::Incomplete);
    };
    let header = match fixed[12] & 0x0f {
        0 => Header {
            source: Source::Proxy,
            is_tls: false,
        },
        1 => proxied(fixed[13], rest).ok_or(Broken::Malformed)?,
        _ => return Err(Broken::Malformed),
    };
    Ok(Parsed::Complete(header, BINARY_FIXED_BYTES + length))
}

/// What stands behind the fixed part: addresses of this family, and then what may be skipped.
fn proxied(family: u8, rest: &[u8]) -> Option<Header> {
    let (source, extensions) = match family {
        0x00 => (Source::Unknown, rest),
        // Source, destination, and their ports.
        0x11 => {
            let (octets, _) = rest.split_first_chunk::<4>()?;
            (Source::Client(Ipv4Addr::from(*octets).into()), rest.get(12..)?)
        }
        0x21 => {
            let (octets, _) = rest.split_first_chunk::<16>()?;
            (Source::Client(Ipv6Addr::from(*octets).into()), rest.get(36..)?)
        }
        // Two paths.
        0x31 => (Source::Unknown, rest.get(216..)?),
        _ => return None,
    };
    Some(Header {
        source,
        is_tls: says_tls(extensions)?,
    })
}

/// Whether one of the extensions says that the client's connection is encrypted. `None`: they are malformed.
fn says_tls(mut extensions: &[u8]) -> Option<bool> {
    let mut is_tls = false;
    while !extensions.is_empty() {
        let (&[kind, high, low], rest) = extensions.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if kind == TYPE_SSL {
            is_tls = value.first()? & CLIENT_SSL != 0;
        }
        extensions = rest;
    }
    Some(is_tls)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Source {
        Source::Client(address.parse().expect("an address"))
    }

    /// A header of version 2: command, family, and what follows.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = BINARY_BEGIN.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(rest.len()).expect("a short header").to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// An extension of this type.
    fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u16::try_from(value.len()).expect("a short value").to_be_bytes());
        bytes.extend(value);
        bytes
    }

    /// 192.0.2.7:50000 to 198.51.100.1:443.
    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0x50, 1, 0xbb];
    /// The same for [2001:db8::7] and [2001:db8::1].
    const V6: [u8; 36] = {
        let mut bytes = [0; 36];
        (bytes[0], bytes[1], bytes[2], bytes[3], bytes[15]) = (0x20, 0x01, 0x0d, 0xb8, 7);
        (bytes[16], bytes[17], bytes[18], bytes[19], bytes[31]) = (0x20, 0x01, 0x0d, 0xb8, 1);
        (bytes[32], bytes[33], bytes[34], bytes[35]) = (0xc3, 0x50, 1, 0xbb);
        bytes
    };

    fn sound() -> Vec<(Vec<u8>, Source, bool)> {
        let text = |text: &str, source| (text.as_bytes().to_vec(), source, false);
        let v4 = |extensions: &[Vec<u8>]| binary(1, 0x11, &[V4.to_vec(), extensions.concat()].concat());
        let (plain, tls) = (
            extension(TYPE_SSL, &[0; 5]),
            extension(TYPE_SSL, &[1, 0, 0, 0, 0]),
        );
        let (alpn, noop) = (extension(0x01, b"h2"), extension(0x04, b""));
        vec![
            text(
                "PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n",
                client("192.0.2.7"),
            ),
            text(
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                client("255.255.255.255"),
            ),
            text(
                "PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n",
                client("2001:db8::7"),
            ),
            text(
                "PROXY TCP6 ::ffff:192.0.2.7 ::1 0 0\r\n",
                client("::ffff:192.0.2.7"),
            ),
            text("PROXY UNKNOWN\r\n", Source::Unknown),
            text(
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                Source::Unknown,
            ),
            (binary(0, 0x00, &[]), Source::Proxy, false),
            // What a proxy says of itself is skipped.
            (binary(0, 0x11, &V4), Source::Proxy, false),
            (binary(0, 0xff, b"anything"), Source::Proxy, false),
            (v4(&[]), client("192.0.2.7"), false),
            (v4(&[alpn.clone(), noop.clone()]), client("192.0.2.7"), false),
            (v4(&[plain]), client("192.0.2.7"), false),
            (v4(&[alpn, tls, noop]), client("192.0.2.7"), true),
            (binary(1, 0x21, &V6), client("2001:db8::7"), false),
            (binary(1, 0x31, &[b'/'; 216]), Source::Unknown, false),
            (binary(1, 0x00, &[]), Source::Unknown, false),
        ]
    }

    #[test]
    fn a_header_names_the_client_and_ends_where_it_says() {
        for (bytes, source, is_tls) in sound() {
            let header = Header { source, is_tls };
            let expected = Ok(Parsed::Complete(header, bytes.len()));
            assert_eq!(parse(&bytes), expected, "{bytes:x?}");
            let followed = [&bytes[..], b"\x16\x03\x01 or GET /app/key"].concat();
            assert_eq!(parse(&followed), expected, "{bytes:x?} and more");
        }
    }

    #[test]
    fn a_header_may_come_in_pieces() {
        for (bytes, ..) in sound() {
            for length in 0..bytes.len() {
                assert_eq!(
                    parse(&bytes[..length]),
                    Ok(Parsed::Incomplete),
                    "{length} of {bytes:x?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_as_soon_as_it_shows() {
        let text = |text: &str| text.as_bytes().to_vec();
        let changed = |at: usize, to: u8| {
            let mut bytes = binary(1, 0x11, &V4);
            bytes[at] = to;
            bytes
        };
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_BYTES_MAX));
        let with = |extension: &[u8]| binary(1, 0x11, &[&V4, extension].concat());
        let table = [
            (text("GET / HTTP/1.1\r\n\r\n"), Broken::Missing),
            (text("P\r\n"), Broken::Missing),
            (text("proxy TCP4"), Broken::Missing),
            (text("\x16\x03\x01\x02\x00\x01"), Broken::Missing),
            (text("\r\n\r\n\0\r\nQUIT\r"), Broken::Missing),
            (text("PROXY \r\n"), Broken::Malformed),
            (text("PROXY TCP4\r\n"), Broken::Malformed),
            (text("PROXY TCP5 192.0.2.7 192.0.2.8 1 2\r\n"), Broken::Malformed),
            (
                text("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n"),
                Broken::Malformed,
            ),
            (text("PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n"), Broken::Malformed),
            (text("PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n"), Broken::Malformed),
            (
                text("PROXY TCP4 192.0.2.256 192.0.2.8 1 2\r\n"),
                Broken::Malformed,
            ),
            (
                text("PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n"),
                Broken::Malformed,
            ),
            (text("PROXY TCP4 192.0.2.7 192.0.2.8 1 +2\r\n"), Broken::Malformed),
            (text("PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n"), Broken::Malformed),
            (text("PROXY TCP4 192.0.2.7 192.0.2.8 1 2 \r\n"), Broken::Malformed),
            (text("PROXY TCP4  192.0.2.7 192.0.2.8 1 2\r\n"), Broken::Malformed),
            (
                text("PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n\r\n"),
                Broken::Malformed,
            ),
            (text(&long), Broken::TooLong),
            (text(&"PROXY TCP4 ".repeat(20)), Broken::TooLong),
            // Version 1 and 3, and a command that there is not.
            (changed(12, 0x11), Broken::Malformed),
            (changed(12, 0x31), Broken::Malformed),
            (changed(12, 0x22), Broken::Malformed),
            // UDP, half a family, and families that there are not.
            (changed(13, 0x12), Broken::Malformed),
            (changed(13, 0x10), Broken::Malformed),
            (changed(13, 0x41), Broken::Malformed),
            // Addresses that end in the middle.
            (binary(1, 0x11, &V4[..11]), Broken::Malformed),
            (binary(1, 0x21, &V6[..35]), Broken::Malformed),
            (binary(1, 0x31, &[0; 215]), Broken::Malformed),
            (binary(1, 0x11, &[]), Broken::Malformed),
            // Extensions that end in the middle.
            (with(&[0x01]), Broken::Malformed),
            (with(&[0x01, 0, 2, b'h']), Broken::Malformed),
            (with(&[TYPE_SSL, 0, 0]), Broken::Malformed),
            (changed(14, 0xff), Broken::TooLong),
            (
                binary(0, 0, &[0; HEADER_BYTES_MAX - BINARY_FIXED_BYTES + 1]),
                Broken::TooLong,
            ),
        ];
        for (bytes, broken) in table {
            assert_eq!(
                parse(&bytes),
                Err(broken),
                "{:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
        let longest = binary(0, 0, &[0; HEADER_BYTES_MAX - BINARY_FIXED_BYTES]);
        assert!(matches!(
            parse(&longest),
            Ok(Parsed::Complete(_, HEADER_BYTES_MAX))
        ));
    }

    proptest! {
        #[test]
        fn bytes_of_all_kinds_are_survived(
            begin in prop_oneof![Just(&b""[..]), Just(TEXT_BEGIN), Just(&BINARY_BEGIN[..])],
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [begin, &rest].concat();
            let parsed = parse(&bytes);
            if let Ok(Parsed::Complete(_, length)) = parsed {
                prop_assert!(length <= bytes.len());
                prop_assert_eq!(parse(&bytes[..length]), parsed);
                prop_assert_eq!(parse(&bytes[..length - 1]), Ok(Parsed::Incomplete));
            }
        }
    }
}
