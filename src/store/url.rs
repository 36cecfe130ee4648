//! The one address that says which database the apps are in: read strictly, shown without its password.

use serde::Deserialize;

use crate::secret::REDACTED;
use crate::secret::url::{Userinfo, decoded, host_and_port, shown_as_text};

/// Where the database is: `postgres://`, `mysql://` or `sqlite:`; empty for none. Never shows its password.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StoreUrl(String);

shown_as_text!(StoreUrl);

/// The kind of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 12 or later.
    Postgres,
    /// MariaDB 10.5 or MySQL 8.0.13 or later.
    MySql,
    /// SQLite, built in.
    Sqlite,
}

impl Dialect {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Postgres => "postgres",
            Dialect::MySql => "mysql",
            Dialect::Sqlite => "sqlite",
        }
    }

    /// The options that may stand behind `?`.
    fn options(self) -> &'static [&'static str] {
        match self {
            Dialect::Postgres => &["sslmode", "sslrootcert", "sslcert", "sslkey", "host"],
            Dialect::MySql => &["ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket"],
            Dialect::Sqlite => &[],
        }
    }
}

/// What a [`StoreUrl`] says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) dialect: Dialect,
    pub(super) user: Userinfo,
    /// Empty with a socket of the file system, and for SQLite.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// The name of the database, or the file of SQLite.
    pub(super) database: String,
    /// By the names that the database's own tools have for them.
    pub(super) options: Vec<(&'static str, String)>,
}

impl Parts {
    /// Whether it is a file and no server.
    pub(super) fn is_file(&self) -> bool {
        self.dialect == Dialect::Sqlite
    }

    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter();
        options
            .find(|(option, _)| *option == name)
            .map(|(_, value)| value.as_str())
    }
}

impl StoreUrl {
    /// Wraps an address, right or wrong.
    pub fn new(text: &str) -> StoreUrl {
        StoreUrl(text.to_owned())
    }

    /// Whether no store is meant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it says. The error is for a person, and holds nothing of what was written but what is wrong.
    pub(super) fn parts(&self) -> Result<Parts, String> {
        let unknown = "must begin with postgres://, mysql:// or sqlite:";
        let (scheme, rest) = self.0.split_once(':').ok_or(unknown)?;
        let dialect = match scheme {
            "postgres" | "postgresql" => Dialect::Postgres,
            "mysql" | "mariadb" => Dialect::MySql,
            "sqlite" => return file(rest.strip_prefix("//").unwrap_or(rest)),
            _ => return Err(unknown.into()),
        };
        let rest = rest.strip_prefix("//").ok_or(unknown)?;
        let (user, rest) = Userinfo::split(rest)?;
        let (rest, options) = match rest.split_once('?') {
            Some((rest, options)) => (rest, read_options(dialect, options)?),
            None => (rest, Vec::new()),
        };
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        if database.is_empty() || database.contains(['/', '#']) {
            return Err(
                "must end with the name of the database, as in postgres://user@host:5432/fanwire".into(),
            );
        }
        let (host, port) = host_and_port(host)?;
        let has_socket = options.iter().any(|(name, _)| matches!(*name, "host" | "socket"));
        if host.is_empty() && !has_socket {
            return Err("names no host".into());
        }
        Ok(Parts {
            dialect,
            user,
            host,
            port,
            database: decoded(database)?,
            options,
        })
    }

    /// The text with its password left out; nothing of it where the password cannot be told from the rest.
    pub fn shown(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        match self.parts() {
            Ok(parts) => parts.user.hide_password(&self.0),
            Err(_) => REDACTED.to_owned(),
        }
    }
}

/// The file of SQLite: the path as it is, absolute or from the directory that the server is started in.
fn file(path: &str) -> Result<Parts, String> {
    if path.is_empty() {
        return Err("names no file: write sqlite:fanwire.db or sqlite:///var/lib/fanwire/fanwire.db".into());
    }
    if path.contains(['?', '#', '%']) {
        return Err("takes no options: behind sqlite: stands the path of a file, without ? # %".into());
    }
    if path.contains(":memory:") {
        return Err("names a database in memory, which would be empty at each start: name a file".into());
    }
    Ok(Parts {
        dialect: Dialect::Sqlite,
        user: Userinfo::default(),
        host: String::new(),
        port: None,
        database: path.to_owned(),
        options: Vec::new(),
    })
}

