//! The parameters of a query string that mean something to a call. Those that authenticate it are
//! `protocol::request_auth`'s.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The value of a parameter, percent-decoded. Names are decoded too and compared without case, since this is how they
/// were signed; of several the first counts.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| {
            percent_decode_str(key)
                .decode_utf8_lossy()
                .eq_ignore_ascii_case(name)
        })
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_and_decoded() {
        for (query, value) in [
            ("", None),
            ("info", None),
            ("information=a", None),
            ("info=", Some("")),
            (
                "a=1&info=user_count,subscription_count&b=2",
                Some("user_count,subscription_count"),
            ),
            (
                "info=user_count%2Csubscription_count",
                Some("user_count,subscription_count"),
            ),
            ("Info=a=b", Some("a=b")),
            ("in%66o=a", Some("a")),
            ("info=a&info=b", Some("a")),
        ] {
            assert_eq!(parameter(query, "info").as_deref(), value, "{query}");
        }
    }
}
