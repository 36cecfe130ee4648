//! The marks of a node, for sockets and for memory. Above one only newcomers are refused; nobody who is there already loses
//! anything.
//!
//! A mark that was passed counts until there is some room below it again, so that nothing flaps. Whether it is passed is
//! asked where somebody wants in; what is told of it (probes, log) is told by who looks once a second.
//!
//! Not here: how many sockets there is room for (`server/room.rs`); how a newcomer is refused (`server/refusals.rs`); where
//! memory is read (`server/memory.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::health::{Health, Trouble};
use super::http::Gate;
use super::memory::{Memory, MemoryWatch};
use super::room::{Room, files_max};
use crate::config::Config;
use crate::metrics::RoomSnapshot;
use crate::node::Node;

/// How often it is looked whether there is room for more, and how the cluster and the store are. Newcomers take up to
/// 100 MB in that time; more often would be felt by a node that is idle.
const LOOKS: Duration = Duration::from_secs(1);
/// Below this share of a mark there is room again. Percent.
const REOPENS_PERCENT: u64 = 95;

/// One mark, and whether it counts as passed.
#[derive(Debug, Default)]
struct Mark {
    is_passed: AtomicBool,
}

impl Mark {
    /// Whether this is too much. If several ask at the very mark, each may be told that there is room.
    fn look(&self, value: u64, mark: u64) -> bool {
        let was_passed = self.is_passed.load(Ordering::Relaxed);
        let is_passed = match was_passed {
            true => u128::from(value) * 100 >= u128::from(mark) * u128::from(REOPENS_PERCENT),
            false => value >= mark,
        };
        if is_passed != was_passed {
            self.is_passed.store(is_passed, Ordering::Relaxed);
        }
        is_passed
    }

    fn is_passed(&self) -> bool {
        self.is_passed.load(Ordering::Relaxed)
    }
}

/// The marks of this node.
#[derive(Debug)]
pub(super) struct Marks {
    /// Descriptors.
    pub(super) room: Room,
    memory_percent_max: u64,
    sockets: Mark,
    memory: Mark,
    /// As they were at the last look, for who shows them. Bytes.
    memory_used: AtomicU64,
    memory_total: AtomicU64,
}

impl Marks {
    /// As configured, and as the limit of open files allows, which is raised as far as the system lets it be.
    pub(super) fn new(config: &Config) -> Marks {
        let (room, troubles) = Room::wished(config, files_max());
        for trouble in troubles {
            tracing::warn!("{trouble}");
        }
        Marks::with(room, config.server.memory_percent_max)
    }

    fn with(room: Room, memory_percent_max: u8) -> Marks {
        Marks {
            room,
            memory_percent_max: memory_percent_max.into(),
            sockets: Mark::default(),
            memory: Mark::default(),
            memory_used: AtomicU64::new(0),
            memory_total: AtomicU64::new(0),
        }
    }

    /// What speaks against one more socket beside so many.
    pub(super) fn against_another(&self, sockets: usize) -> Option<Trouble> {
        if self.sockets.look(sockets as u64, self.room.sockets as u64) {
            return Some(Trouble::Sockets);
        }
        self.memory.is_passed().then_some(Trouble::Memory)
    }

    /// Whether any counts as passed, as of the last look: newcomers are likely to be refused.
    pub(super) fn is_passed(&self) -> bool {
        self.sockets.is_passed() || self.memory.is_passed()
    }

    /// What is used, and of how much; as of the last look.
    pub(super) fn memory(&self) -> Memory {
        Memory {
            used: self.memory_used.load(Ordering::Relaxed),
            total: self.memory_total.load(Ordering::Relaxed),
        }
    }

    /// Bytes above which no socket is taken in.
    pub(super) fn memory_mark(&self) -> u64 {
        let total = u128::from(self.memory().total);
        (total * u128::from(self.memory_percent_max) / 100) as u64
    }

