//! `GET /apps/ID/channels` and `/channels/NAME`: what is asked, and the answers. Pure: who looks the channels
//! up is `mod.rs`.

use bytes::Bytes;
use serde::Serialize;

use super::error::ApiError;
use super::event::channel_name;
use super::info::{ChannelMap, Counts, Wanted};
use super::query::parameter;
use crate::app::Limits;
use crate::node::{ChannelDetail, ChannelSummary};
use crate::protocol::ChannelName;

const PRESENCE: &str = "presence-";

/// A list of the occupied channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// What the names begin with; empty for all.
    pub(super) prefix: String,
    wanted: Wanted,
}

impl ListQuery {
    /// Reads the query string.
    pub(super) fn parse(query: &str) -> Result<ListQuery, ApiError> {
        let prefix = parameter(query, "filter_by_prefix")
            .unwrap_or_default()
            .into_owned();
        let wanted = Wanted::strict(&parameter(query, "info").unwrap_or_default())?;
        if wanted.user_count && !prefix.starts_with(PRESENCE) {
            return Err(ApiError::bad(
                "`info=user_count` is about presence channels: add `filter_by_prefix=presence-`.",
            ));
        }
        if wanted.cache {
            return Err(ApiError::bad(
                "`info=cache` is asked of one channel: GET /apps/APP_ID/channels/NAME.",
            ));
        }
        Ok(ListQuery { prefix, wanted })
    }

    /// The answer, of the channels found.
    pub(super) fn answer(&self, found: &[ChannelSummary]) -> Bytes {
        #[derive(Serialize)]
        struct Answer<'a> {
            channels: ChannelMap<'a>,
        }
        let counts = |channel: &ChannelSummary| Counts {
            user_count: channel.user_count.filter(|_| self.wanted.user_count),
            subscription_count: self
                .wanted
                .subscription_count
                .then_some(channel.subscription_count),
        };
        let channels = found
            .iter()
            .map(|channel| (&channel.name, counts(channel)))
            .collect();
        rendered(&Answer {
            channels: ChannelMap(channels),
        })
    }
}

/// One channel, occupied or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChannelQuery {
    pub(super) name: ChannelName,
    wanted: Wanted,
}

impl ChannelQuery {
    /// Reads the name (decoded) and the query string.
    pub(super) fn parse(name: &str, query: &str, limits: &Limits) -> Result<ChannelQuery, ApiError> {
        let name = channel_name(name, limits)?;
        let wanted = Wanted::strict(&parameter(query, "info").unwrap_or_default())?;
        let kind = name.kind();
        if kind.is_user() {
            return Err(ApiError::bad(
                "A user's own channel is not asked for: it has no subscribers but the user.",
            ));
        }
        if wanted.user_count && !kind.is_presence() {
            return Err(ApiError::bad(
                "`info=user_count` is about presence channels; ask for subscription_count.",
            ));
        }
        if wanted.cache && !kind.is_cache() {
            return Err(ApiError::bad(
                "`info=cache` is about cache channels: cache-…, private-cache-… and the like.",
            ));
        }
        Ok(ChannelQuery { name, wanted })
    }

    /// The answer, of what was found.
    pub(super) fn answer(&self, detail: &ChannelDetail) -> Bytes {
        #[derive(Serialize)]
        struct Cached<'a> {
            data: &'a str,
            ttl: u64,
        }
        #[derive(Serialize)]
        struct Answer<'a> {
            occupied: bool,
            #[serde(flatten)]
            counts: Counts,
            /// Asked for and empty is `null`, not asked for is nothing.
            #[serde(skip_serializing_if = "Option::is_none")]
            cache: Option<Option<Cached<'a>>>,
        }
        let cached = || {
            detail.cache.as_ref().map(|event| Cached {
                data: &event.data,
                ttl: event.ttl_s,
            })
        };
        rendered(&Answer {
            occupied: detail.subscription_count > 0,
            counts: Counts::new(self.wanted, &self.name, detail),
            cache: self.wanted.cache.then(cached),
        })
    }
}

