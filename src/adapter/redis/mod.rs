//! The way over Redis 7: one server, the master that sentinels name, or a cluster with sharded pub/sub.

mod config;
mod tls;
mod url;

pub use config::{RedisConfig, RedisFault};
pub use url::RedisUrl;
