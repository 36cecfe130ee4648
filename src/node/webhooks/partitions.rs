//! Which part of a queue that outlives nodes is this node's.

use crate::node::Node;
use crate::webhook::queue::Partitions;

/// Stands where an app's id does for channels: no app has the empty one.
const NO_APP: &str = "";

impl Node {
    /// The partitions of the webhooks' queue that are this node's, as it looks now: each is that of one of the nodes that
    /// take turns, and all nodes come to the same. All of them for a node that is alone; none for one that does not take
    /// part, or does not know whether the others are there.
    pub fn queue_partitions(&self) -> Partitions {
        let Some(cluster) = self.cluster() else {
            return Partitions::ALL;
        };
        let turns = cluster.turns();
        let is_first = |index: u8| turns.is_first(NO_APP, &index.to_string());
        let mine = Partitions::ALL
            .iter()
            .filter(|partition| is_first(partition.index()));
        mine.collect()
    }
}
