//! Certificates made for one test, each time anew: an authority, and for whom it vouches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Who vouches for others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority {
            issuer: Issuer::new(params, key),
            pem: certificate.pem(),
        }
    }

    /// For a server on this machine, or for a client.
    pub(crate) fn vouch(&self) -> Certified {
        self.vouch_from_to(2020, 2090)
    }

    /// The same from the beginning of one year to that of another.
    pub(crate) fn vouch_from_to(&self, begin: i32, end: i32) -> Certified {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("sound names");
        params.not_before = date_time_ymd(begin, 1, 1);
        params.not_after = date_time_ymd(end, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// What a client connects with that trusts this authority, and shows a certificate if it has one.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shown: Option<&Certified>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        roots.add(authority).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that the provider knows")
            .with_root_certificates(roots);
        let Some(shown) = shown else {
            return builder.with_no_client_auth();
        };
        let chain = CertificateDer::pem_slice_iter(shown.certificate.as_bytes());
        let chain = chain.collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).expect("PEM");
        builder
            .with_client_auth_cert(chain, key)
            .expect("a certificate and its key")
    }
}

/// The files that a server is told to use.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn of(certified: &Certified) -> Files {
        let files = Files {
            folder: tempfile::tempdir().expect("a folder"),
        };
        files.replace(certified);
        files
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// One more file, whatever it is for.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        put(&path, text);
        path
    }

    /// Puts others in their place.
    pub(crate) fn replace(&self, certified: &Certified) {
        put(&self.certificate(), &certified.certificate);
        put(&self.key(), &certified.key);
    }
}

/// As tools do that renew certificates: nobody ever sees half a file.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).expect("a folder that can be written to");
    std::fs::rename(next, path).expect("a folder that can be written to");
}
