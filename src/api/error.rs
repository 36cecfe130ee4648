//! What the HTTP API answers when it refuses: one kind per status, with the text that tells the caller
//! what to do. Not the errors of the WebSocket side: those are `protocol::code`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a call is refused. The text is for a human; programs look at the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// 400: the request says something that can never be done.
    BadRequest(String),
    /// 401: who asks did not prove to be the app.
    Unauthorized(String),
    /// 403: the app exists, but may not do this now.
    Forbidden(String),
    /// 404: no such app, or no such call.
    NotFound(String),
    /// 405: the path is right, the method is not; `allow` is the one that is.
    WrongMethod { allow: &'static str },
    /// 408: the body did not come in time.
    BodyTooSlow { within_s: u64 },
    /// 409: the first call with this idempotency key is still being answered.
    UnderWay,
    /// 413: over a limit, which the text names together with the size and the setting to change.
    TooLarge(String),
    /// 429: over what the app may do per second.
    OverRate {
        setting: &'static str,
        per_s: u64,
        wait_s: u64,
    },
    /// 403: more messages than the app has left today.
    OverQuota {
        max: u64,
        left: u64,
        needed: usize,
        until: Timestamp,
        wait_s: u64,
    },
    /// 500: our own fault.
    Internal,
    /// 503: the shards are above their marks; nothing was delivered.
    Busy,
    /// 503: the store that knows the answer does not answer itself.
    StoreAway(&'static str),
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    code: u16,
}

impl ApiError {
    /// A 400.
    pub(super) fn bad(text: impl Into<String>) -> ApiError {
        ApiError::BadRequest(text.into())
    }

    /// The HTTP status of this refusal.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            ApiError::BadRequest(_) => StatusCode::BAD_REQUEST,
            ApiError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::BodyTooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            ApiError::UnderWay => StatusCode::CONFLICT,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::OverRate { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::OverQuota { .. } => StatusCode::FORBIDDEN,
            ApiError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::Busy | ApiError::StoreAway(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What a human should read.
    pub(super) fn text(&self) -> String {
        match self {
            ApiError::BadRequest(text)
            | ApiError::Unauthorized(text)
            | ApiError::Forbidden(text)
            | ApiError::NotFound(text)
            | ApiError::TooLarge(text) => text.clone(),
            ApiError::WrongMethod { allow } => format!("This path answers {allow} only."),
            ApiError::BodyTooSlow { within_s } => {
                format!("The request body was not complete after {within_s} s.")
            }
            ApiError::UnderWay => {
                "The first call with this idempotency key is still being answered. Ask again in a second.".into()
            }
            ApiError::OverRate {
                setting,
                per_s,
                wait_s,
            } => format!("The app has a limit of {per_s} per second (`{setting}`). Nothing was done. Ask again in {wait_s} s."),
            ApiError::OverQuota {
                max,
                left,
                needed,
                until,
                ..
            } => format!(
                "The app may publish {max} messages per day (`messages_per_day`); {left} are left, and this call needs \
                 {needed}, one for each channel. Nothing was published. The day ends at {until}."
            ),
            ApiError::Internal => "The server failed. Nothing is known about the effect of this call.".into(),
            ApiError::StoreAway(text) => (*text).into(),
            ApiError::Busy => {
                "The server has more events waiting than it may hold. Nothing was delivered. Ask again in a second.".into()
            }
        }
    }

    /// The same refusal, with the place in the body that it is about.
    pub(super) fn at(self, place: &str) -> ApiError {
        match self {
            ApiError::BadRequest(text) => ApiError::BadRequest(format!("`{place}`: {text}")),
            ApiError::TooLarge(text) => ApiError::TooLarge(format!("`{place}`: {text}")),
            other => other,
        }
    }

    /// The finished answer: `{"error":"…","code":400}` and the headers that belong to the status.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        let text = self.text();
        let body = ErrorBody {
            error: &text,
            code: status.as_u16(),
        };
        let mut response = json(serde_json::to_vec(&body).unwrap_or_default());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match self {
            ApiError::WrongMethod { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            ApiError::Busy | ApiError::UnderWay | ApiError::StoreAway(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(1));
            }
            ApiError::OverRate { wait_s, .. } | ApiError::OverQuota { wait_s, .. } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(*wait_s));
            }
            _ => {}
        }
        response
    }
}

/// A 200 with a JSON body: the only success the official PHP library accepts.
pub(super) fn json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn a_refusal_is_json_with_its_text_and_status() {
        let response = ApiError::bad("no \"quotes\"").response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = futures_util::FutureExt::now_or_never(response.into_body().collect());
        let body = body
            .expect("it is there already")
            .expect("it cannot fail")
            .to_bytes();
        assert_eq!(body, r#"{"error":"no \"quotes\"","code":400}"#);
    }

    #[test]
    fn headers_say_what_to_do() {
        let over_rate = ApiError::OverRate {
            setting: "publishes_per_s",
            per_s: 5,
            wait_s: 7,
        };
        let over_quota = ApiError::OverQuota {
            max: 100,
            left: 3,
            needed: 4,
            until: Timestamp::UNIX_EPOCH,
            wait_s: 3_600,
        };
        for (refusal, status, header, value) in [
            (ApiError::WrongMethod { allow: "POST" }, 405, ALLOW, "POST"),
            (ApiError::Busy, 503, RETRY_AFTER, "1"),
            (ApiError::StoreAway("Away."), 503, RETRY_AFTER, "1"),
            (ApiError::UnderWay, 409, RETRY_AFTER, "1"),
            (over_rate, 429, RETRY_AFTER, "7"),
            (over_quota, 403, RETRY_AFTER, "3600"),
        ] {
            let response = refusal.response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[header], value);
        }
    }
}
