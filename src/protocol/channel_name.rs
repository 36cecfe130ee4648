//! Channel names and what their prefix means: decided once, here, and carried in the type from then on.
//!
//! No other code looks at a prefix. Nothing here knows whether the channel exists.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use thiserror::Error;

use super::code::RefusalKind;

/// What stands before the user id in the name of a user's own channel.
pub(crate) const USER_PREFIX: &str = "#server-to-user-";

/// The legal name of a channel, with its kind. Cheap to clone; equal, ordered and hashed by its text.
#[derive(Clone)]
pub struct ChannelName {
    text: Arc<str>,
    kind: ChannelKind,
}

/// Why a text is no channel name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The empty text, or a user's channel without the user.
    #[error("Channel name is empty")]
    Empty,
    /// Longer than the app allows, in bytes; the prefix of a user's channel does not count.
    #[error("Channel name too long: {length} bytes, at most {max} are allowed")]
    TooLong {
        /// The length found.
        length: usize,
        /// The length allowed.
        max: usize,
    },
    /// Outside `A-Z a-z 0-9 _ - = @ , . ;`, or a `#` that does not begin a user's channel.
    #[error("Channel name holds {0:?}: only A-Z a-z 0-9 _ - = @ , . ; are allowed")]
    IllegalCharacter(char),
}

impl NameError {
    /// What a client is told that wants to subscribe.
    pub fn kind(&self) -> RefusalKind {
        match self {
            NameError::TooLong { .. } => RefusalKind::NameTooLong,
            NameError::Empty | NameError::IllegalCharacter(_) => RefusalKind::InvalidChannel,
        }
    }
}

impl ChannelName {
    /// Checks a name and decides its kind. `length_max` is in bytes, and the same in characters, for legal
    /// names are ASCII.
    pub fn parse(name: &str, length_max: usize) -> Result<ChannelName, NameError> {
        let counted = name.strip_prefix(USER_PREFIX).unwrap_or(name);
        if counted.len() > length_max {
            return Err(NameError::TooLong {
                length: counted.len(),
                max: length_max,
            });
        }
        check(counted)?;
        Ok(ChannelName {
            text: name.into(),
            kind: ChannelKind::of(name),
        })
    }

    /// The channel of one signed-in user. Not bounded in length: the id was when the user signed in.
    pub fn of_user(id: &str) -> Result<ChannelName, NameError> {
        check(id)?;
        Ok(ChannelName {
            text: [USER_PREFIX, id].concat().into(),
            kind: ChannelKind(ChannelKind::USER),
        })
    }

    /// The name as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the prefix says.
    pub fn kind(&self) -> ChannelKind {
        self.kind
    }

    /// Whose channel it is, if it is a user's: the text after `#server-to-user-`, taken literally.
    pub fn user_id(&self) -> Option<&str> {
        self.kind.is_user().then(|| &self.text[USER_PREFIX.len()..])
    }
}

/// Whether the text may be a channel's name or a user's id: they share one alphabet.
pub(crate) fn check(name: &str) -> Result<(), NameError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    name.chars()
        .find(|&c| !legal(c))
        .map_or(Ok(()), |c| Err(NameError::IllegalCharacter(c)))
}

/// What a channel's prefix means: independent properties, not exclusive types (`presence-cache-x` is both).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ChannelKind(u8);

impl ChannelKind {
    const AUTH: u8 = 1;
    const PRESENCE: u8 = 2;
    const CACHE: u8 = 4;
    const ENCRYPTED: u8 = 8;
    const USER: u8 = 16;

    /// Longest prefix first; the dash belongs to it, so that `privateer` and `cached` are public.
    const PREFIXES: [(&str, u8); 8] = [
        (
            "private-encrypted-cache-",
            Self::AUTH | Self::CACHE | Self::ENCRYPTED,
        ),
        ("private-encrypted-", Self::AUTH | Self::ENCRYPTED),
        ("private-cache-", Self::AUTH | Self::CACHE),
        ("private-", Self::AUTH),
        ("presence-cache-", Self::AUTH | Self::PRESENCE | Self::CACHE),
        ("presence-", Self::AUTH | Self::PRESENCE),
        ("cache-", Self::CACHE),
        (USER_PREFIX, Self::USER),
    ];

