//! The store: which apps there are, asked by id or key.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use jiff::civil::Date;

use super::config::StoreConfig;
use super::connect::{Database, on_connection};
use super::schema::{self, SchemaState};
use super::usage;
use crate::app::{AppName, AppRecord, AppStore, KeyRecord, NAMES_MAX, StoreError, UsageBatch, UsageDay};
use crate::secret::Secret;

/// Apps in a database.
#[derive(Debug)]
pub struct SqlStore {
    pub(super) database: Database,
    /// Whether the tables were seen to be those that are expected. They do not become older again.
    is_checked: AtomicBool,
}

/// One row of apps with one of their keys: id, name, enabled, settings, key, secret, active from, expires at.
type Row = (
    String,
    Option<String>,
    bool,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

const COLUMNS: &str = "SELECT a.id, a.name, a.enabled, a.settings, k.app_key, k.secret, k.active_from, k.expires_at \
                       FROM apps a LEFT JOIN app_keys k ON k.app_id = a.id";
const ORDER: &str = "ORDER BY a.id, k.created_at, k.app_key";

impl SqlStore {
    /// The store that the section names. Connects to nothing yet.
    ///
    /// # Errors
    /// The key of the section that is wrong, and what is wrong about it.
    pub fn open(config: &StoreConfig) -> Result<SqlStore, (&'static str, String)> {
        Ok(SqlStore {
            database: Database::open(config)?,
            is_checked: AtomicBool::new(false),
        })
    }

    /// Brings the tables up to date, and says in which state they were. Safe while servers work with them.
    ///
    /// # Errors
    /// The database does not answer, or its tables are none that can be brought up to date.
    pub async fn migrate(config: &StoreConfig) -> Result<SchemaState, StoreError> {
        schema::migrate(config).await
    }

    /// What tables there are.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn schema(&self) -> Result<SchemaState, StoreError> {
        schema::state(&self.database).await
    }

    /// Ends all connections. Nothing can be asked any more.
    pub async fn close(&self) {
        self.database.close().await;
    }

    async fn checked(&self) -> Result<(), StoreError> {
        if !self.is_checked.load(Ordering::Relaxed) {
            self.schema().await?.usable()?;
            self.is_checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn found(&self, names: Vec<AppName>) -> Result<Vec<AppRecord>, StoreError> {
        self.checked().await?;
        let (mut ids, mut keys) = (Vec::new(), Vec::new());
        for name in names.iter().filter(|name| name.is_possible()) {
            match name {
                AppName::Id(id) => ids.push(&**id),
                AppName::Key(key) => keys.push(&**key),
            }
        }
        let mut records = self.records("a.id IN (", ids, ")").await?;
        let by_key = self
            .records(
                "a.id IN (SELECT app_id FROM app_keys WHERE app_key IN (",
                keys,
                "))",
            )
            .await?;
        for record in by_key {
            if records.iter().all(|known| known.id != record.id) {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// The apps of which one of these values is what `before` and `after` say.
    async fn records(
        &self,
        before: &str,
        mut values: Vec<&str>,
        after: &str,
    ) -> Result<Vec<AppRecord>, StoreError> {
        let Some(last) = values.last().copied() else {
            return Ok(Vec::new());
        };
        // Few different statements, so that the database prepares each of them once.
        let places = [1, 10, NAMES_MAX]
            .into_iter()
            .find(|places| values.len() <= *places);
        values.resize(places.unwrap_or(values.len()), last);
        let places: Vec<_> = (1..=values.len()).map(|place| format!("${place}")).collect();
        let sql = format!("{COLUMNS} WHERE {before}{}{after} {ORDER}", places.join(", "));
        let sql = self.database.sql(&sql);
        let rows: Vec<Row> = on_connection!(self.database, |connection| {
            let mut query = sqlx::query_as(sql);
            for value in &values {
                query = query.bind(*value);
            }
            query.fetch_all(connection).await
        })?;
        Ok(gathered(rows))
    }
}

/// The rows of each app as one.
fn gathered(rows: Vec<Row>) -> Vec<AppRecord> {
    let mut records: Vec<AppRecord> = Vec::new();
    for (id, name, enabled, settings, key, secret, active_from, expires_at) in rows {
        if records.last().is_none_or(|last| last.id != id) {
            records.push(AppRecord {
                id,
                name,
                enabled,
                settings,
                keys: Vec::new(),
            });
        }
        if let (Some(record), Some(key), Some(secret)) = (records.last_mut(), key, secret) {
            record.keys.push(KeyRecord {
                key,
                secret: Secret::new(&secret),
                active_from,
                expires_at,
            });
        }
    }
    records
}

impl AppStore for SqlStore {
    fn find(&self, names: Vec<AppName>) -> BoxFuture<'_, Result<Vec<AppRecord>, StoreError>> {
        Box::pin(self.found(names))
    }

    fn add_usage<'a>(&'a self, batch: &'a UsageBatch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.checked().await?;
            usage::add(&self.database, batch).await
        })
    }

    fn usage<'a>(&'a self, app_id: &'a str, days: u32) -> BoxFuture<'a, Result<Vec<UsageDay>, StoreError>> {
        Box::pin(async move {
            self.checked().await?;
            usage::read(&self.database, app_id, days).await
        })
    }

    fn messages<'a>(
        &'a self,
        day: Date,
        app_ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, StoreError>> {
        Box::pin(async move {
            self.checked().await?;
            usage::messages(&self.database, day, app_ids).await
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.schema().await?.usable() })
    }

    fn kind(&self) -> &'static str {
        self.database.dialect.as_str()
    }
}
