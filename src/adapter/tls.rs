//! TLS to a broker: whom to trust, and what to show. Read once, at the start.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::pem;

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
    let roots = pem::trusted(files.ca).map_err(|text| ("ca_file", text))?;
    let builder = ClientConfig::builder_with_provider(pem::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| ("ca_file", error.to_string()))?
        .with_root_certificates(roots);
    let client = match (files.certificate, files.key) {
        (Some(cert_file), Some(key_file)) => {
            let chain = pem::read(cert_file).and_then(|read| pem::certificates(cert_file, &read));
            let chain = chain.map_err(|text| ("cert_file", text))?;
            let key = pem::read(key_file).and_then(|read| pem::key(key_file, &read));
            let key = key.map_err(|text| ("key_file", text))?;
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