    /// What the prefix of this name says, legal or not.
    pub(crate) fn of(name: &str) -> ChannelKind {
        let found = Self::PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
        ChannelKind(found.map_or(0, |&(_, flags)| flags))
    }

    /// The kinds that names may be of that begin with this text.
    pub(crate) fn of_beginning(beginning: &str) -> Vec<ChannelKind> {
        let mut kinds = vec![ChannelKind::of(beginning)];
        for (prefix, flags) in Self::PREFIXES {
            if prefix.starts_with(beginning) && !kinds.contains(&ChannelKind(flags)) {
                kinds.push(ChannelKind(flags));
            }
        }
        kinds
    }

    /// A subscription needs a signature. Not so a user's channel: that one needs the socket to be signed in.
    pub fn needs_auth(self) -> bool {
        self.0 & Self::AUTH != 0
    }

    /// Subscribers are members, visible to each other.
    pub fn is_presence(self) -> bool {
        self.0 & Self::PRESENCE != 0
    }

    /// The last event is kept for whoever subscribes later.
    pub fn is_cache(self) -> bool {
        self.0 & Self::CACHE != 0
    }

    /// Payloads are encrypted end to end: never parsed, never logged.
    pub fn is_encrypted(self) -> bool {
        self.0 & Self::ENCRYPTED != 0
    }

    /// The channel of one signed-in user: never listed, never counted.
    pub fn is_user(self) -> bool {
        self.0 & Self::USER != 0
    }
}

impl fmt::Debug for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            (self.needs_auth(), "auth"),
            (self.is_presence(), "presence"),
            (self.is_cache(), "cache"),
            (self.is_encrypted(), "encrypted"),
            (self.is_user(), "user"),
        ];
        f.debug_set()
            .entries(flags.iter().filter(|(set, _)| *set).map(|(_, name)| name))
            .finish()
    }
}

impl PartialEq for ChannelName {
    fn eq(&self, other: &ChannelName) -> bool {
        self.text == other.text
    }
}

impl Eq for ChannelName {}

