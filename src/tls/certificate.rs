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
use x509_cert::der::Decode;
use x509_cert::{Certificate, Version};

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

    /// When one that renews itself is renewed: when a third of it is left.
    pub fn renewal(&self) -> SystemTime {
        let length = self.end.duration_since(self.begin).unwrap_or_default();
        self.end - length / 3
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
    /// None as long as ACME has not brought the first one.
    pub(super) key: Option<Arc<CertifiedKey>>,
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When the certificate is good, if there is one. Whoever reads the files judges that.
    pub validity: Option<Validity>,
    /// Tells these files from others.
    pub(super) digest: [u8; 32],
}

impl Credentials {
    /// The certificates that clients are shown, the server's own first. None as long as there is none.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.key.as_ref().map_or(&[], |key| &key.cert)
    }

    /// Reads the files, if TLS is switched on.
    ///
    /// # Errors
    /// One of them cannot be read or used, or key and certificate do not belong together.
    pub fn load(config: &TlsConfig) -> Result<Option<Credentials>, TlsFault> {
        let Some((cert_file, key_file)) = config.files() else {
            return Ok(None);
        };
        let provider = pem::provider();
        let is_awaited = config.acme.is_on() && matches!(cert_file.try_exists(), Ok(false));
        let shown = match is_awaited {
            true => None,
            false => Some(Pair::read(config, &cert_file, &key_file, &provider)?),
        };
        let ca_pem = config.client_ca_file.as_ref();
        let ca_pem = ca_pem.map(|file| read("client_ca_file", file)).transpose()?;
        let clients = match (&config.client_ca_file, &ca_pem) {
            (Some(file), Some(pem)) => Some(clients(file, pem, provider)?),
            _ => None,
        };
        let digest = Sha256::new()
            .chain_update(shown.as_ref().map(|shown| shown.digest).unwrap_or_default())
            .chain_update(Sha256::digest(ca_pem.unwrap_or_default()))
            .finalize();
        Ok(Some(Credentials {
            validity: shown.as_ref().map(|shown| shown.validity),
            key: shown.map(|shown| Arc::new(shown.key)),
            clients,
            digest: digest.into(),
        }))
    }
}

/// A certificate and its key.
struct Pair {
    key: CertifiedKey,
    validity: Validity,
    digest: [u8; 32],
}

impl Pair {
    fn read(
        config: &TlsConfig,
        cert_file: &Path,
        key_file: &Path,
        provider: &CryptoProvider,
    ) -> Result<Pair, TlsFault> {
        // Of a file that nobody but this server has written, the folder is to blame.
        let is_ours = config.acme.is_on();
        let fault = |key, text: String| match is_ours {
            true => {
                let text = format!(
                    "{text}; another certificate is ordered if that file is removed and the server started again"
                );
                TlsFault::new("acme.folder", text)
            }
            false => TlsFault::new(key, text),
        };
        let (of_cert, of_key) = (|text| fault("cert_file", text), |text| fault("key_file", text));
        let chain_pem = pem::read(cert_file).map_err(of_cert)?;
        let key_pem = pem::read(key_file).map_err(of_key)?;
        let chain = pem::certificates(cert_file, &chain_pem).map_err(of_cert)?;
        let validity = validity(&chain, cert_file).map_err(of_cert)?;
        let key = pem::key(key_file, &key_pem).map_err(of_key)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => of_key(format!(
                "the key in {} is not that of the certificate in {}; the server's own has to be the first one there, those \
                 that lead to its authority follow",
                key_file.display(),
                cert_file.display()
            )),
            Error::InvalidCertificate(_) => of_cert(format!(
                "the certificate in {} is none that TLS can use",
                cert_file.display()
            )),
            error => of_key(format!("{} cannot be used: {error}", key_file.display())),
        })?;
        let digest = Sha256::new()
            .chain_update(Sha256::digest(chain_pem))
            .chain_update(Sha256::digest(key_pem))
            .finalize();
        Ok(Pair {
            key,
            validity,
            digest: digest.into(),
        })
    }
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsFault> {
    pem::read(file).map_err(|text| TlsFault::new(key, text))
}

/// When the first certificate of a chain is good. Others may have expired without harm: clients find another way.
pub(super) fn validity(chain: &[CertificateDer<'_>], file: &Path) -> Result<Validity, String> {
    let first = chain.first().map(|first| &first[..]).unwrap_or_default();
    let read = Certificate::from_der(first)
        .map_err(|error| format!("the certificate in {} cannot be read: {error}", file.display()))?;
    if read.tbs_certificate.version != Version::V3 {
        return Err(format!(
            "the certificate in {} is of X.509 version 1, which no client takes: have it made with extensions, of version 3 \
             (`openssl x509 -req ... -extfile names`, with `subjectAltName=DNS:ws.example.com` in the file names)",
            file.display()
        ));
    }
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
