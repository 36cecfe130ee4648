//! What an app may do per second on this node, all its sockets or all its calls together.
//!
//! Only the buckets: how much they hold is the settings', what becomes of who is refused is the caller's business. What
//! each socket may do by itself is counted with the socket. Nothing is limited by address: behind a proxy all users share
//! one, and the servers of an app always do.

use super::config::AppConfig;
use crate::limit::SharedBucket;

/// What has a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rated {
    /// Events that the HTTP API publishes: `publishes_per_s`.
    Publishes,
    /// Its other calls: `queries_per_s`.
    Queries,
    /// Events of clients: `client_events_per_s_total`.
    ClientEvents,
}

impl Rated {
    pub(super) const ALL: [Rated; Rated::COUNT] = [Rated::Publishes, Rated::Queries, Rated::ClientEvents];
    pub(super) const COUNT: usize = 3;

    /// The setting, which names what is limited.
    pub fn setting(self) -> &'static str {
        match self {
            Rated::Publishes => "publishes_per_s",
            Rated::Queries => "queries_per_s",
            Rated::ClientEvents => "client_events_per_s_total",
        }
    }

    /// As it is configured: 0 for no limit.
    pub(super) fn per_s(self, config: &AppConfig) -> u32 {
        match self {
            Rated::Publishes => config.publishes_per_s,
            Rated::Queries => config.queries_per_s,
            Rated::ClientEvents => config.client_events_per_s_total,
        }
    }
}

/// What is left of each. A change of the settings finds them as they are.
#[derive(Debug, Default)]
pub(super) struct Rates([SharedBucket; Rated::COUNT]);

impl Rates {
    pub(super) fn of(&self, rated: Rated) -> &SharedBucket {
        &self.0[rated as usize]
    }
}