impl PartialOrd for ChannelName {
    fn partial_cmp(&self, other: &ChannelName) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ChannelName {
    fn cmp(&self, other: &ChannelName) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for ChannelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Lets a map of channels be asked with a `&str`: equality, order and hash are those of the text.
impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind_of(name: &str) -> String {
        format!("{:?}", ChannelName::parse(name, 200).expect(name).kind())
    }

    #[test]
    fn the_longest_prefix_decides() {
        for (name, kind) in [
            ("news", "{}"),
            ("private-a", r#"{"auth"}"#),
            ("private-encrypted-a", r#"{"auth", "encrypted"}"#),
            ("private-cache-a", r#"{"auth", "cache"}"#),
            ("private-encrypted-cache-a", r#"{"auth", "cache", "encrypted"}"#),
            ("presence-a", r#"{"auth", "presence"}"#),
            ("presence-cache-a", r#"{"auth", "presence", "cache"}"#),
            ("cache-a", r#"{"cache"}"#),
            ("#server-to-user-42", r#"{"user"}"#),
            // A prefix alone is a name of its kind.
            ("private-", r#"{"auth"}"#),
            ("private-encrypted-", r#"{"auth", "encrypted"}"#),
            ("private-cache-", r#"{"auth", "cache"}"#),
            ("private-encrypted-cache-", r#"{"auth", "cache", "encrypted"}"#),
            ("presence-", r#"{"auth", "presence"}"#),
            ("presence-cache-", r#"{"auth", "presence", "cache"}"#),
            ("cache-", r#"{"cache"}"#),
            // Without the dash it is no prefix.
            ("private", "{}"),
            ("privateer", "{}"),
            ("presence", "{}"),
            ("presences-a", "{}"),
            ("cache", "{}"),
            ("cached", "{}"),
            ("private-encrypted", r#"{"auth"}"#),
            ("private-cached", r#"{"auth"}"#),
            ("presence-caches-a", r#"{"auth", "presence"}"#),
            ("private-encrypted-cached", r#"{"auth", "encrypted"}"#),
            // It counts at the start only, as it is written, and in one order.
            ("private-my-cache-1", r#"{"auth"}"#),
            ("my-private-a", "{}"),
            ("Private-a", "{}"),
            ("PRESENCE-a", "{}"),
            ("cache-private-a", r#"{"cache"}"#),
            ("private-cache-encrypted-a", r#"{"auth", "cache"}"#),
            ("presence-encrypted-a", r#"{"auth", "presence"}"#),
            ("presence-private-a", r#"{"auth", "presence"}"#),
            ("server-to-user-42", "{}"),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }

    #[test]
    fn names_are_made_of_a_few_characters() {
        for name in [
            "a",
            "Az09_-=@,.;",
            "-",
            ";",
            "@a=b,c",
            "#server-to-user-a@b.c;d",
            "#server-to-user-private-a",
        ] {
            assert_eq!(ChannelName::parse(name, 200).expect(name).as_str(), name);
        }
        for (name, illegal) in [
            ("a b", ' '),
            ("a/b", '/'),
            ("a:b", ':'),
            ("a\0", '\0'),
            ("a\n", '\n'),
            ("a\"", '"'),
            ("a\\", '\\'),
            ("é", 'é'),
            ("a+b", '+'),
            ("a%20", '%'),
            ("a*", '*'),
            // The hash begins a user's channel, and nothing else.
            ("#", '#'),
            ("#a", '#'),
            ("a#b", '#'),
            ("#server-to-user", '#'),
            ("#Server-to-user-1", '#'),
            ("##server-to-user-1", '#'),
            ("#server-to-user-#1", '#'),
            ("#server-to-user-a b", ' '),
            ("private-#server-to-user-1", '#'),
        ] {
            assert_eq!(
                ChannelName::parse(name, 200),
                Err(NameError::IllegalCharacter(illegal)),
                "{name:?}"
            );
        }
        for name in ["", "#server-to-user-"] {
            assert_eq!(ChannelName::parse(name, 200), Err(NameError::Empty));
        }
    }

    #[test]
    fn length_counts_without_the_prefix_of_a_users_channel() {
        let name = |length| "a".repeat(length);
        let too_long = Err(NameError::TooLong {
            length: 201,
            max: 200,
        });
        assert!(ChannelName::parse(&name(200), 200).is_ok());
        assert_eq!(ChannelName::parse(&name(201), 200), too_long);
        assert!(ChannelName::parse(&format!("private-{}", name(192)), 200).is_ok());
        assert_eq!(
            ChannelName::parse(&format!("private-{}", name(193)), 200),
            too_long
        );
        assert!(ChannelName::parse(&format!("#server-to-user-{}", name(200)), 200).is_ok());
        assert_eq!(
            ChannelName::parse(&format!("#server-to-user-{}", name(201)), 200),
            too_long
        );
    }

    #[test]
    fn a_users_channel_names_its_user() {
        let channel = ChannelName::of_user("private-7").expect("legal");
        assert_eq!(channel.as_str(), "#server-to-user-private-7");
        assert_eq!(channel.user_id(), Some("private-7"));
        assert_eq!(ChannelName::parse(channel.as_str(), 200), Ok(channel.clone()));
        assert_eq!(kind_of(channel.as_str()), format!("{:?}", channel.kind()));
        assert_eq!(ChannelName::of_user(""), Err(NameError::Empty));
        assert_eq!(ChannelName::of_user("a/b"), Err(NameError::IllegalCharacter('/')));
        assert_eq!(
            ChannelName::parse("private-7", 200).expect("legal").user_id(),
            None
        );
    }

    proptest! {
        #[test]
        fn parse_takes_any_text_and_keeps_what_it_accepts(name in "#?(server-to-user-)?[ -~é]{0,20}") {
            if let Ok(channel) = ChannelName::parse(&name, 16) {
                prop_assert_eq!(channel.as_str(), &name);
                prop_assert!(channel.user_id().unwrap_or(&name).len() <= 16);
                prop_assert_eq!(channel.kind().is_user(), name.starts_with('#'));
            }
        }
    }
}
