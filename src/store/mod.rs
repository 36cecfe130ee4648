//! Apps in a SQL database: PostgreSQL, MySQL or MariaDB, SQLite.
//!
//! [`SqlStore`] answers what [`AppStore`](crate::app::AppStore) asks and does what `fanwire app` and `fanwire migrate`
//! ask for. The statements are the same for all three (`connect.rs` has what differs), every value is bound, and only
//! the tables' own texts, below `migrations/`, exist three times. Not here: what is remembered of the answers, which
//! is the directory's of `app/`.

mod checkup;
mod config;
mod connect;
mod edit;
mod schema;
mod sql;
mod url;
mod usage;

pub use checkup::checkup;
pub use config::StoreConfig;
pub use edit::{EditError, Listed, Rotated};
pub use schema::{SchemaState, VERSION};
pub use sql::SqlStore;
pub use url::{Dialect, StoreUrl};
