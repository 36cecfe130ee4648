//! The binary as somebody runs it who has written a configuration.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The binary, in an empty environment and a directory of its own.
pub(crate) struct Fanwire {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

impl Fanwire {
    pub(crate) fn new() -> Fanwire {
        Fanwire {
            directory: TempDir::new().expect("a temporary directory"),
            environment: Vec::new(),
        }
    }

    pub(crate) fn with_file(self, text: &str) -> Fanwire {
        fs::write(self.directory.path().join("fanwire.json"), text).expect("a file can be written");
        self.with_env("FANWIRE_CONFIG", "fanwire.json")
    }

    pub(crate) fn with_config(self, config: &Value) -> Fanwire {
        self.with_file(&config.to_string())
    }

    pub(crate) fn with_env(mut self, variable: &str, value: &str) -> Fanwire {
        self.environment.push((variable.into(), value.into()));
        self
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire"));
        command
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.environment.iter().cloned());
        command.args(arguments).output().expect("the binary starts")
    }

    /// What `check-config` prints for a configuration that is right.
    pub(crate) fn checked(&self) -> Value {
        let output = self.run(&["check-config"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What the binary says about a configuration that is wrong: the same to `check-config` and at start-up.
    pub(crate) fn refusal(&self) -> String {
        let [checked, served] = [&["check-config"][..], &[]].map(|arguments| {
            let output = self.run(arguments);
            assert_eq!(
                (output.status.code(), text(&output.stdout)),
                (Some(1), String::new())
            );
            text(&output.stderr)
        });
        assert_eq!(checked, served);
        checked
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}
