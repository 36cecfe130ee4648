//! What a configuration may look like: the JSON schema of the settings, in the form that values are held
//! against.
//!
//! The typed settings derive their schema, so names, types and ranges stand in one place. Checking against it
//! instead of letting the typed reading fail finds everything that is wrong at once, and tells the type that
//! a text from the environment is meant to have. Not here: what several settings mean together.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::path::KeyPath;
use super::problem::Fault;
use super::{Config, file};

/// What a value may be.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Section(BTreeMap<String, Shape>),
    List(Box<Shape>),
    /// Any names, each with such a value.
    Names(Box<Shape>),
    Text,
    Choice(Vec<String>),
    /// A whole number. `among` lists the only ones allowed, if there is such a list.
    Number {
        min: u64,
        max: u64,
        among: Vec<u64>,
    },
    Switch,
    /// May also be null, which is the same as absent.
    Optional(Box<Shape>),
}

/// The JSON schema of the configuration file, self-contained (no references). To the settings it adds the
/// `$schema` that may stand at the top of the file, and is no setting.
pub(super) fn schema() -> Value {
    let mut schema = schema_of_settings();
    schema["properties"][file::SCHEMA] = json!({
        "description": "Where editors find this schema. No setting: the server leaves it out.",
        "type": "string",
    });
    schema
}

fn schema_of_settings() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}

impl Shape {
    /// The shape of the whole configuration.
    pub(super) fn of_config() -> Shape {
        Shape::read(&schema_of_settings(), &KeyPath::default())
    }

    /// Panics at a schema that the settings of this server do not have: the first test that loads anything
    /// shows it.
    fn read(schema: &Value, path: &KeyPath) -> Shape {
        if let Some(present) = unless_null(schema) {
            return Shape::Optional(Box::new(Shape::read(&present, path)));
        }
        let choices = choices(schema);
        match schema["type"].as_str() {
            Some("object") => {
                if schema["additionalProperties"].is_object() {
                    let value = Shape::read(&schema["additionalProperties"], &path.key("*"));
                    return Shape::Names(Box::new(value));
                }
                let closed = schema["additionalProperties"] == false;
                assert!(closed, "{path}: a section that does not deny unknown fields");
                let fields = schema["properties"].as_object().into_iter().flatten();
                Shape::Section(
                    fields
                        .map(|(name, schema)| (name.clone(), Shape::read(schema, &path.key(name))))
                        .collect(),
                )
            }
            Some("array") => Shape::List(Box::new(Shape::read(&schema["items"], &path.key("[]")))),
            Some("boolean") => Shape::Switch,
            Some("integer") => Shape::Number {
                min: schema["minimum"].as_u64().unwrap_or(0),
                max: schema["maximum"].as_u64().unwrap_or(u64::MAX),
                among: choices.iter().filter_map(Value::as_u64).collect(),
            },
            Some("string") if choices.is_empty() => Shape::Text,
            Some("string") | None if choices.iter().any(Value::is_string) => Shape::Choice(
                choices
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            ),
            _ => panic!("{path}: a setting of a type that configurations do not have: {schema}"),
        }
    }

    /// The paths of everything in it, sections and lists included. `[]` stands for the entries of a list.
    pub(super) fn keys(&self, path: &KeyPath) -> Vec<KeyPath> {
        match self {
            Shape::Section(fields) => {
                let inside = |(name, shape): (&String, &Shape)| {
                    let path = path.key(name);
                    [vec![path.clone()], shape.keys(&path)].concat()
                };
                fields.iter().flat_map(inside).collect()
            }
            Shape::List(entry) => entry.keys(&KeyPath::new(&format!("{path}[]"))),
            Shape::Optional(inner) => inner.keys(path),
            _ => Vec::new(),
        }
    }

    /// The shape of the entries of this list of the configuration.
    pub(super) fn entry(&self, list: &str) -> Shape {
        match self.at(list) {
            Some(Shape::List(entry)) => Shape::clone(entry),
            _ => panic!("{list}: is no list of the configuration"),
        }
    }

