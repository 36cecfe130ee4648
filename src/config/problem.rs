//! What is wrong with a configuration, and where: all of it at once, each with the full path of its key.

use std::fmt;

use thiserror::Error;

use super::hint;
use super::path::KeyPath;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting concerned; empty if it is none in particular.
    pub key: KeyPath,
    /// The environment variable that gave the value, or has a name that means nothing.
    pub variable: Option<String>,
    /// What is wrong, for a person. Never repeats a text value: it might be a secret.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.variable) {
            ("", None) => write!(f, "{}", self.text),
            ("", Some(variable)) => write!(f, "{variable}: {}", self.text),
            (key, None) => write!(f, "{key}: {}", self.text),
            (key, Some(variable)) => write!(f, "{key} ({variable}): {}", self.text),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the configuration cannot be used:{}", listed(.problems))]
pub struct ConfigError {
    /// At least one problem.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// What is wrong, by the settings.
    pub(super) fn of(problems: impl IntoIterator<Item = (KeyPath, String)>) -> ConfigError {
        let problem = |(key, text)| Problem {
            key,
            variable: None,
            text,
        };
        ConfigError {
            problems: problems.into_iter().map(problem).collect(),
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// What is wrong with a value, or with the key it stands at.
pub(super) enum Fault {
    /// Nothing has this name.
    Unknown,
    /// The value is not what the setting can be; the text says what it must be.
    Unfit(String),
}

/// Collects problems.
pub(super) struct Report {
    /// The paths of all settings, with `[]` for the entries of lists.
    known: Vec<KeyPath>,
    pub(super) problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(known: Vec<KeyPath>) -> Report {
        Report {
            known,
            problems: Vec::new(),
        }
    }

    /// Something is wrong with a setting; `variable` is what gave it, if the environment did.
    pub(super) fn fault(&mut self, key: KeyPath, variable: Option<&str>, fault: Fault) {
        let text = match fault {
            Fault::Unfit(text) => text,
            Fault::Unknown => match hint::nearest(&key, self.known.iter().cloned()) {
                Some(nearest) => format!("there is no such setting; did you mean `{nearest}`?"),
                None => "there is no such setting".into(),
            },
        };
        self.add(key, variable, text);
    }

    /// A variable names no setting; `written` is the path it spells.
    pub(super) fn unknown_variable(&mut self, variable: &str, written: &KeyPath, also: KeyPath) {
        let text = match hint::nearest(written, self.known.iter().cloned().chain([also])) {
            Some(nearest) => format!("there is no such setting; did you mean {}?", nearest.env_name()),
            None => "there is no such setting".into(),
        };
        self.add(KeyPath::default(), Some(variable), text);
    }

    pub(super) fn add(&mut self, key: KeyPath, variable: Option<&str>, text: String) {
        self.problems.push(Problem {
            key,
            variable: variable.map(str::to_owned),
            text,
        });
    }

    /// Whether something was reported inside this setting or around it.
    pub(super) fn concerns(&self, key: &KeyPath) -> bool {
        let related = |problem: &Problem| {
            problem.key != KeyPath::default() && (problem.key.contains(key) || key.contains(&problem.key))
        };
        self.problems.iter().any(related)
    }
}
