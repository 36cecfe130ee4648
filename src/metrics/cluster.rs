//! What a node knows of its cluster at one moment: shown by a scrape, and in the answer to a readiness probe.
//!
//! Nothing is counted here: the families are made of the snapshot that a scrape brings, so they show what is true, and
//! a node that is alone has none of them.
//!
//! The names of the peers' `horizontal_adapter_*` families are all absent, since none would mean what it means there.
//! `sent_requests`, `received_requests` and `received_responses` count questions to other nodes (who is in this
//! channel, how many are there) and their answers; `resolve_time`, `resolved_promises` and `uncomplete_promises` tell
//! how long those are waited for. Here every node answers from its own view and waits for nobody. What a dashboard
//! wants in their place: `cluster_relayed_total` and `cluster_received_total` for the traffic between nodes,
//! `cluster_round_trip_seconds` for the time it takes, `cluster_gaps_total` for what did not come.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::Naming;

/// The way to the other nodes at one moment. Counts are since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterSnapshot {
    /// What carries messages between nodes: `redis`, `nats`.
    pub driver: &'static str,
    /// This life of this node.
    pub node_id: String,
    /// Connections to the broker that are up.
    pub connected: u64,
    /// Connections to the broker that there should be.
    pub connections: u64,
    /// Connections made anew.
    pub reconnects: u64,
    /// Whether the broker is known to be away, or events wait for it longer than a second.
    pub is_behind: bool,
    /// Whether this node hears its own heartbeats; if not, it does not judge others.
    pub is_deaf: bool,
    /// From a heartbeat's sending until it came back over the broker, the last one. Seconds.
    pub round_trip_s: Option<f64>,
    /// Since the last own heartbeat came back. Seconds.
    pub last_heard_s: f64,
    /// Nodes that are alive, this one included.
    pub nodes: u64,
    /// Nodes whose share of the roster is not complete here yet.
    pub nodes_unknown: u64,
    /// Nodes that stopped without a goodbye.
    pub nodes_lost: u64,
    /// Topics that are heard because of subscribers here.
    pub topics: u64,
    /// Envelopes that the broker accepted.
    pub relayed: u64,
    /// Envelopes of other nodes, in order and once.
    pub received: u64,
    /// Of these, such that had been missed and were sent again.
    pub repaired: u64,
    /// Envelopes heard more than once.
    pub duplicates: u64,
    /// Envelopes that never left: the ring was full before the broker was back.
    pub unsent_gaps: u64,
    /// Envelopes of other nodes that were given up.
    pub gaps: u64,
    /// Events of other nodes dropped since the shards were too far behind.
    pub dropped_busy: u64,
    /// Messages that did not fit between the broker and this node; they are asked for again.
    pub refused: u64,
    /// Bytes that the broker has not accepted yet.
    pub unsent_bytes: u64,
    /// Bytes kept for repairs and for what was not accepted yet.
    pub ring_bytes: u64,
    /// Bytes held back behind a gap.
    pub held_back_bytes: u64,
    /// What other nodes have: one for each channel and node.
    pub roster_channels: u64,
    /// Since the last change that another node announced. Seconds.
    pub roster_age_s: f64,
    /// Announcements sent.
    pub announced: u64,
    /// Snapshots of the roster that were asked for.
    pub snapshots: u64,
}

impl ClusterSnapshot {
    /// Everything that was lost on the way between nodes, for whatever reason. Messages.
    pub fn gaps_total(&self) -> u64 {
        self.unsent_gaps + self.gaps + self.dropped_busy
    }

    /// In one word: how the way to the other nodes is.
    pub fn bus(&self) -> Bus {
        match self {
            ClusterSnapshot { connected: 0, .. } => Bus::Down,
            ClusterSnapshot { is_deaf: true, .. } => Bus::Deaf,
            _ if self.is_behind || self.connected < self.connections => Bus::Behind,
            _ => Bus::Up,
        }
    }

