//! Following the configuration while the server runs: it is read again when its files change, or when somebody asks.
//!
//! What counts is what the files hold: a change that changes nothing is none, and a configuration that is wrong leaves
//! everything as it is. What a change means for apps is in `apps.rs`.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::apps::{Changes, taken_over};
use super::folders::{Folders, POLL, SETTLE, SPACING};
use crate::config::{Config, ConfigError, ConfigSource};
use crate::node::Node;

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
