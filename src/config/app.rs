//! An app that stands elsewhere than in the configuration, such as in a database: held to the same names, types,
//! ranges and rules as the apps of the file.

use serde_json::{Map, Value};

use super::path::KeyPath;
use super::problem::{ConfigError, Report};
use super::shape::Shape;
use super::{Config, check, typed};
use crate::app::AppConfig;

/// Reads apps one by one.
#[derive(Debug)]
pub struct AppReader {
    shape: Shape,
    /// The paths of all settings of an app.
    known: Vec<KeyPath>,
    /// What the settings of an app are held against: the server's own. No app, broker or store in it.
    server: Config,
}

impl AppReader {
    /// A reader of apps for a server with this configuration.
    pub fn new(config: &Config) -> AppReader {
        let shape = Shape::of_config().entry("apps");
        let server = Config {
            apps: Vec::new(),
            adapter: Default::default(),
            redis: Default::default(),
            nats: Default::default(),
            store: Default::default(),
            ..config.clone()
        };
        AppReader {
            known: shape.keys(&KeyPath::default()),
            shape,
            server,
        }
    }

    /// Reads an app written as in the configuration file.
    ///
    /// # Errors
    /// Everything that is wrong, by the names of the settings inside the app; no value is told.
    pub fn read(&self, mut written: Value) -> Result<AppConfig, ConfigError> {
        let mut report = Report::new(self.known.clone());
        let root = KeyPath::default();
        self.shape.prune(&mut written, &root, &mut |key, fault| {
            report.fault(key, None, fault)
        });
        match typed::<AppConfig>(written) {
            Ok(app) if report.problems.is_empty() => {
                let inside = |key: &KeyPath| key.as_str().strip_prefix("apps[0].").map(KeyPath::new);
                let config = Config {
                    apps: vec![app],
                    ..self.server.clone()
                };
                for (key, text) in check::contradictions(&config) {
                    if let Some(key) = inside(&key) {
                        report.add(key, None, text);
                    }
                }
                match config.apps.into_iter().next() {
                    Some(app) if report.problems.is_empty() => return Ok(app),
                    _ => {}
                }
            }
            Ok(_) => {}
            Err((key, text)) => report.add(key, None, text),
        }
        Err(ConfigError {
            problems: report.problems,
        })
    }

    /// Sets one setting of an app to what a text says, read as what the setting is. A key inside a section has a dot,
    /// and sections and lists are JSON text.
    ///
    /// # Errors
    /// There is no such setting, or the text does not fit it.
    pub fn set(&self, app: &mut Map<String, Value>, key: &str, text: &str) -> Result<(), ConfigError> {
        let path = KeyPath::new(key);
        let mut report = Report::new(self.known.clone());
        let value = match self.shape.at(key) {
            None => {
                report.fault(path, None, super::problem::Fault::Unknown);
                None
            }
            Some(shape) => match shape.parse(text) {
                Ok(mut value) => {
                    let mut fault = |key, fault| report.fault(key, None, fault);
                    shape.prune(&mut value, &path, &mut fault).then_some(value)
                }
                Err(text) => {
                    report.add(path, None, text);
                    None
                }
            },
        };
        match value {
            Some(value) if report.problems.is_empty() => {
                put(app, key, value);
                Ok(())
            }
            _ => Err(ConfigError {
                problems: report.problems,
            }),
        }
    }
}

/// Puts a value in its place; the sections that lead there are made.
fn put(section: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(section.insert(key.to_owned(), value)),
        Some((outer, inner)) => {
            let outer = section.entry(outer).or_insert_with(|| Map::new().into());
            if !outer.is_object() {
                *outer = Map::new().into();
            }
            if let Value::Object(outer) = outer {
                put(outer, inner, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reader() -> AppReader {
        AppReader::new(&Config::default())
    }

    fn problems(error: &ConfigError) -> Vec<String> {
        error.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_app_is_read_as_one_of_the_file() {
        let app = json!({"id": "1", "keys": [{"key": "k", "secret": "s"}], "client_events": true});
        let app = reader().read(app).expect("in order");
        assert_eq!((app.id.as_str(), app.client_events), ("1", true));
    }

    #[test]
    fn all_that_is_wrong_is_told_by_its_name() {
        for (written, told) in [
            (json!({"id": "1"}), "key: is required"),
            (json!({"keys": [{"key": "k", "secret": "s"}]}), "id: is required"),
            (
                json!({"id": "1", "key": "k", "secret": "s", "client_event": true}),
                "client_event: there is no such setting; did you mean `client_events`?",
            ),
            (
                json!({"id": "1", "key": "k", "secret": "s", "client_events_per_s": 0}),
                "client_events_per_s: must be a whole number from 1 to 1000000, not 0",
            ),
            (
                json!({"id": "1", "key": "k", "secret": "s", "event_data_bytes_max": 4_000_000}),
                "event_data_bytes_max: can never be reached",
            ),
        ] {
            let error = reader().read(written.clone()).expect_err("something is wrong");
            let problems = problems(&error);
            assert!(problems[0].starts_with(told), "{written}: {problems:?}");
        }
    }

    #[test]
    fn a_setting_is_set_by_text() {
        let reader = reader();
        let mut app = Map::new();
        for (key, text) in [
            ("client_events", "true"),
            ("connections_max", "7"),
            ("allowed_origins", r#"["a.example"]"#),
        ] {
            reader.set(&mut app, key, text).expect(key);
        }
        let expected = json!({"client_events": true, "connections_max": 7, "allowed_origins": ["a.example"]});
        assert_eq!(Value::Object(app.clone()), expected);
        for (key, text) in [
            ("client_events", "perhaps"),
            ("connections_max", "-1"),
            ("allowed_origins", "a.example"),
            ("client_event", "true"),
            ("allowed_origins.x", "1"),
        ] {
            assert!(reader.set(&mut app, key, text).is_err(), "{key}={text}");
        }
        assert_eq!(Value::Object(app), expected);
    }
}
