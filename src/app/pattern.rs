//! Patterns of channel names: text in which `*` stands for any characters, or none.

/// Whether the whole name fits the pattern, in which each `*` stands for any characters or none and everything else for
/// itself. Takes time in proportion to the product of both lengths at worst, whatever the pattern.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how far what it stands for reaches.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(byte), _) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            (_, Some((at, reach))) => {
                star = Some((at, reach + 1));
                (p, n) = (at + 1, reach + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(4096)));
    }
}
