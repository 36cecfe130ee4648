//! The tables: which version of them a database has, and bringing it up to date.
//!
//! Each version is a file below `migrations/`, in the words of each database; files that were released never change.
//! Which of them a database has is in the table `_sqlx_migrations`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::mysql::MySqlPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection, SqlSafeStr};

use super::config::StoreConfig;
use super::connect::{Database, Pool, failed, on_connection};
use super::url::Dialect;
use crate::app::StoreError;

/// The version of the tables that this server works with.
pub const VERSION: i64 = 2;

/// What each version adds.
const STEPS: [&str; VERSION as usize] = ["apps", "usage"];

/// The texts of all versions, in their order.
fn texts(dialect: Dialect) -> [&'static str; VERSION as usize] {
    macro_rules! texts {
        ($folder:literal) => {
            [
                include_str!(concat!("../../migrations/", $folder, "/0001_apps.sql")),
                include_str!(concat!("../../migrations/", $folder, "/0002_usage.sql")),
            ]
        };
    }
    match dialect {
        Dialect::Postgres => texts!("postgres"),
        Dialect::MySql => texts!("mysql"),
        Dialect::Sqlite => texts!("sqlite"),
    }
}

fn migrator(dialect: Dialect) -> Migrator {
    let steps = (1..).zip(STEPS).zip(texts(dialect));
    let step = |((version, name), text): ((i64, &'static str), &'static str)| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            text.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(steps.map(step).collect())
}

/// The tables of a database, held against those that this server works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// There are none.
    Missing,
    /// They are of this older version.
    Older(i64),
    /// They are as they should be.
    Current,
    /// They are of this newer version.
    Newer(i64),
    /// A migration to this version was begun and not finished.
    Broken(i64),
}

impl SchemaState {
    /// Whether a server can work with them. The text of the error says what to do.
    pub fn usable(self) -> Result<(), StoreError> {
        let text = match self {
            SchemaState::Current => return Ok(()),
            SchemaState::Missing => {
                "the store has no tables yet: run `fanwire migrate`, or set `store.migrate_on_start`".into()
            }
            SchemaState::Older(found) => format!(
                "the tables of the store are of version {found}, and this server needs {VERSION}: run `fanwire \
                 migrate`, or set `store.migrate_on_start`"
            ),
            SchemaState::Newer(found) => format!(
                "the tables of the store are of version {found}, and this server knows none newer than {VERSION}: run \
                 a newer fanwire, or use another database"
            ),
            SchemaState::Broken(found) => format!(
                "the migration of the store to version {found} was begun and not finished: restore a backup, or finish \
                 what migrations/ says by hand and set `success` of version {found} in `_sqlx_migrations`"
            ),
        };
        Err(StoreError::Schema(text))
    }
}

/// What tables a database has.
pub(super) async fn state(database: &Database) -> Result<SchemaState, StoreError> {
    if database.file.as_ref().is_some_and(|file| !file.exists()) {
        return Ok(SchemaState::Missing);
    }
    let versions = on_connection!(database, |connection| {
        let sql = "SELECT version, success FROM _sqlx_migrations ORDER BY version";
        let rows = sqlx::query_as(sql).fetch_all(connection).await;
        match rows {
            Ok(rows) => Ok(rows),
            Err(error) if is_missing_table(&error) => Ok(Vec::<(i64, bool)>::new()),
            Err(error) => Err(error),
        }
    })?;
    Ok(
        match (versions.iter().find(|(_, success)| !success), versions.last()) {
            (Some((broken, _)), _) => SchemaState::Broken(*broken),
            (None, None) => SchemaState::Missing,
            (None, Some((found, _))) if *found < VERSION => SchemaState::Older(*found),
            (None, Some((found, _))) if *found > VERSION => SchemaState::Newer(*found),
            (None, Some(_)) => SchemaState::Current,
        },
    )
}

/// Whether a statement failed because a table is not there: its code in PostgreSQL, in MySQL, and the words of SQLite,
/// which has no code for it.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        matches!(error.code().as_deref(), Some("42P01" | "42S02"))
            || error.message().starts_with("no such table")
    })
}

