//! The configuration file: JSON text, read so that nothing in it is silently lost.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::shape;
use crate::secret::Secret;
use crate::secret::file::{SECRET_BYTES_MAX, read_text};

/// The key at the top of the file that names its schema.
pub(super) const SCHEMA: &str = "$schema";
/// Some hundred thousand apps are less than this.
const BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Reads a configuration file. A `$schema` at the top, by which editors find the schema, is left out.
pub(super) fn read(path: &Path) -> Result<Value, String> {
    let text = read_text(path, BYTES_MAX)?;
    let file = path.display();
    if text.starts_with('\u{feff}') {
        return Err(format!(
            "{file} begins with a byte order mark: save it without one"
        ));
    }
    if text.trim().is_empty() {
        return Err(format!(
            "{file} is empty: write at least {{}}, which leaves all at the defaults"
        ));
    }
    match parse(&text) {
        Ok(Value::Object(mut settings)) => {
            settings.remove(SCHEMA);
            Ok(settings.into())
        }
        Ok(other) => Err(format!(
            "{file} must hold an object, found {}",
            shape::name(&other)
        )),
        Err(error) => Err(format!("{file} is not valid JSON: {error}")),
    }
}

/// Reads a secret that has a file of its own. A line end after it is cut off: editors add one.
pub(super) fn read_secret(path: &Path) -> Result<Secret, String> {
    let text = read_text(path, SECRET_BYTES_MAX)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)))
}

/// Parses JSON in which no object names a key twice: of two `server` sections one would be lost without a
/// word.
pub(super) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(|NothingLost(value)| value)
}

struct NothingLost(Value);

impl<'de> Deserialize<'de> for NothingLost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NothingLost, D::Error> {
        deserializer.deserialize_any(AnyValue).map(NothingLost)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(NothingLost(entry)) = entries.next_element()? {
            list.push(entry);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "the key `{key}` stands twice in one object"
                )));
            }
            let NothingLost(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_any_json_reader_reads() {
        let text = r#"{"a":[1,-2,0.5,"x\u00e9",true,null,{}],"b":{"c":[]}}"#;
        assert_eq!(
            parse(text).expect("valid"),
            serde_json::from_str::<Value>(text).expect("valid")
        );
    }

    #[test]
    fn a_key_may_not_stand_twice() {
        let error = parse(r#"{"server":{"port":1},"log":{},"server":{}}"#).expect_err("a key stands twice");
        assert!(error.to_string().contains("`server` stands twice"), "{error}");
    }
}
