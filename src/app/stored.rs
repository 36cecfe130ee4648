//! The apps of a store in the directory: taken in, kept up to date, and forgotten when nobody uses them.
//!
//! An app that somebody is connected to is never forgotten, nor is one that somebody holds: there must not be two of one
//! id. The store itself is asked elsewhere.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::keys::Key;
use super::settings::Settings;
use super::{App, Apps, Day};

/// What is noted of an app of a store.
#[derive(Debug)]
pub(super) struct Entry {
    /// Of the record as it was read last.
    fingerprint: u64,
    /// Since when nobody has looked for it. Only [`Apps::sweep`] looks, so nobody waits for it.
    unused_since: Mutex<Instant>,
}

/// Why settings of a store were not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The configuration has an app with this id, and counts.
    InConfiguration,
}

/// What is to be done with the apps of a store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// To be read again.
    pub used: Vec<Arc<str>>,
    /// To be forgotten if nobody holds them.
    pub unused: Vec<Arc<str>>,
}

impl App {
    /// Whether it is of a store.
    pub fn is_stored(&self) -> bool {
        self.is_stored.load(Ordering::Relaxed)
    }
}

impl Apps {
    /// Whether the app was read like this before, right or wrong, and nothing is to be had by taking it in again: a key
    /// that another app had when it was may be free by now.
    pub fn has_read(&self, id: &str, fingerprint: u64) -> bool {
        let known = self.known();
        let entry = known.stored.get(id);
        let was_read = entry.is_some_and(|entry| entry.fingerprint == fingerprint);
        let has_its_keys = |app: &Arc<App>| {
            let settings = app.settings();
            settings.keys().all(|key| known.by_key.contains_key(&*key.name))
        };
        was_read && known.by_id.get(id).is_some_and(has_its_keys)
    }

    /// Notes that the app was read like this and is wrong, so that it stays as it was.
    pub fn keep_as_it_was(&self, id: &str, fingerprint: u64) {
        if let Some(entry) = self.known_mut().stored.get_mut(id) {
            entry.fingerprint = fingerprint;
        }
    }

    /// Takes in an app of a store, or replaces its settings. The answer is the app, and whether it was
    /// known. A key that another app has stays with that one. `today` is what the store has of the messages of a day, so
    /// that the first one charged here knows it.
    ///
    /// # Errors
    /// The configuration has an app of this name, and counts.
    pub fn put_stored(
        &self,
        settings: Settings,
        fingerprint: u64,
        today: Option<(Day, u64)>,
        now: Instant,
    ) -> Result<(Arc<App>, bool), NotTaken> {
        let mut known = self.known_mut();
        let id: Arc<str> = settings.config.id.as_str().into();
        let was_known = known.by_id.contains_key(&id);
        if was_known && !known.stored.contains_key(&id) {
            return Err(NotTaken::InConfiguration);
        }
        // Where two apps claim a key, the tables were changed between two looks: the next ones will tell.
        let app = known.put(settings, App::is_stored);
        app.is_stored.store(true, Ordering::Relaxed);
        // Nobody finds it before the directory is unlocked.
        if let Some((day, messages)) = today {
            app.set_messages_saved(day, messages);
        }
        let entry = known.stored.entry(id).or_insert(Entry {
            fingerprint,
            unused_since: Mutex::new(now),
        });
        entry.fingerprint = fingerprint;
        Ok((app, was_known))
    }

    /// Looks which apps of a store are used: those with sockets, and those that somebody looked for within `ttl`. No
    /// more than `unused_max` others are to be remembered.
    pub fn sweep(&self, ttl: Duration, unused_max: usize, now: Instant) -> Sweep {
        let mut sweep = Sweep::default();
        let mut idle = Vec::new();
        // Whoever connects goes on reading meanwhile; what takes longer is done when the directory is free again.
        let known = self.known();
        for (id, entry) in &known.stored {
            let Some(app) = known.by_id.get(id) else { continue };
            let mut unused_since = entry.unused_since.lock().unwrap_or_else(PoisonError::into_inner);
            if app.was_wanted.swap(false, Ordering::Relaxed) || app.connections() > 0 {
                *unused_since = now;
            }
            if app.connections() > 0 {
                sweep.used.push(id.clone());
            } else if now.duration_since(*unused_since) >= ttl {
                sweep.unused.push(id.clone());
            } else {
                idle.push((*unused_since, id.clone()));
            }
        }
        drop(known);
        if idle.len() > unused_max {
            // Those that were used last come first; their own order is of no use.
            idle.select_nth_unstable_by_key(unused_max, |(since, _)| Reverse(*since));
            sweep
                .unused
                .extend(idle.split_off(unused_max).into_iter().map(|(_, id)| id));
        }
        sweep.used.extend(idle.into_iter().map(|(_, id)| id));
        sweep
    }

