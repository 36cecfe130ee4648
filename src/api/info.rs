//! The `info` parameter, which several calls take, and the counts that answer it.

use serde::{Serialize, Serializer};

use super::error::ApiError;
use crate::node::ChannelDetail;
use crate::protocol::ChannelName;

/// Which attributes of a channel are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) user_count: bool,
    pub(super) subscription_count: bool,
    pub(super) cache: bool,
}

impl Wanted {
    /// Reads a comma list, passing over attributes nobody knows: the rule where events are published.
    pub(super) fn lenient(info: &str) -> Wanted {
        let mut wanted = Wanted::default();
        for attribute in attributes(info) {
            wanted.add(attribute);
        }
        wanted
    }

    /// Reads a comma list of which every attribute must be known: the rule of the queries.
    pub(super) fn strict(info: &str) -> Result<Wanted, ApiError> {
        let mut wanted = Wanted::default();
        match attributes(info).find(|attribute| !wanted.add(attribute)) {
            None => Ok(wanted),
            Some(unknown) => Err(ApiError::bad(format!(
                "`info` asks for {unknown:?}; there are user_count, subscription_count and, of one channel, cache."
            ))),
        }
    }

    fn add(&mut self, attribute: &str) -> bool {
        match attribute {
            "user_count" => self.user_count = true,
            "subscription_count" => self.subscription_count = true,
            "cache" => self.cache = true,
            _ => return false,
        }
        true
    }
}

fn attributes(info: &str) -> impl Iterator<Item = &str> {
    info.split(',')
        .map(str::trim)
        .filter(|attribute| !attribute.is_empty())
}

/// What is told of a channel's audience; `{}` when nothing was asked, or nothing applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subscription_count: Option<usize>,
}

impl Counts {
    /// Users only where there are members, and nothing at all for a user's own channel: it is a way to
    /// that user's sockets, not a place with an audience.
    pub(super) fn new(wanted: Wanted, name: &ChannelName, detail: &ChannelDetail) -> Counts {
        let kind = name.kind();
        Counts {
            user_count: detail
                .user_count
                .filter(|_| wanted.user_count && kind.is_presence()),
            subscription_count: (wanted.subscription_count && !kind.is_user())
                .then_some(detail.subscription_count),
        }
    }
}

/// Channels by name, in the order given. Always a JSON object: the official PHP library fails on a list.
#[derive(Debug)]
pub(super) struct ChannelMap<'a>(pub(super) Vec<(&'a ChannelName, Counts)>);

impl Serialize for ChannelMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, counts)| (name.as_str(), counts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_a_comma_list() {
        let both = Wanted {
            user_count: true,
            subscription_count: true,
            cache: false,
        };
        for (info, wanted) in [
            ("", Wanted::default()),
            ("user_count,subscription_count", both),
            (" subscription_count , user_count,,", both),
            (
                "cache",
                Wanted {
                    cache: true,
                    ..Wanted::default()
                },
            ),
        ] {
            assert_eq!(Wanted::strict(info), Ok(wanted), "{info}");
            assert_eq!(Wanted::lenient(info), wanted, "{info}");
        }
    }

    #[test]
    fn an_unknown_attribute_is_refused_or_passed_over() {
        let Err(ApiError::BadRequest(text)) = Wanted::strict("user_count,size") else {
            panic!()
        };
        assert!(text.contains("\"size\""), "{text}");
        assert_eq!(
            Wanted::lenient("user_count,size"),
            Wanted {
                user_count: true,
                ..Wanted::default()
            }
        );
    }
}
