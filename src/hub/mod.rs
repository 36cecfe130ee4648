//! Who is here: the channels of every app, the inboxes of the shards that own the sockets, and what the other nodes said
//! of theirs.
//!
//! No I/O and no await. Its locks are plain and short; never two channels' at once. The order in which locks are
//! taken: stripe of the directory → nothing; channel → cache index, inbox or the queue of duties. [`Hub::enter`] and [`Hub::visit`] run a
//! step under one channel's lock: what the step pushes into inboxes is what all subscribers agree on as the order of
//! events. Knows nothing of the way to other
//! nodes, of HTTP, of what a message means.

pub mod cache;
pub mod channel;
pub mod elsewhere;
pub mod inbox;
pub mod namespace;
pub mod presence;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use cache::CachedEvent;
use channel::{Channel, ChannelState, Topic};
use inbox::Inboxes;
use namespace::Namespace;

use crate::app::App;
use crate::metrics::Metrics;
use crate::protocol::CloseCode;

/// All that is connected to this node.
#[derive(Debug)]
pub struct Hub {
    namespaces: RwLock<HashMap<Arc<str>, Arc<Namespace>>>,
    inboxes: Inboxes,
}

impl Hub {
    /// An empty directory in front of these inboxes.
    pub fn new(inboxes: Inboxes) -> Self {
        Hub {
            namespaces: RwLock::default(),
            inboxes,
        }
    }

    /// The inboxes of the shards.
    pub fn inboxes(&self) -> &Inboxes {
        &self.inboxes
    }

    /// This app's part of the directory, made when it is first asked for.
    pub fn namespace(&self, app: &Arc<App>, metrics: &Metrics) -> Arc<Namespace> {
        let id = app.id();
        let known = self
            .namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned();
        known.unwrap_or_else(|| {
            let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Namespace::new(app.clone(), metrics.app(id)));
            namespaces.entry(id.into()).or_insert_with(new).clone()
        })
    }

    /// Takes an app's part out of the directory, if there is nothing in it, nobody holds it, and `is_saved` says that its
    /// figures may be forgotten. Whether it is gone.
    pub fn forget(&self, app_id: &str, metrics: &Metrics, is_saved: impl Fn(&Namespace) -> bool) -> bool {
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        let Some(namespace) = namespaces.get(app_id) else {
            return true;
        };
        // Whoever is to hold it gets it from this table, which is locked.
        let is_over = Arc::strong_count(namespace) == 1 && namespace.is_empty() && is_saved(namespace);
        if is_over {
            namespaces.remove(app_id);
            metrics.forget_app(app_id);
        }
        is_over
    }

    /// Whether this app was asked for, and not forgotten since.
    pub fn has(&self, app_id: &str) -> bool {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        namespaces.contains_key(app_id)
    }

    /// Every app that was asked for, and not forgotten since.
    pub fn namespaces(&self) -> Vec<Arc<Namespace>> {
        self.namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Takes out the parts of apps that are not served, as far as nothing is left in them, nobody holds them, and what
    /// was used `is_saved`; and their figures.
    pub fn forget_unserved(&self, metrics: &Metrics, is_saved: impl Fn(&Namespace) -> bool) {
        let is_over = |namespace: &Arc<Namespace>| {
            // Whoever is to hold it gets it from this table, which is locked.
            namespace.app.closed() == Some(CloseCode::NoSuchApp)
                && Arc::strong_count(namespace) == 1
                && namespace.is_empty()
                && is_saved(namespace)
        };
        let any = {
            let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
            namespaces.values().any(is_over)
        };
        if !any {
            return;
        }
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|id, namespace| {
            let is_over = is_over(namespace);
            if is_over {
                metrics.forget_app(id);
            }
            !is_over
        });
    }

    /// Takes a step under the lock of this channel, which is made if there is none.
    pub fn enter<R>(
        &self,
        namespace: &Namespace,
        topic: &Topic,
        mut step: impl FnMut(&Arc<Channel>, &mut ChannelState) -> R,
    ) -> R {
        loop {
            let found = namespace.stripe(topic).get(topic).cloned();
            let channel = found.unwrap_or_else(|| {
                let new = Arc::new(Channel::new(topic.clone(), namespace.metrics.clone()));
                namespace.stripe(topic).list(new)
            });
            if let Some(answer) = self.step(namespace, &channel, &mut step) {
                return answer;
            }
            Self::bury(namespace, &channel);
        }
    }

    /// Takes a step under the lock of this channel if there is one.
    pub fn visit<R>(
        &self,
        namespace: &Namespace,
        topic: &Topic,
        mut step: impl FnMut(&Arc<Channel>, &mut ChannelState) -> R,
    ) -> Option<R> {
        loop {
            let channel = namespace.stripe(topic).get(topic).cloned()?;
            if let Some(answer) = self.step(namespace, &channel, &mut step) {
                return Some(answer);
            }
            Self::bury(namespace, &channel);
        }
    }

    /// As [`Hub::visit`], for who holds the channel already. `None` if it was removed meanwhile, which cannot happen
    /// to a channel with a subscriber.
    pub fn step<R>(
        &self,
        namespace: &Namespace,
        channel: &Arc<Channel>,
        step: impl FnOnce(&Arc<Channel>, &mut ChannelState) -> R,
    ) -> Option<R> {
        let mut state = channel.lock();
        if state.dead {
            return None;
        }
        let answer = step(channel, &mut state);
        if state.is_empty() {
            state.dead = true;
            drop(state);
            Self::bury(namespace, channel);
        }
        Some(answer)
    }

    /// Takes a dead channel out of the directory. Whoever finds one does it, instead of waiting for who is about to;
    /// a living one that has taken its place stays.
    fn bury(namespace: &Namespace, channel: &Arc<Channel>) {
        let mut stripe = namespace.stripe(&channel.topic);
        if stripe
            .get(&channel.topic)
            .is_some_and(|current| Arc::ptr_eq(current, channel))
        {
            stripe.remove(&channel.topic);
        }
    }

    /// Stores the last event of a cache channel; called under its lock. One that was published before the one that is
    /// there changes nothing. `expires` is when it is to be forgotten, by whatever clock the writer goes.
    pub fn store_cached(
        &self,
        namespace: &Namespace,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
        written: CachedEvent,
    ) {
        if state.cached().is_some_and(|event| event.origin > written.origin) {
            return;
        }
        let event = namespace.cache().store(channel, written, state.cached());
        state.set_cached(Some(event));
    }

    /// Drops cached events that have expired, and the oldest while the app holds more than it may. Called after a
    /// store, with no lock held, and every now and then.
    pub fn trim_cache(&self, namespace: &Namespace, now: Instant) {
        let bytes_max = namespace.app.settings().limits.cache_bytes_max;
        loop {
            let oldest = namespace.cache().pop(now, bytes_max);
            let Some((channel, place)) = oldest else { return };
            self.step(namespace, &channel, |_, state| {
                if state.cached().is_some_and(|event| event.place == place) {
                    state.set_cached(None);
                }
            });
        }
    }

    /// All channels of an app with a look at each, one lock at a time.
    pub fn survey<R>(
        &self,
        namespace: &Namespace,
        mut look: impl FnMut(&Channel, &mut ChannelState) -> Option<R>,
    ) -> Vec<R> {
        namespace
            .channels()
            .filter_map(|channel| look(&channel, &mut channel.lock()))
            .collect()
    }
}
