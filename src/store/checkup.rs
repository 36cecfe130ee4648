//! What `fanwire doctor` finds out about the store: whether it answers, its version and tables, and what the server may
//! do there. Nothing is left behind: what is tried is taken back.

use sqlx::Connection;

use super::config::StoreConfig;
use super::connect::on_connection;
use super::schema::{SchemaState, VERSION};
use super::sql::SqlStore;
use super::url::Dialect;
use crate::app::{AppName, AppStore, StoreError};
use crate::checkup::Report;

/// Checks the store that the section names.
pub async fn checkup(config: &StoreConfig, report: &mut Report<'_>) {
    if !config.is_on() {
        report.note("store.url is empty: all apps stand in the configuration");
        return;
    }
    let store = match SqlStore::open(config) {
        Ok(store) => store,
        Err((key, text)) => return report.failure(format!("store.{key}: {text}"), ""),
    };
    let schema = store.schema().await;
    match (&schema, config.migrate_on_start) {
        (Ok(SchemaState::Missing), true) | (Ok(SchemaState::Older(_)), true) => {
            report.note("the tables are made or brought up to date when the server starts");
        }
        (Ok(state), _) => match state.usable() {
            Ok(()) => found(&store, config, report).await,
            Err(error) => report.failure(error.to_string(), ""),
        },
        (Err(error), _) => report.failure(
            format!("{}: {error}", config.url.shown()),
            "check `store.url`, the password, and whether the database is up and can be reached from here",
        ),
    }
    store.close().await;
}

async fn found(store: &SqlStore, config: &StoreConfig, report: &mut Report<'_>) {
    match version(store).await {
        Ok(version) => report.good(format!("{} answers: {version}", config.url.shown())),
        Err(error) => report.failure(error.to_string(), ""),
    }
    report.good(format!("the tables are of version {VERSION}"));
    let advice = "grant SELECT on apps, app_keys and _sqlx_migrations, and SELECT, INSERT, UPDATE, DELETE on app_usage and \
                  app_usage_batches";
    match store.find(vec![AppName::Key("fanwire-doctor".into())]).await {
        Ok(_) => report.good("apps can be read"),
        Err(error) => report.failure(format!("apps cannot be read: {error}"), advice),
    }
    match try_to_write(store).await {
        Ok(()) => report.good("usage can be written"),
        Err(error) => report.failure(format!("usage cannot be written: {error}"), advice),
    }
}

async fn version(store: &SqlStore) -> Result<String, StoreError> {
    let sql = match store.database.dialect {
        Dialect::Sqlite => "SELECT 'SQLite ' || sqlite_version()",
        Dialect::Postgres | Dialect::MySql => "SELECT version()",
    };
    let version: String = on_connection!(store.database, |connection| {
        sqlx::query_scalar(sql).fetch_one(connection).await
    })?;
    Ok(match store.database.dialect {
        Dialect::MySql if !version.contains("Maria") => format!("MySQL {version}"),
        // PostgreSQL goes on about its compiler.
        _ => version.split(',').next().unwrap_or_default().to_owned(),
    })
}

async fn try_to_write(store: &SqlStore) -> Result<(), StoreError> {
    on_connection!(store.database, |connection| {
        let mut transaction = connection.begin().await?;
        for sql in [
            "INSERT INTO app_usage (app_id, day) VALUES ('fanwire-doctor', '1970-01-01')",
            "UPDATE app_usage SET messages = 1 WHERE app_id = 'fanwire-doctor'",
            "INSERT INTO app_usage_batches (writer, number) VALUES ('fanwire-doctor', 0)",
            "DELETE FROM app_usage_batches WHERE writer = 'fanwire-doctor'",
        ] {
            sqlx::query(sql).execute(&mut *transaction).await?;
        }
        transaction.rollback().await
    })
}