/// Brings the tables up to date, and says from which state. Several at once wait for one another.
///
/// # Errors
/// The database, or tables that cannot be brought up to date: newer ones, or others than this server made.
pub(super) async fn migrate(config: &StoreConfig) -> Result<SchemaState, StoreError> {
    let wrong = |(key, text): (&str, String)| StoreError::Refused(format!("store.{key}: {text}"));
    let database = Database::open(config).map_err(wrong)?;
    if let Some(file) = &database.file {
        make(file)
            .map_err(|error| StoreError::Refused(format!("cannot make {}: {error}", file.display())))?;
    }
    // Takes the time it takes: a big table may have to be rewritten.
    let done = match &database.pool {
        Pool::Postgres(pool) => match to_do(&database).await? {
            (before, true) => migrator(database.dialect).run(pool).await.map(|()| before),
            (before, false) => Ok(before),
        },
        Pool::MySql(pool) => migrate_mysql(&database, pool).await?,
        Pool::Sqlite(pool) => match to_do(&database).await? {
            (before, true) => migrate_file(&migrator(database.dialect), pool)
                .await
                .map(|()| before),
            (before, false) => Ok(before),
        },
    };
    let before = done.map_err(explained)?;
    database.close().await;
    Ok(before)
}

/// The state of the tables, and whether there is something to do about it.
async fn to_do(database: &Database) -> Result<(SchemaState, bool), StoreError> {
    let before = state(database).await?;
    match before {
        SchemaState::Current => Ok((before, false)),
        SchemaState::Missing | SchemaState::Older(_) => Ok((before, true)),
        SchemaState::Newer(_) | SchemaState::Broken(_) => before.usable().map(|()| (before, false)),
    }
}

/// Behind a lock of our own. That of sqlx asks to wait for ever by -1, which MariaDB takes for not at all; and without a
/// transaction around it, a migration that is under way looks like a broken one.
async fn migrate_mysql(
    database: &Database,
    pool: &MySqlPool,
) -> Result<Result<SchemaState, MigrateError>, StoreError> {
    let mut connection = pool.acquire().await.map_err(failed)?;
    let lock = "SELECT GET_LOCK(LEFT(CONCAT('fanwire ', DATABASE()), 64), 3600)";
    let locked: Option<i64> = sqlx::query_scalar(lock)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if locked != Some(1) {
        return Err(StoreError::Refused(
            "another migration is under way for an hour".into(),
        ));
    }
    let (before, to_do) = to_do(database).await?;
    let mut migrator = migrator(database.dialect);
    migrator.set_locking(false);
    let done = match to_do {
        true => migrator.run(&mut *connection).await,
        false => Ok(()),
    };
    // The lock goes with the connection.
    let _ = connection.close().await;
    Ok(done.map(|()| before))
}

/// Makes the file of SQLite where there is none, for nobody else to read: it holds secrets.
fn make(file: &Path) -> io::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// In one transaction that locks the file: SQLite has no other way to make several at once wait.
async fn migrate_file(migrator: &Migrator, pool: &SqlitePool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin_with("BEGIN EXCLUSIVE").await?;
    migrator.run(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

fn explained(error: MigrateError) -> StoreError {
    let text = match error {
        MigrateError::VersionMismatch(version) => format!(
            "version {version} of the tables was made by another program, or changed: use a database of fanwire's own"
        ),
        MigrateError::VersionMissing(version) => {
            format!("version {version} of the tables is not known to this fanwire: run a newer one")
        }
        MigrateError::ExecuteMigration(error, version) => format!("migrating to version {version}: {error}"),
        other => other.to_string(),
    };
    StoreError::Schema(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_numbered_without_a_gap() {
        for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::Sqlite] {
            let versions: Vec<i64> = migrator(dialect).iter().map(|step| step.version).collect();
            assert_eq!(versions, (1..=VERSION).collect::<Vec<_>>());
        }
    }
}