fn read_options(dialect: Dialect, text: &str) -> Result<Vec<(&'static str, String)>, String> {
    let known = dialect.options();
    let unknown = || format!("has an option that is not one of {}", known.join(", "));
    let option = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or_else(unknown)?;
        let name = known.iter().find(|known| **known == name).ok_or_else(unknown)?;
        Ok((*name, decoded(value)?))
    };
    text.split('&').map(option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<Parts, String> {
        StoreUrl::new(url).parts()
    }

    #[test]
    fn every_kind_of_database_has_its_scheme() {
        let (postgres, mysql, sqlite) = (Dialect::Postgres, Dialect::MySql, Dialect::Sqlite);
        for (url, dialect, host, port, database) in [
            ("postgres://a/b", postgres, "a", None, "b"),
            ("postgresql://u@a:1/b%20c", postgres, "a", Some(1), "b c"),
            (
                "postgres://[::1]:5432/b?sslmode=require",
                postgres,
                "::1",
                Some(5432),
                "b",
            ),
            ("postgres:///b?host=%2Frun%2Fpostgresql", postgres, "", None, "b"),
            ("mysql://a:3306/b", mysql, "a", Some(3306), "b"),
            ("mariadb:///b?socket=/run/mysqld.sock", mysql, "", None, "b"),
            ("sqlite:apps.db", sqlite, "", None, "apps.db"),
            ("sqlite://apps.db", sqlite, "", None, "apps.db"),
            ("sqlite:///var/lib/apps.db", sqlite, "", None, "/var/lib/apps.db"),
            (
                "sqlite:/var/lib/apps@x.db",
                sqlite,
                "",
                None,
                "/var/lib/apps@x.db",
            ),
        ] {
            let parts = parts(url).expect(url);
            let found = (
                parts.dialect,
                parts.host.as_str(),
                parts.port,
                parts.database.as_str(),
            );
            assert_eq!(found, (dialect, host, port, database), "{url}");
        }
    }

    #[test]
    fn a_password_may_hold_anything() {
        for (url, name, password) in [
            ("postgres://u:p@a/d", Some("u"), "p"),
            ("mysql://:p@a/d", None, "p"),
            ("mysql://u@a/d", Some("u"), ""),
            ("postgres://u:p%40%2f@a/d", Some("u"), "p@/"),
            ("postgres://:p@q/r?s:t@a/d", None, "p@q/r?s:t"),
        ] {
            let parts = parts(url).expect(url);
            assert_eq!(parts.user.name.as_deref(), name, "{url}");
            assert_eq!(parts.user.password.expose(), password, "{url}");
            assert_eq!(
                (parts.host.as_str(), parts.database.as_str()),
                ("a", "d"),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for (url, what) in [
            ("hunter2", "must begin with postgres://"),
            ("redis://:hunter2@a/b", "must begin with postgres://"),
            ("postgres:hunter2@a/b", "must begin with postgres://"),
            ("postgres://:hunter2@a", "name of the database"),
            ("postgres://:hunter2@a/b/c", "name of the database"),
            ("mysql://:hunter2@/b", "no host"),
            ("mysql://:hunter2@a:b/c", "port"),
            ("mysql://:hunter2@a:0/c", "port"),
            ("mysql://:hunter2@[::1/c", "`]`"),
            ("mysql://:hunter2@a/b?password=x", "not one of ssl-mode"),
            ("postgres://u@a/b?password=hunter2", "not one of sslmode"),
            ("postgres://:hunter2%ff@a/b", "UTF-8"),
            ("sqlite:", "no file"),
            ("sqlite::memory:", "in memory"),
            ("sqlite:a?mode=hunter2", "no options"),
        ] {
            let error = parts(url).expect_err(url);
            assert!(error.contains(what), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
            assert_eq!(format!("{:?}", StoreUrl::new(url)), REDACTED);
        }
    }

    #[test]
    fn it_is_shown_without_its_password() {
        for (url, shown) in [
            ("", ""),
            ("sqlite:apps.db", "sqlite:apps.db"),
            ("postgres://user@a/d", "postgres://user@a/d"),
            (
                "postgres://user:hunter2@a:1/d",
                "postgres://user:[redacted]@a:1/d",
            ),
            (
                "mysql://:hunt@er2@a/d?ssl-mode=REQUIRED",
                "mysql://:[redacted]@a/d?ssl-mode=REQUIRED",
            ),
        ] {
            let url = StoreUrl::new(url);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(serde_json::to_value(&url).expect("serialises"), shown);
        }
    }
}
