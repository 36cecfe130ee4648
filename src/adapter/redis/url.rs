//! The one address that says where Redis is and what kind of it: read strictly, shown without its password.

use std::fmt;

use serde::Deserialize;

use crate::secret::REDACTED;
use crate::secret::url::{Userinfo, decoded, host_and_port, shown_as_text};

/// Where Redis is: `redis://`, `redis-sentinel://` or `redis-cluster://`, with TLS `rediss://` and so on. Never
/// shows its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct RedisUrl(String);

shown_as_text!(RedisUrl);

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    /// A name or an address, an IPv6 one without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How the servers belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One server.
    Single,
    /// The master of this name, as the sentinels tell it.
    Sentinel(String),
    /// The masters of a cluster.
    Cluster,
}

/// What a [`RedisUrl`] says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) layout: Layout,
    pub(super) tls: bool,
    pub(super) user: Userinfo,
    /// The server, the sentinels, or some servers of the cluster: one at least.
    pub(super) addresses: Vec<Address>,
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl RedisUrl {
    /// Wraps an address, right or wrong.
    pub fn new(text: &str) -> RedisUrl {
        RedisUrl(text.to_owned())
    }

    /// What it says. The error is for a person, and holds nothing of what was written but what is wrong.
    pub(super) fn parts(&self) -> Result<Parts, String> {
        let unknown = "must begin with redis://, rediss://, redis-sentinel://, rediss-sentinel://, redis-cluster:// or \
                       rediss-cluster://";
        let (scheme, rest) = self.0.split_once("://").ok_or(unknown)?;
        let (tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").ok_or(unknown)?),
        };
        let (user, rest) = Userinfo::split(rest)?;
        if rest.contains(['?', '#']) {
            return Err("takes no options behind `?`".into());
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (layout, port) = match kind {
            "" => (Layout::Single, PORT),
            "-sentinel" => (Layout::Sentinel(decoded(path)?), SENTINEL_PORT),
            "-cluster" => (Layout::Cluster, PORT),
            _ => return Err(unknown.into()),
        };
        match &layout {
            Layout::Sentinel(name) if name.is_empty() || name.contains('/') => {
                return Err(
                    "must end with the name of the master, as in redis-sentinel://host:26379/mymaster".into(),
                );
            }
            Layout::Single | Layout::Cluster if !matches!(path, "" | "0") => {
                return Err("names a database, but what nodes tell each other crosses databases: leave it out, and keep \
                            clusters apart by `adapter.prefix`"
                    .into());
            }
            _ => {}
        }
        let addresses: Vec<_> = hosts
            .split(',')
            .map(|host| address(host, port))
            .collect::<Result<_, _>>()?;
        if layout == Layout::Single && addresses.len() > 1 {
            return Err("names several hosts: that is redis-cluster:// or redis-sentinel://".into());
        }
        Ok(Parts {
            layout,
            tls,
            user,
            addresses,
        })
    }

    /// The text with its password left out; nothing of it where the password cannot be told from the rest.
    fn shown(&self) -> String {
        match self.parts() {
            Ok(parts) => parts.user.hide_password(&self.0),
            Err(_) => REDACTED.to_owned(),
        }
    }
}

fn address(text: &str, default_port: u16) -> Result<Address, String> {
    let none = || "names no host".to_owned();
    if text.starts_with(':') {
        return Err(none());
    }
    let (host, port) = host_and_port(text)?;
    if host.is_empty() {
        return Err(none());
    }
    Ok(Address {
        host,
        port: port.unwrap_or(default_port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<Parts, String> {
        RedisUrl::new(url).parts()
    }

    #[test]
    fn every_kind_of_redis_has_its_scheme() {
        let sentinel = || Layout::Sentinel("mymaster".into());
        let table = [
            ("redis://a", Layout::Single, false, "a:6379"),
            ("redis://a:1/0", Layout::Single, false, "a:1"),
            ("redis://a:1/", Layout::Single, false, "a:1"),
            ("rediss://[::1]:7", Layout::Single, true, "[::1]:7"),
            ("redis://[::1]", Layout::Single, false, "[::1]:6379"),
            (
                "redis-sentinel://a,b:2/mymaster",
                sentinel(),
                false,
                "a:26379 b:2",
            ),
            ("rediss-sentinel://a/mymaster", sentinel(), true, "a:26379"),
            (
                "redis-cluster://a:1,b,c:3",
                Layout::Cluster,
                false,
                "a:1 b:6379 c:3",
            ),
            ("rediss-cluster://a", Layout::Cluster, true, "a:6379"),
        ];
        for (url, layout, tls, addresses) in table {
            let parts = parts(url).expect(url);
            assert_eq!((parts.layout, parts.tls), (layout, tls), "{url}");
            let found: Vec<_> = parts.addresses.iter().map(Address::to_string).collect();
            assert_eq!(found.join(" "), addresses, "{url}");
            assert_eq!(parts.user, Userinfo::default(), "{url}");
        }
    }

    #[test]
    fn a_password_may_hold_anything() {
        for (url, name, password) in [
            ("redis://u:p@a", Some("u"), "p"),
            ("redis://:p@a", None, "p"),
            ("redis://u@a", Some("u"), ""),
            ("redis://u:p%40%2f@a", Some("u"), "p@/"),
            ("redis://:p@q/r?s:t@a", None, "p@q/r?s:t"),
        ] {
            let parts = parts(url).expect(url);
            assert_eq!(parts.user.name.as_deref(), name, "{url}");
            assert_eq!(parts.user.password.expose(), password, "{url}");
            assert_eq!(parts.addresses[0].host, "a", "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for (url, what) in [
            ("hunter2", "must begin with redis://"),
            ("http://:hunter2@a", "must begin with redis://"),
            ("redis+tls://:hunter2@a", "must begin with redis://"),
            ("redis://:hunter2@a/1", "adapter.prefix"),
            ("redis-cluster://:hunter2@a/3", "adapter.prefix"),
            ("redis://:hunter2@a,b", "several hosts"),
            ("redis://:hunter2@", "no host"),
            ("redis-cluster://:hunter2@a,,b", "no host"),
            ("redis://:hunter2@a:b", "port"),
            ("redis://:hunter2@a:0", "port"),
            ("redis://:hunter2", "no host"),
            ("redis://:hunter2@[::1", "`]`"),
            ("redis://:hunter2@a?protocol=resp3", "options"),
            ("redis-sentinel://:hunter2@a", "name of the master"),
            ("redis-sentinel://:hunter2@a/b/c", "name of the master"),
            ("redis://:hunter2%ff@a", "UTF-8"),
        ] {
            let error = parts(url).expect_err(url);
            assert!(error.contains(what), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
            assert_eq!(format!("{:?}", RedisUrl::new(url)), REDACTED);
        }
    }

    #[test]
    fn it_is_shown_without_its_password() {
        for (url, shown) in [
            ("redis://a:1/0", "redis://a:1/0"),
            ("redis://user@a", "redis://user@a"),
            ("redis://user:hunter2@a:1/0", "redis://user:[redacted]@a:1/0"),
            (
                "rediss-sentinel://:hunt@er2@a,b/m",
                "rediss-sentinel://:[redacted]@a,b/m",
            ),
        ] {
            let url = RedisUrl::new(url);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(serde_json::to_value(&url).expect("serialises"), shown);
        }
    }
}
