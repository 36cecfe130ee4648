//! The pool of connections to a database, of whichever kind, and how one of them is used within a time.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions};

use super::config::StoreConfig;
use super::url::{Dialect, Parts};
use crate::app::StoreError;

/// Connections to one database, made when they are needed.
#[derive(Debug)]
pub(super) enum Pool {
    Postgres(PgPool),
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

/// A database, and how long it may take to answer.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) pool: Pool,
    pub(super) timeout: Duration,
    pub(super) dialect: Dialect,
    /// The file of SQLite.
    pub(super) file: Option<PathBuf>,
}

/// How to connect, as [`options`] made it.
pub(super) enum Options {
    Postgres(PgConnectOptions),
    MySql(MySqlConnectOptions),
    Sqlite(SqliteConnectOptions),
}

impl Database {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// As [`options`].
    pub(super) fn open(config: &StoreConfig) -> Result<Database, (&'static str, String)> {
        let parts = config.url.parts().map_err(|text| ("url", text))?;
        let timeout = Duration::from_millis(config.timeout_ms.into());
        // `acquire_timeout` also bounds the ping of a connection that was idle, so that a frozen server is noticed.
        macro_rules! pool {
            ($options:ident, $connect:expr) => {
                $options::new()
                    .max_connections(config.connections_max)
                    .acquire_timeout(timeout)
                    .connect_lazy_with($connect)
            };
        }
        let pool = match options(config, &parts)? {
            Options::Postgres(connect) => Pool::Postgres(pool!(PgPoolOptions, connect)),
            Options::MySql(connect) => Pool::MySql(pool!(MySqlPoolOptions, connect)),
            Options::Sqlite(connect) => Pool::Sqlite(pool!(SqlitePoolOptions, connect)),
        };
        Ok(Database {
            pool,
            timeout,
            dialect: parts.dialect,
            file: parts.is_file().then(|| PathBuf::from(&parts.database)),
        })
    }

    /// Ends all connections, in good order.
    pub(super) async fn close(&self) {
        match &self.pool {
            Pool::Postgres(pool) => pool.close().await,
            Pool::MySql(pool) => pool.close().await,
            Pool::Sqlite(pool) => pool.close().await,
        }
    }

    /// A statement in the words of this database. They are written with `$1`, `$2` … in their order, each once, which
    /// PostgreSQL and SQLite read; MySQL has `?` for all of them. Never made of anything that somebody sent.
    pub(super) fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        if self.dialect != Dialect::MySql {
            return AssertSqlSafe(text.to_owned());
        }
        let mut parts = text.split('$');
        let mut sql = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            sql.push('?');
            sql.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        AssertSqlSafe(sql)
    }
}

/// How to connect to what the URL names.
///
/// # Errors
/// A key of the section and what is wrong about it, for a person.
pub(super) fn options(config: &StoreConfig, parts: &Parts) -> Result<Options, (&'static str, String)> {
    let password = config.password_of(parts).expose();
    Ok(match parts.dialect {
        Dialect::Postgres => {
            let mut connect = PgConnectOptions::new_without_pgpass()
                .host(&parts.host)
                .port(parts.port.unwrap_or(5432))
                .database(&parts.database)
                .application_name("fanwire")
                .disable_statement_logging();
            if let Some(username) = &parts.user.name {
                connect = connect.username(username);
            }
            if !password.is_empty() {
                connect = connect.password(password);
            }
            if let Some(folder) = parts.option("host") {
                connect = connect.socket(folder);
            }
            if let Some(mode) = parts.option("sslmode") {
                connect = connect.ssl_mode(mode_named(mode, "sslmode", PgSslMode::from_str)?);
            }
            if let Some(file) = parts.option("sslrootcert") {
                connect = connect.ssl_root_cert(file);
            }
            if let Some(file) = parts.option("sslcert") {
                connect = connect.ssl_client_cert(file);
            }
            if let Some(file) = parts.option("sslkey") {
                connect = connect.ssl_client_key(file);
            }
            Options::Postgres(connect)
        }
        Dialect::MySql => {
            let mut connect = MySqlConnectOptions::new()
                .host(&parts.host)
                .port(parts.port.unwrap_or(3306))
                .database(&parts.database)
                .disable_statement_logging();
            if let Some(username) = &parts.user.name {
                connect = connect.username(username);
            }
            if !password.is_empty() {
                connect = connect.password(password);
            }
            if let Some(socket) = parts.option("socket") {
                connect = connect.socket(socket);
            }
            if let Some(mode) = parts.option("ssl-mode") {
                connect = connect.ssl_mode(mode_named(mode, "ssl-mode", MySqlSslMode::from_str)?);
            }
            if let Some(file) = parts.option("ssl-ca") {
                connect = connect.ssl_ca(file);
            }
            if let Some(file) = parts.option("ssl-cert") {
                connect = connect.ssl_client_cert(file);
            }
            if let Some(file) = parts.option("ssl-key") {
                connect = connect.ssl_client_key(file);
            }
            Options::MySql(connect)
        }
        // A file that is not there is made by `migrate` only: an empty one in the wrong place would be no help. With a
        // write-ahead log, who reads does not wait for who writes.
        Dialect::Sqlite => Options::Sqlite(
            SqliteConnectOptions::new()
                .filename(&parts.database)
                .journal_mode(SqliteJournalMode::Wal)
                .busy_timeout(Duration::from_millis(config.timeout_ms.into()))
                .foreign_keys(true)
                .disable_statement_logging(),
        ),
    })
}

fn mode_named<M, E>(
    mode: &str,
    option: &str,
    read: impl Fn(&str) -> Result<M, E>,
) -> Result<M, (&'static str, String)> {
    read(mode).map_err(|_| {
        let among = match option {
            "sslmode" => "disable, allow, prefer, require, verify-ca, verify-full",
            _ => "DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY",
        };
        (
            "url",
            format!("has a value of `{option}` that is not one of {among}"),
        )
    })
}

/// What a database or the way to it says when something fails. Holds no values but names of apps.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => StoreError::Refused(error.message().to_owned()),
        sqlx::Error::PoolTimedOut => StoreError::Down("no connection in time (`store.timeout_ms`)".into()),
        other => StoreError::Down(other.to_string()),
    }
}

/// Uses one connection, of whichever database: the body is compiled for each of them, with the connection under this
/// name, and ends in a `Result<_, sqlx::Error>`. A connection that does not answer in time is given up, since nobody
/// knows what it will say next.
macro_rules! on_connection {
    ($database:expr, |$connection:ident| $body:expr) => {
        on_connection!($database, $database.timeout, |$connection| $body)
    };
    ($database:expr, $timeout:expr, |$connection:ident| $body:expr) => {{
        macro_rules! one {
            ($pool:ident) => {{
                let mut held = $pool
                    .acquire()
                    .await
                    .map_err($crate::store::connect::failed)?;
                let done = {
                    let $connection = &mut *held;
                    tokio::time::timeout($timeout, async { $body }).await
                };
                match done {
                    Ok(done) => done.map_err($crate::store::connect::failed),
                    Err(_) => {
                        drop(held.detach());
                        Err($crate::app::StoreError::Down(
                            "no answer in time (`store.timeout_ms`)".into(),
                        ))
                    }
                }
            }};
        }
        match &$database.pool {
            $crate::store::connect::Pool::Postgres(pool) => one!(pool),
            $crate::store::connect::Pool::MySql(pool) => one!(pool),
            $crate::store::connect::Pool::Sqlite(pool) => one!(pool),
        }
    }};
}

pub(super) use on_connection;
