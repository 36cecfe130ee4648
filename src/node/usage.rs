//! What the apps use, booked by day, and saved if there is a store.
//!
//! One task on the control runtime. It settles every app when a day ends, and now and then; with a store it adds what
//! is new there, and asks what the other nodes added, for the quotas. A store that is away costs nothing but time: what
//! was used is kept, a day in a few bytes, and a batch of which nobody knows whether it was added is sent again and
//! counts once. Knows nothing of SQL, nor of who may publish how much.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt;
use tokio::sync::oneshot;

use super::Node;
use crate::app::{App, AppStore, Day, NAME_BYTES_MAX, NAMES_MAX, Readings, StoreError, UsageBatch, UsageDay};
use crate::hub::namespace::Namespace;

/// How often usage is saved, and quotas hear of other nodes.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the clock is looked at where nothing is saved: it may have been put forward.
const LOOK_INTERVAL: Duration = Duration::from_secs(3_600);
/// Apps whose usage is saved in one step.
const APPS_PER_BATCH: usize = 1_000;

/// Saves what apps use, one batch after the other.
#[derive(Debug)]
pub struct UsageSaver {
    store: Arc<dyn AppStore>,
    writer: String,
    number: u64,
    /// On its way, or not known to have arrived.
    batch: Option<UsageBatch>,
    is_failing: bool,
}

impl UsageSaver {
    /// One that has saved nothing yet.
    pub fn new(store: Arc<dyn AppStore>) -> UsageSaver {
        let writer: u128 = rand::rng().random();
        UsageSaver {
            store,
            writer: format!("{writer:032x}"),
            number: 0,
            batch: None,
            is_failing: false,
        }
    }

    /// Saves what was settled, and tells the apps what others saved.
    async fn save(&mut self, node: &Node, day: Day) {
        let saved = self.try_to_save(node, day).await;
        match &saved {
            Err(error) => {
                node.metrics.usage_save_failures_total.inc();
                if !self.is_failing {
                    tracing::warn!("usage is kept until it can be saved: {error}");
                }
            }
            Ok(()) if self.is_failing => tracing::info!("usage is saved again"),
            Ok(()) => {}
        }
        self.is_failing = saved.is_err();
    }

    async fn try_to_save(&mut self, node: &Node, day: Day) -> Result<(), StoreError> {
        // What may have arrived already goes before all else, as it was.
        self.add().await?;
        let mut namespaces = node.hub.namespaces();
        // What no column holds would keep all others out too. Only apps of the configuration can be called so.
        namespaces.retain(|namespace| namespace.app.id().len() <= NAME_BYTES_MAX);
        for namespaces in namespaces.chunks(APPS_PER_BATCH) {
            let used = namespaces.iter().flat_map(|namespace| {
                let app = &namespace.app;
                let days = app.take_unsaved_usage().into_iter();
                days.map(|used| (app.id().to_owned(), used))
            });
            let used: Vec<_> = used.collect();
            if !used.is_empty() {
                self.batch = Some(UsageBatch {
                    writer: self.writer.clone(),
                    number: self.number,
                    used,
                });
                self.add().await?;
            }
        }
        self.tell_quotas(&namespaces, day).await
    }

    /// Adds the present batch, if there is one.
    async fn add(&mut self) -> Result<(), StoreError> {
        if let Some(batch) = &self.batch {
            self.store.add_usage(batch).await?;
            self.batch = None;
            self.number += 1;
        }
        Ok(())
    }

    /// Tells the apps that have a quota how many messages all nodes have saved today.
    async fn tell_quotas(&self, namespaces: &[Arc<Namespace>], day: Day) -> Result<(), StoreError> {
        let has_quota =
            |namespace: &&Arc<Namespace>| namespace.app.settings().limits.messages_per_day < u64::MAX;
        let with_quota: Vec<_> = namespaces.iter().filter(has_quota).collect();
        for namespaces in with_quota.chunks(NAMES_MAX) {
            let ids: Vec<_> = namespaces.iter().map(|of| of.app.id().to_owned()).collect();
            let saved: HashMap<_, _> = self.store.messages(day.date(), &ids).await?.into_iter().collect();
            for namespace in namespaces {
                let messages = saved.get(namespace.app.id()).copied().unwrap_or(0);
                namespace.app.set_messages_saved(day, messages);
            }
        }
        Ok(())
    }
}

impl Node {
    /// What an app used today on this node, since its start, as it is at this moment.
    pub fn usage_today(&self, app: &Arc<App>, now: Timestamp) -> UsageDay {
        let namespace = self.namespace(app);
        namespace
            .app
            .settle_usage(now, Readings::from(&*namespace.metrics))
    }

    /// Whether nothing is lost if nobody counts for this app any more.
    pub(super) fn is_usage_saved(&self, namespace: &Namespace) -> bool {
        let readings = || Readings::from(&*namespace.metrics);
        !self.saves_usage.load(Ordering::Relaxed) || namespace.app.is_usage_saved(readings())
    }

    fn settle_usage(&self, now: Timestamp) {
        for namespace in self.hub.namespaces() {
            let readings = Readings::from(&*namespace.metrics);
            namespace.app.settle_usage(now, readings);
        }
    }

    /// Books what the apps use, and saves it where there is a store, until it is told that the end has come; then once
    /// more. Runs on the control runtime.
    pub async fn keep_usage(&self, mut saver: Option<UsageSaver>, mut end: oneshot::Receiver<()>) {
        self.saves_usage.store(saver.is_some(), Ordering::Relaxed);
        let interval = match saver {
            Some(_) => SAVE_INTERVAL,
            None => LOOK_INTERVAL,
        };
        loop {
            let now = Timestamp::now();
            let midnight = Day::of(now).ends().duration_since(now).unsigned_abs();
            // A sender that is dropped says the same.
            let has_ended = tokio::time::timeout(interval.min(midnight), &mut end).await;
            let now = Timestamp::now();
            self.settle_usage(now);
            if let Some(saver) = &mut saver {
                saver.save(self, Day::of(now)).await;
            }
            if has_ended.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
