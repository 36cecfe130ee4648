//! What apps used, by day.

use std::collections::BTreeMap;

use jiff::civil::Date;
use sqlx::Connection;

use super::connect::{Database, on_connection};
use super::url::Dialect;
use crate::app::{StoreError, UsageDay};

/// Rows in one statement.
const ROWS_MAX: usize = 100;
/// A batch may be of many apps, and nobody waits for it: it gets more time than a look-up.
const PATIENCE: u32 = 10;

const INSERT: &str =
    "INSERT INTO app_usage (app_id, day, messages, bytes_sent, bytes_received, connections_peak) VALUES ";
const ADD: &str = " ON CONFLICT (app_id, day) DO UPDATE SET messages = app_usage.messages + excluded.messages, \
                   bytes_sent = app_usage.bytes_sent + excluded.bytes_sent, \
                   bytes_received = app_usage.bytes_received + excluded.bytes_received, \
                   connections_peak = CASE WHEN excluded.connections_peak > app_usage.connections_peak \
                   THEN excluded.connections_peak ELSE app_usage.connections_peak END";
const ADD_MYSQL: &str = " ON DUPLICATE KEY UPDATE messages = messages + VALUES(messages), \
                         bytes_sent = bytes_sent + VALUES(bytes_sent), \
                         bytes_received = bytes_received + VALUES(bytes_received), \
                         connections_peak = GREATEST(connections_peak, VALUES(connections_peak))";

/// Adds to what is there, all or nothing.
pub(super) async fn add(database: &Database, used: Vec<(String, UsageDay)>) -> Result<(), StoreError> {
    // Once each, since a statement may change a row only once; in one order, so that two nodes do not lock crosswise.
    let mut sums: BTreeMap<(String, Date), UsageDay> = BTreeMap::new();
    for (app_id, used) in used {
        match sums.get_mut(&(app_id.clone(), used.day)) {
            Some(sum) => sum.add(&used),
            None => drop(sums.insert((app_id, used.day), used)),
        }
    }
    let rows: Vec<_> = sums.iter().collect();
    let add = match database.dialect {
        Dialect::MySql => ADD_MYSQL,
        Dialect::Postgres | Dialect::Sqlite => ADD,
    };
    on_connection!(database, database.timeout * PATIENCE, |connection| {
        let mut transaction = connection.begin().await?;
        for rows in rows.chunks(ROWS_MAX) {
            let places = |row| {
                (1..=6)
                    .map(move |place| format!("${}", row * 6 + place))
                    .collect::<Vec<_>>()
            };
            let places: Vec<_> = (0..rows.len())
                .map(|row| format!("({})", places(row).join(", ")))
                .collect();
            let sql = database.sql(&format!("{INSERT}{}{add}", places.join(", ")));
            // Of any length, so not worth remembering.
            let mut query = sqlx::query(sql).persistent(false);
            for ((app_id, day), used) in rows {
                query = query.bind(app_id.as_str()).bind(day.to_string());
                for number in [
                    used.messages,
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
        "SELECT day, messages, bytes_sent, bytes_received, connections_peak FROM app_usage WHERE app_id = $1 \
         ORDER BY day DESC LIMIT $2",
    );
    let rows: Vec<(String, i64, i64, i64, i64)> = on_connection!(database, |connection| {
        let query = sqlx::query_as(sql).bind(app_id).bind(i64::from(days));
        query.fetch_all(connection).await
    })?;
    let number = |number| u64::try_from(number).unwrap_or(0);
    // A day that somebody wrote in other words is nobody's.
    let used = rows
        .into_iter()
        .filter_map(|(day, messages, sent, received, peak)| {
            Some(UsageDay {
                day: day.parse().ok()?,
                messages: number(messages),
                bytes_sent: number(sent),
                bytes_received: number(received),
                connections_peak: number(peak),
            })
        });
    Ok(used.collect())
}
