//! Apps in SQL databases: PostgreSQL and MariaDB, started privately for these tests, and SQLite.
//!
//! Each case is written once and runs over every database that it makes sense for. The servers of databases are started
//! once and shared, each case having a database of its own; the cases that freeze and kill them start theirs
//! (`outage.rs`).

#![allow(clippy::print_stderr, reason = "a failure says where it is")]

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt;

#[path = "../support/brokers/tls.rs"]
mod certificates;
#[path = "../support/port.rs"]
mod port;
#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "../support/mod.rs"]
mod support;

mod engine;
mod stage;

/// Makes a test of each case, which runs over all databases at the same time: mostly it waits.
macro_rules! over_each_database {
    ($($case:ident),+ $(,)?) => {
        over_each!(each_database [Postgres, MariaDb, Sqlite] $($case),+);
    };
}

/// The same for those databases that have a server.
macro_rules! over_each_server {
    ($($case:ident),+ $(,)?) => {
        over_each!(each_server [Postgres, MariaDb] $($case),+);
    };
}

macro_rules! over_each {
    ($name:ident $kinds:tt $($case:ident),+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    over_each!(@together $kinds $case);
                }
            )+
        }
    };
    (@together [$($kind:ident),+] $case:ident) => {
        tokio::join!($(crate::told(stringify!($kind), super::$case(crate::engine::Kind::$kind))),+);
    };
}

/// Says over which database a case fails.
async fn told(kind: &str, case: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(case).catch_unwind().await {
        eprintln!("the case fails over {kind}");
        resume_unwind(panic);
    }
}

mod changes;
mod command;
mod figures;
mod lookups;
mod nodes;
mod outage;
mod schema;
mod sealed;
mod usage;
