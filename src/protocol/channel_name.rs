//! Channel names and what their prefix means: decided once, here, and carried in the type from then on.
//!
//! No other code looks at a prefix. Nothing here knows whether the channel exists.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use thiserror::Error;

/// What stands before the user id in the name of a user's own channel.
const USER_PREFIX: &str = "#server-to-user-";

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

impl ChannelName {
    /// Checks a name and decides its kind. `length_max` is in bytes, and the same in characters, for legal names are ASCII.
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

    fn of(name: &str) -> ChannelKind {
        let found = Self::PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
        ChannelKind(found.map_or(0, |&(_, flags)| flags))
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
