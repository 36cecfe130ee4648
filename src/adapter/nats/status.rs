//! How the connections to NATS are: counted for health checks, and told in the log once for each change.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::adapter::LinkHealth;

/// So many different reasons of one outage, and refusals, are logged.
const REASONS_MAX: usize = 4;

/// The state of all connections.
#[derive(Debug)]
pub(super) struct Status {
    wanted: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connected: usize,
    reconnects: u64,
    /// Since when not all connections are up, and which reasons were told.
    away: Option<(Instant, Vec<String>)>,
    /// Refusals that were told since the start.
    refusals: Vec<&'static str>,
}

impl Status {
    pub(super) fn new(wanted: usize) -> Status {
        Status {
            wanted,
            counts: Mutex::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        // Only counters: a panic elsewhere leaves nothing half done.
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection is up, the first of its kind or `again`.
    pub(super) fn up(&self, again: bool) {
        self.with(|counts| {
            counts.connected += 1;
            counts.reconnects += u64::from(again);
            if counts.connected == self.wanted
                && let Some((since, _)) = counts.away.take()
            {
                let after_s = since.elapsed().as_secs_f32();
                tracing::info!("nats is back after {after_s:.1} s");
            }
        });
    }

    /// A connection is lost.
    pub(super) fn down(&self, reason: &str) {
        self.with(|counts| counts.connected -= 1);
        self.failed(reason);
    }

    /// There is no connection, for this reason.
    pub(super) fn failed(&self, reason: &str) {
        self.with(|counts| {
            let (_, told) = counts.away.get_or_insert_with(|| (Instant::now(), Vec::new()));
            if told.len() < REASONS_MAX && !told.iter().any(|told| told == reason) {
                told.push(reason.to_owned());
                tracing::warn!(reason, "no connection to nats");
            }
        });
    }

    /// The server does not do what it is asked to: told once for each kind.
    pub(super) fn refused(&self, kind: &'static str, reason: &str) {
        self.with(|counts| {
            if !counts.refusals.contains(&kind) {
                counts.refusals.push(kind);
                tracing::warn!(reason, "nats refuses what it is asked");
            }
        });
    }

    pub(super) fn health(&self) -> LinkHealth {
        self.with(|counts| LinkHealth {
            connected: counts.connected,
            wanted: self.wanted,
            reconnects: counts.reconnects,
        })
    }
}
