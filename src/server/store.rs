//! The store of apps: opened at the start, and its two tasks begun on the control runtime.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{StartError, vital};
use crate::app::{AppStore, Apps, LookupBounds, Question, StoreError};
use crate::config::{AppReader, Config};
use crate::node::{Node, StoreDesk};
use crate::store::{SqlStore, StoreConfig};

/// The store, and what is asked of it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Arc<SqlStore>,
    questions: mpsc::Receiver<Question>,
}

/// Opens the store that the configuration names, if it names one, and lets the apps ask it.
///
/// A database that does not answer is no reason not to start: the apps of the configuration can be served, and the
/// others as soon as it does. One whose tables do not fit is.
pub(super) async fn open(config: &Config, apps: Apps) -> Result<(Apps, Option<Opened>), StartError> {
    let section = &config.store;
    if !section.is_on() {
        return Ok((apps, None));
    }
    let store = SqlStore::open(section).map_err(|(key, text)| StartError::Setting {
        section: "store",
        key,
        text,
    })?;
    let ready = match section.migrate_on_start {
        true => migrate(section.clone()).await,
        false => store.check().await,
    };
    match ready {
        Ok(()) => {}
        Err(error @ StoreError::Schema(_)) => return Err(StartError::Store(error)),
        Err(error) => tracing::error!("{error}; serving without the apps of the store until it answers"),
    }
    let bounds = LookupBounds {
        timeout: Duration::from_millis(section.timeout_ms.into()),
        unknown_max: section.unknown_max,
        unknown_ttl: Duration::from_secs(section.negative_ttl_s.into()),
    };
    let (apps, questions) = apps.with_store(store.kind(), bounds);
    let store = Arc::new(store);
    Ok((apps, Some(Opened { store, questions })))
}

/// Brings the tables up to date, aside: the library's future cannot be shown to be `Send` wherever a server is started.
async fn migrate(section: StoreConfig) -> Result<(), StoreError> {
    let control = Handle::current();
    let migrating = tokio::task::spawn_blocking(move || control.block_on(SqlStore::migrate(&section)));
    match migrating.await {
        Ok(migrated) => migrated.map(drop),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Begins to answer and to look for changes.
pub(super) fn begin(opened: Opened, config: &Config, node: &Arc<Node>, tasks: &mut JoinSet<()>) {
    let section = &config.store;
    let seconds = |s: u32| Duration::from_secs(s.into());
    let reader = AppReader::new(config);
    let desk = Arc::new(StoreDesk {
        store: opened.store,
        read: Box::new(move |written| {
            reader.read(written).map_err(|error| {
                let problems: Vec<_> = error.problems.iter().map(ToString::to_string).collect();
                problems.join("; ")
            })
        }),
        queries_max: section.connections_max as usize,
        refresh: seconds(section.refresh_s),
        ttl: seconds(section.ttl_s),
        unused_max: section.apps_max,
    });
    let (lookups, at_desk) = (node.clone(), desk.clone());
    tasks.spawn(vital("look-ups of apps", async move {
        lookups.answer_lookups(&at_desk, opened.questions).await;
    }));
    let round = node.clone();
    tasks.spawn(vital("reading apps again", async move {
        round.refresh_apps(&desk).await;
    }));
}
