//! Who is alive: judged by what was heard, not by what the clock says.
//!
//! A node is lost when so many of the own heartbeats have come back over the bus without a word of it between them. While
//! the bus is away or this process stands still, the own ones do not come back either, and nobody is judged.

use std::collections::{BTreeMap, VecDeque};

use crate::adapter::NodeId;

/// So many lives that ended with a goodbye are remembered, so that a late word does not bring one back.
const GONE_MAX: usize = 1_024;

/// What a word of a node means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is known.
    Known,
    /// It is not, or was lost: its share of the roster is to be asked for.
    New,
    /// It said goodbye before: this came late.
    Late,
}

/// The leases of the other nodes.
#[derive(Debug)]
pub struct Leases {
    /// Own heartbeats without a word, until a node counts as lost.
    beats_max: u64,
    /// Own heartbeats that came back.
    beats: u64,
    /// When each was heard last, in own heartbeats.
    nodes: BTreeMap<NodeId, u64>,
    gone: VecDeque<NodeId>,
}

impl Leases {
    /// Nobody is known yet. `lease_s` is the lease in seconds, and in heartbeats, of which there is one a second.
    pub fn new(lease_s: u32) -> Leases {
        Leases {
            beats_max: lease_s.into(),
            beats: 0,
            nodes: BTreeMap::new(),
            gone: VecDeque::new(),
        }
    }

    /// A node said something, whatever it was.
    pub fn heard(&mut self, node: NodeId) -> Word {
        if self.gone.contains(&node) {
            return Word::Late;
        }
        match self.nodes.insert(node, self.beats) {
            Some(_) => Word::Known,
            None => Word::New,
        }
    }

    /// A heartbeat of this node came back. The answer is who is lost now.
    pub fn own_beat(&mut self) -> Vec<NodeId> {
        self.beats += 1;
        let mut lost = Vec::new();
        self.nodes.retain(|node, heard| {
            let is_alive = self.beats - *heard < self.beats_max;
            if !is_alive {
                lost.push(*node);
            }
            is_alive
        });
        lost
    }

    /// A node said goodbye. True if it was known: what it had is to be taken out.
    pub fn goodbye(&mut self, node: NodeId) -> bool {
        if !self.gone.contains(&node) {
            self.gone.push_back(node);
        }
        if self.gone.len() > GONE_MAX {
            self.gone.pop_front();
        }
        self.nodes.remove(&node).is_some()
    }

    /// Whether a node is alive as far as this one knows.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// The other nodes that are alive.
    pub fn alive(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn a_node_is_lost_when_the_own_heartbeats_come_back_without_a_word_of_it() {
        let mut leases = Leases::new(3);
        assert_eq!(leases.heard(A), Word::New);
        assert_eq!(leases.heard(B), Word::New);
        assert_eq!(leases.own_beat(), []);
        assert_eq!(leases.own_beat(), []);
        assert_eq!(leases.heard(A), Word::Known);
        assert_eq!(leases.own_beat(), [B]);
        assert_eq!(leases.alive().collect::<Vec<_>>(), [A]);
        assert_eq!(leases.own_beat(), []);
        assert_eq!(leases.own_beat(), [A]);
        assert_eq!(leases.own_beat(), [], "each is lost once");
    }

    #[test]
    fn while_the_own_heartbeats_do_not_come_back_nobody_is_judged() {
        let mut leases = Leases::new(3);
        leases.heard(A);
        // However long that takes: there is no clock in it. Then all of the backlog comes, its words first.
        assert_eq!(leases.heard(A), Word::Known);
        assert_eq!(leases.own_beat(), []);
        assert!(leases.is_alive(A));
    }

    #[test]
    fn a_lost_node_that_speaks_is_new_and_one_that_said_goodbye_stays_away() {
        let mut leases = Leases::new(1);
        leases.heard(A);
        assert_eq!(leases.own_beat(), [A]);
        assert_eq!(leases.heard(A), Word::New);
        assert!(leases.goodbye(A));
        assert!(!leases.goodbye(A), "twice is once");
        assert_eq!(leases.heard(A), Word::Late);
        assert!(!leases.is_alive(A));
        assert!(!leases.goodbye(B), "of whom nothing was known");
    }
}
