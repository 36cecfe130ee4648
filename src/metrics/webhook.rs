//! An app's figures about its webhooks: there only once it has sent one.
//!
//! Not here: figures of single endpoints, which an app's own servers ask the HTTP API for.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::{Naming, register, shown};

/// Milliseconds: from a receiver next door to one that takes all the time it has.
const LATENCY_BUCKETS_MS: [f64; 12] = [
    5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 60_000.0,
];

/// Why an event did not reach an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookDrop {
    /// No room in the queue of the endpoint, or in that of the process.
    Full,
    /// It was tried for as long as the settings say; kept as a dead letter.
    GivenUp,
    /// The endpoint or its app is gone, or is disabled.
    Retired,
    /// The process ended before it could be delivered.
    Shutdown,
}

impl WebhookDrop {
    const ALL: [WebhookDrop; 4] = [
        WebhookDrop::Full,
        WebhookDrop::GivenUp,
        WebhookDrop::Retired,
        WebhookDrop::Shutdown,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            WebhookDrop::Full => "full",
            WebhookDrop::GivenUp => "given_up",
            WebhookDrop::Retired => "retired",
            WebhookDrop::Shutdown => "shutdown",
        }
    }
}

/// Handles of one app's counters. An event for several endpoints counts for each of them.
#[derive(Debug)]
pub struct WebhookMetrics {
    /// Events taken into a queue.
    pub queued_total: IntCounter,
    /// Events that an endpoint has accepted.
    pub delivered_total: IntCounter,
    /// Requests that were answered well.
    pub sent_total: IntCounter,
    /// Requests that were not.
    pub failed_total: IntCounter,
    /// Of these, those that are tried again.
    pub retried_total: IntCounter,
    dropped: Vec<IntCounter>,
    /// Milliseconds of a request that was answered well, from the connection to the answer.
    pub latency_ms: Histogram,
    queue_events: IntGauge,
    queue_bytes: IntGauge,
    dead_letters: IntGauge,
}

/// What waits for one app's endpoints at the moment of a scrape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookSnapshot {
    /// The app's id, as in API paths.
    pub app_id: std::sync::Arc<str>,
    /// Events that wait, or are on their way.
    pub queue_events: u64,
    /// Their bytes.
    pub queue_bytes: u64,
    /// Requests that were given up and are kept.
    pub dead_letters: u64,
}

impl WebhookMetrics {
    /// Events that did not reach an endpoint for this reason.
    pub fn dropped(&self, reason: WebhookDrop) -> &IntCounter {
        &self.dropped[reason as usize]
    }

    /// Shows what a scrape found to be true.
    pub(super) fn show(&self, snapshot: &WebhookSnapshot) {
        self.queue_events.set(shown(snapshot.queue_events));
        self.queue_bytes.set(shown(snapshot.queue_bytes));
        self.dead_letters.set(shown(snapshot.dead_letters));
    }
}

/// The families behind [`WebhookMetrics`], labelled `app_id` and `port`.
pub(super) struct WebhookFamilies {
    queued: IntCounterVec,
    delivered: IntCounterVec,
    sent: IntCounterVec,
    failed: IntCounterVec,
    retried: IntCounterVec,
    dropped: IntCounterVec,
    latency_ms: HistogramVec,
    queue_events: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    dead_letters: IntGaugeVec,
}

impl WebhookFamilies {
    pub(super) fn register(
        naming: &Naming,
        registry: &Registry,
    ) -> Result<WebhookFamilies, prometheus::Error> {
        let labels = &["app_id"];
        let opts = |name: &str, help| naming.of_app(&format!("webhook_{name}"), help);
        let counter = |name, help| register(registry, IntCounterVec::new(opts(name, help), labels)?);
        let gauge = |name, help| register(registry, IntGaugeVec::new(opts(name, help), labels)?);
        let dropped = opts(
            "dropped_total",
            "Events that did not reach an endpoint, by the reason why",
        );
        let latency = opts(
            "latency_ms",
            "Milliseconds of a request that was answered with success",
        );
        let latency = HistogramOpts::from(latency).buckets(LATENCY_BUCKETS_MS.to_vec());
        Ok(WebhookFamilies {
            queued: counter(
                "events_queued_total",
                "Events taken into the queue of an endpoint",
            )?,
            delivered: counter("events_delivered_total", "Events that an endpoint has accepted")?,
            sent: counter(
                "sent_total",
                "Requests to endpoints that were answered with success",
            )?,
            failed: counter("failed_attempts_total", "Requests to endpoints that failed")?,
            retried: counter(
                "retried_total",
                "Failed requests to endpoints that are tried again",
            )?,
            dropped: register(registry, IntCounterVec::new(dropped, &["app_id", "reason"])?)?,
            latency_ms: register(registry, HistogramVec::new(latency, labels)?)?,
            queue_events: gauge(
                "queue_events",
                "Events that wait for endpoints or are on their way",
            )?,
            queue_bytes: gauge("queue_bytes", "Bytes of the events that wait for endpoints")?,
            dead_letters: gauge("dead_letters", "Requests that were given up and are kept")?,
        })
    }

    /// Takes an app's figures out.
    pub(super) fn forget(&self, app_id: &str) {
        let labels = &[app_id];
        // An error says that there are none.
        for counter in [
            &self.queued,
            &self.delivered,
            &self.sent,
            &self.failed,
            &self.retried,
        ] {
            let _ = counter.remove_label_values(labels);
        }
        for gauge in [&self.queue_events, &self.queue_bytes, &self.dead_letters] {
            let _ = gauge.remove_label_values(labels);
        }
        for reason in WebhookDrop::ALL {
            let _ = self.dropped.remove_label_values(&[app_id, reason.as_str()]);
        }
        let _ = self.latency_ms.remove_label_values(labels);
    }

    pub(super) fn app(&self, app_id: &str) -> WebhookMetrics {
        let counter = |family: &IntCounterVec| family.with_label_values(&[app_id]);
        let gauge = |family: &IntGaugeVec| family.with_label_values(&[app_id]);
        let dropped = |reason: &WebhookDrop| self.dropped.with_label_values(&[app_id, reason.as_str()]);
        WebhookMetrics {
            queued_total: counter(&self.queued),
            delivered_total: counter(&self.delivered),
            sent_total: counter(&self.sent),
            failed_total: counter(&self.failed),
            retried_total: counter(&self.retried),
            dropped: WebhookDrop::ALL.iter().map(dropped).collect(),
            latency_ms: self.latency_ms.with_label_values(&[app_id]),
            queue_events: gauge(&self.queue_events),
            queue_bytes: gauge(&self.queue_bytes),
            dead_letters: gauge(&self.dead_letters),
        }
    }
}
