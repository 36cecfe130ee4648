//! TLS to a broker: whom to trust, and what to show. Read once, at the start.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// What the settings `ca_file`, `cert_file` and `key_file` of a section say.
pub(super) struct TlsFiles<'a> {
    /// The name of the section.
    pub(super) section: &'static str,
    pub(super) ca: Option<&'a Path>,
    pub(super) certificate: Option<&'a Path>,
    pub(super) key: Option<&'a Path>,
}

/// The setting that is to blame, and what to do about it.
pub(super) type TlsFault = (&'static str, String);

/// What every TLS connection to the broker is made with. The error names the setting that is to blame.
pub(super) fn client(files: &TlsFiles<'_>) -> Result<Arc<ClientConfig>, TlsFault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ("ca_file", error.to_string()))?
        .with_root_certificates(trusted(files.ca)?);
    let client = match (files.certificate, files.key) {
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates(cert_file).map_err(|text| ("cert_file", text))?;
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| ("key_file", unread(key_file, &error)))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                (
                    "key_file",
                    format!("does not go with `{}.cert_file`: {error}", files.section),
                )
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

fn trusted(ca: Option<&Path>) -> Result<RootCertStore, TlsFault> {
    match ca {
        Some(file) => roots(file).map_err(|text| ("ca_file", text)),
        None => {
            let mut roots = RootCertStore::empty();
            // Of the system's store some may be unreadable without harm, all of them not.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let text = "is needed: this system has no store of trusted certificates";
                return Err(("ca_file", text.into()));
            }
            Ok(roots)
        }
    }
}

/// The certificates of a PEM file that those of others are to be signed by.
///
/// # Errors
/// What is wrong about it, for a person.
pub(crate) fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("{} cannot be trusted: {error}", file.display()))?;
    }
    Ok(roots)
}

/// The certificates in a PEM file: one at least.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(none) if none.is_empty() => Err(format!("{} holds no certificate", file.display())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unread(file, &error)),
    }
}

fn unread(file: &Path, error: &rustls::pki_types::pem::Error) -> String {
    format!("cannot read {} as PEM: {error}", file.display())
}
