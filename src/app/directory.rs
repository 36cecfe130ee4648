//! Which apps there are: one is found by its id, or by any of its keys.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use super::App;
use super::config::{AppConfig, Fault};
use super::lookup::Door;
use super::settings::Settings;
use super::stored::Entry;

/// The apps that this server knows. Looked up with each connection and request, changed now and then.
#[derive(Debug, Default)]
pub struct Apps {
    known: RwLock<Known>,
    /// The way to a store that may have more.
    door: Option<Door>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) by_id: HashMap<Arc<str>, Arc<App>>,
    pub(super) by_key: HashMap<Arc<str>, Arc<App>>,
    /// Those of a store.
    pub(super) stored: HashMap<Arc<str>, Entry>,
    /// Apps that are not served here, for as long as somebody holds them: one that comes back is the same one.
    unserved: HashMap<Arc<str>, Weak<App>>,
}

impl Apps {
    /// Resolves a list of apps. `Err` holds everything that is wrong, each with the app's position in the
    /// list.
    pub fn new(configs: impl IntoIterator<Item = AppConfig>) -> Result<Apps, Vec<(usize, Fault)>> {
        let settings = resolve(configs)?;
        let apps = Apps::default();
        for settings in settings {
            apps.put(settings);
        }
        Ok(apps)
    }

    pub(super) fn through(self, door: Door) -> Apps {
        Apps {
            door: Some(door),
            ..self
        }
    }

    pub(super) fn door(&self) -> Option<&Door> {
        self.door.as_ref()
    }

    pub(super) fn known(&self) -> RwLockReadGuard<'_, Known> {
        // Whole after each change.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in an app, or replaces the settings of the one with this id. The answer is that app. What follows for who is
    /// connected is the caller's business.
    pub fn put(&self, settings: Settings) -> Arc<App> {
        let mut known = self.known_mut();
        known.stored.remove(settings.config.id.as_str());
        let app = known.put(settings, |_| true);
        app.is_stored.store(false, Ordering::Relaxed);
        app
    }

    /// Takes an app out: nobody finds it any more, and nobody may be connected to it. Who holds it is not told.
    pub fn remove(&self, id: &str) -> Option<Arc<App>> {
        let mut known = self.known_mut();
        let app = known.by_id.remove(id)?;
        known.stored.remove(id);
        known.forget_keys(&app);
        app.is_served.store(false, Ordering::Release);
        known.unserved.insert(app.id.clone(), Arc::downgrade(&app));
        Some(app)
    }

    /// The app with this id, whether it is served here or not: what other nodes have of it counts as soon as it is.
    /// A store is asked for one that is not.
    pub fn served_or_not(&self, id: &str) -> Arc<App> {
        if let Some(app) = self.held(id) {
            return app;
        }
        let mut known = self.known_mut();
        if let Some(app) = known.by_id.get(id) {
            return app.clone();
        }
        let app = known
            .take_unserved(id)
            .unwrap_or_else(|| Arc::new(App::unserved(id)));
        known.unserved.insert(app.id.clone(), Arc::downgrade(&app));
        drop(known);
        self.ask_aside(id);
        app
    }

    /// Forgets the apps that are not served and that nobody holds any more.
    pub fn forget_unserved(&self) {
        let is_idle = self.known().unserved.is_empty();
        if !is_idle {
            self.known_mut().unserved.retain(|_, app| app.strong_count() > 0);
        }
    }

    /// The app with this id, as in `/apps/ID/events`, if it is known.
    pub fn by_id(&self, id: &str) -> Option<Arc<App>> {
        let app = self.held(id)?;
        self.wanted(&app);
        Some(app)
    }

    /// The app with this key, as in `/app/KEY`, whether the key may be used now or not, if it is known.
    pub fn by_key(&self, key: &str) -> Option<Arc<App>> {
        let app = self.held_by_key(key)?;
        self.wanted(&app);
        Some(app)
    }

    /// The app with this id, if it is known, for who does not ask in the name of a client: it is not remembered longer.
    pub fn held(&self, id: &str) -> Option<Arc<App>> {
        self.known().by_id.get(id).cloned()
    }

    /// The same by a key.
    pub(super) fn held_by_key(&self, key: &str) -> Option<Arc<App>> {
        self.known().by_key.get(key).cloned()
    }

