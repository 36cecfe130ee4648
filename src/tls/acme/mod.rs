//! Certificates by ACME (RFC 8555): orders at the service of an authority, the folder in which they are kept, and the
//! answers to its challenges in handshakes on the main port.
//!
//! A certificate that was issued is a file like any other, and read like any other. Not here: who hears of it, and what
//! happens to an order that nobody ever answers.

mod challenges;
mod config;
mod fault;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use rustls::ClientConfig;
use rustls_acme::{AcmeState, EventOk};

use super::certificate::validity;
use super::{Acceptor, TlsFault};
use crate::pem;
pub(super) use challenges::{Challenges, Shown};
pub use config::AcmeConfig;
pub use fault::OrderFault;
use folder::{Folder, Keeper};

/// Hears what goes wrong besides orders.
pub type Told = Arc<dyn Fn(&OrderFault) + Send + Sync>;

/// The file that the certificate and its key are kept in.
pub(super) fn file(config: &AcmeConfig) -> PathBuf {
    Folder::of(config).certificate()
}

/// Who has certificates issued.
#[derive(Debug)]
pub struct Issuer {
    config: AcmeConfig,
    client: Arc<ClientConfig>,
    folder: Folder,
}

impl Issuer {
    /// Prepares what orders need, if certificates are to be had by ACME. Nothing is ordered yet.
    ///
    /// # Errors
    /// Nothing can be kept in the folder, or nobody is to be believed that it is the service.
    pub fn new(config: &AcmeConfig) -> Result<Option<Issuer>, TlsFault> {
        if !config.is_on() {
            return Ok(None);
        }
        let folder = Folder::of(config);
        folder.prepare()?;
        let client = ClientConfig::builder_with_provider(pem::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFault::new("acme", error.to_string()))?
            .with_root_certificates(config.authorities()?)
            .with_no_client_auth();
        Ok(Some(Issuer {
            config: config.clone(),
            client: Arc::new(client),
            folder,
        }))
    }

    /// What is ordered, and where.
    pub fn config(&self) -> &AcmeConfig {
        &self.config
    }

    /// When the certificate in the folder is to be renewed; none if there is none.
    pub fn renewal(&self) -> Option<SystemTime> {
        let file = self.folder.certificate();
        let chain = pem::certificates(&file, &pem::read(&file).ok()?).ok()?;
        Some(validity(&chain, &file).ok()?.renewal())
    }

    /// Begins to order where it is needed, and to renew. From now on `acceptor` answers the challenges of these orders,
    /// and no others.
    pub fn begin(&self, acceptor: &Acceptor, told: Told) -> Orders {
        let keeper = Keeper {
            folder: self.folder.clone(),
            told,
        };
        let contact = self.config.email.iter().map(|email| format!("mailto:{email}"));
        let domains = self.config.domains.iter();
        let orders = rustls_acme::AcmeConfig::new_with_client_config(domains, self.client.clone())
            .directory(&self.config.directory_url)
            .contact(contact)
            .cache(keeper)
            .state();
        acceptor.challenges().are_answered_by(orders.resolver());
        Orders {
            state: Box::new(orders),
            config: self.config.clone(),
        }
    }
}

/// Orders, one after the other, as certificates need them.
pub struct Orders {
    state: Box<AcmeState<String, String>>,
    config: AcmeConfig,
}

/// What has come to pass.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// A certificate was in the folder: until it is to be renewed nothing is ordered.
    Found,
    /// The key of the account is in the folder: an order follows.
    Enrolled,
    /// A certificate was issued.
    Issued,
    /// It is in the folder.
    Kept,
    /// There is none, and it will be tried again.
    Failed(OrderFault),
}

impl Orders {
    /// Works, for weeks as a rule, until something has come to pass. Nothing happens unless somebody waits here.
    pub async fn next(&mut self) -> Progress {
        match self.state.next().await {
            Some(Ok(EventOk::DeployedCachedCert)) => Progress::Found,
            Some(Ok(EventOk::AccountCacheStore)) => Progress::Enrolled,
            Some(Ok(EventOk::DeployedNewCert)) => Progress::Issued,
            Some(Ok(EventOk::CertCacheStore)) => Progress::Kept,
            Some(Err(error)) => Progress::Failed(OrderFault::of(&error, &self.config)),
            None => std::future::pending().await,
        }
    }
}