    /// Forgets an app of a store, if nobody holds it. Whether it is gone.
    pub fn forget(&self, id: &str) -> bool {
        let mut known = self.known_mut();
        let Some(app) = known.by_id.get(id).cloned() else {
            return true;
        };
        let leads_here = |key: &&Key| {
            known
                .by_key
                .get(&*key.name)
                .is_some_and(|of| Arc::ptr_eq(of, &app))
        };
        let leading = app.settings().keys().filter(leads_here).count();
        // The directory's own, and the one just taken. Nobody gets another while the directory is locked.
        let is_held = Arc::strong_count(&app) > leading + 2;
        if is_held || !known.stored.contains_key(id) {
            return false;
        }
        known.forget_keys(&app);
        known.by_id.remove(id);
        known.stored.remove(id);
        true
    }

    /// Whether the app is known, and of a store.
    pub fn is_stored(&self, id: &str) -> bool {
        self.known().stored.contains_key(id)
    }

    pub(super) fn stored_count(&self) -> usize {
        self.known().stored.len()
    }

    /// Notes that somebody looks for this app.
    pub(super) fn wanted(&self, app: &App) {
        if !app.is_stored() {
            return;
        }
        // Read first: it is written for all that look for the app together.
        if !app.was_wanted.load(Ordering::Relaxed) {
            app.was_wanted.store(true, Ordering::Relaxed);
        }
        if let Some(door) = self.door() {
            door.served_stale();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppConfig;

    fn settings(id: &str, key: &str) -> Settings {
        let config = AppConfig {
            id: id.into(),
            key: key.into(),
            ..AppConfig::demo()
        };
        Settings::new(config).expect("an app in order")
    }

    #[test]
    fn a_key_that_comes_free_has_the_app_read_again_that_claims_it() {
        let apps = Apps::default();
        apps.put(settings("file", "a"));
        let put = || {
            apps.put_stored(settings("1", "a"), 7, None, Instant::now())
                .is_ok()
        };
        assert!(put());
        // The configuration counts, and reading the app again and again would not change that.
        assert!(apps.has_read("1", 7) && !apps.has_read("1", 8));
        apps.remove("file");
        assert!(!apps.has_read("1", 7));
        assert!(put() && apps.has_read("1", 7));
        assert_eq!(apps.by_key("a").map(|app| app.id().to_owned()), Some("1".into()));
    }

    #[test]
    fn of_apps_that_nobody_uses_those_are_forgotten_that_were_used_longest_ago() {
        let apps = Apps::default();
        let start = Instant::now();
        let (ttl, second) = (Duration::from_secs(10), Duration::from_secs(1));
        for (at, id) in (0..).zip(["1", "2", "3", "4"]) {
            let now = start + second * at;
            apps.put_stored(settings(id, id), 0, None, now)
                .expect("no namesake");
            // Who was just put in is wanted.
            apps.sweep(ttl, 9, now);
        }
        let sorted = |mut ids: Vec<Arc<str>>| {
            ids.sort();
            ids.join(" ")
        };
        let place = apps.by_id("1").expect("it is there").admit().expect("no limit");
        let sweep = apps.sweep(ttl, 2, start + second * 4);
        assert_eq!(
            (sorted(sweep.used), sorted(sweep.unused)),
            ("1 3 4".into(), "2".into())
        );
        drop(place);
        let sweep = apps.sweep(ttl, 9, start + second * 12);
        assert_eq!(
            (sorted(sweep.used), sorted(sweep.unused)),
            ("1 4".into(), "2 3".into())
        );
    }
}
