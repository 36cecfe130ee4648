//! Where the requests of an endpoint go: read strictly, shown without what may be secret.

use hyper::Uri;
use serde::Deserialize;

use crate::secret::REDACTED;
use crate::secret::url::shown_as_text;

/// An `http` or `https` URL. Never shows its query, since there may be a token in it, nor anything else that may be a
/// secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct WebhookUrl(String);

shown_as_text!(WebhookUrl);

impl WebhookUrl {
    /// Wraps a URL, right or wrong.
    pub fn new(text: &str) -> WebhookUrl {
        WebhookUrl(text.to_owned())
    }

    /// Whether none was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it says, if requests can be sent there.
    ///
    /// # Errors
    /// What is wrong about it, for a person. Holds nothing of it.
    pub(super) fn uri(&self) -> Result<Uri, &'static str> {
        const NOT_A_URL: &str = "must be a URL such as https://example.org/webhooks";
        let uri: Uri = self.0.parse().map_err(|_| NOT_A_URL)?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(NOT_A_URL),
        }
        let authority = uri.authority().ok_or(NOT_A_URL)?;
        if authority.host().is_empty() {
            return Err(NOT_A_URL);
        }
        if authority.as_str().contains('@') {
            return Err("names a user: put `Authorization` into `headers` instead");
        }
        if authority.as_str() != authority.host() && authority.port_u16().is_none() {
            return Err("has a port that is no number");
        }
        if self.0.contains('#') {
            return Err("has a part behind `#`, which is never sent: remove it");
        }
        Ok(uri)
    }

    /// The text up to its query; nothing of it where it is no good URL, since a password may stand anywhere in it.
    pub fn shown(&self) -> String {
        match self.uri() {
            _ if self.is_empty() => String::new(),
            Ok(_) => self.0.split('?').next().unwrap_or_default().to_owned(),
            Err(_) => REDACTED.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("", ""),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://example.org/@me/hooks", "https://example.org/@me/hooks"),
            (
                "https://example.org/hooks?token=hunter2",
                "https://example.org/hooks",
            ),
            ("https://example.org?hunter2", "https://example.org"),
            ("https://user:hunter2@example.org/hooks", REDACTED),
            ("https://user:hunter2", REDACTED),
            ("https://example.org/#hunter2", REDACTED),
            ("hunter2", REDACTED),
        ] {
            let url = WebhookUrl::new(url);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(serde_json::to_value(&url).expect("serialises"), shown);
        }
    }
}
