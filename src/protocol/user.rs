//! `user_data`: who signs in. To be read only after its signature was verified.
//!
//! Not who is signed in where, nor what the watched users do.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::channel_name;
use super::client::Text;
use super::json;
use super::presence::id_text;

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
    /// What cannot be a user's id is passed over in the watchlist: nobody can ever sign in by it. A number there is
    /// taken for its text.
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
    let mut ids: Vec<String> = Vec::new();
    for id in list
        .iter()
        .filter_map(|id| id_text(id.get()))
        .filter(|id| is_possible(id))
    {
        if ids.iter().any(|known| **known == *id) {
            continue;
        }
        if ids.len() == limits.watchlist_max {
            return Ok((ids, true));
        }
        ids.push(id.into_owned());
    }
    Ok((ids, false))
}
