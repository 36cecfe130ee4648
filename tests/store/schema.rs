//! The tables: made, brought up to date from an older version, and refused where they are not those that are expected.

use fanwire::server::Server;
use fanwire::store::{SchemaState, SqlStore, VERSION};
use futures_util::future::join_all;

use crate::engine::Kind;
use crate::stage::{Place, Served, app};

over_each_database![
    a_server_says_that_tables_are_missing,
    old_tables_are_brought_up_to_date_with_what_is_in_them,
    newer_tables_are_refused,
    a_migration_that_was_not_finished_is_told,
    many_may_migrate_at_once,
    a_server_may_migrate_by_itself,
];

/// Why a server does not start.
async fn refusal(place: &Place) -> String {
    match Server::start(place.config()).await {
        Ok(_) => panic!("a server starts that should not"),
        Err(error) => error.to_string(),
    }
}

/// The tables of the first version, as it made them.
async fn first_version(place: &Place) {
    let (text, blob) = match place.kind {
        Kind::Postgres => (include_str!("../../migrations/postgres/0001_apps.sql"), "BYTEA"),
        Kind::MariaDb => (include_str!("../../migrations/mysql/0001_apps.sql"), "BLOB"),
        Kind::Sqlite => (include_str!("../../migrations/sqlite/0001_apps.sql"), "BLOB"),
    };
    if place.kind == Kind::Sqlite {
        std::fs::write(place.url.trim_start_matches("sqlite://"), "").expect("a file can be made");
    }
    place.by_hand(text).await;
    place
        .by_hand(&format!(
            "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMP \
             NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum {blob} NOT NULL, execution_time \
             BIGINT NOT NULL)"
        ))
        .await;
    use sha2::Digest;
    let checksum = hex::encode(sha2::Sha384::digest(text));
    let checksum = match place.kind {
        Kind::Postgres => format!("decode('{checksum}', 'hex')"),
        _ => format!("X'{checksum}'"),
    };
    place
        .by_hand(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (1, 'apps', \
             TRUE, {checksum}, 0)"
        ))
        .await;
}

async fn a_server_says_that_tables_are_missing(kind: Kind) {
    let place = Place::empty(kind).await;
    let told = refusal(&place).await;
    assert!(told.contains("no tables yet: run `fanwire migrate`"), "{told}");
    assert_eq!(place.store().schema().await, Ok(SchemaState::Missing));
}

async fn old_tables_are_brought_up_to_date_with_what_is_in_them(kind: Kind) {
    let place = Place::empty(kind).await;
    first_version(&place).await;
    place
        .by_hand("INSERT INTO apps (id, name) VALUES ('7', 'by hand')")
        .await;
    place
        .by_hand("INSERT INTO app_keys (app_key, app_id, secret) VALUES ('key-7', '7', 'secret')")
        .await;
    let told = refusal(&place).await;
    assert!(
        told.contains("of version 1, and this server needs 2: run `fanwire migrate`"),
        "{told}"
    );
    assert_eq!(
        SqlStore::migrate(&place.section()).await,
        Ok(SchemaState::Older(1))
    );
    assert_eq!(
        SqlStore::migrate(&place.section()).await,
        Ok(SchemaState::Current)
    );
    place.serve().await.of(&app("7")).serves().await;
}

async fn newer_tables_are_refused(kind: Kind) {
    let place = Place::new(kind).await;
    place
        .by_hand(&format!(
            "UPDATE _sqlx_migrations SET version = 9 WHERE version = {VERSION}"
        ))
        .await;
    let told = refusal(&place).await;
    assert!(
        told.contains("of version 9") && told.contains("a newer fanwire"),
        "{told}"
    );
    let told = SqlStore::migrate(&place.section())
        .await
        .expect_err("nothing can be done")
        .to_string();
    assert!(
        told.contains("of version 9") && told.contains("a newer fanwire"),
        "{told}"
    );
}

async fn a_migration_that_was_not_finished_is_told(kind: Kind) {
    let place = Place::new(kind).await;
    place
        .by_hand(&format!(
            "UPDATE _sqlx_migrations SET success = FALSE WHERE version = {VERSION}"
        ))
        .await;
    let told = refusal(&place).await;
    assert!(told.contains("begun and not finished"), "{told}");
}

async fn many_may_migrate_at_once(kind: Kind) {
    let place = Place::empty(kind).await;
    let section = place.section();
    let migrated = join_all((0..4).map(|_| SqlStore::migrate(&section))).await;
    assert!(migrated.iter().all(Result::is_ok), "{migrated:?}");
    assert_eq!(place.store().schema().await, Ok(SchemaState::Current));
}

async fn a_server_may_migrate_by_itself(kind: Kind) {
    let place = Place::empty(kind).await;
    let mut config = place.config();
    config.store.migrate_on_start = true;
    let served = Served::start(config).await;
    place.put("7", "{}").await;
    served.of(&app("7")).serves().await;
}
