//! Having certificates issued by ACME while the server runs: tells of what comes to pass, and begins anew where nobody ever
//! answers. What is issued is a file, and who follows the files takes it over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use crate::metrics::{Metrics, TlsMetrics};
use crate::tls::Acceptor;
use crate::tls::acme::{Issuer, OrderFault, Progress, Told};

/// An order takes seconds, and a service with much to do some minutes: what is silent for longer has been forgotten.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Between a new beginning and the one before.
const PAUSE: Duration = Duration::from_secs(60);

/// What has certificates issued.
pub(super) struct Issuing {
    acceptor: Arc<Acceptor>,
    issuer: Issuer,
    metrics: Arc<TlsMetrics>,
    /// Where this server listens.
    port: u16,
}

impl Issuing {
    /// Has them issued for `acceptor`, which also answers challenges.
    pub(super) fn new(acceptor: Arc<Acceptor>, issuer: Issuer, metrics: &Metrics, port: u16) -> Issuing {
        Issuing {
            acceptor,
            issuer,
            metrics: metrics.tls().clone(),
            port,
        }
    }

    /// Works for ever.
    pub(super) async fn work(self) {
        let config = self.issuer.config();
        if self.acceptor.validity().is_none() {
            tracing::warn!(
                domains = ?config.domains,
                directory = config.directory_url,
                port = self.port,
                "there is no certificate yet, so nobody can connect: one is ordered, for which the service has to reach this \
                 port as port 443 of each of these names"
            );
        }
        loop {
            // Whatever a service answers, nobody who is connected is to suffer for it.
            let ended = AssertUnwindSafe(self.order()).catch_unwind().await;
            let why = match ended {
                Ok(()) => format!("has not answered for {} s", PATIENCE.as_secs()),
                Err(_) => "has answered something that nobody expected".into(),
            };
            let fault = OrderFault {
                text: format!("{} {why}", config.directory_url),
                advice: "it is asked anew".into(),
            };
            tell(&self.metrics, &config.domains, &fault);
            sleep(PAUSE).await;
        }
    }

    /// Orders and renews until nothing is heard for too long.
    async fn order(&self) {
        let domains = &self.issuer.config().domains;
        let told: Told = {
            let (metrics, domains) = (self.metrics.clone(), domains.clone());
            Arc::new(move |fault| tell(&metrics, &domains, fault))
        };
        let mut orders = self.issuer.begin(&self.acceptor, told);
        let mut rest = Rest::default();
        let mut silence = PATIENCE;
        while let Ok(progress) = timeout(silence, orders.next()).await {
            match &progress {
                Progress::Found => tracing::info!(
                    ?domains,
                    "the certificate in the folder is used until it is to be renewed"
                ),
                Progress::Enrolled => {}
                Progress::Issued => self.metrics.acme_issued.inc(),
                Progress::Kept => tracing::info!(?domains, "a certificate was issued"),
                Progress::Failed(fault) => tell(&self.metrics, domains, fault),
            }
            let renewal = match progress {
                Progress::Found | Progress::Kept => self.issuer.renewal(),
                _ => None,
            };
            silence = rest
                .after(&progress, renewal, SystemTime::now())
                .saturating_add(PATIENCE);
        }
    }
}

fn tell(metrics: &TlsMetrics, domains: &[String], fault: &OrderFault) {
    metrics.acme_failed.inc();
    let OrderFault { text, advice } = fault;
    tracing::error!(
        ?domains,
        fault = text,
        advice,
        "no new certificate, and it will be tried again"
    );
}

/// For how long it is no wonder that nothing is heard.
#[derive(Default)]
struct Rest {
    failures: u32,
}

impl Rest {
    /// After the second failure there is a pause twice as long as after the first one, a second, and so on to some 18 hours.
    const DOUBLINGS_MAX: u32 = 16;

    fn after(&mut self, progress: &Progress, renewal: Option<SystemTime>, now: SystemTime) -> Duration {
        match progress {
            Progress::Failed(_) => {
                let pause = Duration::from_secs(1 << self.failures.min(Rest::DOUBLINGS_MAX));
                self.failures += 1;
                return pause;
            }
            Progress::Enrolled => {}
            // Nobody is waited for but our own disk.
            Progress::Issued => return Duration::MAX,
            Progress::Found | Progress::Kept => self.failures = 0,
        }
        let until = renewal.and_then(|renewal| renewal.duration_since(now).ok());
        until.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silence_that_nothing_explains_is_too_long() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let failed = || {
            Progress::Failed(OrderFault {
                text: String::new(),
                advice: String::new(),
            })
        };
        let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        let mut rest = Rest::default();
        assert_eq!(rest.after(&Progress::Enrolled, None, now), Duration::ZERO);
        for pause in [1, 2, 4, 8] {
            assert_eq!(rest.after(&failed(), None, now).as_secs(), pause);
        }
        for _ in 0..40 {
            rest.after(&failed(), None, now);
        }
        assert_eq!(rest.after(&failed(), None, now).as_secs(), 65_536);
        assert_eq!(rest.after(&Progress::Issued, None, now), Duration::MAX);
        assert_eq!(rest.after(&Progress::Kept, Some(now + days(60)), now), days(60));
        assert_eq!(rest.after(&failed(), None, now).as_secs(), 1);
        assert_eq!(
            rest.after(&Progress::Found, Some(now - days(1)), now),
            Duration::ZERO
        );
    }
}
