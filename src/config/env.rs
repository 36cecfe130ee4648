//! Overrides from the environment, by one rule: `FANWIRE_` and the path of the setting in upper case, joined
//! by `__`.
//!
//! `FANWIRE_SERVER__PORT=7000`; entries of lists by index, `FANWIRE_APPS__0__KEY=...`; or a whole section or
//! list as JSON text, `FANWIRE_APPS='[...]'`, which replaces it, and of which parts can be overridden again.
//! The text is read as what the setting is: where it is text, `1` is the text `1`.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::path::{ENV_PREFIX, KeyPath};
use super::problem::Report;
use super::shape::Shape;

/// `FANWIRE_CONFIG` names the configuration file: the one variable with the prefix that is no setting.
const FILE_PATH: &str = "config";

/// A step on the way to a setting.
///
/// The order of a list of steps is the order in which overrides apply: what is inside something comes after
/// it, and the entries of a list come by their index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

/// A variable that sets something.
struct Override<'a> {
    steps: Vec<Step>,
    shape: &'a Shape,
    variable: String,
    text: OsString,
}

/// Changes `settings` as the environment says, and tells which variable set what. Variables without the
/// prefix are nobody's business here; those with it must be right.
pub(super) fn apply(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    shape: &Shape,
    settings: &mut Value,
    report: &mut Report,
) -> Vec<(KeyPath, String)> {
    let mut overrides = Vec::new();
    for (variable, text) in environment {
        let Ok(variable) = variable.into_string() else {
            continue;
        };
        let Some(name) = variable.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let file = KeyPath::new(FILE_PATH);
        if variable == file.env_name() || is_service_link(name, &text.to_string_lossy()) {
            continue;
        }
        match find(name, shape) {
            Some((steps, shape)) => overrides.push(Override {
                steps,
                shape,
                variable,
                text,
            }),
            None => report.unknown_variable(&variable, &written_path(name), file),
        }
    }
    overrides.sort_by(|a, b| a.steps.cmp(&b.steps));

    let mut set = Vec::new();
    for change in overrides {
        let path = path(&change.steps);
        let Some(value) = change.read(&path, report) else {
            continue;
        };
        match put(settings, &change.steps, value) {
            Ok(()) => set.push((path, change.variable)),
            Err(text) => report.add(path, Some(&change.variable), text),
        }
    }
    set
}

impl Override<'_> {
    /// The value it gives, less what does not fit.
    fn read(&self, path: &KeyPath, report: &mut Report) -> Option<Value> {
        let text = self.text.to_str().ok_or_else(|| "must be valid UTF-8".to_owned());
        let mut value = match text.and_then(|text| self.shape.parse(text)) {
            Ok(value) => value,
            Err(mut text) => {
                let meant = self.text.to_str().and_then(|text| self.shape.choice_with(text));
                if let Some(name) = meant {
                    text += &format!("; did you mean {}?", path.key(name).env_name());
                } else if let Some(unit) = path.unit() {
                    text += &format!(": the number of {unit} alone");
                }
                report.add(path.clone(), Some(&self.variable), text);
                return None;
            }
        };
        let mut fault = |key, fault| report.fault(key, Some(&self.variable), fault);
        self.shape.prune(&mut value, path, &mut fault).then_some(value)
    }
}

/// The setting that a variable's name, less the prefix, leads to.
fn find<'a>(name: &str, settings: &'a Shape) -> Option<(Vec<Step>, &'a Shape)> {
    let mut shape = settings;
    let mut steps = Vec::new();
    for part in name.split("__") {
        let step;
        (step, shape) = match shape.unless_null() {
            Shape::Section(fields) => {
                let key = part.to_ascii_lowercase();
                let spelt_right = key.to_ascii_uppercase() == part;
                let shape = fields.get(&key).filter(|_| spelt_right)?;
                (Step::Key(key), shape)
            }
            Shape::List(entry) => (Step::Index(index(part)?), &**entry),
            _ => return None,
        };
        steps.push(step);
    }
    Some((steps, shape))
}

/// An index in its one spelling: two variables must not mean the same entry.
fn index(part: &str) -> Option<usize> {
    part.parse()
        .ok()
        .filter(|index: &usize| index.to_string() == part)
}

fn path(steps: &[Step]) -> KeyPath {
    steps.iter().fold(KeyPath::default(), |path, step| match step {
        Step::Key(name) => path.key(name),
        Step::Index(index) => path.index(*index),
    })
}

