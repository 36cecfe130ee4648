//! Which web pages may connect: patterns for the `Origin` header.
//!
//! Pure. Not here: whether a client without `Origin` is let in; that is
//! [`App::allows_origin`](super::App::allows_origin).

use thiserror::Error;

/// One entry of an app's `allowed_origins`: `*`, `https://a.example`, `a.example` or `*.a.example`, each with
/// or without a port.
///
/// Without a scheme any scheme fits. Without a port any port fits when there is no scheme either; with a
/// scheme, the scheme's own port (an exact origin is exact). Upper and lower case are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    scheme: Option<String>,
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// Any name below this one, whatever the depth, but not the name itself. Kept with its leading dot.
    Below(String),
    Exactly(String),
    /// The `null` that browsers send for pages without an origin of their own (files, sandboxed frames).
    Null,
}

/// Why a text is no origin pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginError {
    /// Something after host and port, even a lone slash: it would never match, since an origin has none.
    #[error("an origin has no path: write scheme, host and port only")]
    Path,
    /// A star elsewhere than alone or as the first label.
    #[error("`*` may stand alone or as the first label, as in `*.a.example`")]
    Star,
    /// The host is empty, or has characters that a browser would never send.
    #[error(
        "the host must be an ASCII name (international names as `xn--…`) or an address (IPv6 in brackets)"
    )]
    Host,
    /// What follows the colon is no port.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// What precedes `://` is no scheme.
    #[error("the scheme must be a name such as `https`")]
    Scheme,
}

impl OriginPattern {
    /// Reads one entry of `allowed_origins`.
    pub fn parse(pattern: &str) -> Result<OriginPattern, OriginError> {
        if pattern.eq_ignore_ascii_case("null") {
            return Ok(OriginPattern {
                scheme: None,
                host: Host::Null,
                port: None,
            });
        }
        let Parts { scheme, host, port } = Parts::split(pattern)?;
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(below) if below.starts_with('.') && is_host(&below[1..]) => {
                Host::Below(below.to_ascii_lowercase())
            }
            _ if host.contains('*') => return Err(OriginError::Star),
            _ if is_host(host) => Host::Exactly(host.to_ascii_lowercase()),
            _ => return Err(OriginError::Host),
        };
        let port = port.or(scheme.and_then(default_port));
        Ok(OriginPattern {
            scheme: scheme.map(str::to_ascii_lowercase),
            host,
            port,
        })
    }

    /// Whether the value of an `Origin` header fits. One that is no origin fits only a lone `*`.
    pub fn matches(&self, origin: &str) -> bool {
        if self.host == Host::Any && self.any_port() {
            return true;
        }
        if origin.eq_ignore_ascii_case("null") {
            return self.host == Host::Null;
        }
        let Ok(Parts {
            scheme: Some(scheme),
            host,
            port,
        }) = Parts::split(origin)
        else {
            return false;
        };
        let host_fits = match &self.host {
            Host::Any => true,
            Host::Null => false,
            Host::Exactly(exactly) => exactly.eq_ignore_ascii_case(host),
            Host::Below(below) => host
                .len()
                .checked_sub(below.len())
                .and_then(|split| Some((host.get(..split)?, host.get(split..)?)))
                .is_some_and(|(label, end)| !label.is_empty() && end.eq_ignore_ascii_case(below)),
        };
        host_fits
            && self
                .scheme
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(scheme))
            && (self.any_port() || self.port == port.or_else(|| default_port(scheme)))
    }

    /// A pattern with a scheme is exact: without a port it means that scheme's own one, or none.
    fn any_port(&self) -> bool {
        self.scheme.is_none() && self.port.is_none()
    }
}

/// `[scheme://]host[:port]`, taken apart.
struct Parts<'a> {
    scheme: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
}

