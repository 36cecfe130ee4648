//! Where a configuration comes from, so that it can be read once more while the server runs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{AdminConfig, Config, ConfigError};

/// A file, if there is one, and the environment, which does not change.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

impl ConfigSource {
    /// The configuration of this file and these variables; see [`Config::load`].
    pub fn new(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> ConfigSource {
        ConfigSource {
            file,
            environment: environment.into_iter().collect(),
        }
    }

    /// Reads the configuration as it is now.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.file.as_deref(), self.environment.iter().cloned())
    }

    /// Where the operators' port is, whatever else is wrong: who checks the health of a server that runs must not fail over
    /// a change that the server itself has refused.
    pub fn admin(&self) -> AdminConfig {
        Config::load_admin(self.file.as_deref(), self.environment.iter().cloned())
    }

    /// The files that a change of apps may be in: the configuration and the secrets that it names. Each as it is named,
    /// and as it is called where it really is.
    pub fn files(&self, config: &Config) -> BTreeSet<PathBuf> {
        let secrets = config.apps.iter().flat_map(|app| {
            let further = app.keys.iter().filter_map(|key| key.secret_file.as_deref());
            app.secret_file.as_deref().into_iter().chain(further)
        });
        let named = self.file.as_deref().into_iter().chain(secrets);
        let as_named_and_really = |file: &Path| [Some(file.to_owned()), file.canonicalize().ok()];
        named.flat_map(as_named_and_really).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_admin_port_is_known_whatever_else_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        let admin = |text: &str, port: Option<&str>| {
            fs::write(&path, text).expect("written");
            let port = port.map(|port| ("FANWIRE_ADMIN__PORT".into(), port.into()));
            ConfigSource::new(Some(path.clone()), port).admin()
        };
        let elsewhere =
            r#"{"admin": {"host": "::1", "port": 1}, "server": {"port": "x"}, "apps": [{}], "no": 1}"#;
        let found = admin(elsewhere, None);
        assert_eq!((&*found.host, found.port), ("::1", 1));
        assert_eq!(admin(elsewhere, Some("2")).port, 2);
        for unreadable in ["", "{", "[]", r#"{"admin": 7}"#, r#"{"admin": {"port": "x"}}"#] {
            assert_eq!(admin(unreadable, None), AdminConfig::default(), "{unreadable}");
            assert_eq!(admin(unreadable, Some("2")).port, 2, "{unreadable}");
        }
    }

    #[test]
    fn the_files_are_those_of_secrets_too_as_they_are_named_and_where_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it is there");
        let path = |name: &str| root.join(name);
        fs::create_dir(path("really")).expect("made");
        let apps = json!({"apps": [
            {"id": "1", "key": "k", "secret_file": path("one")},
            {"id": "2", "keys": [{"key": "l", "secret_file": path("two")}]},
        ]});
        fs::write(path("really/a.json"), apps.to_string()).expect("written");
        symlink(path("really/a.json"), path("b.json")).expect("linked");
        for secret in ["one", "two"] {
            fs::write(path(secret), "s").expect("written");
        }
        let source = ConfigSource::new(Some(path("b.json")), []);
        let config = source.load().expect("in order");
        let files: Vec<_> = source.files(&config).into_iter().collect();
        assert_eq!(files, ["b.json", "one", "really/a.json", "two"].map(path));
    }
}
