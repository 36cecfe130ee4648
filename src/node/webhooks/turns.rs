//! Whose turn it is to tell a back end: of the nodes that are alive and take part, each channel has a first one,
//! a second one, and so on, and all come to the same by hashing.
//!
//! The first one tells. Where it does not, the next one does after a while, so that nothing is lost with a node. While
//! the own heartbeats do not come back, this node cannot know what others have told, and none of that happens: time
//! counts anew when they do. Pure: time is an argument.

use std::time::{Duration, Instant};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::adapter::NodeId;

/// So long each waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long, where it has only heard that the back end was told something else than it knows. Those before it may know
/// better.
const HEARSAY_PATIENCE: Duration = Duration::from_secs(30);
/// Own heartbeats, of which there is one a second, that have not come back for so long do not come back.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// When they come back, what was missed meanwhile comes first.
const CATCHING_UP: Duration = Duration::from_secs(2);

/// The nodes that take turns, as this one knows them.
#[derive(Clone, Debug)]
pub(in crate::node) struct Turns {
    here: NodeId,
    nodes: Vec<NodeId>,
    /// When the last own heartbeat came back.
    heard: Option<Instant>,
    /// From when on this node has its turns again.
    from: Option<Instant>,
}

impl Turns {
    /// Nobody takes turns before it was heard.
    pub(in crate::node) fn new(here: NodeId) -> Turns {
        Turns {
            here,
            nodes: Vec::new(),
            heard: None,
            from: None,
        }
    }

    /// A heartbeat of a node was heard, which says whether it takes turns. True if there is something new in it.
    pub(in crate::node) fn beat(&mut self, node: NodeId, takes_turns: bool, now: Instant) -> bool {
        if node == self.here {
            let is_back = self.heard.filter(|_| self.stands_still(now));
            self.from = match is_back {
                Some(_) => Some(now + CATCHING_UP),
                None => self.from.or(Some(now)),
            };
            self.heard = Some(now);
        }
        let is_new = takes_turns && !self.nodes.contains(&node);
        if is_new {
            self.nodes.push(node);
        }
        is_new || node == self.here
    }

    /// A node is gone. True if it took turns.
    pub(in crate::node) fn gone(&mut self, node: NodeId) -> bool {
        let before = self.nodes.len();
        self.nodes.retain(|known| *known != node);
        self.nodes.len() < before
    }

    /// Whether a node takes turns.
    pub(in crate::node) fn has(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }

    /// Whether this node has heard itself for so long, as far as it last did.
    pub(in crate::node) fn is_heard_for(&self, time: Duration, now: Instant) -> bool {
        let is_over = |from| now.saturating_duration_since(from) >= time;
        !self.stands_still(now) && self.from.is_some_and(is_over)
    }

    /// Whether this node has no turn at all, since it does not hear itself.
    pub(in crate::node) fn stands_still(&self, now: Instant) -> bool {
        let is_recent = |heard| now.saturating_duration_since(heard) <= HEARD_WITHIN;
        !self.heard.is_some_and(is_recent)
    }

    /// From when on this node is to tell something of a channel that was due then, as it looks now.
    pub(in crate::node) fn turn(
        &self,
        app: &str,
        channel: &str,
        due: Instant,
        is_witnessed: bool,
        now: Instant,
    ) -> Option<Instant> {
        if self.stands_still(now) {
            return None;
        }
        let place = self.place(app, channel)?;
        let patience = if is_witnessed { PATIENCE } else { HEARSAY_PATIENCE };
        let from = self.from.map_or(due, |from| due.max(from));
        Some(from + patience * place)
    }

    /// Whether this node is the first one for a channel.
    pub(in crate::node) fn is_first(&self, app: &str, channel: &str) -> bool {
        self.place(app, channel) == Some(0)
    }

    /// How many come before this node.
    fn place(&self, app: &str, channel: &str) -> Option<u32> {
        if !self.has(self.here) {
            return None;
        }
        let hash = xxh3_64_with_seed(channel.as_bytes(), xxh3_64(app.as_bytes()));
        let weight = |node: NodeId| (xxh3_64_with_seed(&node.0.to_le_bytes(), hash), node);
        let mine = weight(self.here);
        let before = self.nodes.iter().filter(|node| weight(**node) > mine).count();
        u32::try_from(before).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn second(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// What each node knows when all have heard each other.
    fn all(now: Instant) -> Vec<Turns> {
        let knowing = |here| {
            let mut turns = Turns::new(here);
            for node in NODES {
                turns.beat(node, true, now);
            }
            turns
        };
        NODES.into_iter().map(knowing).collect()
    }

    #[test]
    fn each_channel_has_a_first_a_second_and_a_third_node_and_all_nodes_have_their_share() {
        let now = Instant::now();
        let nodes = all(now);
        let mut firsts = [0; 3];
        for channel in 0..300 {
            let channel = channel.to_string();
            let turn = |turns: &Turns| turns.turn("1", &channel, now, true, now).expect("a turn") - now;
            let mut turns: Vec<_> = nodes.iter().map(turn).collect();
            for (node, turn) in turns.iter().enumerate() {
                firsts[node] += u32::from(turn.is_zero());
            }
            turns.sort();
            assert_eq!(turns, [second(0), second(2), second(4)]);
        }
        assert!(firsts.iter().all(|first| *first > 60), "{firsts:?}");
    }

    #[test]
    fn who_is_gone_has_no_turn_and_who_is_left_keeps_the_order() {
        let now = Instant::now();
        for channel in ["a", "b", "c", "d", "e", "f"] {
            let mut nodes = all(now);
            let turn = |turns: &Turns| turns.turn("1", channel, now, true, now).expect("a turn") - now;
            let mut order = NODES.to_vec();
            order.sort_by_key(|node| turn(&nodes[node.0 as usize - 1]));
            for turns in &mut nodes {
                assert!(turns.gone(order[0]));
                assert!(!turns.gone(order[0]), "once");
            }
            assert_eq!(turn(&nodes[order[1].0 as usize - 1]), second(0));
            assert_eq!(turn(&nodes[order[2].0 as usize - 1]), second(2));
        }
    }

    #[test]
    fn a_node_that_takes_no_part_yet_has_no_turn() {
        let now = Instant::now();
        let mut turns = Turns::new(NODES[0]);
        turns.beat(NODES[0], false, now);
        turns.beat(NODES[1], true, now);
        assert_eq!(turns.turn("1", "a", now, true, now), None);
        assert!(turns.beat(NODES[0], true, now));
        assert!(turns.turn("1", "a", now, true, now).is_some());
        let wait = |is_witnessed| turns.turn("1", "a", now, is_witnessed, now).map(|at| at - now);
        let waits = [wait(true), wait(false)];
        let (first, second) = ([0, 0].map(|s| Some(second(s))), [2, 30].map(|s| Some(second(s))));
        assert!(waits == first || waits == second, "{waits:?}");
    }

    #[test]
    fn who_does_not_hear_itself_stands_still_and_counts_anew_when_it_does() {
        let start = Instant::now();
        let mut turns = Turns::new(NODES[0]);
        turns.beat(NODES[0], true, start);
        let at = |s| start + second(s);
        assert_eq!(turns.turn("1", "a", at(1), true, at(3)), Some(at(1)));
        assert_eq!(turns.turn("1", "a", at(1), true, at(4)), None);
        turns.beat(NODES[0], true, at(60));
        assert_eq!(turns.turn("1", "a", at(1), true, at(60)), Some(at(62)));
        turns.beat(NODES[0], true, at(61));
        assert_eq!(turns.turn("1", "a", at(63), true, at(63)), Some(at(63)));
    }
}
