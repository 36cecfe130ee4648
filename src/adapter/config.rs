//! Settings of the way to the other nodes, whichever broker it goes through.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What carries messages between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// Nothing: this node is alone.
    #[default]
    None,
    /// Redis 7 or later, as the section `redis` says.
    Redis,
    /// NATS, as the section `nats` says.
    Nats,
}

/// The way to the other nodes of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// What carries messages between nodes.
    pub driver: Driver,
    /// The name of the cluster: goes before everything that is written to the broker. Two clusters on one broker need
    /// two prefixes; the nodes of one cluster the same.
    #[schemars(length(min = 1, max = 64))]
    pub prefix: String,
    /// Into how many topics channels are spread: a node hears only those in which it has a subscriber. The same on
    /// every node of a cluster.
    #[schemars(range(min = 16, max = 16384))]
    pub topics: u16,
    /// Connections that carry events, beside one for heartbeats and one for what nodes tell each other.
    #[schemars(range(min = 1, max = 16))]
    pub connections: u16,
    /// Sent events are kept so far for nodes that missed some, and while the broker is away. Bytes.
    #[schemars(range(min = 1048576))]
    pub ring_bytes_max: usize,
    /// What was heard from the broker and not yet worked. What does not fit is asked for again. Bytes.
    #[schemars(range(min = 1048576))]
    pub inbox_bytes_max: usize,
    /// A node that is not heard of for so many heartbeats, one a second, counts as gone. Seconds.
    #[schemars(range(min = 3, max = 300))]
    pub lease_s: u32,
}

impl AdapterConfig {
    /// What is wrong with a setting by itself: its key, and what to do about it, for a person.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let words = self.prefix.split('.');
        let named = self.prefix.len() <= 64
            && words
                .clone()
                .all(|word| !word.is_empty() && word.bytes().all(plain));
        match named {
            true => Vec::new(),
            false => {
                let text = "must be 1 to 64 letters, digits, `-` and `_`, with single dots between them";
                vec![("prefix", text.to_owned())]
            }
        }
    }
}

impl Default for AdapterConfig {
    fn default() -> AdapterConfig {
        AdapterConfig {
            driver: Driver::None,
            prefix: "fanwire".into(),
            topics: 1024,
            connections: 2,
            ring_bytes_max: 64 * 1024 * 1024,
            inbox_bytes_max: 64 * 1024 * 1024,
            lease_s: 10,
        }
    }
}
