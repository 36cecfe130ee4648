//! What a node knows at one moment of the queue at a broker that its webhooks wait in, shown by a scrape.

use prometheus::proto::{MetricFamily, MetricType};

use super::Naming;
use super::cluster::{counter, gauge};

/// The durable queue of webhooks, as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookBrokerSnapshot {
    /// What the broker does not know of yet: events that it is to keep, and events that are done.
    pub unsent: u64,
    /// Partitions of which it keeps as many events as it may.
    pub partitions_full: u64,
    /// Partitions from which this node delivers.
    pub partitions_owned: u64,
    /// Events that came from it into the queues of endpoints, since the start.
    pub taken: u64,
    /// Events of these partitions that stay there, since no endpoint that wants them has room.
    pub left: u64,
}

impl WebhookBrokerSnapshot {
    /// The families that show it, all named `PREFIX_webhook_broker_*`.
    pub(super) fn families(&self, naming: &Naming) -> Vec<MetricFamily> {
        let family = |kind, name: &str, help: &str, sample| {
            let mut family = MetricFamily::default();
            family.set_name(naming.full(&format!("webhook_broker_{name}")));
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(vec![sample]);
            family
        };
        let shown = |name, help, value: u64| family(MetricType::GAUGE, name, help, gauge(value as f64, &[]));
        vec![
            shown(
                "unsent",
                "What the broker does not know of yet: events that it is to keep, and events that are done",
                self.unsent,
            ),
            shown(
                "partitions_full",
                "Partitions of which the broker keeps as many events as it may",
                self.partitions_full,
            ),
            shown(
                "partitions_owned",
                "Partitions from which this node delivers",
                self.partitions_owned,
            ),
            shown(
                "left",
                "Events that stay at the broker, since no endpoint that wants them has room",
                self.left,
            ),
            family(
                MetricType::COUNTER,
                "taken_total",
                "Events that came from the broker into the queues of endpoints",
                counter(self.taken, &[]),
            ),
        ]
    }
}
