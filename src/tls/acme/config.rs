//! Settings of certificates by ACME.

use std::net::IpAddr;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::DnsName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pem;
use crate::tls::TlsFault;

/// The service of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Where a unit of systemd with `StateDirectory=fanwire` may write.
const FOLDER: &str = "/var/lib/fanwire/acme";
/// Let's Encrypt has no more in one certificate.
const DOMAINS_MAX: usize = 100;

/// Certificates that the server has issued and renewed by itself, by ACME (Let's Encrypt), in place of `cert_file` and
/// `key_file`. For a single machine: the service comes to port 443 of each name (TLS-ALPN-01), which has to be
/// `server.port`, or to lead there as it is. Of several nodes behind one name it would meet any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeConfig {
    /// The names that the certificate is for, such as `ws.example.com`. They switch this on.
    pub domains: Vec<String>,
    /// That the terms of the service are agreed to, which has to be said: <https://letsencrypt.org/repository/> has those
    /// of Let's Encrypt.
    pub terms_agreed: bool,
    /// An e-mail address that the service may write to.
    pub email: Option<String>,
    /// The folder in which the account's key and the certificates with theirs are kept. It is made, and must outlive the
    /// process: without it each start would order anew, until the service refuses it.
    pub folder: PathBuf,
    /// The directory of the service.
    pub directory_url: String,
    /// The certificates that the service's own is to be signed by, as a PEM file, in place of those that the system
    /// trusts. Read once, at the start.
    pub ca_file: Option<PathBuf>,
}

impl Default for AcmeConfig {
    fn default() -> AcmeConfig {
        AcmeConfig {
            domains: Vec::new(),
            terms_agreed: false,
            email: None,
            folder: FOLDER.into(),
            directory_url: LETS_ENCRYPT.into(),
            ca_file: None,
        }
    }
}

impl AcmeConfig {
    /// Whether certificates are to be had by ACME.
    pub fn is_on(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Whom to believe that it is the service.
    ///
    /// # Errors
    /// The file is wrong, or the system trusts nobody.
    pub fn authorities(&self) -> Result<RootCertStore, TlsFault> {
        pem::trusted(self.ca_file.as_deref()).map_err(|text| TlsFault::new("acme.ca_file", text))
    }

    /// What does not go together, by the key in the section `tls`.
    pub(in crate::tls) fn faults(&self) -> Vec<(&'static str, String)> {
        let usual = AcmeConfig::default();
        let mut faults = Vec::new();
        if !self.is_on() {
            let idle = [
                ("acme.terms_agreed", self.terms_agreed),
                ("acme.email", self.email.is_some()),
                ("acme.folder", self.folder != usual.folder),
                ("acme.directory_url", self.directory_url != usual.directory_url),
                ("acme.ca_file", self.ca_file.is_some()),
            ];
            let idle = idle.into_iter().filter(|(_, is_set)| *is_set);
            faults.extend(idle.map(|(key, _)| (key, "means nothing without `tls.acme.domains`".to_owned())));
            return faults;
        }
        let mut fault = |key, text: String| faults.push((key, text));
        if !self.terms_agreed {
            let text = format!(
                "must be true: who orders a certificate agrees to the terms of {}",
                self.directory_url
            );
            fault("acme.terms_agreed", text);
        }
        for (index, domain) in self.domains.iter().enumerate() {
            if !is_public_name(domain) {
                let text = format!(
                    "{domain:?} is no name that can be in such a certificate: it must be a host name in lower case, with \
                     its domain, without `*`, and no address"
                );
                fault("acme.domains", text);
            } else if self.domains[..index].contains(domain) {
                fault("acme.domains", format!("{domain} stands there twice"));
            }
        }
        if self.domains.len() > DOMAINS_MAX {
            fault("acme.domains", format!("are more than {DOMAINS_MAX}"));
        }
        if let Some(email) = self.email.as_deref().filter(|email| !is_email(email)) {
            fault(
                "acme.email",
                format!("{email:?} is no e-mail address: write it without `mailto:`"),
            );
        }
        if self.folder.as_os_str().is_empty() {
            fault("acme.folder", "must not be empty".into());
        }
        if !self.directory_url.starts_with("https://") {
            fault("acme.directory_url", "must begin with `https://`".into());
        }
        faults
    }
}

fn is_public_name(text: &str) -> bool {
    let is_written_so = text.contains('.') && !text.ends_with('.') && !text.contains('_');
    let is_lower = !text.contains(|c: char| c.is_ascii_uppercase());
    is_written_so && is_lower && text.parse::<IpAddr>().is_err() && DnsName::try_from(text).is_ok()
}

fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    parts.is_some_and(|(who, at)| !who.is_empty() && !at.is_empty() && !text.contains([':', ' ', ',']))
}
