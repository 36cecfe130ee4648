//! Patterns of channel names: text in which `*` stands for any characters, or none.

use crate::protocol::channel_name::{self, ChannelKind, NameError, USER_PREFIX};

/// Whether the whole name fits the pattern, in which each `*` stands for any characters or none and everything else for
/// itself. Takes time in proportion to both lengths together, whatever the pattern: what stands between two `*` may as
/// well stand where it is found first, and a text is found in linear time.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let between = name.strip_prefix(start).and_then(|name| name.strip_suffix(end));
    let Some(mut name) = between else {
        return false;
    };
    middle.split('*').all(|part| match name.find(part) {
        Some(at) => {
            name = &name[at + part.len()..];
            true
        }
        None => false,
    })
}

/// What stands before the first `*`, and whether there is one.
fn beginning(pattern: &str) -> (&str, bool) {
    match pattern.split_once('*') {
        Some((beginning, _)) => (beginning, true),
        None => (pattern, false),
    }
}

/// Whether any channel can have a name that fits the pattern. `length_max` is that of names, in bytes.
///
/// # Errors
/// Why none can, for a person.
pub(super) fn check(pattern: &str, length_max: usize) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("is required".into());
    }
    let (beginning, is_open) = beginning(pattern);
    let of_user = pattern.strip_prefix(USER_PREFIX);
    // Such as `#server*`, which leads to it.
    let leads_to_user = is_open && !beginning.is_empty() && USER_PREFIX.starts_with(beginning);
    let counted = match of_user {
        None if leads_to_user => &pattern[beginning.len()..],
        of_user => of_user.unwrap_or(pattern),
    };
    let written = counted.replace('*', "");
    match channel_name::check(&written) {
        Err(NameError::Empty) if is_open => {}
        Err(error) => return Err(format!("fits no channel: {error}")),
        Ok(()) => {}
    }
    if written.len() > length_max {
        return Err(format!(
            "fits no channel: no name is longer than `channel_name_length_max`, {length_max}"
        ));
    }
    Ok(())
}

/// The kinds that channels may be of whose names fit the pattern.
pub(super) fn kinds(pattern: &str) -> Vec<ChannelKind> {
    match beginning(pattern) {
        (beginning, true) => ChannelKind::of_beginning(beginning),
        (name, false) => vec![ChannelKind::of(name)],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_fits_legal_names_only() {
        for (pattern, is_possible) in [
            ("*", true),
            ("chat-*", true),
            ("*-eu", true),
            ("a=@,.;_-*", true),
            ("#server-to-user-*", true),
            ("#server-to-user-7", true),
            ("#server*", true),
            ("#*7", true),
            ("", false),
            ("two words", false),
            ("chat?-*", false),
            ("#news-*", false),
            ("#server-to-user-", false),
            ("a#*", false),
            ("é*", false),
            ("#server-to-user-a#*", false),
            ("12345678901*", false),
            ("#server-to-user-1234567890*", true),
        ] {
            assert_eq!(check(pattern, 10).is_ok(), is_possible, "{pattern}");
        }
    }

    #[test]
    fn the_beginning_of_a_pattern_says_what_kinds_there_may_be() {
        for (pattern, found) in [
            ("private-a", "[{\"auth\"}]"),
            ("chat-*", "[{}]"),
            ("c", "[{}]"),
            ("c*", "[{}, {\"cache\"}]"),
            ("private-a*", "[{\"auth\"}]"),
            (
                "presence-*",
                "[{\"auth\", \"presence\"}, {\"auth\", \"presence\", \"cache\"}]",
            ),
            ("#server-to-user-*", "[{\"user\"}]"),
        ] {
            assert_eq!(format!("{:?}", kinds(pattern)), found, "{pattern}");
        }
        assert_eq!(kinds("*").len(), 9);
    }

    #[test]
    fn a_star_stands_for_anything_or_nothing() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "aa", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "presence-room", true),
            ("chat-*", "chat-", true),
            ("chat-*", "chat-7", true),
            ("chat-*", "private-chat-7", false),
            ("*-7", "chat-7", true),
            ("*-7", "chat-7-7", true),
            ("*-7", "chat-78", false),
            ("private-*-room-*", "private-a-room-b", true),
            ("private-*-room-*", "private-room-b", false),
            ("a*b*c", "a-b-b-c-c", true),
            ("a*b*c", "acb", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    /// What a pattern means, in so many words.
    fn fits(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), first) => {
                fits(rest, name) || first.is_some_and(|(_, shorter)| fits(pattern, shorter))
            }
            (Some((byte, rest)), Some((first, shorter))) => byte == first && fits(rest, shorter),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_it_says(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &name), fits(pattern.as_bytes(), name.as_bytes()));
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        // Minutes, for who tries each place anew; in proportion to both lengths it is milliseconds.
        for pattern in [
            "a*".repeat(20_000) + "b",
            "*".to_owned() + &"a".repeat(200_000) + "b*",
        ] {
            assert!(!matches(&pattern, &"a".repeat(400_000)));
        }
    }
}
