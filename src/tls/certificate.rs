//! The certificate and its key as files: read together, and judged before anybody is shown them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::config::TlsConfig;
use crate::pem;

/// What is wrong with the files of the section `tls`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tls.{key}: {text}")]
pub struct TlsFault {
    /// The key in the section.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub text: String,
}

impl TlsFault {
    pub(super) fn new(key: &'static str, text: impl Into<String>) -> TlsFault {
        TlsFault {
            key,
            text: text.into(),
        }
    }
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub begin: SystemTime,
    /// Its last one.
    pub end: SystemTime,
}

impl Validity {
    /// Why the certificate is not good at this time.
    ///
    /// # Errors
    /// It was good before, or is to be later.
    pub fn judge(&self, now: SystemTime) -> Result<(), TlsFault> {
        let fault = |text| Err(TlsFault::new("cert_file", text));
        let at = |time: SystemTime| {
            jiff::Timestamp::try_from(time).map_or_else(|_| "?".into(), |at| at.to_string())
        };
        if now > self.end {
            return fault(format!("the certificate expired on {}: renew it", at(self.end)));
        }
        if now < self.begin {
            return fault(format!(
                "the certificate is valid only from {} on: is the clock of this machine right?",
                at(self.begin)
            ));
        }
        Ok(())
    }

    /// What is left of it. Seconds; negative if it is over.
    pub fn seconds_left(&self, now: SystemTime) -> i64 {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match self.end.duration_since(now) {
            Ok(left) => seconds(left),
            Err(over) => -seconds(over.duration()),
        }
    }
}

/// What the files of the section `tls` hold: a certificate that goes with its key, and who may sign those of clients.
#[derive(Debug)]
pub struct Credentials {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When the certificate is good. Whoever reads the files judges that.
    pub validity: Validity,
    /// Tells these files from others.
    pub(super) digest: [u8; 32],
}

impl Credentials {
    /// Reads the files, if TLS is switched on.
    ///
    /// # Errors
    /// One of them cannot be read or used, or key and certificate do not belong together.
    pub fn load(config: &TlsConfig) -> Result<Option<Credentials>, TlsFault> {
        let (Some(cert_file), Some(key_file)) = (&config.cert_file, &config.key_file) else {
            return Ok(None);
        };
        let provider = pem::provider();
        let (chain_pem, key_pem) = (read("cert_file", cert_file)?, read("key_file", key_file)?);
        let ca_pem = config.client_ca_file.as_ref();
        let ca_pem = ca_pem.map(|file| read("client_ca_file", file)).transpose()?;

        let chain = pem::certificates(cert_file, &chain_pem);
        let chain = chain.map_err(|text| TlsFault::new("cert_file", text))?;
        let validity = validity(&chain, cert_file)?;
        let key = pem::key(key_file, &key_pem).map_err(|text| TlsFault::new("key_file", text))?;
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let text = format!(
                    "the key in {} is not that of the certificate in {}",
                    key_file.display(),
                    cert_file.display()
                );
                TlsFault::new("key_file", text)
            }
            error => TlsFault::new(
                "key_file",
                format!("{} cannot be used: {error}", key_file.display()),
            ),
        })?;
        let clients = match (&config.client_ca_file, &ca_pem) {
            (Some(file), Some(pem)) => Some(clients(file, pem, provider)?),
            _ => None,
        };
        let digest = Sha256::new()
            .chain_update(Sha256::digest(chain_pem))
            .chain_update(Sha256::digest(key_pem))
            .chain_update(Sha256::digest(ca_pem.unwrap_or_default()))
            .finalize();
        Ok(Some(Credentials {
            key: Arc::new(key),
            clients,
            validity,
            digest: digest.into(),
        }))
    }
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsFault> {
    pem::read(file).map_err(|text| TlsFault::new(key, text))
}

/// When the first certificate of a chain is good. Others may have expired without harm: clients find another way.
fn validity(chain: &[CertificateDer<'_>], file: &Path) -> Result<Validity, TlsFault> {
    let first = chain.first().map(|first| &first[..]).unwrap_or_default();
    let read = Certificate::from_der(first).map_err(|error| {
        let text = format!("the certificate in {} cannot be read: {error}", file.display());
        TlsFault::new("cert_file", text)
    })?;
    let validity = read.tbs_certificate.validity;
    Ok(Validity {
        begin: validity.not_before.to_system_time(),
        end: validity.not_after.to_system_time(),
    })
}

/// Asks clients for a certificate and takes it if one of these has signed it. Who has none is let in as well: what that
/// comes to is decided where more is known.
fn clients(
    file: &Path,
    bytes: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let fault = |text| TlsFault::new("client_ca_file", text);
    let roots = pem::authorities(file, bytes).map_err(fault)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| fault(pem::untrusted(file, &error)))?;
    Ok(clients)
}
