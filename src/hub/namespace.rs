//! One app: its channels, spread over stripes so that shards rarely meet at the same lock.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::CacheIndex;
use super::channel::{Channel, Topic};
use super::elsewhere::Elsewhere;
use crate::adapter::NodeId;
use crate::app::App;
use crate::metrics::AppMetrics;

/// A power of two well above the number of shards that look at once.
pub const STRIPES: usize = 64;

type Stripe = HashMap<Topic, Arc<Channel>>;

/// One app's part of the directory.
#[derive(Debug)]
pub struct Namespace {
    /// Whose it is.
    pub app: Arc<App>,
    /// Where its traffic is counted.
    pub metrics: Arc<AppMetrics>,
    stripes: Box<[Mutex<Stripe>]>,
    cache: Mutex<CacheIndex>,
    connections: Mutex<Elsewhere>,
    /// Seeded anew in each process, since clients choose the names.
    hasher: RandomState,
}

impl Namespace {
    pub(super) fn new(app: Arc<App>, metrics: Arc<AppMetrics>) -> Self {
        Namespace {
            app,
            metrics,
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            cache: Mutex::default(),
            connections: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn stripe(&self, topic: &Topic) -> MutexGuard<'_, Stripe> {
        let stripe = &self.stripes[self.hasher.hash_one(topic) as usize % STRIPES];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All channels, one stripe's lock at a time.
    pub(super) fn channels(&self) -> impl Iterator<Item = Arc<Channel>> + '_ {
        (0..STRIPES).flat_map(|stripe| self.channels_of(stripe))
    }

    /// The channels of one of [`STRIPES`] stripes, for who walks them with pauses. A channel stays in its stripe.
    pub fn channels_of(&self, stripe: usize) -> Vec<Arc<Channel>> {
        let stripe = self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        stripe.values().cloned().collect()
    }

    /// Another node has so many sockets of this app.
    pub fn set_connections_elsewhere(&self, node: NodeId, count: u32) {
        let mut elsewhere = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.set(node, count);
    }

    /// Sockets of this app on all other nodes, as far as they said.
    pub fn connections_elsewhere(&self) -> usize {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total()
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, CacheIndex> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
