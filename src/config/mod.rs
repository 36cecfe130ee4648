//! The settings of the whole server, composed of each part's own.

mod admin;
mod drain;
mod log;
mod metrics;
mod server;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use admin::AdminConfig;
pub use drain::DrainConfig;
pub use log::{LogConfig, LogFormat, LogLevel};
pub use metrics::MetricsConfig;
pub use server::ServerConfig;

use crate::app::AppConfig;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens, and the bounds of the whole process.
    pub server: ServerConfig,
    /// The listener for operators.
    pub admin: AdminConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// The metrics that the admin listener serves.
    pub metrics: MetricsConfig,
    /// How the server leaves when it is asked to.
    pub drain: DrainConfig,
    /// The apps that are served. None at all is development mode: a demo app, on a loopback address only.
    pub apps: Vec<AppConfig>,
}

impl Config {
    /// Whether no app is configured, so that the demo app is served.
    pub fn development(&self) -> bool {
        self.apps.is_empty()
    }
}
