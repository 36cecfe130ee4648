//! Following the configuration while the server runs: it is read again when its files change, or when somebody asks.
//!
//! The folders of the files are watched, since files are replaced rather than written to; and as not every file system
//! tells of changes, they are read now and then. What counts is what the files hold: a change that changes nothing is
//! none, and a configuration that is wrong leaves everything as it is. What a change means for apps is in `apps.rs`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::apps::{Changes, taken_over};
use crate::config::{Config, ConfigError, ConfigSource};
use crate::node::Node;

/// How often the files are looked at though nothing told of a change.
const POLL: Duration = Duration::from_secs(30);
/// From the first sign of a change until it is looked at: a file is written in more than one go.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks, however many signs there are; and how long what is wrong may take to become right.
const SPACING: Duration = Duration::from_millis(500);

/// What follows the configuration.
pub(super) struct Follower {
    node: Arc<Node>,
    source: Arc<ConfigSource>,
    /// What the server runs with: as it was started, with the apps of now.
    running: Config,
    /// What is wrong with what was read last, as it was told.
    told: Option<ConfigError>,
    /// The settings that wait for a restart, as they were told.
    waiting: Vec<String>,
    asked: Arc<Notify>,
}

/// What became of a look at the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// All is as it was.
    Unchanged,
    /// Something was taken over.
    Taken,
    /// It is wrong, and was told so.
    Wrong,
    /// It is wrong, and was not told so yet.
    WrongForNow,
}

impl Follower {
    /// Follows what `running` was loaded from. `asked` is told when somebody wants it to be read again.
    pub(super) fn new(
        node: Arc<Node>,
        source: ConfigSource,
        running: Config,
        asked: Arc<Notify>,
    ) -> Follower {
        Follower {
            node,
            source: Arc::new(source),
            running,
            told: None,
            waiting: Vec::new(),
            asked,
        }
    }

    /// Works for ever.
    pub(super) async fn work(mut self) {
        if self.running.development() {
            return self.decline().await;
        }
        let changed = Arc::new(Notify::new());
        let has_files = !self.source.files(&self.running).is_empty();
        let is_watching = self.running.server.watch_config && has_files;
        let mut folders = is_watching.then(|| Folders::new(changed.clone())).flatten();
        if is_watching {
            // Something may have changed between the start and the first watch.
            changed.notify_one();
        }
        loop {
            if let Some(folders) = &mut folders {
                folders.watch(self.source.files(&self.running));
            }
            let is_asked = tokio::select! {
                () = self.asked.notified() => true,
                () = changed.notified() => {
                    sleep(SETTLE).await;
                    false
                }
                () = sleep(POLL), if is_watching => false,
            };
            if is_asked {
                self.told = None;
            }
            let mut look = self.look(!is_asked).await;
            if look == Look::WrongForNow {
                sleep(SPACING).await;
                look = self.look(false).await;
            }
            if is_asked && look == Look::Unchanged {
                tracing::info!("the configuration was read again: no app has changed");
            }
            tokio::select! {
                () = sleep(SPACING) => {}
                // Who asks is not to wait.
                () = self.asked.notified() => self.asked.notify_one(),
            }
        }
    }

    /// The demo app has no configuration that could change.
    async fn decline(&self) {
        loop {
            self.asked.notified().await;
            tracing::info!("the demo app is served: there is no configuration to read again");
        }
    }

    /// Reads the configuration and takes over what it says of apps. What is wrong is told once; who is patient has it
    /// told the next time only, for it may be about to be written.
    async fn look(&mut self, is_patient: bool) -> Look {
        let source = self.source.clone();
        let Ok(loaded) = spawn_blocking(move || source.load()).await else {
            return Look::Unchanged;
        };
        match loaded.and_then(|new| taken_over(&self.running, new)) {
            Ok((config, waiting)) => self.take(config, waiting),
            Err(error) if self.told.as_ref() == Some(&error) => Look::Wrong,
            Err(_) if is_patient => Look::WrongForNow,
            Err(error) => {
                self.refuse(&error);
                self.told = Some(error);
                Look::Wrong
            }
        }
    }

    fn take(&mut self, config: Config, waiting: Vec<String>) -> Look {
        if self.told.take().is_some() {
            tracing::info!("the configuration is right again");
        }
        if waiting != self.waiting && !waiting.is_empty() {
            tracing::warn!(
                settings = waiting.join(", "),
                "what has changed here takes effect when the server is started again"
            );
        }
        self.waiting = waiting;
        let changes = Changes::between(&self.running.apps, &config.apps);
        self.running = config;
        if changes.is_empty() {
            return Look::Unchanged;
        }
        changes.apply(&self.node);
        self.node.metrics().config_changes_total.inc();
        Look::Taken
    }

    fn refuse(&self, error: &ConfigError) {
        self.node.metrics().config_refused_total.inc();
        for problem in &error.problems {
            tracing::error!(%problem, "the changed configuration is wrong");
        }
        tracing::error!(
            problems = error.problems.len(),
            "the changed configuration is not used: all stays as it was"
        );
    }
}

/// The folders that are watched.
struct Folders {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    /// What the files in them are called that matter.
    names: Arc<Mutex<BTreeSet<OsString>>>,
}

impl Folders {
    /// None yet. `changed` is told of each sign of a change.
    fn new(changed: Arc<Notify>) -> Option<Folders> {
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
    fn watch(&mut self, files: BTreeSet<PathBuf>) {
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
