//! What a node has taken in at one moment, beside its marks: how much room there is.

use prometheus::proto::{MetricFamily, MetricType};

use super::Naming;
use super::cluster::gauge;

/// Connections and memory at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomSnapshot {
    /// Connections of all kinds, sockets included.
    pub connections: u64,
    /// With so many, nobody else is accepted.
    pub connections_max: u64,
    /// Sockets, of whatever app, above which there are no more.
    pub sockets_max: u64,
    /// Connections that speak HTTP.
    pub http_connections: u64,
    /// Above which idle ones are closed, or calls refused.
    pub http_connections_max: u64,
    /// Refused clients that wait to be told.
    pub refusals_waiting: u64,
    /// Of the bound that is nearest: the process, or a control group. Bytes.
    pub memory_used: u64,
    /// Above which there are no more sockets. Bytes.
    pub memory_mark: u64,
    /// Beyond which something is killed. Bytes.
    pub memory_limit: u64,
    /// Last events of cache channels. Bytes.
    pub cache_bytes: u64,
}

impl RoomSnapshot {
    /// The families that show it.
    pub(super) fn families(&self, naming: &Naming) -> Vec<MetricFamily> {
        let shown = |(name, help, value): (&str, &str, u64)| {
            let mut family = MetricFamily::default();
            family.set_name(naming.full(name));
            family.set_help(help.to_owned());
            family.set_field_type(MetricType::GAUGE);
            family.set_metric(vec![gauge(value as f64, &[])]);
            family
        };
        [
            (
                "connections",
                "Connections of all kinds, sockets included",
                self.connections,
            ),
            (
                "connections_max",
                "Connections beyond which nobody is accepted until somebody has left",
                self.connections_max,
            ),
            (
                "sockets_max",
                "Sockets above which new ones are refused",
                self.sockets_max,
            ),
            (
                "http_connections",
                "Connections that speak HTTP",
                self.http_connections,
            ),
            (
                "http_connections_max",
                "HTTP connections above which idle ones are closed, or calls refused",
                self.http_connections_max,
            ),
            (
                "refusals_waiting",
                "Refused clients that wait to be told",
                self.refusals_waiting,
            ),
            (
                "memory_used_bytes",
                "Memory used, of the bound that is nearest",
                self.memory_used,
            ),
            (
                "memory_mark_bytes",
                "Memory above which new sockets are refused",
                self.memory_mark,
            ),
            (
                "memory_limit_bytes",
                "The bound of memory that is nearest",
                self.memory_limit,
            ),
            (
                "cache_bytes",
                "Bytes of the last events of cache channels",
                self.cache_bytes,
            ),
        ]
        .map(shown)
        .into()
    }
}
