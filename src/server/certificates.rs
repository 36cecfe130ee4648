//! Following the files of TLS while the server runs: a certificate that was renewed is shown to whoever comes next, and
//! nobody who is connected notices. What is wrong with the new files is told and counted, and the old ones stay in use.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::folders::{Folders, POLL, SETTLE, SPACING};
use super::health::Health;
use crate::metrics::{Metrics, TlsMetrics};
use crate::tls::{Acceptor, Reloaded, TlsConfig, TlsFault};

/// What follows the files of TLS.
pub(super) struct Renewals {
    acceptor: Arc<Acceptor>,
    files: BTreeSet<PathBuf>,
    health: Arc<Health>,
    metrics: Arc<TlsMetrics>,
    /// What is wrong with what was read last, as it was told.
    told: Option<TlsFault>,
    asked: Arc<Notify>,
}

impl Renewals {
    /// Follows the files that `acceptor` was made from. `asked` is told when somebody wants them to be read again.
    pub(super) fn new(
        acceptor: Arc<Acceptor>,
        config: &TlsConfig,
        health: Arc<Health>,
        metrics: &Metrics,
        asked: Arc<Notify>,
    ) -> Renewals {
        health.uncertified(acceptor.validity().is_none());
        Renewals {
            acceptor,
            files: config.followed().collect(),
            health,
            metrics: metrics.tls().clone(),
            told: None,
            asked,
        }
    }

    /// Works for ever.
    pub(super) async fn work(mut self) {
        let now = SystemTime::now();
        if let Some(validity) = self.acceptor.validity() {
            match validity.judge(now) {
                Ok(()) => tracing::info!(seconds_left = validity.seconds_left(now), "TLS is on"),
                // It is in use all the same: there is no other.
                Err(fault) => {
                    tracing::error!(%fault, "clients that look at the certificate will not connect")
                }
            }
        }
        let changed = Arc::new(Notify::new());
        let mut folders = Folders::new(changed.clone());
        // Something may have changed between the start and the first watch.
        changed.notify_one();
        loop {
            if let Some(folders) = &mut folders {
                folders.watch(self.files.clone());
            }
            let is_asked = tokio::select! {
                () = self.asked.notified() => true,
                () = changed.notified() => {
                    sleep(SETTLE).await;
                    false
                }
                () = sleep(POLL) => false,
            };
            if is_asked {
                self.told = None;
            }
            // The files are replaced one after the other: what does not go together may do so in a moment.
            if self.look(!is_asked).await.is_err() {
                sleep(SPACING).await;
                let _ = self.look(false).await;
            }
            tokio::select! {
                () = sleep(SPACING) => {}
                // Who asks is not to wait.
                () = self.asked.notified() => self.asked.notify_one(),
            }
        }
    }

    /// Reads the files and takes over what they hold. An error means that what is wrong was not told yet: who is patient
    /// has it told the next time only.
    async fn look(&mut self, is_patient: bool) -> Result<(), ()> {
        let acceptor = self.acceptor.clone();
        let Ok(read) = spawn_blocking(move || acceptor.reload(SystemTime::now())).await else {
            return Ok(());
        };
        match read {
            Ok(Reloaded::Unchanged) => self.told = None,
            Ok(Reloaded::Replaced) => {
                self.told = None;
                self.metrics.certificate_changes_total.inc();
                let validity = self.acceptor.validity();
                let left = validity.map(|validity| validity.seconds_left(SystemTime::now()));
                self.health.uncertified(validity.is_none());
                tracing::info!(
                    seconds_left = left,
                    "new connections see another certificate from now on"
                );
            }
            Err(fault) if self.told.as_ref() == Some(&fault) => {}
            Err(_) if is_patient => return Err(()),
            Err(fault) => {
                self.metrics.certificate_refused_total.inc();
                tracing::error!(%fault, "the changed certificate is not used: all stays as it was");
                self.told = Some(fault);
            }
        }
        Ok(())
    }
}
