//! How the connections to each server are: counted for health checks, and told in the log once for each change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::url::Address;
use crate::adapter::LinkHealth;

/// So many different reasons of one outage are logged.
const REASONS_MAX: usize = 4;

/// The state of all connections.
#[derive(Debug)]
pub(super) struct Status {
    /// So many connections there should be to each server.
    per_server: usize,
    servers: Mutex<BTreeMap<Address, ServerStatus>>,
    reconnects: AtomicU64,
}

#[derive(Debug, Default)]
struct ServerStatus {
    connected: usize,
    /// Since when not all connections are up, and which reasons were told.
    away: Option<(Instant, Vec<String>)>,
    /// Refusals that were told since the connections came up.
    refusals: Vec<String>,
}

impl Status {
    pub(super) fn new(per_server: usize) -> Status {
        Status {
            per_server,
            servers: Mutex::default(),
            reconnects: AtomicU64::new(0),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<Address, ServerStatus>) -> T) -> T {
        // Only counters: a panic elsewhere leaves nothing half done.
        act(&mut self.servers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// These are the servers from now on.
    pub(super) fn follow<'a>(&self, servers: impl Iterator<Item = &'a Address>) {
        self.with(|known| {
            let mut before = std::mem::take(known);
            known.extend(servers.map(|address| {
                let status = before.remove(address).unwrap_or_default();
                (address.clone(), status)
            }));
        });
    }

    /// A connection is up, the first of its kind or `again`.
    pub(super) fn up(&self, address: &Address, again: bool) {
        self.reconnects.fetch_add(u64::from(again), Ordering::Relaxed);
        self.with(|servers| {
            let Some(server) = servers.get_mut(address) else {
                return;
            };
            server.connected += 1;
            if server.connected < self.per_server {
                return;
            }
            server.refusals.clear();
            if let Some((since, _)) = server.away.take() {
                let after_s = since.elapsed().as_secs_f32();
                tracing::info!(server = %address, "redis is back after {after_s:.1} s");
            }
        });
    }

    /// A connection is lost.
    pub(super) fn down(&self, address: &Address, reason: &str) {
        self.with(|servers| {
            let Some(server) = servers.get_mut(address) else {
                return;
            };
            server.connected = server.connected.saturating_sub(1);
            server.is_away(address, reason);
        });
    }

    /// A connection could not be made.
    pub(super) fn failed(&self, address: &Address, reason: &str) {
        self.with(|servers| {
            let Some(server) = servers.get_mut(address) else {
                return;
            };
            server.is_away(address, reason);
        });
    }

    /// The server does not do what it is asked to: told once for each kind of refusal, its first word.
    pub(super) fn refused(&self, address: &Address, reason: &str) {
        self.with(|servers| {
            let Some(server) = servers.get_mut(address) else {
                return;
            };
            let kind = reason.split(' ').next().unwrap_or_default();
            if server.refusals.len() < REASONS_MAX && !server.refusals.iter().any(|told| told == kind) {
                server.refusals.push(kind.to_owned());
                tracing::warn!(server = %address, reason, "redis refuses what it is asked");
            }
        });
    }

    pub(super) fn health(&self) -> LinkHealth {
        let (servers, connected) = self.with(|servers| {
            let connected = servers.values().map(|server| server.connected).sum();
            (servers.len(), connected)
        });
        LinkHealth {
            connected,
            // Where no server is known yet, one should be.
            wanted: servers.max(1) * self.per_server,
            reconnects: self.reconnects.load(Ordering::Relaxed),
        }
    }
}

impl ServerStatus {
    fn is_away(&mut self, address: &Address, reason: &str) {
        let (_, told) = self.away.get_or_insert_with(|| (Instant::now(), Vec::new()));
        if told.len() < REASONS_MAX && !told.iter().any(|told| told == reason) {
            told.push(reason.to_owned());
            tracing::warn!(server = %address, reason, "no connection to redis");
        }
    }
}
