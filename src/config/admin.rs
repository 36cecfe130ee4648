//! Settings of the admin listener.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The listener for operators: health, readiness and metrics. It knows no secrets, yet is not meant for the
/// public.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Whether to listen at all.
    pub enabled: bool,
    /// Address or name to listen on.
    pub host: String,
    /// Port to listen on. 0 lets the system choose.
    pub port: u16,
}

impl Default for AdminConfig {
    fn default() -> AdminConfig {
        AdminConfig {
            enabled: true,
            host: "127.0.0.1".into(),
            port: 9601,
        }
    }
}
