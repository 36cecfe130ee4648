//! Certificates and keys in PEM files that an operator named, and the one provider of ciphers.
//!
//! Each error is told for a person, with the file's path and never with what is in it. Knows nothing of settings, and of
//! what is encrypted with any of it.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::secret::file::read_bytes;

/// A store of all the authorities of this world takes a quarter of it. Bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// The one provider of ciphers.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A PEM file as it is. Whoever needs to know whether it has changed compares it.
///
/// # Errors
/// It cannot be read, or is longer than such a file can be.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    read_bytes(file, BYTES_MAX)
}

/// The certificates in what was read from a file: one at least.
///
/// # Errors
/// There is none, or it is no PEM.
pub fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(none) if none.is_empty() => Err(format!("{} holds no certificate in PEM", file.display())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(no_pem(file, &error)),
    }
}

/// The private key in what was read from a file.
///
/// # Errors
/// There is none, it is no PEM, or it is encrypted.
pub fn key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let is_encrypted = String::from_utf8_lossy(pem).contains("ENCRYPTED");
        match error {
            _ if is_encrypted => format!(
                "the key in {} is encrypted: write it without a password (`openssl pkey`)",
                file.display()
            ),
            Error::NoItemsFound => format!("{} holds no private key in PEM", file.display()),
            error => no_pem(file, &error),
        }
    })
}

/// The certificates of a file that those of others are to be signed by.
///
/// # Errors
/// As those of [`read`] and [`certificates`]; or one of them cannot be an authority.
pub fn roots(file: &Path) -> Result<RootCertStore, String> {
    authorities(file, &read(file)?)
}

/// The same of what was read from a file.
///
/// # Errors
/// As those of [`certificates`]; or one of them cannot be an authority.
pub fn authorities(file: &Path, pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, pem)? {
        roots.add(certificate).map_err(|error| untrusted(file, &error))?;
    }
    Ok(roots)
}

/// Whom to trust: the authorities in a file, or those of the system if none is named.
///
/// # Errors
/// As those of [`roots`]; or the system has none.
pub fn trusted(file: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(file) = file else {
        let mut roots = RootCertStore::empty();
        // Of the system's store some may be unreadable without harm, all of them not.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return match roots.is_empty() {
            true => Err("is needed: this system has no store of trusted certificates".into()),
            false => Ok(roots),
        };
    };
    roots(file)
}

/// Why the authorities in a file are not believed.
pub fn untrusted(file: &Path, why: &dyn Display) -> String {
    format!("{} cannot be trusted: {why}", file.display())
}

fn no_pem(file: &Path, error: &Error) -> String {
    format!("cannot read {} as PEM: {error}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates::Authority;

    #[test]
    fn each_fault_of_a_file_is_told_with_its_path_and_never_with_what_is_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        let certified = authority.vouch();
        let written = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("it is written");
            path
        };
        let sound = written("sound", &authority.pem);
        assert_eq!(roots(&sound).expect("an authority").len(), 1);
        assert_eq!(trusted(Some(&sound)).expect("an authority").len(), 1);

        let long = "#".repeat(BYTES_MAX as usize + 1);
        let garbled = authority.pem.replacen('M', "!", 1);
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, text, why) in [
            ("empty", "", "holds no certificate in PEM"),
            ("key", &*certified.key, "holds no certificate in PEM"),
            ("garbled", &garbled, "as PEM: "),
            ("cut", &authority.pem[..300], "as PEM: "),
            ("nonsense", no_certificate, "cannot be trusted: "),
            ("long", &long, "longer than 1048576 bytes"),
        ] {
            let error = roots(&written(name, text)).expect_err(name);
            assert!(error.contains(why) && error.contains(name), "{error}");
            assert!(!error.contains("BEGIN") && !error.contains("MII"), "{error}");
        }
        for (path, why) in [("/dev/zero", "no regular file"), ("/nowhere", "No such file")] {
            let error = roots(Path::new(path)).expect_err(path);
            assert!(error.contains(why) && error.contains(path), "{error}");
        }
    }

    #[test]
    fn a_key_is_found_beside_certificates_and_refused_if_nobody_could_use_it() {
        let certified = Authority::new().vouch();
        let (file, encrypted) = (
            Path::new("it"),
            certified.key.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        );
        let both = format!("{}{}", certified.certificate, certified.key);
        assert!(key(file, both.as_bytes()).is_ok());
        assert_eq!(certificates(file, both.as_bytes()).map(|all| all.len()), Ok(1));
        for (text, why) in [
            (&certified.certificate, "it holds no private key in PEM"),
            (&encrypted, "the key in it is encrypted"),
            (&certified.key.replacen('M', "!", 1), "cannot read it as PEM: "),
        ] {
            let error = key(file, text.as_bytes()).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
