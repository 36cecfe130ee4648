//! What `fanwire app` changes: apps made, switched on and off, and given new keys. Servers see it when they read the
//! app again.

use jiff::Timestamp;
use sqlx::Connection;

use super::connect::on_connection;
use super::sql::SqlStore;
use crate::app::{AppName, AppRecord, AppStore, KeyRecord, StoreError};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The id or the key is another app's, or this one's already.
    #[error(
        "there is an app with this id or key already: choose another one, or leave it out to have one made up"
    )]
    Taken,
    /// There is no such app.
    #[error("there is no app with the id {0:?} in the store: `fanwire app list` shows all")]
    NoSuchApp(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One line of the list of apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id.
    pub id: String,
    /// A name for humans.
    pub name: Option<String>,
    /// Whether it may be used.
    pub enabled: bool,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

/// What became of an app's keys.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The keys that were there and now have an end.
    pub ending: Vec<String>,
}

/// Apps read at once for a list.
const PAGE: i64 = 1_000;

impl SqlStore {
    /// Puts in a new app with its keys.
    ///
    /// # Errors
    /// [`EditError::Taken`], or the store.
    pub async fn create(&self, app: &AppRecord, now: Timestamp) -> Result<(), EditError> {
        self.check().await?;
        let now = second(now);
        let into_apps = self.database.sql(
            "INSERT INTO apps (id, name, enabled, settings, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let done = on_connection!(self.database, |connection| {
            let mut transaction = connection.begin().await?;
            let query = sqlx::query(into_apps)
                .bind(&app.id)
                .bind(&app.name)
                .bind(app.enabled)
                .bind(&app.settings)
                .bind(&now)
                .bind(&now);
            let mut done = query.execute(&mut *transaction).await.map(drop);
            for key in &app.keys {
                if done.is_ok() {
                    let query = sqlx::query(self.database.sql(INTO_KEYS))
                        .bind(&key.key)
                        .bind(&app.id)
                        .bind(key.secret.expose())
                        .bind(&key.active_from)
                        .bind(&key.expires_at)
                        .bind(&now);
                    done = query.execute(&mut *transaction).await.map(drop);
                }
            }
            match done {
                Ok(()) => transaction.commit().await.map(Ok),
                Err(error) if is_taken(&error) => Ok(Err(EditError::Taken)),
                Err(error) => Err(error),
            }
        });
        done?
    }

    /// The app with this id, secrets and all.
    ///
    /// # Errors
    /// [`EditError::NoSuchApp`], or the store.
    pub async fn app(&self, id: &str) -> Result<AppRecord, EditError> {
        let records = self.find(vec![AppName::Id(id.into())]).await?;
        let record = records.into_iter().find(|record| record.id == id);
        record.ok_or_else(|| EditError::NoSuchApp(id.into()))
    }

    /// All apps, by their ids.
    ///
    /// # Errors
    /// The store.
    pub async fn list(&self) -> Result<Vec<Listed>, StoreError> {
        self.check().await?;
        let mut listed: Vec<Listed> = Vec::new();
        loop {
            let after = listed.last().map_or("", |last| last.id.as_str()).to_owned();
            let sql = self
                .database
                .sql("SELECT id, name, enabled, created_at FROM apps WHERE id > $1 ORDER BY id LIMIT $2");
            let rows: Vec<(String, Option<String>, bool, String)> =
                on_connection!(self.database, |connection| {
                    let query = sqlx::query_as(sql).bind(&after).bind(PAGE);
                    query.fetch_all(connection).await
                })?;
            let is_last = (rows.len() as i64) < PAGE;
            listed.extend(rows.into_iter().map(|(id, name, enabled, created_at)| Listed {
                id,
                name,
                enabled,
                created_at,
            }));
            if is_last {
                return Ok(listed);
            }
        }
    }

    /// Switches an app on or off.
    ///
    /// # Errors
    /// [`EditError::NoSuchApp`], or the store.
    pub async fn set_enabled(&self, id: &str, enabled: bool, now: Timestamp) -> Result<(), EditError> {
        self.check().await?;
        let sql = self
            .database
            .sql("UPDATE apps SET enabled = $1, updated_at = $2 WHERE id = $3");
        let changed = on_connection!(self.database, |connection| {
            let query = sqlx::query(sql).bind(enabled).bind(second(now)).bind(id);
            query.execute(connection).await.map(|done| done.rows_affected())
        })?;
        match changed {
            0 => Err(EditError::NoSuchApp(id.into())),
            _ => Ok(()),
        }
    }

    /// Gives an app a further key, and its other ones an end, unless they have an earlier one.
    ///
    /// # Errors
    /// [`EditError::NoSuchApp`], [`EditError::Taken`], or the store.
    pub async fn rotate_key(
        &self,
        id: &str,
        new: &KeyRecord,
        end: Timestamp,
        now: Timestamp,
    ) -> Result<Rotated, EditError> {
        let app = self.app(id).await?;
        let lives_on = |key: &&KeyRecord| {
            let ends = key
                .expires_at
                .as_ref()
                .and_then(|text| text.parse::<Timestamp>().ok());
            ends.is_none_or(|ends| ends > end)
        };
        let ending: Vec<String> = app
            .keys
            .iter()
            .filter(lives_on)
            .map(|key| key.key.clone())
            .collect();
        let (now, until) = (second(now), second(end));
        let touch = self.database.sql("UPDATE apps SET updated_at = $1 WHERE id = $2");
        let done: Result<_, StoreError> = on_connection!(self.database, |connection| {
            let mut transaction = connection.begin().await?;
            sqlx::query(touch)
                .bind(&now)
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            for key in &ending {
                let sql = "UPDATE app_keys SET expires_at = $1 WHERE app_key = $2 AND app_id = $3";
                let query = sqlx::query(self.database.sql(sql))
                    .bind(&until)
                    .bind(key)
                    .bind(id);
                query.execute(&mut *transaction).await?;
            }
            let query = sqlx::query(self.database.sql(INTO_KEYS))
                .bind(&new.key)
                .bind(id)
                .bind(new.secret.expose())
                .bind(&new.active_from)
                .bind(&new.expires_at)
                .bind(&now);
            match query.execute(&mut *transaction).await {
                Ok(_) => transaction.commit().await.map(Ok),
                Err(error) if is_taken(&error) => Ok(Err(EditError::Taken)),
                Err(error) => Err(error),
            }
        });
        done??;
        Ok(Rotated { ending })
    }
}

const INTO_KEYS: &str = "INSERT INTO app_keys (app_key, app_id, secret, active_from, expires_at, created_at) \
                         VALUES ($1, $2, $3, $4, $5, $6)";

fn is_taken(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation())
}

/// A time as it stands in the tables.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
