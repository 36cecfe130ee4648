//! Settings of TLS.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::acme::{self, AcmeConfig};

/// TLS on `server.port`, for sockets, API and health checks alike: on where there is a certificate, in files or by
/// ACME. The port speaks nothing else then. The files may be replaced while the server runs; what is wrong with the new ones is told in the
/// log, and the old ones stay in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate in PEM, followed by those that lead to one that clients trust: the `fullchain.pem` of most
    /// tools. It switches TLS on.
    pub cert_file: Option<PathBuf>,
    /// The private key of the certificate in PEM, not encrypted.
    pub key_file: Option<PathBuf>,
    /// Authorities in PEM. Where they are given, calls of the HTTP API need a client certificate that one of them has
    /// signed; sockets do not, and the Unix socket does not.
    pub client_ca_file: Option<PathBuf>,
    /// The oldest version of TLS that is spoken.
    pub min_version: TlsVersion,
    /// In place of files that somebody else brings.
    pub acme: AcmeConfig,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

impl TlsConfig {
    /// Whether the main port speaks TLS.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some() || self.acme.is_on()
    }

    /// Where the certificate and its key are, or will be.
    pub(super) fn files(&self) -> Option<(PathBuf, PathBuf)> {
        if self.acme.is_on() {
            let file = acme::file(&self.acme);
            return Some((file.clone(), file));
        }
        self.cert_file.clone().zip(self.key_file.clone())
    }

    /// The files that TLS is made from, to be read again when they change.
    pub fn followed(&self) -> impl Iterator<Item = PathBuf> {
        let certificate = self.files().into_iter().flat_map(<[PathBuf; 2]>::from);
        certificate.chain(self.client_ca_file.clone())
    }

    /// What does not go together, by the key in this section. What is in the files is not looked at.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = self.acme.faults();
        if self.acme.is_on() {
            let both = [("cert_file", &self.cert_file), ("key_file", &self.key_file)];
            let both = both.into_iter().filter(|(_, file)| file.is_some());
            let text =
                "stands beside `tls.acme.domains`, by which the server has a certificate issued: one of them";
            faults.extend(both.map(|(key, _)| (key, text.to_owned())));
            return faults;
        }
        let mut needs = |key, needed: &str| {
            faults.push((key, format!("means nothing without `tls.{needed}`")));
        };
        if self.cert_file.is_some() && self.key_file.is_none() {
            needs("cert_file", "key_file");
        }
        if self.cert_file.is_none() {
            if self.key_file.is_some() {
                needs("key_file", "cert_file");
            }
            if self.client_ca_file.is_some() {
                needs("client_ca_file", "cert_file");
            }
        }
        faults
    }
}
