//! Apps that are not known yet: asking the store for one, without asking twice and without asking for nothing.
//!
//! Who looks for an app waits here, for a bounded time and in a bounded queue; who takes the questions out of the queue
//! asks the store and answers (`node/store`). What no app has is remembered for a while, in a place of its own, so that
//! made-up names drive out no app. Knows nothing of SQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{mpsc, oneshot};

use super::store::AppName;
use super::{App, Apps};
use crate::metrics::StoreSnapshot;

/// Questions that may wait to be taken up. As many again may wait for an answer of the store.
pub const QUESTIONS_MAX: usize = 32_768;

/// Why there is no app to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No app has this name.
    Unknown,
    /// Nobody can say at the moment: the store does not answer, or too many ask. It may be better in a second.
    Unavailable,
}

/// What an app was looked for by, and who waits for it.
#[derive(Debug)]
pub struct Question {
    /// The id or key.
    pub name: AppName,
    /// Where the answer goes. Whoever waited may have gone.
    pub answer: oneshot::Sender<Result<Arc<App>, NotFound>>,
}

/// Bounds of looking apps up.
#[derive(Clone, Copy, Debug)]
pub struct LookupBounds {
    /// So long an answer is waited for.
    pub timeout: Duration,
    /// Names that no app has that are remembered.
    pub unknown_max: usize,
    /// So long each of them is.
    pub unknown_ttl: Duration,
}

/// The way to a store.
#[derive(Debug)]
pub(super) struct Door {
    questions: mpsc::Sender<Question>,
    unknown: Cache<AppName, NotFound>,
    timeout: Duration,
    /// Whether the store did not answer when it was last asked.
    is_away: AtomicBool,
    kind: &'static str,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    queries: AtomicU64,
    failed: AtomicU64,
    found: AtomicU64,
    unknown: AtomicU64,
    unavailable: AtomicU64,
    stale: AtomicU64,
}

impl Door {
    /// Notes that a known app is used that cannot be read again at the moment.
    pub(super) fn served_stale(&self) -> bool {
        let is_away = self.is_away.load(Ordering::Relaxed);
        if is_away {
            self.counts.stale.fetch_add(1, Ordering::Relaxed);
        }
        is_away
    }
}

impl Apps {
    /// Apps beside which a store of this kind may have more. Its questions come out of the queue.
    pub fn with_store(self, kind: &'static str, bounds: LookupBounds) -> (Apps, mpsc::Receiver<Question>) {
        let (questions, queue) = mpsc::channel(QUESTIONS_MAX);
        let unknown = Cache::builder()
            .max_capacity(bounds.unknown_max as u64)
            .time_to_live(bounds.unknown_ttl)
            .build();
        let door = Door {
            questions,
            unknown,
            timeout: bounds.timeout,
            is_away: AtomicBool::new(false),
            kind,
            counts: Counts::default(),
        };
        (self.through(door), queue)
    }

    /// The app with this id, wherever it is.
    ///
    /// # Errors
    /// There is none, or nobody can say.
    pub async fn find_by_id(&self, id: &str) -> Result<Arc<App>, NotFound> {
        match self.by_id(id) {
            Some(app) => Ok(app),
            None => self.find(|| AppName::Id(id.into())).await,
        }
    }

    /// The app with this key, wherever it is, whether the key may be used now or not.
    ///
    /// # Errors
    /// There is none, or nobody can say.
    pub async fn find_by_key(&self, key: &str) -> Result<Arc<App>, NotFound> {
        match self.by_key(key) {
            Some(app) => Ok(app),
            None => self.find(|| AppName::Key(key.into())).await,
        }
    }

    /// Whether there is a store.
    pub fn has_store(&self) -> bool {
        self.door().is_some()
    }

    async fn find(&self, name: impl FnOnce() -> AppName) -> Result<Arc<App>, NotFound> {
        let Some(door) = self.door() else {
            return Err(NotFound::Unknown);
        };
        let name = name();
        if !name.is_possible() {
            return Err(NotFound::Unknown);
        }
        let found = match door.unknown.get(&name) {
            Some(absent) => Err(absent),
            None => door.ask(name).await,
        };
        let count = match &found {
            Ok(_) => &door.counts.found,
            Err(NotFound::Unknown) => &door.counts.unknown,
            Err(NotFound::Unavailable) => &door.counts.unavailable,
        };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Has the store asked for an app that nobody waits for.
    pub(super) fn ask_aside(&self, id: &str) {
        let Some(door) = self.door() else { return };
        let name = AppName::Id(id.into());
        if name.is_possible() {
            let (answer, _) = oneshot::channel();
            // Where the queue is full, whoever needs the app asks again.
            let _ = door.questions.try_send(Question { name, answer });
        }
    }

    /// What is known at once of a name: for who takes up questions, since the answer may have come meanwhile. The app
    /// is not remembered longer for it.
    pub fn known_of(&self, name: &AppName) -> Option<Result<Arc<App>, NotFound>> {
        let app = match name {
            AppName::Id(id) => self.held(id),
            AppName::Key(key) => self.held_by_key(key),
        };
        let absent = || self.door()?.unknown.get(name).map(Err);
        app.map(Ok).or_else(absent)
    }

    /// The store has no usable app of this name: remembered for a while. It becomes known by being put in.
    pub fn remember_absent(&self, name: AppName, why: NotFound) {
        if let Some(door) = self.door() {
            door.unknown.insert(name, why);
        }
    }

    /// The store was asked for something, and did or did not answer. Whether that is news.
    pub fn store_answered(&self, answered: bool) -> bool {
        let Some(door) = self.door() else { return false };
        door.counts.queries.fetch_add(1, Ordering::Relaxed);
        if !answered {
            door.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        door.is_away.swap(!answered, Ordering::Relaxed) == answered
    }

    /// How the store is and what was asked of it. `None`: there is none.
    pub fn store_snapshot(&self) -> Option<StoreSnapshot> {
        let door = self.door()?;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(StoreSnapshot {
            driver: door.kind,
            is_up: !door.is_away.load(Ordering::Relaxed),
            apps: self.stored_count() as u64,
            unknown: door.unknown.entry_count(),
            queries: count(&door.counts.queries),
            failed: count(&door.counts.failed),
            found: count(&door.counts.found),
            not_found: count(&door.counts.unknown),
            unavailable: count(&door.counts.unavailable),
            stale: count(&door.counts.stale),
        })
    }
}

impl Door {
    async fn ask(&self, name: AppName) -> Result<Arc<App>, NotFound> {
        let (answer, answered) = oneshot::channel();
        if self.questions.try_send(Question { name, answer }).is_err() {
            return Err(NotFound::Unavailable);
        }
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(found)) => found,
            // Too late, or whoever would have answered has gone.
            Ok(Err(_)) | Err(_) => Err(NotFound::Unavailable),
        }
    }
}