    /// The shape of the setting with this path, as far as it leads through sections.
    pub(super) fn at(&self, path: &str) -> Option<&Shape> {
        path.split('.')
            .try_fold(self, |shape, key| match shape.unless_null() {
                Shape::Section(fields) => fields.get(key),
                _ => None,
            })
    }

    /// The shape of a value that is there.
    pub(super) fn unless_null(&self) -> &Shape {
        match self {
            Shape::Optional(inner) => inner.unless_null(),
            shape => shape,
        }
    }

    /// Removes what does not fit from a value and reports it. `false`: nothing of the value fits.
    pub(super) fn prune(
        &self,
        value: &mut Value,
        path: &KeyPath,
        report: &mut dyn FnMut(KeyPath, Fault),
    ) -> bool {
        match (self, &mut *value) {
            (Shape::Optional(_), Value::Null) => true,
            (Shape::Optional(inner), _) => inner.prune(value, path, report),
            (Shape::Section(fields), Value::Object(object)) => {
                object.retain(|name, value| match fields.get(name) {
                    Some(shape) => shape.prune(value, &path.key(name), report),
                    None => {
                        report(path.key(name), Fault::Unknown);
                        false
                    }
                });
                true
            }
            (Shape::Names(shape), Value::Object(object)) => {
                object.retain(|name, value| shape.prune(value, &path.key(name), report));
                true
            }
            (Shape::List(entry), Value::Array(values)) => {
                // All or nothing: the places of the others must not shift. Every entry is looked at.
                let mut all_fit = true;
                for (index, value) in values.iter_mut().enumerate() {
                    all_fit &= entry.prune(value, &path.index(index), report);
                }
                all_fit
            }
            (shape, value) => match shape.unfit(value, path) {
                None => true,
                Some(text) => {
                    report(path.clone(), Fault::Unfit(text));
                    false
                }
            },
        }
    }

    /// What is wrong with a value that has no parts, or is of the wrong type altogether.
    fn unfit(&self, value: &Value, path: &KeyPath) -> Option<String> {
        match (self, value) {
            (Shape::Switch, Value::Bool(_)) => None,
            (Shape::Text, Value::String(_)) => None,
            (Shape::Choice(choices), Value::String(text)) => {
                (!choices.contains(text)).then(|| format!("must be one of {}", choices.join(", ")))
            }
            (Shape::Number { min, max, among }, Value::Number(number)) => match number.as_u64() {
                Some(n) if !among.is_empty() => (!among.contains(&n)).then(|| {
                    let among: Vec<_> = among.iter().map(u64::to_string).collect();
                    format!("must be one of {}, not {n}", among.join(", "))
                }),
                Some(n) if (*min..=*max).contains(&n) => None,
                _ if *max == u64::MAX => Some(format!("must be a whole number from {min} up, not {number}")),
                _ => Some(format!(
                    "must be a whole number from {min} to {max}, not {number}"
                )),
            },
            (Shape::Text, Value::Number(_)) => {
                Some("must be text, found a number: put it in quotes".to_owned())
            }
            (Shape::Number { .. } | Shape::Switch, Value::String(text)) => {
                let told = format!("must be {}, found text", self.name());
                Some(match path.unit() {
                    _ if self.parse(text).is_ok() => told + ": take off the quotes",
                    Some(unit) => format!("{told}: write the number of {unit} alone, without quotes"),
                    None => told,
                })
            }
            _ => Some(format!("must be {}, found {}", self.name(), name(value))),
        }
    }

