//! Signatures of requests to the HTTP API: the parameters that carry them, and the text that was signed.
//!
//! Pure: the body's hash and the time are arguments, and no app is looked up. Client libraries differ in what
//! they escape before they sign, and stacks under them in what they escape afterwards, so there is not one
//! text but a few candidates.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use smallvec::SmallVec;
use thiserror::Error;

use super::auth;
use super::path::below_prefix;

/// The longest query of a signed request. A call has a dozen parameters, the longest a channel's name. Bytes.
const QUERY_BYTES_MAX: usize = 4096;
/// See [`QUERY_BYTES_MAX`].
const PARAMETERS_MAX: usize = 64;

/// How far the clocks of client and server may be apart, in seconds.
pub const CLOCK_DIFFERENCE_MAX_S: u64 = 600;

/// What a request says of its own signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuth<'a> {
    /// `auth_key`: by which the secret is found.
    pub key: Cow<'a, str>,
    timestamp_s: i64,
    body_md5: Option<Cow<'a, str>>,
    signature: Cow<'a, str>,
}

/// Why a request is not believed. Its text is for the 401 answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestAuthError {
    /// More than any call has to say; every form in which it may have been signed would have to be hashed.
    #[error("The query is too long: at most {QUERY_BYTES_MAX} bytes in {PARAMETERS_MAX} parameters are read")]
    TooLong,
    /// A parameter that every signed request has is not there.
    #[error("Query parameter {0} is missing")]
    Missing(&'static str),
    /// Two of them leave open which one counts.
    #[error("Query parameter {0} is given more than once")]
    Repeated(&'static str),
    /// `auth_version` is not `1.0`.
    #[error("auth_version must be 1.0")]
    Version,
    /// `auth_timestamp` is no number.
    #[error("auth_timestamp must be an integer, in seconds")]
    Timestamp,
    /// The request is too old, or from the future.
    #[error(
        "auth_timestamp {timestamp_s} is more than {CLOCK_DIFFERENCE_MAX_S} seconds from the server's time {now_s}"
    )]
    Expired {
        /// As sent.
        timestamp_s: i64,
        /// As it is.
        now_s: i64,
    },
    /// A body came without its hash.
    #[error("body_md5 is missing: it is required for a request with a body")]
    BodyHashMissing,
    /// The hash is that of another body.
    #[error("body_md5 does not match the MD5 of the body received")]
    BodyHash,
    /// The secret gives another signature for every text that the request may have signed.
    #[error("Invalid signature: expected HMAC SHA256 hex digest of {signed:?}")]
    Signature {
        /// The text that a client by the book would have signed. It holds no secret.
        signed: String,
    },
}

