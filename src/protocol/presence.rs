//! `channel_data`: who wants to be a member of a presence channel. To be read only after its signature was verified.
//!
//! Not the list of members, nor how many there may be.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::code::RefusalKind;
use super::json;
use super::user::SignedInUser;

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
            .and_then(id_text)
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

/// A user id given as JSON: a string that is not empty, or a number.
pub(super) fn id_text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(json)
            .ok()
            .filter(|id| !id.is_empty())
            .map(Cow::Owned),
        b'-' | b'0'..=b'9' => decimal(json),
        _ => None,
    }
}

/// The decimal text of a JSON number. An integer keeps its digits, however many; another spelling of the same number
/// gives the same text (`1.0` and `1e0` are `1`, `1e3` is `1000`, `-0` is `0`), for it means the same user.
/// `None` where that text would be longer than any id.
fn decimal(json: &str) -> Option<Cow<'_, str>> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && json != "-0" {
        return Some(Cow::Borrowed(json));
    }
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    // Where the point stands in `all`, once the zeros that mean nothing have gone from both ends.
    let significant = all.trim_start_matches('0');
    let point = exponent.parse::<i64>().ok()?.checked_add(whole.len() as i64)?;
    let point = point.checked_sub((all.len() - significant.len()) as i64)?;
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".into());
    }
    const ZEROS_MAX: i64 = 1000;
    if !(-ZEROS_MAX..=ZEROS_MAX).contains(&point) {
        return None;
    }
    let sign = if json.starts_with('-') { "-" } else { "" };
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    let text = if point <= 0 {
        format!("{sign}0.{}{significant}", zeros(-point))
    } else if significant.len() as i64 <= point {
        format!("{sign}{significant}{}", zeros(point - significant.len() as i64))
    } else {
        let (whole, fraction) = significant.split_at(point as usize);
        format!("{sign}{whole}.{fraction}")
    };
    Some(text.into())
}