/// The path that a variable's name, less the prefix, spells, whether there is such a setting or not.
fn written_path(name: &str) -> KeyPath {
    let lower = name.to_ascii_lowercase();
    lower
        .split("__")
        .fold(KeyPath::default(), |path, part| match index(part) {
            Some(index) => path.index(index),
            None => path.key(part),
        })
}

/// Puts a value in its place. What leads there is made where it is missing; an entry of a list only as its
/// next one.
fn put(settings: &mut Value, steps: &[Step], value: Value) -> Result<(), String> {
    let mut place = settings;
    for step in steps {
        // The settings fit their shape, and the steps were found in it: what is not there yet is the only
        // surprise.
        place = match (step, place) {
            (Step::Key(name), Value::Object(section)) => section.entry(name.as_str()).or_insert(Value::Null),
            (Step::Key(name), missing) => {
                *missing = Value::Object(Map::new());
                &mut missing[name.as_str()]
            }
            (Step::Index(index), place) => {
                if !place.is_array() {
                    *place = Value::Array(Vec::new());
                }
                let length = place.as_array().map_or(0, Vec::len);
                match place.as_array_mut() {
                    Some(list) if *index < length => &mut list[*index],
                    Some(list) if *index == length => {
                        list.push(Value::Null);
                        &mut list[length]
                    }
                    _ => {
                        return Err(format!(
                            "the list has {length} entries, so its next index is {length}"
                        ));
                    }
                }
            }
        };
    }
    *place = value;
    Ok(())
}

