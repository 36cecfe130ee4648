//! The keys of an app: usually one, and two while it is being replaced.
//!
//! A signature by any key that may be used now is accepted; the server itself signs with the oldest of them, since a
//! receiver learns of a new key later than it is made.

use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::AppConfig;
use crate::secret::Secret;

/// A further key of an app. To replace a key, add the new one, give the old one an end, and take it out when that has
/// come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["key"]))]
pub struct KeyConfig {
    /// As `key` of the app: unique among the keys of all apps, public.
    pub key: String,
    /// As `secret` of the app.
    pub secret: Secret,
    /// As `secret_file` of the app.
    pub secret_file: Option<PathBuf>,
    /// From when on the key may be used, such as `2026-12-24T18:00:00Z`. Without it: since ever.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub active_from: Option<Timestamp>,
    /// Until when the key may be used. Without it: for ever.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
}

/// A key, resolved.
#[derive(Clone, Debug)]
pub struct Key {
    /// The public half, which stands in paths and signatures.
    pub name: String,
    /// What signatures are made with. Never log or answer with it.
    pub secret: Secret,
    active_from: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

impl Key {
    fn has_times(&self) -> bool {
        self.active_from.is_some() || self.expires_at.is_some()
    }

    fn is_active(&self, now: Timestamp) -> bool {
        KeyState::of(self.active_from, self.expires_at, now) == KeyState::Active
    }
}

/// Whether a key may be used at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Not before its time has come.
    NotYet,
    /// It may.
    Active,
    /// Not any more.
    Expired,
}

impl KeyState {
    /// That of a key which may be used from one time on, if any, and not from another one on.
    pub fn of(active_from: Option<Timestamp>, expires_at: Option<Timestamp>, now: Timestamp) -> KeyState {
        if expires_at.is_some_and(|end| end <= now) {
            KeyState::Expired
        } else if active_from.is_some_and(|from| from > now) {
            KeyState::NotYet
        } else {
            KeyState::Active
        }
    }
}

/// All keys of an app, the oldest first.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub(super) fn of(config: &AppConfig) -> Keys {
        let mut keys: Vec<Key> = config
            .all_keys()
            .map(|key| Key {
                name: key.key,
                secret: key.secret,
                active_from: key.active_from,
                expires_at: key.expires_at,
            })
            .collect();
        // Stable: those of one age stay in the order in which they were written. None comes before every time.
        keys.sort_by_key(|key| key.active_from);
        Keys(keys)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    pub(super) fn active(&self, name: &str, now: impl FnOnce() -> Timestamp) -> Option<&Key> {
        let key = self.0.iter().find(|key| key.name == name)?;
        (!key.has_times() || key.is_active(now())).then_some(key)
    }

    pub(super) fn oldest(&self, now: impl FnOnce() -> Timestamp) -> Option<&Key> {
        match self.0.first() {
            Some(first) if !first.has_times() => Some(first),
            _ => {
                let now = now();
                self.0.iter().find(|key| key.is_active(now))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn key(name: &str, from: Option<i64>, until: Option<i64>) -> KeyConfig {
        KeyConfig {
            key: name.into(),
            secret: Secret::new(&format!("secret of {name}")),
            active_from: from.map(at),
            expires_at: until.map(at),
            ..KeyConfig::default()
        }
    }

    fn keys(keys: Vec<KeyConfig>) -> Keys {
        Keys::of(&AppConfig {
            key: String::new(),
            secret: Secret::default(),
            keys,
            ..AppConfig::demo()
        })
    }

    #[test]
    fn a_key_may_be_used_from_its_beginning_until_before_its_end() {
        let keys = keys(vec![key("a", Some(10), Some(20)), key("b", None, None)]);
        for (second, is_active) in [(9, false), (10, true), (19, true), (20, false)] {
            assert_eq!(keys.active("a", || at(second)).is_some(), is_active, "{second}");
        }
        assert!(keys.active("b", || unreachable!("it has no times")).is_some());
        assert!(keys.active("c", || at(15)).is_none());
    }

    #[test]
    fn the_oldest_key_that_may_be_used_signs() {
        let keys = keys(vec![
            key("new", Some(30), None),
            key("old", Some(10), Some(40)),
            key("oldest", None, Some(20)),
        ]);
        for (second, name) in [(5, "oldest"), (20, "old"), (35, "old"), (40, "new")] {
            let oldest = keys.oldest(|| at(second)).map(|key| key.name.as_str());
            assert_eq!(oldest, Some(name), "{second}");
        }
    }

    #[test]
    fn an_app_may_be_without_any_key_for_a_while() {
        let keys = keys(vec![key("a", Some(10), Some(20))]);
        assert!(keys.oldest(|| at(25)).is_none());
    }
}
