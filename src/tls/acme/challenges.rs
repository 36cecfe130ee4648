//! What is shown in a handshake where certificates come by ACME: to a client the certificate, to the service that asks
//! whether a name leads here what answers its challenge (TLS-ALPN-01, RFC 8737).

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_acme::acme::ACME_TLS_ALPN_NAME;
use rustls_acme::{ResolvesServerCertAcme, is_tls_alpn_challenge};

/// The answers to challenges of this moment. Cheap to clone, and all clones are one.
#[derive(Clone, Default)]
pub(in crate::tls) struct Challenges(Arc<ArcSwapOption<ResolvesServerCertAcme>>);

impl Challenges {
    /// From now on these orders have the answers.
    pub(in crate::tls) fn are_answered_by(&self, orders: Arc<ResolvesServerCertAcme>) {
        self.0.store(Some(orders));
    }
}

/// Chooses by what the client asks for.
pub(in crate::tls) struct Shown {
    /// What clients are shown; none as long as none was issued.
    pub(in crate::tls) certificate: Option<Arc<CertifiedKey>>,
    pub(in crate::tls) challenges: Challenges,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_tls_alpn_challenge(&hello) {
            // Of a name that is being asked for at this moment, and of no other.
            return self.challenges.0.load().as_ref()?.resolve(hello);
        }
        // Who offers that among others would be given it, with a certificate that is none of it, and be counted as nothing.
        let mut protocols = hello.alpn().into_iter().flatten();
        match protocols.any(|protocol| protocol == ACME_TLS_ALPN_NAME) {
            true => None,
            false => self.certificate.clone(),
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("has_certificate", &self.certificate.is_some())
            .finish_non_exhaustive()
    }
}
