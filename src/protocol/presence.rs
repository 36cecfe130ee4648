//! `channel_data`: who wants to be a member of a presence channel. To be read only after its signature was
//! verified.
//!
//! Not the list of members, nor how many there may be.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::code::RefusalKind;
use super::json;
use super::user::SignedInUser;
use super::user_id;

/// One user as others see them in a presence channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The id as text, whatever it was in the JSON.
    pub user_id: Arc<str>,
    /// Compact JSON text, `{}` if the user has none to show.
    pub user_info: Arc<str>,
}

/// How large a member may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberLimits {
    /// In characters.
    pub user_id_length_max: usize,
    /// In bytes of compact JSON.
    pub user_info_bytes_max: usize,
}

/// Why no member can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemberError {
    /// Not the text of a JSON object, or one with a known key given twice.
    #[error("Invalid channel_data: not a JSON object")]
    NotAnObject,
    /// `user_id` is missing, empty, or neither string nor number.
    #[error("Invalid channel_data: user_id must be a non-empty string or a number")]
    NoUserId,
    /// `user_id` is too long.
    #[error("Invalid channel_data: user_id is longer than {0} characters")]
    UserIdTooLong(usize),
    /// `user_info` is too large.
    #[error("Invalid channel_data: user_info is larger than {0} bytes")]
    UserInfoTooLarge(usize),
}

impl MemberError {
    /// What the client is told.
    pub fn kind(&self) -> RefusalKind {
        match self {
            MemberError::NotAnObject | MemberError::NoUserId => RefusalKind::Auth,
            MemberError::UserIdTooLong(_) | MemberError::UserInfoTooLarge(_) => RefusalKind::MemberTooLarge,
        }
    }
}

/// `null` is as good as absent for both: derive's `Option` does that.
#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow, default)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_info: Option<&'a RawValue>,
}

impl Member {
    /// Reads `channel_data`.
    pub fn parse(channel_data: &str, limits: MemberLimits) -> Result<Member, MemberError> {
        let data: ChannelData<'_> = json::object(channel_data).ok_or(MemberError::NotAnObject)?;
        let user_id = data
            .user_id
            .map(RawValue::get)
            .and_then(user_id::of_json)
            .ok_or(MemberError::NoUserId)?;
        let user_info = json::compact(data.user_info.map_or("{}", RawValue::get));
        Member {
            user_id: user_id.into(),
            user_info: user_info.into(),
        }
        .within(limits)
    }

    /// The member that a signed-in user is where no `channel_data` was sent.
    pub fn of_user(user: &SignedInUser, limits: MemberLimits) -> Result<Member, MemberError> {
        let user_info = user.user_info.clone().unwrap_or_else(|| "{}".into());
        Member {
            user_id: user.id.clone(),
            user_info,
        }
        .within(limits)
    }

    fn within(self, limits: MemberLimits) -> Result<Member, MemberError> {
        if self.user_id.chars().count() > limits.user_id_length_max {
            return Err(MemberError::UserIdTooLong(limits.user_id_length_max));
        }
        if self.user_info.len() > limits.user_info_bytes_max {
            return Err(MemberError::UserInfoTooLarge(limits.user_info_bytes_max));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemberLimits = MemberLimits {
        user_id_length_max: 128,
        user_info_bytes_max: 1024,
    };

    #[test]
    fn a_member_is_an_id_and_perhaps_some_info() {
        for (channel_data, user_id, user_info) in [
            (
                r#"{"user_id":"42","user_info":{"name":"Ada"}}"#,
                "42",
                r#"{"name":"Ada"}"#,
            ),
            (
                r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#,
                "10",
                r#"{"name":"Mr. Channels"}"#,
            ),
            (
                r#"{"user_id":18446744073709551616}"#,
                "18446744073709551616",
                "{}",
            ),
            // Missing info would make the member vanish from the list, `null` breaks who iterates over it.
            (r#"{"user_id":"42"}"#, "42", "{}"),
            (r#"{"user_id":"42","user_info":null}"#, "42", "{}"),
            // Any JSON will do, in the compact form.
            (r#"{"user_id":"42","user_info":"Ada"}"#, "42", r#""Ada""#),
            (r#"{"user_id":"42","user_info":[ 1.0, 2 ]}"#, "42", "[1.0,2]"),
            (
                r#" { "user_info" : { "a b" : " \u00e9 " } , "more" : [1] , "user_id" : "é\"" } "#,
                "é\"",
                r#"{"a b":" \u00e9 "}"#,
            ),
        ] {
            let member = Member::parse(channel_data, LIMITS).expect(channel_data);
            assert_eq!(
                (&*member.user_id, &*member.user_info),
                (user_id, user_info),
                "{channel_data}"
            );
        }
    }

    #[test]
    fn what_names_no_user_is_refused() {
        for (channel_data, error) in [
            ("", MemberError::NotAnObject),
            ("null", MemberError::NotAnObject),
            ("42", MemberError::NotAnObject),
            (r#"["42"]"#, MemberError::NotAnObject),
            (r#"{"user_id":"42""#, MemberError::NotAnObject),
            (r#"{"user_id":"1","user_id":"2"}"#, MemberError::NotAnObject),
            ("{}", MemberError::NoUserId),
            (r#"{"user_id":null}"#, MemberError::NoUserId),
            (r#"{"user_id":""}"#, MemberError::NoUserId),
            (r#"{"user_id":true}"#, MemberError::NoUserId),
            (r#"{"user_id":{"id":1}}"#, MemberError::NoUserId),
            (r#"{"user_id":["1"]}"#, MemberError::NoUserId),
        ] {
            assert_eq!(error.kind(), RefusalKind::Auth);
            assert_eq!(Member::parse(channel_data, LIMITS), Err(error), "{channel_data}");
        }
    }

    #[test]
    fn limits_are_inclusive() {
        // The id counts in characters, the info in bytes of its compact form.
        let member = |id: usize, info: usize| {
            let (id, info) = ("é".repeat(id), "x".repeat(info - 2));
            Member::parse(
                &format!(r#"{{"user_id":"{id}","user_info":   "{info}"   }}"#),
                LIMITS,
            )
        };
        assert!(member(128, 1024).is_ok());
        assert_eq!(member(129, 10), Err(MemberError::UserIdTooLong(128)));
        assert_eq!(member(1, 1025), Err(MemberError::UserInfoTooLarge(1024)));
        assert_eq!(
            MemberError::UserInfoTooLarge(1024).kind(),
            RefusalKind::MemberTooLarge
        );
    }

    #[test]
    fn a_signed_in_user_is_a_member_without_channel_data() {
        let user = |user_info: Option<&str>| SignedInUser {
            id: "42".into(),
            user_info: user_info.map(Arc::from),
            watchlist: Vec::new(),
            watchlist_cut: false,
        };
        let info =
            |user: SignedInUser| Member::of_user(&user, LIMITS).map(|member| member.user_info.to_string());
        assert_eq!(
            info(user(Some(r#"{"name":"Ada"}"#))),
            Ok(r#"{"name":"Ada"}"#.to_owned())
        );
        assert_eq!(info(user(None)), Ok("{}".to_owned()));
        let large = "1".repeat(1025);
        assert_eq!(info(user(Some(&large))), Err(MemberError::UserInfoTooLarge(1024)));
    }
}
