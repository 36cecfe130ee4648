//! What the Pusher protocol promises, kept by several nodes as if they were one: the API call, the sender and the
//! receiver are on different nodes, whatever carries messages between them.
//!
//! Each case is written once and runs over every bus; its name says over which. Most cases share three nodes for each
//! bus, as apps share a cluster: each takes an app for itself (`nodes.rs`). Not here: what happens when a broker or a
//! node fails.

#[path = "../support/port.rs"]
mod port;
#[expect(dead_code, reason = "shared with tests that need more of it")]
#[path = "../support/mod.rs"]
mod support;

mod broker;
mod bus;
mod nodes;
mod room;

/// Makes a test of each case for each bus: `redis::NAME`, and so on.
macro_rules! over_each_bus {
    ($($case:ident),+ $(,)?) => {
        over_each_bus!(memory Memory $($case)+);
        over_each_bus!(redis Redis $($case)+);
        over_each_bus!(nats Nats $($case)+);
    };
    ($name:ident $bus:ident $($case:ident)+) => {
        mod $name {
            use crate::bus::Bus;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case(Bus::$bus).await;
                }
            )+
        }
    };
}

// Events.
mod client_events;
mod delivery;
mod exclusion;
mod subscribing;

// Who is there.
mod counts;
mod presence;
mod presence_model;
mod users;
mod watchlist;

// What is kept.
mod cache;

// What back ends are told.
mod webhooks;

// The cluster itself.
mod cost;
mod isolation;
mod nodes_come_and_go;