    /// All apps of this moment, in no particular order.
    pub fn all(&self) -> Vec<Arc<App>> {
        self.known().by_id.values().cloned().collect()
    }
}

impl Known {
    /// An app that is not served, if somebody still holds it.
    fn take_unserved(&mut self, id: &str) -> Option<Arc<App>> {
        self.unserved.remove(id)?.upgrade()
    }

    /// Takes in settings; of their keys those that may lead to the app, given whose they are now.
    pub(super) fn put(&mut self, settings: Settings, may_lead: impl Fn(&App) -> bool) -> Arc<App> {
        let names: Vec<Arc<str>> = settings.keys().map(|key| key.name.as_str().into()).collect();
        let id = settings.config.id.as_str();
        let app = match self.by_id.get(id).cloned() {
            Some(app) => {
                self.forget_keys(&app);
                app.set(settings);
                app
            }
            None => {
                let app = match self.take_unserved(id) {
                    Some(app) => {
                        app.set(settings);
                        app.is_served.store(true, Ordering::Release);
                        app
                    }
                    None => Arc::new(App::new(settings)),
                };
                self.by_id.insert(app.id.clone(), app.clone());
                app
            }
        };
        for name in names {
            if self.by_key.get(&name).is_none_or(|of| may_lead(of)) {
                self.by_key.insert(name, app.clone());
            }
        }
        app
    }

    /// Takes out the keys that lead to this app; one that leads to another by now stays.
    pub(super) fn forget_keys(&mut self, app: &Arc<App>) {
        for key in app.settings().keys() {
            if self
                .by_key
                .get(key.name.as_str())
                .is_some_and(|known| Arc::ptr_eq(known, app))
            {
                self.by_key.remove(key.name.as_str());
            }
        }
    }
}

/// Resolves a list of apps without taking them in, or tells all that is wrong, each with the app's position.
pub(super) fn resolve(
    configs: impl IntoIterator<Item = AppConfig>,
) -> Result<Vec<Settings>, Vec<(usize, Fault)>> {
    let mut resolved = Vec::new();
    let mut faults = Vec::new();
    let mut taken = Taken::default();
    for (index, config) in configs.into_iter().enumerate() {
        // An app that is wrong otherwise takes its names too, so that all faults come at once.
        let mut wrong = taken.add(&config);
        match Settings::new(config) {
            Ok(settings) => resolved.push(settings),
            Err(by_itself) => wrong.extend(by_itself),
        }
        faults.extend(wrong.into_iter().map(|fault| (index, fault)));
    }
    if faults.is_empty() {
        Ok(resolved)
    } else {
        Err(faults)
    }
}

/// The names that apps of a list have, right or wrong.
#[derive(Default)]
struct Taken {
    ids: HashSet<String>,
    keys: HashSet<String>,
}

