//! Settings of webhooks that hold for the whole process. What belongs to one endpoint is the app's.

use std::path::PathBuf;

use rustls::RootCertStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::Network;
use crate::pem;

/// Where an event waits between its happening and its delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookQueue {
    /// In the memory of the node where it happened: a node that is killed takes with it what it has not delivered.
    #[default]
    Memory,
    /// In Redis, as the section `redis` says.
    Redis,
    /// In NATS, with JetStream, as the section `nats` says.
    Nats,
}

/// How webhooks are delivered: bounds of the whole process, and how long it is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Where events wait for their delivery: `memory`, or a broker, from which another node takes up what a node that
    /// dies leaves behind. Its names there begin with `adapter.prefix`, whatever `adapter.driver` is. The same on every
    /// node of a cluster.
    pub queue: WebhookQueue,
    /// Events that may wait for their delivery, those on their way and those to be tried again included. A further one
    /// is dropped and counted. Those of one app are half of them at most, or `endpoint_events_max` if that is more.
    #[schemars(range(min = 1))]
    pub queue_events_max: usize,
    /// Their bytes, shared among apps in the same way. A further event is dropped and counted.
    #[schemars(range(min = 1_048_576))]
    pub queue_bytes_max: usize,
    /// Of these events, those of one endpoint, so that one that is down leaves room for the others.
    #[schemars(range(min = 1))]
    pub endpoint_events_max: usize,
    /// The bytes of one endpoint.
    #[schemars(range(min = 1_048_576))]
    pub endpoint_bytes_max: usize,
    /// Requests on their way at once, to all endpoints together. Half of them are kept for endpoints that answered well
    /// last time. An app that has a quarter of them gets more only while a quarter of them stays free for the others.
    #[schemars(range(min = 2, max = 10_000))]
    pub connections_max: usize,
    /// Time from a failed attempt to the next one; it doubles with each further one. Up to a quarter less, at random.
    #[schemars(range(min = 100, max = 60_000))]
    pub retry_first_ms: u32,
    /// Longest time between two attempts.
    #[schemars(range(min = 100, max = 600_000))]
    pub retry_max_ms: u32,
    /// An event that could not be delivered so long after it happened is given up. The official Python library refuses
    /// what is older than 300 seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub give_up_s: u32,
    /// What was given up is kept for redelivery, so many requests of all apps together; the oldest of the app
    /// that has the most give way.
    #[schemars(range(max = 100_000))]
    pub dead_letters_max: usize,
    /// The bytes of what was given up.
    #[schemars(range(max = 1_073_741_824))]
    pub dead_letter_bytes_max: usize,
    /// Certificates that those of `https` endpoints may be signed by, as a PEM file, besides those that the system
    /// trusts. Read once, at the start.
    pub ca_file: Option<PathBuf>,
    /// Refuse to connect to addresses that are not public: private networks, loopback, link-local (where clouds serve
    /// their metadata), shared address space and the like. For servers on which others choose the URLs. Checked on the
    /// address itself, whatever a name resolves to.
    pub block_private: bool,
    /// Networks that are refused besides, as `203.0.113.0/24` or `2001:db8::/32`.
    pub block: Vec<String>,
    /// Networks that are allowed in spite of `block_private`, written the same way.
    pub allow: Vec<String>,
}

impl Default for WebhooksConfig {
    fn default() -> WebhooksConfig {
        WebhooksConfig {
            queue: WebhookQueue::Memory,
            queue_events_max: 200_000,
            queue_bytes_max: 128 * 1024 * 1024,
            endpoint_events_max: 50_000,
            endpoint_bytes_max: 32 * 1024 * 1024,
            connections_max: 256,
            retry_first_ms: 1_000,
            retry_max_ms: 60_000,
            give_up_s: 300,
            dead_letters_max: 1_000,
            dead_letter_bytes_max: 16 * 1024 * 1024,
            ca_file: None,
            block_private: false,
            block: Vec::new(),
            allow: Vec::new(),
        }
    }
}

impl WebhooksConfig {
    /// Who may sign the certificates of endpoints besides those that the system trusts, as [`WebhooksConfig::ca_file`]
    /// says.
    ///
    /// # Errors
    /// What is wrong about the file, for a person.
    pub fn authorities(&self) -> Result<RootCertStore, String> {
        match &self.ca_file {
            Some(file) => pem::roots(file),
            None => Ok(RootCertStore::empty()),
        }
    }

    /// What is wrong with these settings by themselves: the key of one, and what to do about it, for a person.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (list, networks) in [("block", &self.block), ("allow", &self.allow)] {
            for (index, network) in networks.iter().enumerate() {
                if let Err(text) = network.parse::<Network>() {
                    faults.push((format!("{list}[{index}]"), text.to_owned()));
                }
            }
        }
        if !self.block_private && !self.allow.is_empty() {
            let text =
                "does nothing, since `block_private` is off and all is allowed that `block` does not refuse";
            faults.push(("allow".into(), text.into()));
        }
        let mut compare = |key: &str, figure: usize, bound: &str, most: usize| {
            if figure > most {
                let text = format!("can never be reached, since `webhooks.{bound}` is {most}");
                faults.push((key.into(), text));
            }
        };
        compare(
            "endpoint_events_max",
            self.endpoint_events_max,
            "queue_events_max",
            self.queue_events_max,
        );
        compare(
            "endpoint_bytes_max",
            self.endpoint_bytes_max,
            "queue_bytes_max",
            self.queue_bytes_max,
        );
        compare(
            "retry_first_ms",
            self.retry_first_ms as usize,
            "retry_max_ms",
            self.retry_max_ms as usize,
        );
        faults
    }
}
