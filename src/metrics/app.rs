//! One app's figures: what to add to, and what a scrape shows.
//!
//! Not here: anything of the whole node (`metrics/mod.rs`).

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::{AppSnapshot, Naming, register, shown};

/// Milliseconds: from a lone broadcast to a few, up to what a user calls broken.
const LATENCY_BUCKETS_MS: [f64; 14] = [
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 10000.0,
];

/// Handles of one app's counters. Cheap to add to, from any thread; no look-up on the way.
#[derive(Debug)]
pub struct AppMetrics {
    /// Sockets that were established.
    pub new_connections_total: IntCounter,
    /// Established sockets that ended, for whatever reason.
    pub new_disconnections_total: IntCounter,
    /// Bytes of frames that sockets sent us, headers included, before TLS.
    pub socket_received_bytes: IntCounter,
    /// Bytes of frames written to sockets, headers included, before TLS.
    pub socket_transmitted_bytes: IntCounter,
    /// Messages that sockets sent us.
    pub ws_messages_received_total: IntCounter,
    /// Messages sent: one for each message and recipient.
    pub ws_messages_sent_total: IntCounter,
    /// Bytes of API request bodies.
    pub http_received_bytes: IntCounter,
    /// Bytes of API answer bodies.
    pub http_transmitted_bytes: IntCounter,
    /// API requests; neither health checks nor scrapes.
    pub http_calls_received_total: IntCounter,
    /// Subscriptions that were granted.
    pub channel_subscriptions_total: IntCounter,
    /// Subscriptions that ended, by request or with their socket.
    pub channel_unsubscriptions_total: IntCounter,
    /// Requests and messages that a rate limit looked at.
    pub rate_limit_checks_total: IntCounter,
    /// Those of them that it refused.
    pub rate_limit_triggered_total: IntCounter,
    /// Requests and messages that were refused because the messages of the day are used up.
    pub quota_refused_total: IntCounter,
    /// Milliseconds from the publication until the last socket of a shard was served: observed once
    /// for each publication and shard.
    pub broadcast_latency_ms: Histogram,
    messages_total: IntCounter,
    connected: IntGauge,
    active_channels: IntGauge,
    messages_today: IntGauge,
    peak_connections: IntGauge,
}

/// Counts collected over a batch of sockets, or a turn, to be added in one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// One for each message and socket.
    pub messages: u64,
    /// Their bytes, frame headers included.
    pub bytes: u64,
}

impl AppMetrics {
    /// Adds what was sent to sockets.
    pub fn sent(&self, counts: BatchCounts) {
        self.ws_messages_sent_total.inc_by(counts.messages);
        self.socket_transmitted_bytes.inc_by(counts.bytes);
    }

    /// Adds what sockets sent us.
    pub fn received(&self, counts: BatchCounts) {
        self.ws_messages_received_total.inc_by(counts.messages);
        self.socket_received_bytes.inc_by(counts.bytes);
    }

    /// Adds one API request with the bytes of its body and of the answer's.
    pub fn http_call(&self, received_bytes: usize, transmitted_bytes: usize) {
        self.http_calls_received_total.inc();
        self.http_received_bytes.inc_by(received_bytes as u64);
        self.http_transmitted_bytes.inc_by(transmitted_bytes as u64);
    }

    /// Shows what a scrape found to be true. One at a time.
    pub(super) fn show(&self, truth: &AppSnapshot) {
        self.connected.set(shown(truth.connected));
        self.active_channels.set(shown(truth.active_channels));
        self.messages_today.set(shown(truth.messages_today));
        self.peak_connections.set(shown(truth.peak_connections));
        // Counted where the quota is, not here.
        let counted = self.messages_total.get();
        self.messages_total.inc_by(truth.messages.saturating_sub(counted));
    }

    /// Shows that an app is not there any more.
    pub(super) fn show_absent(&self) {
        for gauge in [
            &self.connected,
            &self.active_channels,
            &self.messages_today,
            &self.peak_connections,
        ] {
            gauge.set(0);
        }
    }
}

/// The families behind [`AppMetrics`], labelled `app_id` and `port`.
pub(super) struct AppFamilies {
    connected: IntGaugeVec,
    active_channels: IntGaugeVec,
    new_connections_total: IntCounterVec,
    new_disconnections_total: IntCounterVec,
    socket_received_bytes: IntCounterVec,
    socket_transmitted_bytes: IntCounterVec,
    ws_messages_received_total: IntCounterVec,
    ws_messages_sent_total: IntCounterVec,
    http_received_bytes: IntCounterVec,
    http_transmitted_bytes: IntCounterVec,
    http_calls_received_total: IntCounterVec,
    channel_subscriptions_total: IntCounterVec,
    channel_unsubscriptions_total: IntCounterVec,
    rate_limit_checks_total: IntCounterVec,
    rate_limit_triggered_total: IntCounterVec,
    quota_refused_total: IntCounterVec,
    messages_total: IntCounterVec,
    messages_today: IntGaugeVec,
    peak_connections: IntGaugeVec,
    broadcast_latency_ms: HistogramVec,
}

