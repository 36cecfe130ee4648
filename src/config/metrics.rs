//! Settings of the metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The metrics that the admin listener serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// What every metric's name begins with, before an underscore. `soketi` or `sockudo` keep the dashboards
    /// of those servers working.
    pub prefix: String,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        MetricsConfig {
            prefix: "fanwire".into(),
        }
    }
}
