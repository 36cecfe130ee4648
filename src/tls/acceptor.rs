//! What new handshakes are made with: replaced as a whole when the files have changed and are right. Connections that
//! are open keep what they began with.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::version::{TLS12, TLS13};
use rustls_acme::acme::ACME_TLS_ALPN_NAME;

use super::acme::{Challenges, Shown};
use super::certificate::{Credentials, TlsFault, Validity};
use super::config::{TlsConfig, TlsVersion};
use super::sealed::{HANDSHAKE_BYTES_MAX, SEALED_BYTES_MAX};
use crate::pem;

/// What became of a look at the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// They hold what they held.
    Unchanged,
    /// New handshakes use what they hold now.
    Replaced,
}

/// What new handshakes are made with.
pub struct Acceptor {
    config: TlsConfig,
    challenges: Challenges,
    current: ArcSwap<Current>,
}

struct Current {
    server: Arc<ServerConfig>,
    /// None where clients show certificates: a ticket says who somebody was, and not whether that still holds.
    tickets: Option<Arc<dyn ProducesTickets>>,
    validity: Option<Validity>,
    digest: [u8; 32],
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("validity", &self.validity())
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads the files, if TLS is switched on. A certificate that has expired is taken: clients which do not look are
    /// served, and the others find out no sooner.
    ///
    /// # Errors
    /// A file is wrong.
    pub fn new(config: &TlsConfig) -> Result<Option<Acceptor>, TlsFault> {
        let Some(credentials) = Credentials::load(config)? else {
            return Ok(None);
        };
        let challenges = Challenges::default();
        let current = Current::new(config, credentials, &challenges, None)?;
        Ok(Some(Acceptor {
            config: config.clone(),
            challenges,
            current: ArcSwap::from_pointee(current),
        }))
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// One of them is wrong, or the certificate is not good at this time: all stays as it was.
    pub fn reload(&self, now: SystemTime) -> Result<Reloaded, TlsFault> {
        let Some(credentials) = Credentials::load(&self.config)? else {
            return Ok(Reloaded::Unchanged);
        };
        let current = self.current.load();
        if credentials.digest == current.digest {
            return Ok(Reloaded::Unchanged);
        }
        if let Some(validity) = credentials.validity {
            validity.judge(now)?;
        } else if current.validity.is_some() {
            // Not to be passed over in silence: a withdrawn authority of clients would go on counting.
            let text = "the file of the certificate in use was removed; that and all else of tls stay as they are until there is one \
                        again, or a restart";
            return Err(TlsFault::new("tls.acme", text));
        }
        let next = Current::new(&self.config, credentials, &self.challenges, Some(&current))?;
        self.current.store(Arc::new(next));
        Ok(Reloaded::Replaced)
    }

    /// What a handshake that begins now is made with.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// What is kept of a handshake until it can be read. Strangers get one record for their greeting; only chains of
    /// certificates are longer. Bytes.
    pub(super) fn handshake_bytes_max(&self) -> usize {
        match self.config.client_ca_file {
            Some(_) => HANDSHAKE_BYTES_MAX,
            None => SEALED_BYTES_MAX,
        }
    }

    /// Answers to challenges of ACME.
    pub(super) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// When the certificate in use is good. None as long as ACME has not brought the first one: handshakes fail until then.
    pub fn validity(&self) -> Option<Validity> {
        self.current.load().validity
    }
}

impl Current {
    fn new(
        config: &TlsConfig,
        credentials: Credentials,
        challenges: &Challenges,
        before: Option<&Current>,
    ) -> Result<Current, TlsFault> {
        let Credentials {
            key,
            clients,
            validity,
            digest,
        } = credentials;
        let fault = |error: rustls::Error| TlsFault::new("cert_file", error.to_string());
        let tickets = match before {
            _ if clients.is_some() => None,
            Some(before) => before.tickets.clone(),
            None => Some(rustls::crypto::ring::Ticketer::new().map_err(fault)?),
        };
        let versions = match config.min_version {
            TlsVersion::V12 => &[&TLS13, &TLS12][..],
            TlsVersion::V13 => &[&TLS13][..],
        };
        let builder = ServerConfig::builder_with_provider(pem::provider())
            .with_protocol_versions(versions)
            .map_err(fault)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::new(Shown {
            certificate: key,
            challenges: challenges.clone(),
        }));
        // Without it some clients would speak HTTP/2.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        if config.acme.is_on() {
            server.alpn_protocols.push(ACME_TLS_ALPN_NAME.to_vec());
        }
        // What resumption needs is kept by the clients.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        if let Some(tickets) = &tickets {
            server.ticketer = tickets.clone();
            server.send_tls13_tickets = 1;
        }
        Ok(Current {
            server: Arc::new(server),
            tickets,
            validity,
            digest,
        })
    }
}
