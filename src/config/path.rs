//! The path of a setting, and the environment variable that goes with it.

use std::fmt;

/// What every environment variable of the server begins with.
pub(super) const ENV_PREFIX: &str = "FANWIRE_";

/// The path of a setting, as in `apps[0].key`. The empty path is the whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(String);

impl KeyPath {
    /// The path written out, such as `server.port`.
    pub fn new(path: &str) -> KeyPath {
        KeyPath(path.into())
    }

    /// The path of a key in the section that this is the path of.
    pub fn key(&self, name: &str) -> KeyPath {
        KeyPath(if self.0.is_empty() {
            name.into()
        } else {
            format!("{}.{name}", self.0)
        })
    }

    /// The path of an entry of the list that this is the path of.
    pub fn index(&self, index: usize) -> KeyPath {
        KeyPath(format!("{}[{index}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The environment variable that overrides this setting: the one rule for all of them.
    pub fn env_name(&self) -> String {
        // `apps[].key`, any app's key, becomes an example of such a name.
        let path = self
            .0
            .replace("[]", "[0]")
            .replace(['.', '['], "__")
            .replace(']', "");
        format!("{ENV_PREFIX}{}", path.to_ascii_uppercase())
    }

    /// What a number here counts, as far as the name says so.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let name = self.0.rsplit('.').next().unwrap_or_default();
        let words = || name.split('_');
        if words().any(|word| word == "per") {
            return None;
        }
        words().find_map(|word| match word {
            "s" => Some("seconds"),
            "ms" => Some("milliseconds"),
            "bytes" => Some("bytes"),
            _ => None,
        })
    }

    /// Whether the other path is this one or leads to something inside it.
    pub fn contains(&self, other: &KeyPath) -> bool {
        let rest = other.0.strip_prefix(&self.0);
        rest.is_some_and(|rest| self.0.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_environment_variable() {
        let apps = KeyPath::default().key("apps");
        assert_eq!(apps.env_name(), "FANWIRE_APPS");
        let origin = apps.index(0).key("allowed_origins").index(12);
        assert_eq!(origin.as_str(), "apps[0].allowed_origins[12]");
        assert_eq!(origin.env_name(), "FANWIRE_APPS__0__ALLOWED_ORIGINS__12");
    }

    #[test]
    fn the_unit_of_a_number_stands_in_its_name() {
        for (path, unit) in [
            ("server.keep_alive_s", Some("seconds")),
            ("apps[0].webhooks[0].timeout_ms", Some("milliseconds")),
            ("server.body_bytes_max", Some("bytes")),
            ("server.address_handshakes_per_s", None),
            ("server.port", None),
        ] {
            assert_eq!(KeyPath::new(path).unit(), unit, "{path}");
        }
    }

    #[test]
    fn a_path_contains_what_lies_below_it_and_nothing_beside_it() {
        let path = KeyPath::new;
        for inside in ["apps", "apps[0]", "apps[0].key"] {
            assert!(path("apps").contains(&path(inside)), "{inside}");
        }
        assert!(path("").contains(&path("server")));
        assert!(!path("server.port").contains(&path("server.port_x")));
        assert!(!path("server.port").contains(&path("server")));
    }
}