    fn look_at_memory(&self, memory: Memory) {
        self.memory_used.store(memory.used, Ordering::Relaxed);
        self.memory_total.store(memory.total, Ordering::Relaxed);
        self.memory.look(memory.used, self.memory_mark());
    }
}

/// What is taken in, beside the marks.
pub(super) fn snapshot(gate: &Gate) -> RoomSnapshot {
    let (marks, inboxes) = (&gate.marks, gate.node.inboxes());
    let refused = gate.refused.iter().map(|count| count.load(Ordering::Relaxed));
    let Memory { used, total } = marks.memory();
    RoomSnapshot {
        connections: inboxes.connections() as u64,
        connections_max: marks.room.connections() as u64,
        sockets_max: marks.room.sockets as u64,
        http_connections: gate.callers.count() as u64,
        http_connections_max: marks.room.http as u64,
        refusals_waiting: refused.sum::<usize>() as u64,
        memory_used: used,
        memory_mark: marks.memory_mark(),
        memory_limit: total,
        cache_bytes: gate.node.cached_bytes() as u64,
    }
}

/// Keeps health told whether there is room for more sockets, and how the cluster is.
pub(super) async fn watch(node: Arc<Node>, health: Arc<Health>, marks: Arc<Marks>) {
    let mut looks = tokio::time::interval(LOOKS);
    let mut memory = MemoryWatch::default();
    loop {
        let now = looks.tick().await.into_std();
        health.show_cluster(node.cluster_snapshot().as_ref());
        health.show_store(node.apps().store_snapshot().as_ref());
        // Where it cannot be read, there is no mark.
        if let Ok(memory) = memory.look(now) {
            marks.look_at_memory(memory);
        }
        let sockets = node.inboxes().sockets();
        marks.against_another(sockets);
        for (trouble, mark) in [
            (Trouble::Sockets, &marks.sockets),
            (Trouble::Memory, &marks.memory),
        ] {
            let (holds, held) = (mark.is_passed(), health.state().has(trouble));
            health.set(trouble, holds);
            if holds == held {
                continue;
            }
            let Memory { used, total } = marks.memory();
            let sockets_max = marks.room.sockets;
            if holds {
                tracing::warn!(
                    ?trouble,
                    sockets,
                    sockets_max,
                    memory_used = used,
                    memory_total = total,
                    "no room for more: new sockets are refused with 4100, and nobody else loses anything"
                );
            } else {
                tracing::info!(
                    ?trouble,
                    sockets,
                    sockets_max,
                    memory_used = used,
                    memory_total = total,
                    "there is room for sockets again"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_was_passed_counts_until_there_is_some_room() {
        let mark = Mark::default();
        let steps = [
            (99, false),
            (100, true),
            (101, true),
            (96, true),
            (95, true),
            (94, false),
            (99, false),
            (100, true),
        ];
        for (step, (value, is_passed)) in steps.into_iter().enumerate() {
            assert_eq!(mark.look(value, 100), is_passed, "step {step}");
            assert_eq!(mark.is_passed(), is_passed);
        }
        // Few enough to count on one's fingers.
        for (few, values) in [(1, [true, false]), (2, [true, false])] {
            let mark = Mark::default();
            assert_eq!([mark.look(few, few), mark.look(few - 1, few)], values);
        }
        assert!(Mark::default().look(0, 0), "a mark of nothing is always passed");
    }

    #[test]
    fn memory_is_judged_by_its_share() {
        let marks = Marks::with(Room::with(10, 10, 0), 90);
        let against = |used| {
            marks.look_at_memory(Memory { used, total: 1_000 });
            marks.against_another(0)
        };
        assert_eq!(against(899), None);
        assert_eq!(against(900), Some(Trouble::Memory));
        assert_eq!(against(860), Some(Trouble::Memory));
        assert_eq!(against(854), None);
        assert_eq!(marks.memory_mark(), 900);
        assert_eq!(marks.against_another(10), Some(Trouble::Sockets));
        assert_eq!(marks.against_another(9), None, "ten of them are few");
    }
}