    /// The families that show it, all named `PREFIX_cluster_*`.
    pub(super) fn families(&self, naming: &Naming) -> Vec<MetricFamily> {
        let family = |kind, name: &str, help: &str, samples| {
            let mut family = MetricFamily::default();
            family.set_name(naming.full(&format!("cluster_{name}")));
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(samples);
            family
        };
        let gauge = |name, help, value| family(MetricType::GAUGE, name, help, vec![gauge(value, &[])]);
        let count = |name, help, value: u64| gauge(name, help, value as f64);
        let counter = |name, help, value| family(MetricType::COUNTER, name, help, vec![counter(value, &[])]);

        let info = [("driver", self.driver), ("node_id", &*self.node_id)];
        let mut families = vec![
            family(
                MetricType::GAUGE,
                "info",
                "Always 1; the labels say what carries messages between nodes, and which life of this node it is",
                vec![self::gauge(1.0, &info)],
            ),
            count(
                "connections",
                "Connections to the broker that are up",
                self.connected,
            ),
            count(
                "connections_wanted",
                "Connections to the broker that there should be",
                self.connections,
            ),
            family(
                MetricType::COUNTER,
                "reconnects_total",
                "Connections to the broker that were made anew",
                vec![self::counter(self.reconnects, &[("driver", self.driver)])],
            ),
            count(
                "behind",
                "1 while the broker is away, or events wait for it longer than a second",
                self.is_behind.into(),
            ),
            count(
                "deaf",
                "1 while this node does not hear its own heartbeats",
                self.is_deaf.into(),
            ),
            gauge(
                "last_heard_seconds",
                "Since the last own heartbeat came back over the broker",
                self.last_heard_s,
            ),
            count("nodes", "Nodes that are alive, this one included", self.nodes),
            count(
                "nodes_unknown",
                "Those of them whose share of the roster is not complete here yet",
                self.nodes_unknown,
            ),
            counter(
                "nodes_lost_total",
                "Nodes that stopped without a goodbye",
                self.nodes_lost,
            ),
            count(
                "topics",
                "Topics that are heard because of subscribers here",
                self.topics,
            ),
            counter(
                "relayed_total",
                "Messages to other nodes that the broker accepted",
                self.relayed,
            ),
            counter(
                "received_total",
                "Messages of other nodes, in order and once",
                self.received,
            ),
            counter(
                "repaired_total",
                "Those of them that had been missed and were sent again",
                self.repaired,
            ),
            counter(
                "duplicates_total",
                "Messages of other nodes that were heard more than once, and dropped",
                self.duplicates,
            ),
            family(
                MetricType::COUNTER,
                "gaps_total",
                "Messages lost between nodes: never sent for want of room (unsent), missed and given up (given_up), \
                 dropped since the shards were too far behind (busy)",
                vec![
                    self::counter(self.unsent_gaps, &[("reason", "unsent")]),
                    self::counter(self.gaps, &[("reason", "given_up")]),
                    self::counter(self.dropped_busy, &[("reason", "busy")]),
                ],
            ),
            counter(
                "refused_total",
                "Messages for which there was no room between broker and node; they are asked for again",
                self.refused,
            ),
            count(
                "unsent_bytes",
                "Bytes that the broker has not accepted yet",
                self.unsent_bytes,
            ),
            count(
                "ring_bytes",
                "Bytes kept for repairs, and for what was not accepted yet",
                self.ring_bytes,
            ),
            count(
                "held_back_bytes",
                "Bytes of other nodes that wait for something that was missed",
                self.held_back_bytes,
            ),
            count(
                "roster_channels",
                "What other nodes have: one for each channel and node",
                self.roster_channels,
            ),
            gauge(
                "roster_age_seconds",
                "Since the last change that another node announced",
                self.roster_age_s,
            ),
            counter(
                "announcements_total",
                "Changes of the roster that were sent, many to each",
                self.announced,
            ),
            counter(
                "snapshots_total",
                "Snapshots of the roster that were asked for",
                self.snapshots,
            ),
        ];
        // Before the first heartbeat has come back there is no such time, and 0 would look excellent.
        families.extend(self.round_trip_s.map(|time| {
            gauge(
                "round_trip_seconds",
                "From a heartbeat's sending until it came back over the broker",
                time,
            )
        }));
        families
    }
}

/// How the way to the other nodes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// Everything that is sent is heard.
    Up,
    /// Events wait for the broker, or some of the connections to it are down.
    Behind,
    /// Connected, yet own heartbeats do not come back.
    Deaf,
    /// No connection to the broker.
    Down,
}

impl Bus {
    /// The word itself.
    pub fn as_str(self) -> &'static str {
        match self {
            Bus::Up => "up",
            Bus::Behind => "behind",
            Bus::Deaf => "deaf",
            Bus::Down => "down",
        }
    }
}

pub(super) fn gauge(value: f64, labels: &[(&str, &str)]) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut sample = labelled(labels);
    sample.set_gauge(gauge);
    sample
}

pub(super) fn counter(value: u64, labels: &[(&str, &str)]) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut sample = labelled(labels);
    sample.set_counter(counter);
    sample
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_is_one_word_the_worst_that_holds() {
        let whole = ClusterSnapshot {
            connected: 4,
            connections: 4,
            ..ClusterSnapshot::default()
        };
        for (connected, is_deaf, is_behind, word) in [
            (4, false, false, "up"),
            (4, false, true, "behind"),
            (3, false, false, "behind"),
            (4, true, true, "deaf"),
            (0, true, true, "down"),
        ] {
            let snapshot = ClusterSnapshot {
                connected,
                is_deaf,
                is_behind,
                ..whole.clone()
            };
            assert_eq!(snapshot.bus().as_str(), word, "{snapshot:?}");
        }
    }
}