impl Taken {
    /// Notes the names of one more app, and tells which of them another has. A missing name is none.
    fn add(&mut self, config: &AppConfig) -> Vec<Fault> {
        let keys = config.keys.iter().enumerate();
        let keys = keys.map(|(index, key)| (format!("keys[{index}].key"), &key.key));
        let mut faults = Vec::new();
        let mut note = |place: String, what: &str, name: &String, taken: &mut HashSet<String>| {
            if !name.is_empty() && !taken.insert(name.clone()) {
                faults.push(Fault {
                    key: place,
                    text: format!("the {what} `{name}` is taken already"),
                });
            }
        };
        note("id".into(), "id", &config.id, &mut self.ids);
        note("key".into(), "key", &config.key, &mut self.keys);
        for (place, key) in keys {
            note(place, "key", key, &mut self.keys);
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{KeyConfig, Secret};
    use crate::protocol::CloseCode;

    fn app(id: &str, key: &str) -> AppConfig {
        AppConfig {
            id: id.into(),
            key: key.into(),
            ..AppConfig::demo()
        }
    }

    #[test]
    fn apps_are_found_by_id_and_by_key() {
        let apps = Apps::new([app("1", "a"), app("2", "b")]).expect("two different apps");
        assert_eq!(
            apps.by_id("2").map(|app| app.settings().config.key.clone()),
            Some("b".into())
        );
        assert_eq!(apps.by_key("a").map(|app| app.id().to_owned()), Some("1".into()));
        assert!(apps.by_id("a").is_none() && apps.by_key("1").is_none());
        assert_eq!(apps.all().len(), 2);
    }

    #[test]
    fn ids_and_keys_are_unique_and_all_faults_are_told() {
        let faults =
            Apps::new([app("1", "a"), app("1", "b"), app("2", "a"), app("", "c")]).expect_err("three faults");
        let places: Vec<_> = faults
            .iter()
            .map(|(index, fault)| (*index, fault.key.as_str()))
            .collect();
        assert_eq!(places, [(1, "id"), (2, "key"), (3, "id")]);
    }

    #[test]
    fn the_names_of_an_app_without_a_secret_are_taken_too() {
        let without_secret = || AppConfig {
            secret: Secret::default(),
            ..app("1", "a")
        };
        let faults = Apps::new([without_secret(), app("1", "a"), app("", ""), app("", "")])
            .expect_err("every app is wrong");
        let places: Vec<_> = faults
            .iter()
            .map(|(index, fault)| (*index, fault.key.as_str()))
            .collect();
        let expected = [
            (0, "secret"),
            (1, "id"),
            (1, "key"),
            (2, "id"),
            (2, "key"),
            (3, "id"),
            (3, "key"),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let config = AppConfig {
            secret: Secret::new("s3cr3t"),
            ..app("1", "a")
        };
        let apps = Apps::new([config]).expect("a valid app");
        assert!(!format!("{apps:?}").contains("s3cr3t"));
    }

    fn with_keys(id: &str, keys: &[&str]) -> Settings {
        let key = |key: &&str| KeyConfig {
            key: (*key).into(),
            secret: Secret::new("s"),
            ..KeyConfig::default()
        };
        let config = AppConfig {
            id: id.into(),
            key: String::new(),
            secret: Secret::default(),
            keys: keys.iter().map(key).collect(),
            ..AppConfig::demo()
        };
        Settings::new(config).expect("an app in order")
    }

    #[test]
    fn an_app_that_changes_stays_the_same_one() {
        let apps = Apps::default();
        let app = apps.put(with_keys("1", &["a", "b"]));
        let place = app.admit().expect("no limit");
        assert!(Arc::ptr_eq(&app, &apps.put(with_keys("1", &["b", "c"]))));
        assert_eq!(apps.by_id("1").map(|app| app.connections()), Some(1));
        assert!(apps.by_key("a").is_none());
        assert!(["b", "c"].iter().all(|key| apps.by_key(key).is_some()));
        drop(place);
        apps.remove("1");
        assert!(apps.by_id("1").is_none() && apps.by_key("b").is_none());
    }

    #[test]
    fn a_key_that_moves_to_another_app_stays_there() {
        let apps = Apps::default();
        apps.put(with_keys("1", &["a", "moves"]));
        apps.put(with_keys("2", &["moves"]));
        apps.put(with_keys("1", &["a"]));
        assert_eq!(
            apps.by_key("moves").map(|app| app.id().to_owned()),
            Some("2".into())
        );
    }

    #[test]
    fn an_app_that_comes_back_is_the_same_one_as_long_as_somebody_holds_it() {
        let apps = Apps::default();
        let held = apps.put(with_keys("1", &["a"]));
        apps.remove("1");
        assert_eq!(held.closed(), Some(CloseCode::NoSuchApp));
        assert!(Arc::ptr_eq(&held, &apps.served_or_not("1")));
        apps.forget_unserved();
        assert!(Arc::ptr_eq(&held, &apps.put(with_keys("1", &["b"]))));
        assert_eq!(held.closed(), None);
        assert!(apps.by_key("a").is_none() && apps.by_key("b").is_some());
    }

    #[test]
    fn what_other_nodes_have_of_an_app_counts_as_soon_as_it_is_served() {
        let apps = Apps::default();
        let app = apps.served_or_not("1");
        app.set_connections_elsewhere(7);
        assert!(app.closed().is_some() && apps.by_id("1").is_none() && apps.all().is_empty());
        let served = apps.put(with_keys("1", &["a"]));
        assert_eq!(served.connections_everywhere(), 7);
        assert!(Arc::ptr_eq(&served, &apps.served_or_not("1")));
        assert_eq!(served.closed(), None);
        drop((app, served));
        apps.remove("1");
        apps.forget_unserved();
        assert_eq!(
            apps.served_or_not("1").connections_everywhere(),
            0,
            "it was forgotten"
        );
    }
}
