//! What is counted of TLS, where it is on.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{Naming, register};

/// The figures of TLS. They are there only on a node that speaks it: a lifetime of zero would alarm everybody.
#[derive(Debug)]
pub struct TlsMetrics {
    /// Handshakes that began a session.
    pub full: IntCounter,
    /// Handshakes that went on with an earlier session.
    pub resumed: IntCounter,
    certificate_expiry_seconds: IntGauge,
    /// Certificates, keys and authorities that were taken over while the server ran.
    pub certificate_changes_total: IntCounter,
    /// Those that were wrong, and not used.
    pub certificate_refused_total: IntCounter,
    /// Orders by ACME that brought a certificate.
    pub acme_issued: IntCounter,
    /// Those that did not, and what else was in the way of one.
    pub acme_failed: IntCounter,
}

impl TlsMetrics {
    pub(super) fn show(&self, left_s: i64) {
        self.certificate_expiry_seconds.set(left_s);
    }

    pub(super) fn register(naming: &Naming, registry: &Registry) -> Result<TlsMetrics, prometheus::Error> {
        let counter = |name, help| register(registry, IntCounter::with_opts(naming.of_node(name, help))?);
        let handshakes = register(
            registry,
            IntCounterVec::new(
                naming.of_node(
                    "tls_handshakes_total",
                    "TLS handshakes that were completed, by whether an earlier session went on: full, resumed",
                ),
                &["kind"],
            )?,
        )?;
        let orders = register(
            registry,
            IntCounterVec::new(
                naming.of_node(
                    "tls_acme_orders_total",
                    "Orders of certificates by ACME, by what became of them: issued, failed",
                ),
                &["result"],
            )?,
        )?;
        Ok(TlsMetrics {
            acme_issued: orders.with_label_values(&["issued"]),
            acme_failed: orders.with_label_values(&["failed"]),
            full: handshakes.with_label_values(&["full"]),
            resumed: handshakes.with_label_values(&["resumed"]),
            certificate_expiry_seconds: register(
                registry,
                IntGauge::with_opts(naming.of_node(
                    "tls_certificate_expiry_seconds",
                    "Seconds until the certificate in use expires; negative when it has, 0 as long as there is none yet",
                ))?,
            )?,
            certificate_changes_total: counter(
                "tls_certificate_changes_total",
                "Certificates that were taken over while the server ran",
            )?,
            certificate_refused_total: counter(
                "tls_certificate_refused_total",
                "Changed certificates that were wrong, and not used",
            )?,
        })
    }
}
