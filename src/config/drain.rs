//! Settings of the way a server stops.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the server leaves when it is asked to (SIGTERM): readiness fails at once, sockets are closed bit by
/// bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// Time between failing readiness and the first close, for load balancers to notice.
    #[schemars(range(max = 3_600))]
    pub delay_s: u32,
    /// Time over which the closes are spread evenly: stock clients come back at once, all that were closed
    /// together.
    #[schemars(range(max = 3_600))]
    pub drain_s: u32,
    /// Close code of the established sockets: 4200 (reconnect at once) or 1001 (quiet; pusher-js returns
    /// after 1 s).
    #[schemars(extend("enum" = [4200, 1001]))]
    pub close_code: u16,
}

impl Default for DrainConfig {
    fn default() -> DrainConfig {
        DrainConfig {
            delay_s: 0,
            drain_s: 10,
            close_code: 4200,
        }
    }
}
