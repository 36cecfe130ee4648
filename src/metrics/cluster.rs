//! What a node knows of its cluster at one moment: shown by a scrape, and in the answer to a readiness probe.

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
    /// Channels with subscribers on other nodes.
    pub roster_channels: u64,
    /// Since the last change that another node announced. Seconds.
    pub roster_age_s: f64,
    /// Announcements sent.
    pub announced: u64,
    /// Snapshots of the roster that were asked for.
    pub snapshots: u64,
}
