//! Apps in SQL databases: PostgreSQL and MariaDB, started privately for these tests, and SQLite.
//!
//! Each case is written once and runs over every database that it makes sense for; its name says over which. The servers
//! of databases are started once and shared, each case having a database of its own; the cases that freeze and kill them
//! start theirs (`outage.rs`).

#[path = "../support/port.rs"]
mod port;
#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "../support/mod.rs"]
mod support;

mod engine;
mod stage;

/// Makes a test of each case for each database: `postgres::NAME`, and so on.
macro_rules! over_each_database {
    ($($case:ident),+ $(,)?) => {
        over_each_server!($($case),+);
        over_each_database!(sqlite Sqlite $($case)+);
    };
    ($name:ident $database:ident $($case:ident)+) => {
        mod $name {
            use crate::engine::Kind;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case(Kind::$database).await;
                }
            )+
        }
    };
}

/// The same for those databases that have a server.
macro_rules! over_each_server {
    ($($case:ident),+ $(,)?) => {
        over_each_database!(postgres Postgres $($case)+);
        over_each_database!(mariadb MariaDb $($case)+);
    };
}

mod changes;
mod command;
mod figures;
mod lookups;
mod nodes;
mod outage;
mod schema;
mod usage;