impl<'a> RequestAuth<'a> {
    /// Finds the parameters in the raw query, the part of the target after `?`.
    pub fn parse(query: &'a str) -> Result<RequestAuth<'a>, RequestAuthError> {
        let parameters_sent = query.bytes().filter(|byte| *byte == b'&').count() + 1;
        if query.len() > QUERY_BYTES_MAX || parameters_sent > PARAMETERS_MAX {
            return Err(RequestAuthError::TooLong);
        }
        let [version, timestamp, key, signature, body_md5] = parameters(query)?;
        let required = |value: Option<Cow<'a, str>>, name| value.ok_or(RequestAuthError::Missing(name));
        if required(version, "auth_version")? != "1.0" {
            return Err(RequestAuthError::Version);
        }
        let timestamp = required(timestamp, "auth_timestamp")?;
        Ok(RequestAuth {
            key: required(key, "auth_key")?,
            timestamp_s: timestamp.parse().map_err(|_| RequestAuthError::Timestamp)?,
            body_md5,
            signature: required(signature, "auth_signature")?,
        })
    }

    /// Whether the request is of these minutes. `now_s` is Unix time.
    pub fn check_time(&self, now_s: i64) -> Result<(), RequestAuthError> {
        if self.timestamp_s.abs_diff(now_s) > CLOCK_DIFFERENCE_MAX_S {
            return Err(RequestAuthError::Expired {
                timestamp_s: self.timestamp_s,
                now_s,
            });
        }
        Ok(())
    }

    /// Whether the request's hash is that of the body that came. A hash of no body is checked too: the Python
    /// library sends one with every GET.
    pub fn check_body(&self, body_md5: [u8; 16], body_is_empty: bool) -> Result<(), RequestAuthError> {
        match &self.body_md5 {
            None if body_is_empty => Ok(()),
            None => Err(RequestAuthError::BodyHashMissing),
            Some(claimed) => {
                let mut claimed_md5 = [0; 16];
                match hex::decode_to_slice(claimed.as_bytes(), &mut claimed_md5) {
                    Ok(()) if claimed_md5 == body_md5 => Ok(()),
                    _ => Err(RequestAuthError::BodyHash),
                }
            }
        }
    }

    /// Whether one of the texts that the request may have signed gives its signature. The comparison takes
    /// the same time wherever they differ. `path` and `query` are raw, as received; `prefix` is as for
    /// [`below_prefix`].
    pub fn verify(
        &self,
        secret: &str,
        method: &str,
        path: &str,
        query: &str,
        prefix: &str,
    ) -> Result<(), RequestAuthError> {
        // Nearly always the first one is it, so the others are not made before it fails.
        let first = string_to_sign(method, path, query, Values::Decoded);
        let is_signed = |text: &String| auth::verify(secret, text, &self.signature);
        if is_signed(&first)
            || strings_to_sign(method, path, query, prefix)[1..]
                .iter()
                .any(is_signed)
        {
            return Ok(());
        }
        Err(RequestAuthError::Signature { signed: first })
    }
}

/// The texts that a client may have signed for a request, the likeliest first, each once, at least one: for
/// every form of the path every form of the query.
pub fn strings_to_sign(method: &str, path: &str, query: &str, prefix: &str) -> Vec<String> {
    let mut candidates = Vec::new();
    for path in signed_paths(path, prefix) {
        for values in [Values::Decoded, Values::Raw, Values::PlusIsSpace] {
            let text = string_to_sign(method, &path, query, values);
            if !candidates.contains(&text) {
                candidates.push(text);
            }
        }
    }
    candidates
}

/// How the values of the query are read before they are joined.
#[derive(Clone, Copy)]
enum Values {
    /// `%XX` only: PHP escapes, but signs what it had before.
    Decoded,
    /// As they came: Node and Go send what they signed.
    Raw,
    /// `%XX`, and `+` as a space: form encoding.
    PlusIsSpace,
}

fn string_to_sign(method: &str, path: &str, query: &str, values: Values) -> String {
    let read = |text| match values {
        Values::Decoded => decoded(text),
        Values::Raw => Cow::Borrowed(text),
        Values::PlusIsSpace => Cow::Owned(decoded(&str::replace(text, "+", " ")).into_owned()),
    };
    let mut pairs: SmallVec<[(Cow<'_, str>, Cow<'_, str>); 8]> = pairs(query)
        .map(|(key, value)| (lower_case(read(key)), read(value)))
        .filter(|(key, _)| key != "auth_signature")
        .collect();
    // Stable: a key given twice keeps its order.
    pairs.sort_by(|left, right| left.0.cmp(&right.0));
    let mut text = String::with_capacity(method.len() + path.len() + query.len() + 2);
    text.extend(method.chars().map(|c| c.to_ascii_uppercase()));
    text.extend(["\n", path, "\n"]);
    for (n, (key, value)) in pairs.iter().enumerate() {
        text.extend([if n == 0 { "" } else { "&" }, key, "=", value]);
    }
    text
}

fn lower_case(key: Cow<'_, str>) -> Cow<'_, str> {
    match key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(key.to_ascii_lowercase()),
        false => key,
    }
}

/// The path as received, then with the prefix (or, if it has it, without it); each also decoded.
fn signed_paths(path: &str, prefix: &str) -> Vec<String> {
    let mut paths = vec![path.to_owned()];
    if !prefix.is_empty() {
        paths.push(match below_prefix(path, prefix) {
            whole if whole == path => format!("{prefix}{path}"),
            rest => rest.to_owned(),
        });
    }
    paths
        .iter()
        .flat_map(|path| [path.clone(), decoded(path).into_owned()])
        .collect()
}

/// The parameters that carry a signature, in one pass. None of them may leave open which one counts.
fn parameters(query: &str) -> Result<[Option<Cow<'_, str>>; 5], RequestAuthError> {
    const NAMES: [&str; 5] = [
        "auth_version",
        "auth_timestamp",
        "auth_key",
        "auth_signature",
        "body_md5",
    ];
    let mut found = [const { None }; 5];
    for (key, value) in pairs(query) {
        let key = decoded(key);
        if let Some(n) = NAMES.iter().position(|name| key.eq_ignore_ascii_case(name))
            && found[n].replace(decoded(value)).is_some()
        {
            return Err(RequestAuthError::Repeated(NAMES[n]));
        }
    }
    Ok(found)
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Without its `%XX`; as it was, if that gives no UTF-8.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    percent_decode_str(text)
        .decode_utf8()
        .unwrap_or(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests;
