//! A cluster for one case: nodes on their own configuration files, and what is asked of all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::case::Case;
use crate::ear::Ear;
use crate::node::Node;
use crate::readiness::Readiness;
use crate::support::server::{KEY, SECRET};

/// A presence channel that the cases share the name of.
pub(crate) const CROWD: &str = "presence-crowd";
/// Heartbeats without a word of a node until it counts as gone: the shipped default.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// Some nodes.
pub(crate) struct Stage<'a> {
    pub(crate) case: &'a Case,
    pub(crate) nodes: Vec<Node>,
    pub(crate) readiness: Readiness,
    folder: TempDir,
}

/// What a node is configured with, the broker aside.
fn configuration(broker: &Value) -> Value {
    let mut config = json!({
        "server": { "port": 0, "shards": 2 },
        "admin": { "port": 0 },
        "log": { "format": "json" },
        "drain": { "drain_s": 0 },
        "apps": [{
            "id": "1", "key": KEY, "secret": SECRET,
            "client_events": true,
            "presence_members_max": 1000,
            // A socket is told at once what was missed for a minute: not what a slow reader is known by.
            "outbox_bytes_max": 64 << 20,
        }],
    });
    for (section, settings) in broker.as_object().expect("sections of a configuration") {
        config[section] = settings.clone();
    }
    config
}

impl<'a> Stage<'a> {
    /// A node for each of these, which say how it comes to its broker; named from A on, all ready.
    pub(crate) async fn set(case: &'a Case, brokers: &[Value]) -> Stage<'a> {
        let mut stage = Stage {
            case,
            nodes: Vec::new(),
            readiness: Readiness::default(),
            folder: tempfile::tempdir().expect("a folder for the configurations"),
        };
        for broker in brokers {
            stage.add(broker).await;
        }
        stage.everybody_knows_everybody().await;
        case.is_set_up();
        stage
    }

    /// One more node, ready and watched; the answer is its index.
    pub(crate) async fn add(&mut self, broker: &Value) -> usize {
        let index = self.nodes.len();
        let name = char::from(b'A' + index as u8).to_string();
        let config = configuration(broker);
        let node = Node::start(&name, &config, self.folder.path(), &self.case.logbook).await;
        node.is_ready().await;
        self.readiness.watch(&node);
        self.nodes.push(node);
        index
    }

    /// Kills a node, and waits for nothing.
    pub(crate) fn kill(&mut self, index: usize) {
        self.readiness.forget(&self.nodes[index].name);
        self.nodes[index].kill();
    }

    /// Starts a node again that has ended, until it is ready.
    pub(crate) async fn start_again(&mut self, index: usize) {
        self.nodes[index].start_again(&self.case.logbook).await;
        self.nodes[index].is_ready().await;
        self.readiness.watch(&self.nodes[index]);
    }

    /// Waits until each node has heard of each other one.
    pub(crate) async fn everybody_knows_everybody(&self) {
        let begun = Instant::now();
        for node in &self.nodes {
            while node.metric("cluster_nodes").await != self.nodes.len() as f64 {
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "node {} hears of {} nodes",
                    node.name,
                    node.metric("cluster_nodes").await
                );
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// The members of a channel as a node's HTTP API tells them.
    pub(crate) async fn users(&self, index: usize, channel: &str) -> BTreeSet<String> {
        users(&self.nodes[index], channel).await
    }

    /// Waits until these nodes' HTTP APIs name the same members; the answer is how long that took.
    pub(crate) async fn agree_on(
        &self,
        indices: &[usize],
        channel: &str,
        expected: &BTreeSet<String>,
        within: Duration,
    ) -> Duration {
        let begun = Instant::now();
        for index in indices {
            loop {
                let users = self.users(*index, channel).await;
                if users == *expected {
                    break;
                }
                assert!(
                    begun.elapsed() < self.case.bound(within),
                    "after {within:?} node {} names {} members of {channel}, not {}: {}",
                    self.nodes[*index].name,
                    users.len(),
                    expected.len(),
                    difference(&users, expected)
                );
                sleep(Duration::from_millis(20)).await;
            }
        }
        begun.elapsed()
    }

    /// A socket that comes now to one of these nodes is told the same members, itself among them, and the counts agree.
    pub(crate) async fn newcomers_see(&self, indices: &[usize], channel: &str, expected: &BTreeSet<String>) {
        for index in indices {
            let node = &self.nodes[*index];
            let newcomer = format!("newcomer-{}", node.name);
            let ear = Ear::join(node, channel, &newcomer).await;
            let mut all = expected.clone();
            all.insert(newcomer);
            let seen = ear.members().unwrap_or_else(|fault| panic!("{fault}"));
            assert!(
                seen == all,
                "{} is told otherwise: {}",
                ear.name,
                difference(&seen, &all)
            );
            let path = format!("/channels/{channel}?info=user_count");
            let count = node.backend().await.get(&path).await.json()["user_count"].clone();
            assert_eq!(count, all.len(), "the count on node {}", node.name);
            drop(ear);
            // The next one is not to be told of this one.
            self.agree_on(indices, channel, expected, Duration::from_secs(5))
                .await;
        }
    }
}

/// The members of a channel as a node's HTTP API tells them.
pub(crate) async fn users(node: &Node, channel: &str) -> BTreeSet<String> {
    let answer = node
        .backend()
        .await
        .get(&format!("/channels/{channel}/users"))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let users = answer.json()["users"].clone();
    let users = users.as_array().expect("a list of users").iter();
    users
        .map(|user| user["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// What two sets do not share, in few words.
pub(crate) fn difference(found: &BTreeSet<String>, expected: &BTreeSet<String>) -> String {
    let few = |set: &mut dyn Iterator<Item = &String>| set.take(8).cloned().collect::<Vec<_>>().join(" ");
    format!(
        "too many: [{}], missing: [{}]",
        few(&mut found.difference(expected)),
        few(&mut expected.difference(found))
    )
}
