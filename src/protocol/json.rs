//! The few things about JSON that serde_json does not do the way the wire needs them.

use std::borrow::Cow;

use serde::Deserialize;

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

/// Appends the text as a JSON string, quotes included. The same bytes as serde_json's.
pub(super) fn push_string(json: &mut String, text: &str) {
    json.push('"');
    push_escaped(json, text);
    json.push('"');
}

/// Appends the text as it stands between the quotes of a JSON string.
pub(super) fn push_escaped(json: &mut String, text: &str) {
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            b'\t' => "\\t",
            b'\n' => "\\n",
            0x0c => "\\f",
            b'\r' => "\\r",
            ..0x20 => "\\u00",
            _ => continue,
        };
        json.push_str(&text[copied..at]);
        json.push_str(short);
        copied = at + 1;
        if short == "\\u00" {
            json.push(if byte < 0x10 { '0' } else { '1' });
            json.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
    }
    json.push_str(&text[copied..]);
}

/// The text of a JSON value without white space between its tokens. Numbers and escapes stay as they were written.
pub(super) fn compact(json: &str) -> Cow<'_, str> {
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
