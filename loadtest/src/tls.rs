//! Encryption, if the server asks for it: whom to trust, and the name that is asked for.
//!
//! It moves no bytes: `swarm/stream.rs` does.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, crypto,
};

/// Whom to believe that they are the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust<'a> {
    /// Whom this machine trusts: its own list has the authorities of its operator, too.
    System,
    /// The authorities in this file, and no others.
    File(&'a Path),
    /// Everybody.
    Anybody,
}

/// How connections are encrypted.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// To a server of that name.
    ///
    /// # Errors
    /// There is nobody to trust, or the name is none.
    pub(crate) fn new(host: &str, trust: Trust<'_>) -> Result<Tls> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("ring has ciphers for both versions of TLS")?;
        let mut config = match trust {
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
                .with_no_client_auth(),
            Trust::System | Trust::File(_) => builder
                .with_root_certificates(roots(trust)?)
                .with_no_client_auth(),
        };
        // Each client stands for another person, who comes for the first time.
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("{host} is no name that a certificate could have (--host)"))?;
        Ok(Tls {
            config: Arc::new(config),
            name,
        })
    }

    /// The state of one connection: about 9 KiB, thirty times what a client takes without it.
    pub(crate) fn connection(&self) -> Result<ClientConnection, Error> {
        let mut connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        // Whoever sends waits for the socket, not for this.
        connection.set_buffer_limit(None);
        Ok(connection)
    }
}

fn roots(trust: Trust<'_>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Trust::File(file) = trust else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ensure!(
            !roots.is_empty(),
            "this machine trusts no certificate authority: name one with --ca, or trust anybody with --insecure"
        );
        return Ok(roots);
    };
    let told = || format!("cannot read certificates in PEM from {} (--ca)", file.display());
    for certificate in CertificateDer::pem_file_iter(file).with_context(told)? {
        roots.add(certificate.with_context(told)?).with_context(told)?;
    }
    ensure!(
        !roots.is_empty(),
        "there is no certificate in {} (--ca)",
        file.display()
    );
    Ok(roots)
}

/// Believes that every server is the one that is meant, as long as it has the key of the certificate that it shows.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
