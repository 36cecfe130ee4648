//! Where Redis is and how to get in: one section for every part of the server that uses it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::url::{Layout, Parts, RedisUrl};
use crate::adapter::tls::{self, TlsFiles};
use crate::secret::{REDACTED, Secret};

/// Redis 7 or later, for whichever part of the server is told to use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Where it is: `redis://user:password@host:6379` is one server, `redis-sentinel://host1:26379,host2:26379/mymaster`
    /// the master that sentinels name, `redis-cluster://host1:7000,host2:7001` a cluster of which some servers are
    /// named. With TLS: `rediss://`, `rediss-sentinel://`, `rediss-cluster://`. Shown without its password.
    pub url: RedisUrl,
    /// The user to sign in as, if `url` names none.
    pub username: Option<String>,
    /// The password, if `url` holds none. Never printed.
    pub password: Secret,
    /// A file that holds the password, in place of `password`. One line end after it is cut off.
    pub password_file: Option<PathBuf>,
    /// The user to sign in to the sentinels as.
    pub sentinel_username: Option<String>,
    /// The password of the sentinels. That of the servers is not tried with them. Never printed.
    pub sentinel_password: Secret,
    /// The certificates that the servers' are to be signed by, as a PEM file, in place of those that the system
    /// trusts.
    pub ca_file: Option<PathBuf>,
    /// The certificate that this server shows, where the servers ask for one, as a PEM file.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`, as a PEM file.
    pub key_file: Option<PathBuf>,
}

impl Default for RedisConfig {
    fn default() -> RedisConfig {
        RedisConfig {
            url: RedisUrl::new("redis://127.0.0.1:6379"),
            username: None,
            password: Secret::default(),
            password_file: None,
            sentinel_username: None,
            sentinel_password: Secret::default(),
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

/// A name and a password.
#[derive(Clone, Debug, Default)]
pub(super) struct Login {
    pub(super) username: Option<String>,
    pub(super) password: Secret,
}

/// Something wrong with a setting of the section: its key, and what to do about it, for a person.
pub type RedisFault = (&'static str, String);

impl RedisConfig {
    /// Everything that is wrong with the section, its certificates read too.
    ///
    /// A `password_file` is read by whoever loads the configuration.
    pub fn faults(&self) -> Vec<RedisFault> {
        match self.url.parts() {
            Ok(parts) => self.contradictions(&parts),
            Err(text) => vec![("url", text)],
        }
    }

    fn contradictions(&self, parts: &Parts) -> Vec<RedisFault> {
        let tls_files = [
            ("ca_file", &self.ca_file),
            ("cert_file", &self.cert_file),
            ("key_file", &self.key_file),
        ];
        let mut faults = Vec::new();
        let mut rule = |holds: bool, key, text: &str| {
            if !holds {
                faults.push((key, text.to_owned()));
            }
        };
        rule(
            parts.user.password.is_empty() || self.password.is_empty(),
            "password",
            "stands beside the one in `redis.url`: only one of them can be meant",
        );
        rule(
            parts.user.name.is_none() || self.username.is_none(),
            "username",
            "stands beside the one in `redis.url`: only one of them can be meant",
        );
        rule(
            self.login(parts).username.is_none() || !self.login(parts).password.is_empty(),
            "password",
            "is missing: a user without a password cannot sign in",
        );
        for (key, secret) in [
            ("url", &parts.user.password),
            ("password", &self.password),
            ("sentinel_password", &self.sentinel_password),
        ] {
            rule(
                secret.expose() != REDACTED,
                key,
                "is what stands in place of a secret in printed configurations, not the secret",
            );
        }
        let is_sentinel = matches!(parts.layout, Layout::Sentinel(_));
        let of_sentinels = "is only for redis-sentinel://, which `redis.url` is not";
        rule(
            is_sentinel || self.sentinel_username.is_none(),
            "sentinel_username",
            of_sentinels,
        );
        rule(
            is_sentinel || self.sentinel_password.is_empty(),
            "sentinel_password",
            of_sentinels,
        );
        rule(
            self.sentinel_username.is_none() || !self.sentinel_password.is_empty(),
            "sentinel_password",
            "is missing: a user without a password cannot sign in",
        );
        for (key, file) in tls_files {
            rule(
                parts.tls || file.is_none(),
                key,
                "does nothing without TLS: `redis.url` must begin with rediss",
            );
        }
        rule(
            self.cert_file.is_none() || self.key_file.is_some(),
            "key_file",
            "is missing: `redis.cert_file` needs its key",
        );
        rule(
            self.key_file.is_none() || self.cert_file.is_some(),
            "cert_file",
            "is missing: `redis.key_file` needs its certificate",
        );
        if faults.is_empty() && parts.tls {
            faults.extend(tls::client(&self.tls_files()).err());
        }
        faults
    }

    pub(super) fn tls_files(&self) -> TlsFiles<'_> {
        TlsFiles {
            section: "redis",
            ca: self.ca_file.as_deref(),
            certificate: self.cert_file.as_deref(),
            key: self.key_file.as_deref(),
        }
    }

    /// Who signs in to the servers.
    pub(super) fn login(&self, parts: &Parts) -> Login {
        let password = match parts.user.password.is_empty() {
            true => &self.password,
            false => &parts.user.password,
        };
        Login {
            username: parts.user.name.clone().or_else(|| self.username.clone()),
            password: password.clone(),
        }
    }

    /// Who signs in to the sentinels.
    pub(super) fn sentinel_login(&self) -> Login {
        Login {
            username: self.sentinel_username.clone(),
            password: self.sentinel_password.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_contradicts_or_does_nothing_is_told_by_its_key() {
        let table = [
            (json!({}), ""),
            (json!({"url": "redis://u:p@a"}), ""),
            (json!({"url": "redis://u@a", "password": "p"}), ""),
            (json!({"username": "u", "password": "p"}), ""),
            (
                json!({"url": "redis-sentinel://a/m", "sentinel_password": "p"}),
                "",
            ),
            (json!({"url": "redis://a/1"}), "url"),
            (json!({"url": "redis://:p@a", "password": "q"}), "password"),
            (json!({"url": "redis://u:p@a", "username": "v"}), "username"),
            (json!({"username": "u"}), "password"),
            (json!({"password": "[redacted]"}), "password"),
            (json!({"url": "redis://:[redacted]@a"}), "url"),
            (
                json!({"sentinel_username": "u"}),
                "sentinel_username sentinel_password",
            ),
            (json!({"sentinel_password": "p"}), "sentinel_password"),
            (json!({"ca_file": "ca.pem"}), "ca_file"),
            (json!({"url": "rediss://a", "cert_file": "c.pem"}), "key_file"),
            (json!({"url": "rediss://a", "key_file": "k.pem"}), "cert_file"),
            (json!({"url": "rediss://a", "ca_file": "nowhere.pem"}), "ca_file"),
        ];
        for (written, keys) in table {
            let config: RedisConfig = serde_json::from_value(written.clone()).expect("fits");
            let found: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
            assert_eq!(found.join(" "), keys, "{written}");
        }
    }
}