impl AppFamilies {
    pub(super) fn register(naming: &Naming, registry: &Registry) -> Result<AppFamilies, prometheus::Error> {
        let labels = &["app_id"];
        let counter = |name, help| register(registry, IntCounterVec::new(naming.of_app(name, help), labels)?);
        let gauge = |name, help| register(registry, IntGaugeVec::new(naming.of_app(name, help), labels)?);
        Ok(AppFamilies {
            connected: gauge("connected", "Sockets connected now")?,
            active_channels: gauge("active_channels", "Channels with at least one subscriber now")?,
            new_connections_total: counter("new_connections_total", "Sockets that were established")?,
            new_disconnections_total: counter("new_disconnections_total", "Established sockets that ended")?,
            socket_received_bytes: counter("socket_received_bytes", "Bytes received from sockets")?,
            socket_transmitted_bytes: counter("socket_transmitted_bytes", "Bytes written to sockets")?,
            ws_messages_received_total: counter(
                "ws_messages_received_total",
                "Messages received from sockets",
            )?,
            ws_messages_sent_total: counter(
                "ws_messages_sent_total",
                "Messages sent to sockets, one for each message and recipient",
            )?,
            http_received_bytes: counter("http_received_bytes", "Bytes of API request bodies")?,
            http_transmitted_bytes: counter("http_transmitted_bytes", "Bytes of API answer bodies")?,
            http_calls_received_total: counter("http_calls_received_total", "API requests")?,
            channel_subscriptions_total: counter(
                "channel_subscriptions_total",
                "Subscriptions that were granted",
            )?,
            channel_unsubscriptions_total: counter(
                "channel_unsubscriptions_total",
                "Subscriptions that ended",
            )?,
            rate_limit_checks_total: counter(
                "rate_limit_checks_total",
                "Requests and messages that a rate limit saw",
            )?,
            rate_limit_triggered_total: counter(
                "rate_limit_triggered_total",
                "Those that a rate limit refused",
            )?,
            quota_refused_total: counter(
                "quota_refused_total",
                "Requests and messages refused because the messages of the day are used up",
            )?,
            messages_total: counter(
                "messages_total",
                "Events that the API published, one for each channel, and client events",
            )?,
            messages_today: gauge("messages_today", "Those of them since midnight, UTC")?,
            peak_connections: gauge(
                "peak_connections",
                "Most sockets at once since midnight, UTC, those on other nodes included",
            )?,
            broadcast_latency_ms: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::from(naming.of_app(
                        "broadcast_latency_ms",
                        "Milliseconds from a publication until a shard has served its last socket",
                    ))
                    .buckets(LATENCY_BUCKETS_MS.to_vec()),
                    labels,
                )?,
            )?,
        })
    }

    /// Takes an app's figures out.
    pub(super) fn forget(&self, app_id: &str) {
        let labels = &[app_id];
        // An error says that there are none.
        let _ = self.connected.remove_label_values(labels);
        let _ = self.active_channels.remove_label_values(labels);
        let _ = self.messages_today.remove_label_values(labels);
        let _ = self.peak_connections.remove_label_values(labels);
        let _ = self.broadcast_latency_ms.remove_label_values(labels);
        for counter in [
            &self.new_connections_total,
            &self.new_disconnections_total,
            &self.socket_received_bytes,
            &self.socket_transmitted_bytes,
            &self.ws_messages_received_total,
            &self.ws_messages_sent_total,
            &self.http_received_bytes,
            &self.http_transmitted_bytes,
            &self.http_calls_received_total,
            &self.channel_subscriptions_total,
            &self.channel_unsubscriptions_total,
            &self.rate_limit_checks_total,
            &self.rate_limit_triggered_total,
            &self.quota_refused_total,
            &self.messages_total,
        ] {
            let _ = counter.remove_label_values(labels);
        }
    }

    pub(super) fn app(&self, app_id: &str) -> AppMetrics {
        let counter = |family: &IntCounterVec| family.with_label_values(&[app_id]);
        AppMetrics {
            new_connections_total: counter(&self.new_connections_total),
            new_disconnections_total: counter(&self.new_disconnections_total),
            socket_received_bytes: counter(&self.socket_received_bytes),
            socket_transmitted_bytes: counter(&self.socket_transmitted_bytes),
            ws_messages_received_total: counter(&self.ws_messages_received_total),
            ws_messages_sent_total: counter(&self.ws_messages_sent_total),
            http_received_bytes: counter(&self.http_received_bytes),
            http_transmitted_bytes: counter(&self.http_transmitted_bytes),
            http_calls_received_total: counter(&self.http_calls_received_total),
            channel_subscriptions_total: counter(&self.channel_subscriptions_total),
            channel_unsubscriptions_total: counter(&self.channel_unsubscriptions_total),
            rate_limit_checks_total: counter(&self.rate_limit_checks_total),
            rate_limit_triggered_total: counter(&self.rate_limit_triggered_total),
            quota_refused_total: counter(&self.quota_refused_total),
            messages_total: counter(&self.messages_total),
            broadcast_latency_ms: self.broadcast_latency_ms.with_label_values(&[app_id]),
            connected: self.connected.with_label_values(&[app_id]),
            active_channels: self.active_channels.with_label_values(&[app_id]),
            messages_today: self.messages_today.with_label_values(&[app_id]),
            peak_connections: self.peak_connections.with_label_values(&[app_id]),
        }
    }
}