/// An answer's bytes. Serialising to memory cannot fail for types whose maps have string keys.
pub(super) fn rendered(answer: &impl Serialize) -> Bytes {
    serde_json::to_vec(answer).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppConfig, Settings};
    use crate::node::CachedEvent;

    fn limits() -> Limits {
        Settings::new(AppConfig::demo())
            .expect("the demo app is valid")
            .limits
    }

    #[test]
    fn a_list_has_every_channel_found_and_only_what_was_asked() {
        let found =
            [("presence-a", 3, Some(2)), ("b", 1, None)].map(|(name, subscription_count, user_count)| {
                let name = ChannelName::parse(name, 200).expect("a legal name");
                ChannelSummary {
                    name,
                    subscription_count,
                    user_count,
                }
            });
        for (query, count, answer) in [
            ("", 2, r#"{"channels":{"presence-a":{},"b":{}}}"#),
            ("", 0, r#"{"channels":{}}"#),
            (
                "info=subscription_count",
                2,
                r#"{"channels":{"presence-a":{"subscription_count":3},"b":{"subscription_count":1}}}"#,
            ),
            (
                "filter_by_prefix=presence-&info=user_count",
                1,
                r#"{"channels":{"presence-a":{"user_count":2}}}"#,
            ),
            (
                "info=subscription_count%2Cuser_count&filter_by_prefix=presence-cache-",
                1,
                r#"{"channels":{"presence-a":{"user_count":2,"subscription_count":3}}}"#,
            ),
        ] {
            let query = ListQuery::parse(query).expect("a valid query");
            assert_eq!(query.answer(&found[..count]), answer, "{query:?}");
        }
        let query = ListQuery::parse("filter_by_prefix=a%40").expect("a valid query");
        assert_eq!(query.prefix, "a@");
    }

    #[test]
    fn a_list_cannot_be_asked_what_it_does_not_know() {
        for (query, part) in [
            ("info=user_count", "filter_by_prefix=presence-"),
            (
                "info=user_count&filter_by_prefix=private-",
                "filter_by_prefix=presence-",
            ),
            (
                "info=user_count&filter_by_prefix=presence",
                "filter_by_prefix=presence-",
            ),
            ("info=mood", r#""mood""#),
            ("info=cache&filter_by_prefix=cache-", "channels/NAME"),
        ] {
            let refusal = ListQuery::parse(query).expect_err("it cannot be known");
            assert_eq!(refusal.status(), 400, "{query}");
            assert!(refusal.text().contains(part), "{}", refusal.text());
        }
    }

    #[test]
    fn a_channel_tells_its_audience_and_its_last_event() {
        for (channel, query, subscription_count, is_cached, answer) in [
            ("a", "", 3, false, r#"{"occupied":true}"#),
            (
                "a",
                "info=subscription_count",
                3,
                false,
                r#"{"occupied":true,"subscription_count":3}"#,
            ),
            (
                "a",
                "info=subscription_count",
                0,
                false,
                r#"{"occupied":false,"subscription_count":0}"#,
            ),
            (
                "presence-a",
                "info=user_count,subscription_count",
                3,
                false,
                r#"{"occupied":true,"user_count":2,"subscription_count":3}"#,
            ),
            ("cache-a", "", 3, true, r#"{"occupied":true}"#),
            (
                "cache-a",
                "info=cache",
                0,
                false,
                r#"{"occupied":false,"cache":null}"#,
            ),
            (
                "private-cache-a",
                "info=subscription_count,cache",
                3,
                true,
                r#"{"occupied":true,"subscription_count":3,"cache":{"data":"{\"p\":1}","ttl":1712}}"#,
            ),
        ] {
            let query = ChannelQuery::parse(channel, query, &limits()).expect("a valid query");
            let cache = is_cached.then(|| CachedEvent {
                data: r#"{"p":1}"#.into(),
                ttl_s: 1712,
            });
            let detail = ChannelDetail {
                subscription_count,
                user_count: Some(2),
                cache,
            };
            assert_eq!(query.answer(&detail), answer, "{channel}");
        }
    }

    #[test]
    fn a_channel_cannot_be_asked_what_it_does_not_have() {
        for (channel, query, part) in [
            ("a!", "", "not the name of a channel"),
            ("a", "info=user_count", "presence channels"),
            ("a", "info=cache", "cache channels"),
            ("private-my-cache-1", "info=cache", "cache channels"),
            ("a", "info=mood", r#""mood""#),
            ("#server-to-user-1", "", "no subscribers but the user"),
        ] {
            let refusal = ChannelQuery::parse(channel, query, &limits()).expect_err("it has none");
            assert_eq!(refusal.status(), 400, "{channel} {query}");
            assert!(refusal.text().contains(part), "{}", refusal.text());
        }
    }
}
