//! What apps used, by day.

use std::collections::BTreeMap;

use jiff::civil::Date;
use sqlx::Connection;

use super::connect::{Database, on_connection};
use super::url::Dialect;
use crate::app::{StoreError, UsageBatch, UsageDay};

/// Rows in one statement.
const ROWS_MAX: usize = 100;
const COLUMNS: usize = 7;
/// A batch may be of many apps, and nobody waits for it: it gets more time than a look-up.
const PATIENCE: u32 = 10;

const INSERT: &str = "INSERT INTO app_usage (app_id, day, messages, delivered, bytes_sent, bytes_received, connections_peak) \
     VALUES ";
const ADD: &str = " ON CONFLICT (app_id, day) DO UPDATE SET messages = app_usage.messages + excluded.messages, \
                   delivered = app_usage.delivered + excluded.delivered, \
                   bytes_sent = app_usage.bytes_sent + excluded.bytes_sent, \
                   bytes_received = app_usage.bytes_received + excluded.bytes_received, \
                   connections_peak = CASE WHEN excluded.connections_peak > app_usage.connections_peak \
                   THEN excluded.connections_peak ELSE app_usage.connections_peak END";
const ADD_MYSQL: &str = " ON DUPLICATE KEY UPDATE messages = messages + VALUES(messages), \
                         delivered = delivered + VALUES(delivered), \
                         bytes_sent = bytes_sent + VALUES(bytes_sent), \
                         bytes_received = bytes_received + VALUES(bytes_received), \
                         connections_peak = GREATEST(connections_peak, VALUES(connections_peak))";

/// Notes a batch, unless it was added already. Waits for whoever is adding it at this moment: an attempt that was given
/// up here may go on over there.
const NOTE: &str = "INSERT INTO app_usage_batches (writer, number) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const NOTE_MYSQL: &str = "INSERT IGNORE INTO app_usage_batches (writer, number) VALUES ($1, $2)";

/// Adds to what is there, all or nothing, and once.
pub(super) async fn add(database: &Database, batch: &UsageBatch) -> Result<(), StoreError> {
    // Once each, since a statement may change a row only once; in one order, so that two nodes do not lock crosswise.
    let mut sums: BTreeMap<(&str, Date), UsageDay> = BTreeMap::new();
    for (app_id, used) in &batch.used {
        let sum = sums.entry((app_id, used.day));
        sum.or_insert_with(|| UsageDay::new(used.day)).add(used);
    }
    let rows: Vec<_> = sums.iter().collect();
    let (note, add) = match database.dialect {
        Dialect::MySql => (NOTE_MYSQL, ADD_MYSQL),
        Dialect::Postgres | Dialect::Sqlite => (NOTE, ADD),
    };
    let number = i64::try_from(batch.number).unwrap_or(i64::MAX);
    on_connection!(database, database.timeout * PATIENCE, |connection| {
        let mut transaction = connection.begin().await?;
        let note = sqlx::query(database.sql(note)).bind(&batch.writer).bind(number);
        if note.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(());
        }
        let earlier = "DELETE FROM app_usage_batches WHERE writer = $1 AND number < $2";
        let forget = sqlx::query(database.sql(earlier))
            .bind(&batch.writer)
            .bind(number);
        forget.execute(&mut *transaction).await?;
        for rows in rows.chunks(ROWS_MAX) {
            let places = |row| {
                (1..=COLUMNS)
                    .map(move |place| format!("${}", row * COLUMNS + place))
                    .collect::<Vec<_>>()
            };
            let places: Vec<_> = (0..rows.len())
                .map(|row| format!("({})", places(row).join(", ")))
                .collect();
            let sql = database.sql(&format!("{INSERT}{}{add}", places.join(", ")));
            // Of any length, so not worth remembering.
            let mut query = sqlx::query(sql).persistent(false);
            for ((app_id, day), used) in rows {
                query = query.bind(*app_id).bind(day.to_string());
                for number in [
                    used.messages,
                    used.delivered,
                    used.bytes_sent,
                    used.bytes_received,
                    used.connections_peak,
                ] {
                    query = query.bind(i64::try_from(number).unwrap_or(i64::MAX));
                }
            }
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    })
}

/// The last days on which the app was used, the newest first.
pub(super) async fn read(database: &Database, app_id: &str, days: u32) -> Result<Vec<UsageDay>, StoreError> {
    let sql = database.sql(
        "SELECT day, messages, delivered, bytes_sent, bytes_received, connections_peak FROM app_usage \
         WHERE app_id = $1 ORDER BY day DESC LIMIT $2",
    );
    let rows: Vec<(String, i64, i64, i64, i64, i64)> = on_connection!(database, |connection| {
        let query = sqlx::query_as(sql).bind(app_id).bind(i64::from(days));
        query.fetch_all(connection).await
    })?;
    // A day that somebody wrote in other words is nobody's.
    let used = rows
        .into_iter()
        .filter_map(|(day, messages, delivered, sent, received, peak)| {
            Some(UsageDay {
                day: day.parse().ok()?,
                messages: number(messages),
                delivered: number(delivered),
                bytes_sent: number(sent),
                bytes_received: number(received),
                connections_peak: number(peak),
            })
        });
    Ok(used.collect())
}

/// The messages of one day, of those of these apps that have any.
pub(super) async fn messages(
    database: &Database,
    day: Date,
    app_ids: &[String],
) -> Result<Vec<(String, u64)>, StoreError> {
    if app_ids.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<_> = (0..app_ids.len())
        .map(|place| format!("${}", place + 2))
        .collect();
    let sql = database.sql(&format!(
        "SELECT app_id, messages FROM app_usage WHERE day = $1 AND app_id IN ({})",
        places.join(", ")
    ));
    let rows: Vec<(String, i64)> = on_connection!(database, |connection| {
        let mut query = sqlx::query_as(sql).persistent(false).bind(day.to_string());
        for app_id in app_ids {
            query = query.bind(app_id.as_str());
        }
        query.fetch_all(connection).await
    })?;
    Ok(rows
        .into_iter()
        .map(|(app_id, messages)| (app_id, number(messages)))
        .collect())
}

/// Nobody counts below zero, whatever somebody wrote there.
fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
