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
    servers: Mutex<BTreeMap<ServerId, ServerStatus>>,
    ids: AtomicU64,
    reconnects: AtomicU64,
}

/// A server, for as long as it is one of the servers.
pub(super) type ServerId = u64;

#[derive(Debug)]
struct ServerStatus {
    address: Address,
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
            ids: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ServerId, ServerStatus>) -> T) -> T {
        // Only counters: a panic elsewhere leaves nothing half done.
        act(&mut self.servers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up a server.
    pub(super) fn add(&self, address: &Address) -> ServerId {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let server = ServerStatus {
            address: address.clone(),
            connected: 0,
            away: None,
            refusals: Vec::new(),
        };
        self.with(|servers| servers.insert(id, server));
        id
    }

    /// All others are servers no more. What their connections still tell is void.
    pub(super) fn keep_only(&self, of_now: &[ServerId]) {
        self.with(|servers| servers.retain(|id, _| of_now.contains(id)));
    }

    fn with_server(&self, id: ServerId, act: impl FnOnce(&mut ServerStatus)) {
        self.with(|servers| {
            if let Some(server) = servers.get_mut(&id) {
                act(server);
            }
        });
    }

    /// A connection is up, the first of its kind or `again`.
    pub(super) fn up(&self, id: ServerId, again: bool) {
        self.reconnects.fetch_add(u64::from(again), Ordering::Relaxed);
        self.with_server(id, |server| {
            server.connected += 1;
            if server.connected < self.per_server {
                return;
            }
            server.refusals.clear();
            if let Some((since, _)) = server.away.take() {
                let after_s = since.elapsed().as_secs_f32();
                tracing::info!(server = %server.address, "redis is back after {after_s:.1} s");
            }
        });
    }

    /// A connection is lost.
    pub(super) fn down(&self, id: ServerId, reason: &str) {
        self.with_server(id, |server| {
            server.connected = server.connected.saturating_sub(1);
            server.is_away(reason);
        });
    }

    /// A connection could not be made.
    pub(super) fn failed(&self, id: ServerId, reason: &str) {
        self.with_server(id, |server| server.is_away(reason));
    }

    /// The server does not do what it is asked to: told once for each kind of refusal, its first word.
    pub(super) fn refused(&self, id: ServerId, reason: &str) {
        self.with_server(id, |server| {
            let kind = reason.split(' ').next().unwrap_or_default();
            if server.refusals.len() < REASONS_MAX && !server.refusals.iter().any(|told| told == kind) {
                server.refusals.push(kind.to_owned());
                tracing::warn!(server = %server.address, reason, "redis refuses what it is asked");
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
    fn is_away(&mut self, reason: &str) {
        let (_, told) = self.away.get_or_insert_with(|| (Instant::now(), Vec::new()));
        if told.len() < REASONS_MAX && !told.iter().any(|told| told == reason) {
            told.push(reason.to_owned());
            tracing::warn!(server = %self.address, reason, "no connection to redis");
        }
    }
}