impl Parts<'_> {
    fn split(text: &str) -> Result<Parts<'_>, OriginError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            Some(_) => return Err(OriginError::Scheme),
            None => (None, text),
        };
        if rest.contains(['/', '?', '#']) {
            return Err(OriginError::Path);
        }
        // The last colon, unless it belongs to an address in brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port
                    .parse()
                    .ok()
                    .filter(|&port| digits && port != 0)
                    .ok_or(OriginError::Port)?;
                (host, Some(port))
            }
            _ => (rest, None),
        };
        Ok(Parts { scheme, host, port })
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn default_port(scheme: &str) -> Option<u16> {
    let default = |name: &str, port| scheme.eq_ignore_ascii_case(name).then_some(port);
    default("https", 443).or(default("http", 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_their_author_meant() {
        // pattern, origins it allows, origins it refuses
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "*",
                &[
                    "https://a.example",
                    "http://localhost:3000",
                    "null",
                    "nonsense",
                    "",
                ],
                &[],
            ),
            (
                "https://a.example",
                &["https://a.example", "HTTPS://A.Example", "https://a.example:443"],
                &[
                    "http://a.example",
                    "https://a.example:8443",
                    "https://b.a.example",
                    "https://a.example.evil",
                    "a.example",
                ],
            ),
            (
                "https://a.example:8443",
                &["https://a.example:8443"],
                &["https://a.example", "http://a.example:8443"],
            ),
            (
                "a.example",
                &[
                    "https://a.example",
                    "http://a.example",
                    "http://a.example:3000",
                    "capacitor://a.example",
                ],
                &[
                    "https://b.a.example",
                    "https://xa.example",
                    "https://a.example.evil",
                    "a.example",
                    "null",
                ],
            ),
            (
                "a.example:443",
                &["https://a.example", "https://a.example:443"],
                &["http://a.example", "https://a.example:1"],
            ),
            (
                "*.a.example",
                &["https://b.a.example", "http://c.b.A.example:81"],
                &[
                    "https://a.example",
                    "https://.a.example",
                    "https://ba.example",
                    "https://b.a.example.evil",
                ],
            ),
            (
                "*.a.example:3000",
                &["http://b.a.example:3000"],
                &["http://b.a.example", "http://a.example:3000"],
            ),
            (
                "https://*.a.example",
                &["https://b.a.example"],
                &["http://b.a.example", "https://b.a.example:444"],
            ),
            (
                "https://*",
                &["https://a.example"],
                &["http://a.example", "null", "nonsense"],
            ),
            (
                "localhost",
                &["http://localhost:5173"],
                &["http://localhost.evil"],
            ),
            (
                "[::1]:3000",
                &["http://[::1]:3000"],
                &["http://[::1]", "http://[::2]:3000"],
            ),
            (
                "http://[::1]",
                &["http://[::1]", "http://[::1]:80"],
                &["http://[::1]:3000"],
            ),
            ("null", &["null"], &["https://null", "https://a.example", ""]),
            (
                "capacitor://localhost",
                &["capacitor://localhost"],
                &["http://localhost", "capacitor://localhost:1"],
            ),
        ];
        for (pattern, allowed, refused) in table {
            let parsed = OriginPattern::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            for origin in *allowed {
                assert!(parsed.matches(origin), "{pattern} should allow {origin}");
            }
            for origin in *refused {
                assert!(!parsed.matches(origin), "{pattern} should refuse {origin}");
            }
        }
    }

    #[test]
    fn what_could_never_match_is_no_pattern() {
        let table = [
            ("", OriginError::Host),
            ("https://", OriginError::Host),
            ("https://a.example/", OriginError::Path),
            ("a.example/app", OriginError::Path),
            ("a.*.example", OriginError::Star),
            ("*a.example", OriginError::Star),
            ("*.", OriginError::Star),
            ("bücher.example", OriginError::Host),
            ("two words", OriginError::Host),
            ("[::x]", OriginError::Host),
            ("a.example:", OriginError::Port),
            ("a.example:+80", OriginError::Port),
            ("a.example:0", OriginError::Port),
            ("a.example:65536", OriginError::Port),
            ("://a.example", OriginError::Scheme),
        ];
        for (pattern, error) in table {
            assert_eq!(OriginPattern::parse(pattern), Err(error), "{pattern}");
        }
    }
}
