//! How many subscribers a channel has on each of the other nodes.
//!
//! What the nodes say of their own sockets, kept by node, so that what one of them says anew replaces what it said
//! before, and what a lost one said can be taken out again. Knows nothing of members ([`super::presence`]) nor of how
//! the news came.

use smallvec::SmallVec;

use crate::adapter::NodeId;

/// Subscribers by node; those that have none are not in it. Most channels are on one other node or on none.
#[derive(Debug, Default)]
pub struct Elsewhere(SmallVec<[(NodeId, u32); 1]>);

impl Elsewhere {
    /// What this node has now. The answer is what it had before.
    pub fn set(&mut self, node: NodeId, count: u32) -> u32 {
        let place = self.0.iter().position(|(known, _)| *known == node);
        match (place, count) {
            (Some(place), 0) => self.0.swap_remove(place).1,
            (Some(place), _) => std::mem::replace(&mut self.0[place].1, count),
            (None, 0) => 0,
            (None, _) => {
                self.0.push((node, count));
                0
            }
        }
    }

    /// What this node has.
    pub fn of(&self, node: NodeId) -> u32 {
        let found = self.0.iter().find(|(known, _)| *known == node);
        found.map_or(0, |(_, count)| *count)
    }

    /// What all of them have.
    pub fn total(&self) -> usize {
        self.0.iter().map(|(_, count)| *count as usize).sum()
    }

    /// Whether none of them has any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_node_has_what_it_said_last(said in proptest::collection::vec((0..4_u64, 0..3_u32), 0..60)) {
            let mut elsewhere = Elsewhere::default();
            let mut model = BTreeMap::new();
            for (node, count) in said {
                let before = model.insert(node, count).unwrap_or(0);
                prop_assert_eq!(elsewhere.set(NodeId(node), count), before);
                prop_assert_eq!(elsewhere.of(NodeId(node)), count);
                let total: u32 = model.values().sum();
                prop_assert_eq!(elsewhere.total(), total as usize);
                prop_assert_eq!(elsewhere.is_empty(), total == 0);
            }
        }
    }
}
