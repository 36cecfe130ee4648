//! Why there is no certificate, and what to do about it, for a person.

use rustls_acme::acme::{AcmeError, Auth, Identifier};
use rustls_acme::{EventError, OrderError};

use super::AcmeConfig;

/// More of what a service says is not repeated. Bytes.
const SAID_BYTES_MAX: usize = 600;

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFault {
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub advice: String,
}

impl OrderFault {
    pub(super) fn of(error: &EventError<String, String>, config: &AcmeConfig) -> OrderFault {
        let (text, advice) = match error {
            EventError::Order(OrderError::BadAuth(auth)) => refused(auth),
            EventError::Order(OrderError::TooManyAttemptsAuth(domain)) => (
                format!("nobody has come to see whether {domain} leads here"),
                way(domain),
            ),
            EventError::Order(OrderError::BadOrder(order)) => {
                let detail = order.error.as_ref().and_then(|problem| problem.detail.clone());
                let detail = detail.unwrap_or_else(|| "it does not say why".into());
                (format!("the order was refused: {detail}"), doubtful(config))
            }
            EventError::Order(OrderError::Acme(AcmeError::KeyRejected(error))) => (
                format!(
                    "the key of the account in {} is none: {error}",
                    config.folder.display()
                ),
                "remove account-*.der there: a new one is made".into(),
            ),
            EventError::Order(OrderError::Acme(AcmeError::HttpRequest(error))) => {
                (error.to_string(), unheard(config))
            }
            EventError::CertCacheLoad(text) | EventError::AccountCacheLoad(text) => {
                (text.clone(), format!("look at {}", config.folder.display()))
            }
            EventError::CachedCertParse(error) => (
                format!(
                    "the certificate in {} cannot be used: {error}",
                    config.folder.display()
                ),
                "another one is ordered".into(),
            ),
            error => (error.to_string(), doubtful(config)),
        };
        OrderFault {
            text: shortened(text),
            advice,
        }
    }
}

/// The service has come, or tried to, and did not find what it was to find.
fn refused(auth: &Auth) -> (String, String) {
    let Identifier::Dns(domain) = &auth.identifier;
    let mut said = auth
        .challenges
        .iter()
        .filter_map(|challenge| challenge.error.as_ref());
    let said = said
        .find_map(|problem| problem.detail.as_deref())
        .unwrap_or("it does not say why");
    (
        format!("{domain} does not lead here, says the service: {said}"),
        way(domain),
    )
}

fn way(domain: &str) -> String {
    format!(
        "port 443 of {domain} has to lead to server.port as it is, with no proxy that decrypts: look at its addresses in DNS \
         (A and AAAA), at firewalls and at what forwards ports"
    )
}

fn unheard(config: &AcmeConfig) -> String {
    format!(
        "this machine has to reach {} (DNS, firewall; tls.acme.ca_file for a service of one's own); 429 means that too much \
         was ordered, and passes",
        config.directory_url
    )
}

fn doubtful(config: &AcmeConfig) -> String {
    format!(
        "look at tls.acme, and at what {} says of itself",
        config.directory_url
    )
}

fn shortened(mut text: String) -> String {
    if text.len() > SAID_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SAID_BYTES_MAX));
        text.push('…');
    }
    text
}
