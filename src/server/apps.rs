//! What has changed about the apps of a configuration, and doing it. Pure but for the last step.
//!
//! Only apps change while the server runs. Whatever else is different is named, and takes effect with the next start.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::app::{AppConfig, Settings};
use crate::config::{Config, ConfigError};
use crate::node::Node;

/// Apps that are named in one line of the log.
const LISTED_MAX: usize = 20;

/// What is to be done so that the apps are those of another configuration.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Ids of apps that are there no more.
    removed: Vec<String>,
    /// Apps that were not there before.
    added: Vec<AppConfig>,
    /// Apps of which anything is different.
    changed: Vec<AppConfig>,
}

impl Changes {
    /// What leads from some apps to others. The order of apps means nothing.
    pub(super) fn between(before: &[AppConfig], after: &[AppConfig]) -> Changes {
        let known: HashMap<_, _> = before.iter().map(|app| (&*app.id, app)).collect();
        let wanted: HashSet<_> = after.iter().map(|app| &*app.id).collect();
        let mut changes = Changes::default();
        for app in after {
            match known.get(&*app.id) {
                None => changes.added.push(app.clone()),
                Some(known) if *known != app => changes.changed.push(app.clone()),
                Some(_) => {}
            }
        }
        let gone = before.iter().filter(|app| !wanted.contains(&*app.id));
        changes.removed = gone.map(|app| app.id.clone()).collect();
        changes
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.changed.is_empty()
    }

    /// Does it. Each app is taken in or out as a whole: nobody meets one half changed.
    pub(super) fn apply(self, node: &Node) {
        tracing::info!(
            added = listed(self.added.iter().map(|app| &*app.id)),
            changed = listed(self.changed.iter().map(|app| &*app.id)),
            removed = listed(self.removed.iter().map(String::as_str)),
            "the apps of the configuration have changed"
        );
        for id in &self.removed {
            node.remove_app(id);
        }
        for app in self.added.into_iter().chain(self.changed) {
            match Settings::new(app) {
                Ok(settings) => drop(node.apply_app(settings)),
                // They were looked at when the configuration was loaded.
                Err(faults) => tracing::error!(?faults, "an app cannot be taken in"),
            }
        }
    }
}

/// Some ids, for the log.
fn listed<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = ids.len().saturating_sub(LISTED_MAX);
    let mut text = ids.take(LISTED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

/// The running configuration with the apps of a new one, if that can be: their secrets, say, must be fit for the address
/// that the server really listens on. Beside it the paths of the settings that would need a restart.
pub(super) fn taken_over(running: &Config, new: Config) -> Result<(Config, Vec<String>), ConfigError> {
    let waiting = differences(running, &new);
    let merged = running.with_apps(new.apps)?;
    Ok((merged, waiting))
}

/// The paths of the settings that differ, but for the apps.
fn differences(running: &Config, new: &Config) -> Vec<String> {
    let without_apps = |config: &Config| {
        let mut written = serde_json::to_value(config).unwrap_or_default();
        if let Some(sections) = written.as_object_mut() {
            sections.remove("apps");
        }
        written
    };
    let mut paths = Vec::new();
    compare("", &without_apps(running), &without_apps(new), &mut paths);
    let without = |config: &Config| Config {
        apps: Vec::new(),
        ..config.clone()
    };
    if paths.is_empty() && without(running) != without(new) {
        // Secrets look all the same in what is printed.
        paths.push("a password".into());
    }
    paths
}

fn compare(path: &str, running: &Value, new: &Value, paths: &mut Vec<String>) {
    match (running, new) {
        (Value::Object(running), Value::Object(new)) => {
            for (name, value) in running {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                compare(&path, value, new.get(name).unwrap_or(&Value::Null), paths);
            }
        }
        _ if running != new => paths.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Secret;

    fn app(id: &str, connections_max: usize) -> AppConfig {
        AppConfig {
            id: id.into(),
            key: format!("key-{id}"),
            secret: Secret::new("s"),
            connections_max,
            ..AppConfig::default()
        }
    }

    fn config(apps: Vec<AppConfig>) -> Config {
        Config {
            apps,
            ..Config::default()
        }
    }

    #[test]
    fn only_what_differs_is_done() {
        let before = [app("1", 1), app("2", 2), app("3", 3)];
        assert!(Changes::between(&before, &[app("3", 3), app("1", 1), app("2", 2)]).is_empty());
        let changes = Changes::between(&before, &[app("4", 4), app("1", 1), app("2", 7)]);
        let expected = Changes {
            removed: vec!["3".into()],
            added: vec![app("4", 4)],
            changed: vec![app("2", 7)],
        };
        assert_eq!(changes, expected);
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let running = config(vec![app("1", 1)]);
        let mut new = config(vec![app("2", 1)]);
        new.server.port = 7;
        new.adapter.connections = 3;
        new.drain.drain_s = 3;
        let (taken, waiting) = taken_over(&running, new).expect("in order");
        assert_eq!(waiting, ["adapter.connections", "drain.drain_s", "server.port"]);
        assert_eq!(taken, config(vec![app("2", 1)]));
        let mut running = running;
        running.redis.password = Secret::new("one");
        let mut new = running.clone();
        new.redis.password = Secret::new("other");
        let (_, waiting) = taken_over(&running, new).expect("in order");
        assert_eq!(waiting, ["a password"]);
    }

    #[test]
    fn apps_must_be_fit_for_the_address_that_is_served() {
        let mut running = config(vec![app("1", 1)]);
        running.server.host = "0.0.0.0".into();
        let mut known = app("1", 1);
        known.secret = Secret::new(AppConfig::DEMO_SECRET);
        let new = config(vec![known]);
        assert!(
            taken_over(&running, new).is_err(),
            "the new one would listen on loopback only"
        );
        assert!(
            taken_over(&running, config(Vec::new())).is_err(),
            "the demo app is not for a running server"
        );
    }
}
