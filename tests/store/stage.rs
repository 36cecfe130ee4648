//! A database of a case's own, what is written into it by hand, and servers whose apps are in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fanwire::app::{AppConfig, AppRecord, KeyRecord, Secret};
use fanwire::config::Config;
use fanwire::server::Server;
use fanwire::store::{SqlStore, StoreConfig, StoreUrl};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::engine::{self, Engine, Kind};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::server::{self, SECRET, TestServer};

/// A database.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    _directory: TempDir,
}

impl Place {
    /// One with nothing in it.
    pub(crate) async fn empty(kind: Kind) -> Place {
        match kind {
            Kind::Sqlite => {
                let directory = TempDir::new().expect("a temporary directory");
                let url = format!("sqlite://{}/apps.db", directory.path().display());
                Place {
                    kind,
                    url,
                    _directory: directory,
                }
            }
            _ => {
                // Started where waiting does no harm.
                let engine = tokio::task::spawn_blocking(move || engine::shared(kind)).await;
                Place::at(engine.expect("a server that starts"), kind).await
            }
        }
    }

    /// One with nothing in it, at this server.
    pub(crate) async fn at(engine: &Engine, kind: Kind) -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("case_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let maintenance = if kind == Kind::Postgres {
            "postgres"
        } else {
            "mysql"
        };
        execute(kind, &engine.url(maintenance), &format!("CREATE DATABASE {name}")).await;
        Place {
            kind,
            url: engine.url(&name),
            _directory: TempDir::new().expect("a temporary directory"),
        }
    }

    /// One with tables.
    pub(crate) async fn new(kind: Kind) -> Place {
        let place = Place::empty(kind).await;
        SqlStore::migrate(&place.section())
            .await
            .expect("tables are made");
        place
    }

    /// The section of the configuration that leads here.
    pub(crate) fn section(&self) -> StoreConfig {
        StoreConfig {
            url: StoreUrl::new(&self.url),
            refresh_s: 1,
            negative_ttl_s: 1,
            ..StoreConfig::default()
        }
    }

    /// The store, as the commands have it.
    pub(crate) fn store(&self) -> SqlStore {
        SqlStore::open(&self.section()).expect("a sound section")
    }

    /// The configuration of a server whose apps are here.
    pub(crate) fn config(&self) -> Config {
        Config {
            store: self.section(),
            ..server::config([])
        }
    }

    pub(crate) async fn serve(&self) -> Served {
        Served::start(self.config()).await
    }

    /// What somebody does by hand.
    pub(crate) async fn by_hand(&self, sql: &str) {
        execute(self.kind, &self.url, sql).await;
    }

    /// Puts in an app whose key is `key-ID`, as `fanwire app create` does.
    pub(crate) async fn put(&self, id: &str, settings: &str) -> AppConfig {
        let record = record(id, settings);
        self.store()
            .create(&record, Timestamp::now())
            .await
            .unwrap_or_else(|error| panic!("app {id}: {error}"));
        app(id)
    }
}

/// An app as it is written in a store.
pub(crate) fn record(id: &str, settings: &str) -> AppRecord {
    AppRecord {
        id: id.to_owned(),
        name: None,
        enabled: true,
        settings: settings.to_owned(),
        keys: vec![KeyRecord {
            key: format!("key-{id}"),
            secret: Secret::new(SECRET),
            active_from: None,
            expires_at: None,
        }],
    }
}

/// The app as its clients and its back end know it.
pub(crate) fn app(id: &str) -> AppConfig {
    AppConfig {
        id: id.to_owned(),
        key: format!("key-{id}"),
        secret: Secret::new(SECRET),
        ..AppConfig::default()
    }
}

async fn execute(kind: Kind, url: &str, sql: &str) {
    let url = url.replace(engine::PASSWORD, "p%40ss%3Aw%2Frd");
    let sql = AssertSqlSafe(sql.to_owned());
    let done = match kind {
        Kind::Postgres => {
            let mut connection = PgConnection::connect(&url).await.expect("a connection");
            sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
        }
        Kind::MariaDb => {
            let mut connection = MySqlConnection::connect(&url).await.expect("a connection");
            sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
        }
        Kind::Sqlite => {
            let mut connection = SqliteConnection::connect(&url).await.expect("a connection");
            sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
        }
    };
    done.expect("a sound statement");
}

/// A server whose apps are in a database.
pub(crate) struct Served {
    pub(crate) server: Arc<Server>,
}

impl Served {
    pub(crate) async fn start(config: Config) -> Served {
        let server = Server::start(config)
            .await
            .expect("a free port and a sound store");
        Served {
            server: Arc::new(server),
        }
    }

    /// As this app knows it.
    pub(crate) fn of(&self, app: &AppConfig) -> TestServer {
        TestServer::serving(self.server.clone(), app.clone())
    }

    /// With the metrics of the node.
    pub(crate) fn node(&self) -> TestServer {
        self.of(&app("none"))
    }

    /// With which code a socket is refused, or none if it is greeted.
    pub(crate) async fn refusal(&self, key: &str) -> Option<u16> {
        let mut client = Client::open(self.server.address(), &format!("/app/{key}?protocol=7")).await;
        let first = client.next().await;
        match &first["event"] {
            event if event == "pusher:connection_established" => None,
            event if event == "pusher:error" => {
                let (code, _) = client.expect_close().await;
                assert_eq!(first["data"]["code"], code);
                Some(code)
            }
            _ => panic!("neither greeted nor refused: {first}"),
        }
    }

    /// With which status a call for channels is answered.
    pub(crate) async fn status(&self, app: &AppConfig) -> u16 {
        self.of(app).backend().await.get("/channels").await.status
    }
}

/// Waits until a gauge has come down to a value.
pub(crate) async fn comes_down_to(server: &TestServer, gauge: &str, value: u64) {
    eventually(&format!("{gauge} to come down to {value}"), async || {
        (server.metric(gauge, &[]).await == value).then_some(())
    })
    .await;
}
