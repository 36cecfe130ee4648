//! A bound on something that is taken and given back: exact under races, and given back whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::App;

/// Places taken of a number that may change, shared by all threads.
#[derive(Debug, Default)]
pub(super) struct Quota {
    taken: AtomicUsize,
    /// Taken on other nodes, as far as they said.
    elsewhere: AtomicUsize,
}

impl Quota {
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn elsewhere(&self) -> usize {
        self.elsewhere.load(Ordering::Relaxed)
    }

    pub(super) fn set_elsewhere(&self, taken: usize) {
        self.elsewhere.store(taken, Ordering::Relaxed);
    }

    /// Takes a place; the answer is how many are taken then, here and elsewhere. Relaxed is enough: the count guards no
    /// other memory, and each step is one atomic change of it. Exact on this node; what other nodes take is known as of
    /// their last announcement.
    fn take(&self, max: usize) -> Option<usize> {
        let elsewhere = self.elsewhere();
        let max = max.saturating_sub(elsewhere);
        let more = |taken| (taken < max).then_some(taken + 1);
        let before = self.taken.try_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.ok().map(|before| before + 1 + elsewhere)
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection's place in its app's quota, given back on drop: a task that panics or is cancelled gives it
/// back too.
#[derive(Debug)]
#[must_use = "dropping it gives the place back at once"]
pub struct Admission {
    app: Arc<App>,
}

impl Admission {
    pub(super) fn take(app: &Arc<App>) -> Option<Admission> {
        let max = app.settings().limits.connections_max;
        let connections = app.connections.take(max)?;
        app.usage.note_connections(connections);
        Some(Admission { app: Arc::clone(app) })
    }

    /// The app that admitted the connection.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.app.connections.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::app::{AppConfig, Settings};

    fn app(connections_max: usize) -> Arc<App> {
        Arc::new(App::new(
            Settings::new(AppConfig {
                connections_max,
                ..AppConfig::demo()
            })
            .expect("the demo app is valid"),
        ))
    }

    #[test]
    fn a_full_app_admits_nobody_until_somebody_leaves() {
        let app = app(2);
        let first = app.admit().expect("the first of two");
        let second = app.admit().expect("the second of two");
        assert!(app.admit().is_none());
        assert_eq!(app.connections(), 2);
        drop(first);
        let third = app.admit().expect("a place was given back");
        drop((second, third));
        assert_eq!(app.connections(), 0);
    }

    #[test]
    fn an_unlimited_app_still_counts() {
        let app = app(0);
        let admissions: Vec<_> = (0..1000).map(|_| app.admit().expect("no limit")).collect();
        assert_eq!(app.connections(), 1000);
        drop(admissions);
        assert_eq!(app.connections(), 0);
    }

    #[test]
    fn a_race_admits_exactly_the_quota() {
        let (app, barrier) = (app(100), Barrier::new(8));
        let race = || {
            barrier.wait();
            (0..50).filter_map(|_| app.admit()).collect::<Vec<_>>()
        };
        let admitted: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
            racers
                .into_iter()
                .flat_map(|racer| racer.join().expect("no racer panics"))
                .collect()
        });
        assert_eq!((admitted.len(), app.connections()), (100, 100));
        drop(admitted);
        assert_eq!(app.connections(), 0);
    }
}