/// Whether Kubernetes made the variable for a service whose name begins with `fanwire`. It puts such ones
/// into every pod of the namespace (`FANWIRE_SERVICE_HOST`, `FANWIRE_PORT=tcp://10.0.0.1:6001`,
/// `FANWIRE_PORT_6001_TCP_ADDR`), and they must not stop the server.
fn is_service_link(name: &str, text: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let words: Vec<_> = name.split('_').collect();
    let protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let ends = |end: &str| name == end || name.ends_with(&format!("_{end}"));
    let names_port = |from: usize| match &words[from..] {
        ["PORT", port, kind] => number(port) && protocol(kind),
        ["PORT", port, kind, "PROTO" | "PORT" | "ADDR"] => number(port) && protocol(kind),
        ["SERVICE", "PORT", ..] => true,
        _ => false,
    };
    ends("SERVICE_HOST") || (ends("PORT") && address) || (0..words.len()).any(names_port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The settings after the variables were applied to `file`, and the problems as they are printed.
    fn applied(file: Value, variables: &[(&str, &str)]) -> (Value, Vec<String>) {
        let shape = Shape::of_config();
        let mut report = Report::new(shape.keys(&KeyPath::default()));
        let mut settings = file;
        let environment = variables
            .iter()
            .map(|(variable, text)| (variable.into(), text.into()));
        apply(environment, &shape, &mut settings, &mut report);
        (
            settings,
            report.problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn a_text_is_read_as_what_the_setting_is() {
        let variables = [
            ("FANWIRE_SERVER__PORT", "7000"),
            ("FANWIRE_SERVER__STRICT_PROTOCOL", "true"),
            ("FANWIRE_LOG__FORMAT", "json"),
            ("FANWIRE_APPS__0__ID", "1"),
            ("FANWIRE_APPS__0__NAME", "true"),
            ("FANWIRE_APPS__0__ALLOWED_ORIGINS__0", "*.a.example"),
            ("FANWIRE_APPS__0__ALLOWED_ORIGINS__1", "b.example"),
            ("FANWIRE_DRAIN", r#"{"delay_s":5}"#),
            ("PATH", "/bin"),
        ];
        let expected = json!({
            "server": {"port": 7000, "strict_protocol": true},
            "log": {"format": "json"},
            "apps": [{"id": "1", "name": "true", "allowed_origins": ["*.a.example", "b.example"]}],
            "drain": {"delay_s": 5},
        });
        assert_eq!(applied(json!({}), &variables), (expected, vec![]));
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_closer_name_over_the_wider() {
        let file = json!({"apps": [{"id": "1", "key": "file"}, {"id": "2"}], "server": {"port": 1}});
        let variables = [
            ("FANWIRE_APPS__0__KEY", "closer"),
            ("FANWIRE_APPS__1__ID", "3"),
            ("FANWIRE_APPS", r#"[{"id": "9", "key": "wider"}]"#),
        ];
        let expected = json!({"apps": [{"id": "9", "key": "closer"}, {"id": "3"}], "server": {"port": 1}});
        assert_eq!(applied(file, &variables), (expected, vec![]));
    }

    #[test]
    fn what_does_not_fit_is_told_by_name_and_left_out() {
        let table = [
            (
                ("FANWIRE_SERVER__PORT", "x"),
                "server.port (FANWIRE_SERVER__PORT): must be a whole number",
            ),
            (
                ("FANWIRE_SERVER__PORT", "-1"),
                "server.port (FANWIRE_SERVER__PORT): must be a whole number from 0 to 65535, not -1",
            ),
            (
                ("FANWIRE_ADMIN__ENABLED", "yes"),
                "admin.enabled (FANWIRE_ADMIN__ENABLED): must be true or false",
            ),
            (
                ("FANWIRE_LOG__LEVEL", "loud"),
                "log.level (FANWIRE_LOG__LEVEL): must be one of error, warn, info, debug, trace",
            ),
            (
                ("FANWIRE_LOG", "debug"),
                "log (FANWIRE_LOG): must be an object as JSON text: expected value at line 1 column 1; did you mean \
                 FANWIRE_LOG__LEVEL?",
            ),
            (
                ("FANWIRE_APPS__1__KEY", "k"),
                "apps[1].key (FANWIRE_APPS__1__KEY): the list has 0 entries, so its next index is 0",
            ),
            (
                ("FANWIRE_APPS", r#"[{"kei":"k"}]"#),
                "apps[0].kei (FANWIRE_APPS): there is no such setting; did you mean `apps[0].key`?",
            ),
            (
                ("FANWIRE_SERVER_PORT", "7000"),
                "FANWIRE_SERVER_PORT: there is no such setting; did you mean FANWIRE_SERVER__PORT?",
            ),
            (
                ("FANWIRE_APPS__0__MAX_CONNECTIONS", "7"),
                "FANWIRE_APPS__0__MAX_CONNECTIONS: there is no such setting; did you mean \
                 FANWIRE_APPS__0__CONNECTIONS_MAX?",
            ),
            (
                ("FANWIRE_server__port", "7000"),
                "FANWIRE_server__port: there is no such setting; did you mean FANWIRE_SERVER__PORT?",
            ),
            (
                ("FANWIRE_CONFG", "x.json"),
                "FANWIRE_CONFG: there is no such setting; did you mean FANWIRE_CONFIG?",
            ),
            (
                ("FANWIRE_SERVER__PORT__X", "1"),
                "FANWIRE_SERVER__PORT__X: there is no such setting; did you mean FANWIRE_SERVER__PORT?",
            ),
            (("FANWIRE_", "1"), "FANWIRE_: there is no such setting"),
        ];
        for (variable, problem) in table {
            let (_, problems) = applied(json!({}), &[variable]);
            assert_eq!(problems, [problem]);
        }
    }

    #[test]
    fn the_name_of_the_file_variable_is_free() {
        assert!(
            find("CONFIG", &Shape::of_config()).is_none(),
            "a section of this name could not be set"
        );
    }

    #[test]
    fn two_spellings_of_one_index_are_not_accepted() {
        let (_, problems) = applied(json!({}), &[("FANWIRE_APPS__00__KEY", "k")]);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn the_variables_of_kubernetes_are_no_settings() {
        let links = [
            ("FANWIRE_SERVICE_HOST", "10.0.0.1"),
            ("FANWIRE_SERVICE_PORT", "6001"),
            ("FANWIRE_SERVICE_PORT_HTTP", "6001"),
            ("FANWIRE_PORT", "tcp://10.0.0.1:6001"),
            ("FANWIRE_PORT_6001_TCP", "tcp://10.0.0.1:6001"),
            ("FANWIRE_PORT_6001_TCP_PROTO", "tcp"),
            ("FANWIRE_PORT_6001_TCP_PORT", "6001"),
            ("FANWIRE_PORT_6001_TCP_ADDR", "10.0.0.1"),
            ("FANWIRE_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("FANWIRE_ADMIN_PORT", "tcp://10.0.0.2:9601"),
        ];
        assert_eq!(applied(json!({}), &links), (json!({}), vec![]));
        assert_eq!(applied(json!({}), &[("FANWIRE_ADMIN_PORT", "9601")]).1.len(), 1);
    }
}
