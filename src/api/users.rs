//! `GET /apps/ID/channels/NAME/users`: the members of a presence channel. Pure: who looks them up is `mod.rs`.
//! Users who are signed in but no member are not listed anywhere.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::channels::rendered;
use super::error::ApiError;
use super::event::channel_name;
use super::query::parameter;
use crate::app::Limits;
use crate::protocol::{ChannelName, Member};

/// The members of one presence channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UsersQuery {
    pub(super) name: ChannelName,
    with_user_info: bool,
}

impl UsersQuery {
    /// Reads the name (decoded) and the query string.
    pub(super) fn parse(name: &str, query: &str, limits: &Limits) -> Result<UsersQuery, ApiError> {
        let name = channel_name(name, limits)?;
        if !name.kind().is_presence() {
            return Err(ApiError::bad(format!(
                "{name} is not a presence channel: only those know their users."
            )));
        }
        let with_user_info = parameter(query, "with_user_info").is_some_and(|v| v == "1" || v == "true");
        Ok(UsersQuery { name, with_user_info })
    }

    /// The answer, of the members found.
    pub(super) fn answer(&self, members: &[Member]) -> Bytes {
        #[derive(Serialize)]
        struct User<'a> {
            id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            user_info: Option<&'a RawValue>,
        }
        #[derive(Serialize)]
        struct Answer<'a> {
            users: Vec<User<'a>>,
        }
        let users = members.iter().map(|member| User {
            id: &member.user_id,
            // It was parsed when the member joined, so it is JSON.
            user_info: self
                .with_user_info
                .then(|| serde_json::from_str(&member.user_info).ok())
                .flatten(),
        });
        rendered(&Answer {
            users: users.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppConfig, Settings};

    fn parse(name: &str, query: &str) -> Result<UsersQuery, ApiError> {
        let app = Settings::new(AppConfig::demo()).expect("the demo app is valid");
        UsersQuery::parse(name, query, &app.limits)
    }

    #[test]
    fn members_are_a_list_of_ids() {
        let members = [("1", r#"{"name":"Ada"}"#), ("2", "{}")].map(|(id, info)| Member {
            user_id: id.into(),
            user_info: info.into(),
        });
        for (query, count, answer) in [
            ("", 0, r#"{"users":[]}"#),
            ("", 2, r#"{"users":[{"id":"1"},{"id":"2"}]}"#),
            ("with_user_info=0", 1, r#"{"users":[{"id":"1"}]}"#),
            (
                "with_user_info=1",
                2,
                r#"{"users":[{"id":"1","user_info":{"name":"Ada"}},{"id":"2","user_info":{}}]}"#,
            ),
        ] {
            let users = parse("presence-a", query).expect("a presence channel");
            assert_eq!(users.answer(&members[..count]), answer);
        }
    }

    #[test]
    fn only_presence_channels_know_their_users() {
        for name in ["a", "private-a", "presence", "#server-to-user-1", "presence-!"] {
            assert_eq!(
                parse(name, "").expect_err("it has no users").status(),
                400,
                "{name}"
            );
        }
    }
}