    /// Reads a text from the environment as what the setting is. Sections and lists are written as JSON.
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        match self {
            Shape::Text | Shape::Choice(_) => Ok(text.into()),
            Shape::Optional(inner) => inner.parse(text),
            Shape::Switch => text
                .parse::<bool>()
                .map(Value::Bool)
                .map_err(|_| "must be true or false".to_owned()),
            Shape::Number { .. } => {
                let number = text
                    .parse::<u64>()
                    .map(Value::from)
                    .or_else(|_| text.parse::<i64>().map(Value::from));
                number.map_err(|_| "must be a whole number".to_owned())
            }
            Shape::Section(_) | Shape::List(_) | Shape::Names(_) => {
                file::parse(text).map_err(|error| format!("must be {} as JSON text: {error}", self.name()))
            }
        }
    }

    /// The setting in this section that a text is one of the choices of, as `level` has `debug`.
    pub(super) fn choice_with(&self, text: &str) -> Option<&str> {
        let Shape::Section(fields) = self.unless_null() else {
            return None;
        };
        let fits = |shape: &Shape| matches!(shape, Shape::Choice(choices) if choices.iter().any(|choice| choice == text));
        let mut fields = fields.iter();
        fields
            .find(|(_, shape)| fits(shape))
            .map(|(name, _)| name.as_str())
    }

    fn name(&self) -> &'static str {
        match self {
            Shape::Section(_) | Shape::Names(_) => "an object",
            Shape::List(_) => "a list",
            Shape::Text | Shape::Choice(_) => "text",
            Shape::Number { .. } => "a whole number",
            Shape::Switch => "true or false",
            Shape::Optional(inner) => inner.name(),
        }
    }
}

/// The schema of what may stand in place of null, if null is allowed.
fn unless_null(schema: &Value) -> Option<Value> {
    let is_null = |kind: &Value| kind == "null" || kind["type"] == "null";
    let one_of_two = |key: &str| match schema[key].as_array().map(Vec::as_slice) {
        Some([present, null]) if is_null(null) => Some(present.clone()),
        _ => None,
    };
    let of_type = |kind| {
        let mut present = schema.clone();
        present["type"] = kind;
        present
    };
    one_of_two("type").map(of_type).or_else(|| one_of_two("anyOf"))
}

/// The only values allowed, if they are listed. Those with a description stand alone, the others together.
fn choices(schema: &Value) -> Vec<Value> {
    let listed = |schema: &Value| schema["enum"].as_array().cloned().unwrap_or_default();
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let described = alternatives.flat_map(|one| one.get("const").cloned().into_iter().chain(listed(one)));
    described.chain(listed(schema)).collect()
}

/// The kind of a value, for a person.
pub(super) fn name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_told() {
        let written = json!({
            "server": {"port": 7, "shards": 1.5, "host": null},
            "admin": [],
            "drain": {"close_code": 1001},
            "log": {"format": "xml", "level": "warn"},
            "apps": [{"name": null, "allowed_origins": ["a", 1, "b", 2], "ping_mode": "event", "x": 1}],
        });
        let fits = json!({
            "server": {"port": 7},
            "drain": {"close_code": 1001},
            "log": {"level": "warn"},
            "apps": [{"name": null, "ping_mode": "event"}],
        });
        let mut told = Vec::new();
        let mut value = written;
        let mut report = |key: KeyPath, _| told.push(key.as_str().to_owned());
        assert!(Shape::of_config().prune(&mut value, &KeyPath::default(), &mut report));
        assert_eq!(value, fits);
        told.sort();
        let keys = [
            "admin",
            "apps[0].allowed_origins[1]",
            "apps[0].allowed_origins[3]",
            "apps[0].x",
            "log.format",
            "server.host",
            "server.shards",
        ];
        assert_eq!(told, keys);
    }

    #[test]
    fn the_forms_that_schemas_give_choices_and_null() {
        let read = |schema| format!("{:?}", Shape::read(&schema, &KeyPath::default()));
        assert_eq!(
            read(json!({"type": "string", "enum": ["a", "b"]})),
            r#"Choice(["a", "b"])"#
        );
        let described =
            json!({"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string", "const": "b"}]});
        assert_eq!(read(described.clone()), r#"Choice(["a", "b"])"#);
        assert_eq!(
            read(json!({"anyOf": [described, {"type": "null"}]})),
            r#"Optional(Choice(["a", "b"]))"#
        );
        assert_eq!(read(json!({"type": ["string", "null"]})), "Optional(Text)");
    }
}
