//! Folders of files that are to be read again when they change. Folders and not files are watched, since files are
//! replaced rather than written to. What is in the files, and what a change means, is not known here.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// How often files are to be looked at though nothing told of a change: not every file system tells.
pub(super) const POLL: Duration = Duration::from_secs(30);
/// From the first sign of a change until it is to be looked at: a file is written in more than one go.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks, however many signs there are; and how long what is wrong may take to become right.
pub(super) const SPACING: Duration = Duration::from_millis(500);

/// The folders that are watched.
pub(super) struct Folders {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    /// What the files in them are called that matter.
    names: Arc<Mutex<BTreeSet<OsString>>>,
}

impl Folders {
    /// None yet. `changed` is told of each sign of a change.
    pub(super) fn new(changed: Arc<Notify>) -> Option<Folders> {
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let known = names.clone();
        let hear = move |event: notify::Result<Event>| {
            // Files are read here as well, which is no change. What is not known to be none, is one.
            if event.is_ok_and(|event| event.kind.is_access() || !concerns(&event, &known)) {
                return;
            }
            changed.notify_one();
        };
        match notify::recommended_watcher(hear) {
            Ok(watcher) => Some(Folders {
                watcher,
                watched: BTreeSet::new(),
                names,
            }),
            Err(error) => {
                tracing::warn!(%error, poll_s = POLL.as_secs(), "files cannot be watched, and are only read now and then");
                None
            }
        }
    }

    /// Watches the folders of these files, and no others. To be called again when they may have been replaced.
    pub(super) fn watch(&mut self, files: BTreeSet<PathBuf>) {
        let folder = |file: &PathBuf| match file.parent() {
            Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
            folder => folder.map(Path::to_owned).unwrap_or_default(),
        };
        let wanted: BTreeSet<_> = files.iter().map(folder).collect();
        let names = files
            .iter()
            .filter_map(|file| file.file_name())
            .map(OsStr::to_owned);
        *lock(&self.names) = names.collect();
        for folder in self.watched.difference(&wanted) {
            // It may be gone.
            let _ = self.watcher.unwatch(folder);
        }
        for folder in &wanted {
            // Once more too, since another folder may have come by that name.
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive)
                && !self.watched.contains(folder)
            {
                let folder = folder.display();
                tracing::warn!(%folder, %error, poll_s = POLL.as_secs(), "a folder cannot be watched: its files are only read now and then");
            }
        }
        self.watched = wanted;
    }
}

/// Whether an event is about one of these files, or a link by which Kubernetes replaces all of a folder's (`..data`).
fn concerns(event: &Event, names: &Mutex<BTreeSet<OsString>>) -> bool {
    let names = lock(names);
    let is_known = |path: &PathBuf| {
        path.file_name()
            .is_none_or(|name| names.contains(name) || name.as_encoded_bytes().starts_with(b".."))
    };
    event.paths.is_empty() || event.paths.iter().any(is_known)
}

/// Whole after each change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
