//! The one address that says where Redis is and what kind of it: read strictly, shown without its password.

use std::fmt;

use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};

use crate::secret::{REDACTED, Secret};

/// Where Redis is: `redis://`, `redis-sentinel://` or `redis-cluster://`, with TLS `rediss://` and so on. Never
/// shows its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct RedisUrl(String);

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
    pub(super) username: Option<String>,
    pub(super) password: Secret,
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
        // A password may hold anything but `@`, which a careless one holds all the same.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
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
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((name, password)) => (decoded(name)?, decoded(password)?),
            None => Default::default(),
        };
        Ok(Parts {
            layout,
            tls,
            username: Some(username).filter(|name| !name.is_empty()),
            password: Secret::new(&password),
            addresses,
        })
    }

    /// The text with its password left out; nothing of it where the password cannot be told from the rest.
    fn shown(&self) -> String {
        let Ok(parts) = self.parts() else {
            return REDACTED.to_owned();
        };
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) if !parts.password.is_empty() => {
                let name = parts.username.unwrap_or_default();
                format!("{scheme}://{name}:{REDACTED}@{rest}")
            }
            _ => self.0.clone(),
        }
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(String::from)
        .map_err(|_| "holds a %-escape that is no UTF-8".into())
}

fn address(text: &str, default_port: u16) -> Result<Address, String> {
    let not_a_port = || "has a port that is no number from 1 to 65535".to_owned();
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']').ok_or("has a `[` without its `]`")?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(not_a_port)?),
            };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("names no host".into());
    }
    let port = match port {
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(not_a_port)?,
        None => default_port,
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl JsonSchema for RedisUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RedisUrl".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
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
            assert_eq!((parts.username, parts.password.is_empty()), (None, true), "{url}");
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
            assert_eq!(parts.username.as_deref(), name, "{url}");
            assert_eq!(parts.password.expose(), password, "{url}");
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
