//! Which database the apps are in, and how long its answers count.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::url::{Parts, StoreUrl};
use crate::secret::{REDACTED, Secret};

/// Apps in a SQL database, beside those of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where the database is, and by its scheme of which kind: `postgres://user@host:5432/fanwire`,
    /// `mysql://user@host:3306/fanwire` (MariaDB too), `sqlite:///var/lib/fanwire/fanwire.db`. Empty: there is no store,
    /// and only the apps of the configuration are served. TLS and sockets by options behind `?`: `sslmode`,
    /// `sslrootcert`, `sslcert`, `sslkey`, `host` for PostgreSQL, `ssl-mode`, `ssl-ca`, `ssl-cert`, `ssl-key`, `socket`
    /// for MySQL. Shown without its password.
    pub url: StoreUrl,
    /// The password, if `url` holds none. Never printed.
    pub password: Secret,
    /// A file that holds the password, in place of `password`. One line end after it is cut off.
    pub password_file: Option<PathBuf>,
    /// Connections to the database at once.
    #[schemars(range(min = 1, max = 1_000))]
    pub connections_max: u32,
    /// Time for an answer of the database, and for who waits for an app that is not known yet: a socket is closed with
    /// 4100 then, so that the client tries again, and a call is answered 503.
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
    /// How often the apps in use are read again: so soon a change in the database takes effect. With very many apps in
    /// use it takes longer; 10,000 are read in a second.
    #[schemars(range(min = 1, max = 3_600))]
    pub refresh_s: u32,
    /// Time that an app without sockets is remembered after it was last asked for.
    #[schemars(range(min = 1, max = 604_800))]
    pub ttl_s: u32,
    /// Time that a key or id which no app has is remembered: so soon an app that is added is found, if somebody asked
    /// for it before.
    #[schemars(range(min = 1, max = 3_600))]
    pub negative_ttl_s: u32,
    /// Apps without sockets that are remembered at once; those that were not asked for the longest give way.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub apps_max: usize,
    /// Keys and ids that no app has that are remembered at once. They have a bound of their own: whoever makes up keys
    /// drives out no app.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub unknown_max: usize,
    /// Bring the tables up to date when the server starts, as `fanwire migrate` does. Leave it off where several nodes
    /// of different versions share a database.
    pub migrate_on_start: bool,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            url: StoreUrl::default(),
            password: Secret::default(),
            password_file: None,
            connections_max: 4,
            timeout_ms: 2_000,
            refresh_s: 5,
            ttl_s: 600,
            negative_ttl_s: 5,
            apps_max: 100_000,
            unknown_max: 10_000,
            migrate_on_start: false,
        }
    }
}

impl StoreConfig {
    /// Whether there is a store.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// Everything that is wrong with the section: a key, and what to do about it, for a person.
    ///
    /// A `password_file` is read by whoever loads the configuration.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut rule = |holds: bool, key, text: &str| {
            if !holds {
                faults.push((key, text.to_owned()));
            }
        };
        if !self.is_on() {
            let without = "does nothing without `store.url`";
            rule(self.password.is_empty(), "password", without);
            rule(self.password_file.is_none(), "password_file", without);
            rule(!self.migrate_on_start, "migrate_on_start", without);
            return faults;
        }
        let parts = match self.url.parts() {
            Ok(parts) => parts,
            Err(text) => return vec![("url", text)],
        };
        rule(
            parts.user.password.is_empty() || self.password.is_empty(),
            "password",
            "stands beside the one in `store.url`: only one of them can be meant",
        );
        rule(
            !parts.is_file() || self.password.is_empty(),
            "password",
            "does nothing: a file of SQLite has none",
        );
        for (key, secret) in [("url", &parts.user.password), ("password", &self.password)] {
            rule(
                secret.expose() != REDACTED,
                key,
                "is what stands in place of a secret in printed configurations, not the secret",
            );
        }
        if let Err((key, text)) = super::connect::options(self, &parts) {
            rule(false, key, &text);
        }
        faults
    }

    /// The password, wherever it was written.
    pub(super) fn password_of<'a>(&'a self, parts: &'a Parts) -> &'a Secret {
        match parts.user.password.is_empty() {
            true => &self.password,
            false => &parts.user.password,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_contradicts_or_does_nothing_is_told_by_its_key() {
        for (written, keys) in [
            (json!({}), ""),
            (json!({"url": "sqlite:a.db", "migrate_on_start": true}), ""),
            (json!({"url": "postgres://u:p@a/d"}), ""),
            (
                json!({"url": "mysql://u@a/d?ssl-mode=REQUIRED", "password": "p"}),
                "",
            ),
            (json!({"url": "mysql://a"}), "url"),
            (json!({"url": "postgres://a/d?sslmode=perhaps"}), "url"),
            (json!({"password": "p"}), "password"),
            (json!({"migrate_on_start": true}), "migrate_on_start"),
            (json!({"url": "postgres://u:p@a/d", "password": "q"}), "password"),
            (json!({"url": "sqlite:a.db", "password": "q"}), "password"),
            (
                json!({"url": "postgres://u@a/d", "password": "[redacted]"}),
                "password",
            ),
            (json!({"url": "postgres://u:[redacted]@a/d"}), "url"),
        ] {
            let config: StoreConfig = serde_json::from_value(written.clone()).expect("fits");
            let found: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
            assert_eq!(found.join(" "), keys, "{written}");
        }
    }

    #[test]
    fn the_password_is_never_printed() {
        let written = json!({"url": "postgres://u:hunter2@a/d", "password": "hunter2"});
        let config: StoreConfig = serde_json::from_value(written).expect("fits");
        let printed = format!(
            "{config:?} {}",
            serde_json::to_string(&config).expect("serialises")
        );
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
