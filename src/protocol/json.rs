//! The few things about JSON that serde_json does not do the way the wire needs them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Reads a struct from the text of a JSON *object*.
///
/// What derive makes of a struct would also take an array of its fields in order, which no client may send.
/// A key that the struct knows, given twice, is an error.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
        .starts_with('{')
        .then_some(())?;
    serde_json::from_str(text).ok()
}

/// The text that a valid JSON value means. `None` if it is no string, or one with half a surrogate pair.
pub(super) fn unescaped(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The text as a JSON string, quotes included.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("every text can be a JSON string")
}

/// Appends a value. Escaping is what it costs, and a loop of our own was measured to be no faster.
pub(super) fn push(json: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(json, value).expect("our own types are JSON, and a Vec takes every byte");
}

/// The text of a JSON value without white space between its tokens. Numbers and escapes stay as they were
/// written.
pub(crate) fn compact(json: &str) -> Cow<'_, str> {
    let mut in_string = false;
    let mut escaped = false;
    let mut is_kept = |c: char| {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            return true;
        }
        in_string = c == '"';
        !matches!(c, ' ' | '\t' | '\n' | '\r')
    };
    match json.char_indices().find(|&(_, c)| !is_kept(c)) {
        None => Cow::Borrowed(json),
        Some((at, _)) => {
            let mut text = String::with_capacity(json.len());
            text.push_str(&json[..at]);
            text.extend(json[at..].chars().filter(|&c| is_kept(c)));
            Cow::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn compact_drops_white_space_between_tokens_only() {
        for (json, text) in [
            ("{}", "{}"),
            ("{ \"a\" : [ 1 ,\t2\r\n] }", r#"{"a":[1,2]}"#),
            (r#"{"a b": " c  \" d "}"#, r#"{"a b":" c  \" d "}"#),
            (r#"["\\", " "]"#, r#"["\\"," "]"#),
            (
                "[1.0, 1e3, 123456789012345678901]",
                "[1.0,1e3,123456789012345678901]",
            ),
            (r#"["\u00e9", "é"]"#, r#"["\u00e9","é"]"#),
        ] {
            assert_eq!(compact(json), text);
        }
        assert!(matches!(compact(r#"{"a b":1}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn strings_lose_their_escapes_and_are_borrowed_without() {
        assert!(matches!(
            unescaped(r#""plain é""#),
            Some(Cow::Borrowed("plain é"))
        ));
        for (json, text) in [
            (r#""""#, Some("")),
            (r#""\"\\\/\b\f\n\r\t""#, Some("\"\\/\u{8}\u{c}\n\r\t")),
            (r#""\u00e9\ud83d\ude00""#, Some("é😀")),
            (r#""half \ud83d""#, None),
            ("1", None),
            ("null", None),
            ("[\"a\"]", None),
        ] {
            assert_eq!(unescaped(json).as_deref(), text, "{json}");
        }
    }

    #[test]
    fn an_object_is_no_array_of_its_fields() {
        #[derive(Deserialize)]
        struct Pair<'a> {
            #[serde(borrow)]
            a: &'a str,
        }
        assert_eq!(
            object::<Pair<'_>>(" \r\n\t{\"a\":\"x\"} ").map(|pair| pair.a),
            Some("x")
        );
        for json in [
            r#"["x"]"#,
            "",
            "  ",
            "null",
            r#"{"a":"x"} {}"#,
            r#"{"a":"x","a":"x"}"#,
            "\u{feff}{\"a\":\"x\"}",
        ] {
            assert!(object::<Pair<'_>>(json).is_none(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn compact_changes_no_meaning(value in any_json()) {
            let spaced = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&spaced), serde_json::to_string(&value).unwrap());
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            r#"[\\" \t\n]{0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = any::<String>();
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(key, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
