//! `user_data`: who signs in. To be read only after its signature was verified.
//!
//! Not who is signed in where, nor what the watched users do.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::channel_name;
use super::client::Text;
use super::json;
use super::user_id;

/// A user who signed in on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedInUser {
    /// Made of the characters of channel names.
    pub id: Arc<str>,
    /// Compact JSON text.
    pub user_info: Option<Arc<str>>,
    /// Whose coming and going this user wants to hear of: each id once, in the order sent.
    pub watchlist: Vec<String>,
    /// The list was longer than the app allows, and its rest was left out.
    pub watchlist_cut: bool,
}

/// How much a user may say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserLimits {
    /// In characters.
    pub id_length_max: usize,
    /// In ids.
    pub watchlist_max: usize,
}

/// Why nobody can be signed in. Its text is for the `pusher:error` that says so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UserError {
    /// Not the text of a JSON object, or one with a known key given twice.
    #[error("Invalid user_data: not a JSON object")]
    NotAnObject,
    /// `id` is missing, empty, or no string. pusher-js itself refuses a number, but only after we had agreed.
    #[error("Invalid user_data: id must be a non-empty string")]
    NoId,
    /// `id` is too long.
    #[error("Invalid user_data: id is longer than {0} characters")]
    IdTooLong(usize),
    /// `id` holds a character that no channel name may hold.
    #[error("Invalid user_data: id holds {0:?}, only A-Z a-z 0-9 _ - = @ , . ; are allowed")]
    IllegalCharacter(char),
    /// `watchlist` is no array.
    #[error("Invalid user_data: watchlist must be an array of user ids")]
    NoWatchlist,
}

#[derive(Deserialize)]
struct UserData<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    watchlist: Option<&'a RawValue>,
}

impl SignedInUser {
    /// Reads `user_data`.
    ///
    /// What cannot be a user's id is passed over in the watchlist: nobody can ever sign in by it. A number
    /// there is taken for its text.
    pub fn parse(user_data: &str, limits: UserLimits) -> Result<SignedInUser, UserError> {
        let data: UserData<'_> = json::object(user_data).ok_or(UserError::NotAnObject)?;
        let id = data.id.as_str().ok_or(UserError::NoId)?;
        if id.len() > limits.id_length_max {
            return Err(UserError::IdTooLong(limits.id_length_max));
        }
        channel_name::check(id).map_err(|error| match error {
            channel_name::NameError::IllegalCharacter(c) => UserError::IllegalCharacter(c),
            _ => UserError::NoId,
        })?;

        let (watchlist, watchlist_cut) = watchlist(data.watchlist, limits)?;
        let user_info = data.user_info.map(|info| json::compact(info.get()).into());
        Ok(SignedInUser {
            id: id.into(),
            user_info,
            watchlist,
            watchlist_cut,
        })
    }
}

fn watchlist(list: Option<&RawValue>, limits: UserLimits) -> Result<(Vec<String>, bool), UserError> {
    let Some(list) = list else {
        return Ok((Vec::new(), false));
    };
    let list: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| UserError::NoWatchlist)?;
    let is_possible = |id: &str| id.len() <= limits.id_length_max && channel_name::check(id).is_ok();
    let mut known = HashSet::new();
    let mut ids: Vec<String> = list
        .iter()
        .filter_map(|id| user_id::of_json(id.get()))
        .filter(|id| is_possible(id) && known.insert(id.clone()))
        .map(Cow::into_owned)
        .collect();
    let is_cut = ids.len() > limits.watchlist_max;
    ids.truncate(limits.watchlist_max);
    Ok((ids, is_cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: UserLimits = UserLimits {
        id_length_max: 200,
        watchlist_max: 100,
    };

    fn watchlist_of(json: &str) -> (Vec<String>, bool) {
        let user_data = format!(r#"{{"id":"42","watchlist":{json}}}"#);
        let user = SignedInUser::parse(&user_data, LIMITS).expect(json);
        (user.watchlist, user.watchlist_cut)
    }

    #[test]
    fn a_user_is_an_id_and_what_belongs_to_it() {
        let user = SignedInUser::parse(
            r#"{"id":"a@b.c", "user_info": {"name": "Ada L"}, "watchlist":["7","9"], "more":1}"#,
            LIMITS,
        );
        let expected = SignedInUser {
            id: "a@b.c".into(),
            user_info: Some(r#"{"name":"Ada L"}"#.into()),
            watchlist: vec!["7".to_owned(), "9".to_owned()],
            watchlist_cut: false,
        };
        assert_eq!(user, Ok(expected));

        for bare in [
            r#"{"id":"42"}"#,
            r#"{"id":"42","user_info":null,"watchlist":null}"#,
        ] {
            let user = SignedInUser::parse(bare, LIMITS).expect(bare);
            assert_eq!((user.user_info, user.watchlist), (None, Vec::new()));
        }
    }

    #[test]
    fn who_cannot_sign_in() {
        let long = format!(r#"{{"id":"{}"}}"#, "a".repeat(201));
        for (user_data, error) in [
            ("", UserError::NotAnObject),
            (r#"["42"]"#, UserError::NotAnObject),
            (r#"{"id":"1","id":"2"}"#, UserError::NotAnObject),
            ("{}", UserError::NoId),
            (r#"{"id":42}"#, UserError::NoId),
            (r#"{"id":null}"#, UserError::NoId),
            (r#"{"id":""}"#, UserError::NoId),
            (r#"{"id":["42"]}"#, UserError::NoId),
            (r#"{"id":"a b"}"#, UserError::IllegalCharacter(' ')),
            (r##"{"id":"#1"}"##, UserError::IllegalCharacter('#')),
            (&long, UserError::IdTooLong(200)),
            (r#"{"id":"42","watchlist":"7"}"#, UserError::NoWatchlist),
            (r#"{"id":"42","watchlist":{"0":"7"}}"#, UserError::NoWatchlist),
        ] {
            assert_eq!(SignedInUser::parse(user_data, LIMITS), Err(error), "{user_data}");
        }
    }

    #[test]
    fn a_watchlist_holds_each_possible_id_once() {
        let ids = |ids: &[&str]| (ids.iter().map(|&id| id.to_owned()).collect(), false);
        assert_eq!(watchlist_of("[]"), ids(&[]));
        assert_eq!(watchlist_of(r#"["7", 9, "7", "b", 7]"#), ids(&["7", "9", "b"]));
        assert_eq!(
            watchlist_of(r#"["", "a b", null, {"id":"1"}, ["2"], "ok"]"#),
            ids(&["ok"])
        );
    }

    #[test]
    fn a_watchlist_is_cut_after_its_limit() {
        let list = |count: usize| {
            serde_json::json!((0..count).map(|id| id.to_string()).collect::<Vec<_>>()).to_string()
        };
        assert!(!watchlist_of(&list(100)).1);
        let (ids, cut) = watchlist_of(&list(101));
        assert!(cut);
        assert_eq!((ids.len(), ids[99].as_str()), (100, "99"));
    }
}
