//! A user's id as it stands in signed JSON: text, or a number that is turned into text once, here.
//!
//! From then on only the text is used: as key, on the wire, in webhooks and in the HTTP API.

use std::borrow::Cow;

use super::json;

/// A user id given as valid JSON: a string that is not empty, or a number.
pub(super) fn of_json(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => json::unescaped(json).filter(|id| !id.is_empty()),
        b'-' | b'0'..=b'9' => Some(decimal(json)),
        _ => None,
    }
}

/// The text of a number. An integer keeps its digits, however many: no float may come between, for two users
/// must not become one. Another spelling of a small integer (`1.0`, `1e3`, `-0`) means the same user as the
/// plain one; what is no integer stays as it was written.
fn decimal(number: &str) -> Cow<'_, str> {
    /// Below it, every integer has a float of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let digits = number.strip_prefix('-').unwrap_or(number);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && number != "-0" {
        return Cow::Borrowed(number);
    }
    match number.parse::<f64>() {
        Ok(float) if float.fract() == 0.0 && float.abs() < EXACT_MAX => (float as i64).to_string().into(),
        _ => Cow::Borrowed(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_become_text() {
        for (json, text) in [
            (r#""42""#, Some("42")),
            (r#""1e3""#, Some("1e3")),
            (r#""\u00e9\"""#, Some("é\"")),
            ("42", Some("42")),
            ("0", Some("0")),
            ("-5", Some("-5")),
            // Beyond 64 bits, and beyond what a float tells apart.
            ("9007199254740993", Some("9007199254740993")),
            ("18446744073709551616", Some("18446744073709551616")),
            (
                "123456789012345678901234567890",
                Some("123456789012345678901234567890"),
            ),
            // Other spellings of an integer.
            ("1.0", Some("1")),
            ("1e3", Some("1000")),
            ("1.5E+1", Some("15")),
            ("-0", Some("0")),
            ("-0.0", Some("0")),
            ("-12.000", Some("-12")),
            // No integer, or none that a float can vouch for.
            ("1.50", Some("1.50")),
            ("1e-7", Some("1e-7")),
            ("9007199254740993.0", Some("9007199254740993.0")),
            ("1e400", Some("1e400")),
            (r#""""#, None),
            (r#""\ud83d""#, None),
            ("true", None),
            ("null", None),
            ("[1]", None),
            (r#"{"id":1}"#, None),
            ("", None),
        ] {
            assert_eq!(of_json(json).as_deref(), text, "{json}");
        }
    }
}
