//! `GET /apps/ID/webhooks`: how an app's endpoints are; `POST …/redeliver`: sends again what was given up. Of the node
//! that is asked: each delivers by itself.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::channels::rendered;
use super::error::ApiError;
use crate::app::App;
use crate::webhook::{Letters, WebhookReport, Webhooks};

/// The answer with a report.
pub(super) fn report(report: &WebhookReport) -> Bytes {
    rendered(report)
}

/// Which dead letter the id in a path means.
pub(super) fn letter(id: &str) -> Result<Letters<'static>, ApiError> {
    let is_hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(id, 16) {
        Ok(id) if is_hex => Ok(Letters::Id(id)),
        _ => Err(ApiError::bad(
            "The id of a dead letter is that of X-Fanwire-Webhook-Id: 32 hexadecimal digits.",
        )),
    }
}

/// Sends dead letters again, and says how many.
pub(super) fn redeliver(
    webhooks: &Webhooks,
    app: &Arc<App>,
    letters: Letters<'_>,
) -> Result<Bytes, ApiError> {
    let Some(done) = webhooks.redeliver(app, letters) else {
        let text = match letters {
            Letters::Id(_) => "No such dead letter: this node keeps none with that id (any more).",
            Letters::Endpoint(_) => "No such endpoint, and no dead letter of one with that name.",
        };
        return Err(ApiError::NotFound(text.into()));
    };
    Ok(rendered(&json!({ "redelivered": done.sent, "left": done.left })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_named_by_32_digits() {
        assert_eq!(letter("000000000000000000000000000000ff"), Ok(Letters::Id(255)));
        for id in [
            "",
            "ff",
            "+00000000000000000000000000000ff",
            "g00000000000000000000000000000ff",
        ] {
            assert_eq!(
                letter(id).map_err(|error| error.status().as_u16()),
                Err(400),
                "{id}"
            );
        }
    }
}
