//! One app: its channels, spread over stripes so that shards rarely meet at the same lock.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::CacheIndex;
use super::channel::{Channel, Topic};
use super::elsewhere::Elsewhere;
use crate::adapter::NodeId;
use crate::app::App;
use crate::metrics::AppMetrics;

/// A power of two well above the number of shards that look at once.
pub const STRIPES: usize = 64;

/// A channel in the directory, found by its name. The name is not there twice, for there may be millions.
#[derive(Debug)]
pub(super) struct Listed(Arc<Channel>);

impl Borrow<Topic> for Listed {
    fn borrow(&self) -> &Topic {
        &self.0.topic
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic == other.0.topic
    }
}

impl Eq for Listed {}

impl Hash for Listed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.topic.hash(state);
    }
}

/// Some channels of an app.
#[derive(Debug, Default)]
pub(super) struct Stripe(HashSet<Listed>);

impl Stripe {
    /// The channel with this name.
    pub(super) fn get(&self, topic: &Topic) -> Option<&Arc<Channel>> {
        self.0.get(topic).map(|listed| &listed.0)
    }

    /// Lists a channel, unless there is one with its name. The answer is the one that is there now.
    pub(super) fn list(&mut self, channel: Arc<Channel>) -> Arc<Channel> {
        let known = self.get(&channel.topic).cloned();
        known.unwrap_or_else(|| {
            self.0.insert(Listed(channel.clone()));
            channel
        })
    }

    /// Takes a channel out.
    pub(super) fn remove(&mut self, topic: &Topic) {
        self.0.remove(topic);
    }
}

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
        stripe.0.iter().map(|listed| listed.0.clone()).collect()
    }

    /// Whether there is no channel and no connection, here or elsewhere.
    pub(super) fn is_empty(&self) -> bool {
        let is_empty = |stripe: &Mutex<Stripe>| {
            let stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            stripe.0.is_empty()
        };
        self.app.connections_everywhere() == 0 && self.stripes.iter().all(is_empty)
    }

    /// Another node has so many sockets of this app. The answer is how many it had before.
    pub fn set_connections_elsewhere(&self, node: NodeId, count: u32) -> u32 {
        let mut elsewhere = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let before = elsewhere.set(node, count);
        self.app.set_connections_elsewhere(elsewhere.total());
        before
    }

    /// Bytes of the last events of its cache channels.
    pub fn cached_bytes(&self) -> usize {
        self.cache().bytes()
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, CacheIndex> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
