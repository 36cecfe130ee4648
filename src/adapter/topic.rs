//! What is subscribed to at a broker, and which connection carries it.

use std::fmt;
use std::str::FromStr;

/// One life of one node: drawn anew at each start, so that numbers counted in an earlier life are never mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// A new life.
    pub fn draw() -> NodeId {
        NodeId(rand::random())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What the nodes of a cluster can hear. Its text names it at the broker, behind the configured prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Heartbeats: heard by all.
    Beats,
    /// Who is where: heard by all.
    Roster,
    /// What concerns one node alone: requests to it, answers to its own.
    Node(NodeId),
    /// The events of those channels that fall to this number.
    Channels(u16),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::Beats => f.write_str("beats"),
            Topic::Roster => f.write_str("roster"),
            Topic::Node(id) => write!(f, "node.{id}"),
            Topic::Channels(number) => write!(f, "channels.{number}"),
        }
    }
}

/// The text of a topic that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTopic;

impl FromStr for Topic {
    type Err = NoTopic;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Topic, NoTopic> {
        let topic = match text.split_once('.') {
            None if text == "beats" => Some(Topic::Beats),
            None if text == "roster" => Some(Topic::Roster),
            Some(("node", id)) => u64::from_str_radix(id, 16).ok().map(|id| Topic::Node(NodeId(id))),
            Some(("channels", number)) => number.parse().ok().map(Topic::Channels),
            _ => None,
        };
        topic.ok_or(NoTopic)
    }
}

/// A connection of the pool, in both directions. A topic is always on the same one.
pub type Lane = usize;

/// The lane of the heartbeats, which nothing else may delay.
pub const LANE_HEART: Lane = 0;
/// The lane of the roster and of what nodes ask each other.
pub const LANE_DIRECT: Lane = 1;

impl Topic {
    /// The lane of this topic where `channel_lanes` carry the channels.
    pub fn lane(self, channel_lanes: usize) -> Lane {
        match self {
            Topic::Beats => LANE_HEART,
            Topic::Roster | Topic::Node(_) => LANE_DIRECT,
            Topic::Channels(number) => LANE_DIRECT + 1 + usize::from(number) % channel_lanes,
        }
    }
}
