//! Settings of the way a server stops, and how long that may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What leaving takes at most beside `delay_s` and `drain_s`, in seconds: for clients to answer their close, webhooks to
/// be delivered, the other nodes to be told, and what the apps used to be saved. As a rule it is a fraction of one.
pub const LEAVING_S: u32 = 20;

/// How the server leaves when it is asked to (SIGTERM): readiness fails at once, sockets are closed bit by
/// bit. Whatever hangs, it has left after `delay_s` + `drain_s` + 20 seconds; give it that time before it is killed
/// (`terminationGracePeriodSeconds`, `TimeoutStopSec`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// Time between failing readiness and the first close, for load balancers to notice. New sockets are refused with
    /// 4100 from its beginning.
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

impl DrainConfig {
    /// The longest that leaving can take, from the first signal to the end of the process. Seconds.
    pub fn longest_s(&self) -> u32 {
        self.delay_s + self.drain_s + LEAVING_S
    }
}
