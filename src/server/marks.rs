//! How much a node takes in. Above a mark only newcomers are refused; nobody who is there already loses anything, and
//! what is kept in reserve for API calls, operators and brokers is never given to sockets.
//!
//! A mark that was passed counts until there is some room below it again, so that nothing flaps. Whether it is passed is
//! asked where somebody wants in; what is told of it (probes, log) is told by who looks once a second.
//!
//! Not here: how a newcomer is refused (`server/refusals.rs`); where memory is read (`server/usage.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::health::{Health, Trouble};
use super::http::Gate;
use super::usage::{Memory, MemoryWatch};
use crate::config::Config;
use crate::metrics::RoomSnapshot;
use crate::node::Node;

/// How often it is looked whether there is room for more, and how the cluster and the store are. Newcomers take up to
/// 100 MB in that time; more often would be felt by a node that is idle.
const LOOKS: Duration = Duration::from_secs(1);
/// Below this share of a mark there is room again. Percent.
const REOPENS_PERCENT: u64 = 95;
/// Descriptors for what the process has beside connections of clients and deliveries of webhooks: operators, brokers,
/// the store, files.
const PROCESS_FILES: usize = 128;
/// Descriptors for connections that are no sockets, at least: API calls above all.
const GUESTS_MIN: usize = 128;
/// What is left, they get a sixteenth of besides, but no more than this.
const GUESTS_MORE_MAX: usize = 8192;
/// Places on the porch, at least, where there is one and so many are wished for.
const PORCH_MIN: usize = 16;
/// Of a kind of guests, where nothing else is wished for: each of them takes memory too.
const KIND_MAX: usize = 8192;

/// How the descriptors of the process are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Sockets.
    pub(crate) sockets: usize,
    /// Connections that are no sockets, together: HTTP, newcomers, and those that are refused.
    pub(crate) guests: usize,
    /// Those of them that speak HTTP.
    pub(crate) http: usize,
    /// Those of them that have been refused and wait to be told.
    pub(crate) refused: usize,
    /// Connections on the porch, where there is one: they are not on a shard yet, and take nothing of the others.
    pub(crate) porch: usize,
}

impl Room {
    /// What this many open files bear, where nothing else is wished for than what takes descriptors besides.
    pub(crate) fn of(files: usize, config: &Config) -> Room {
        let (guests, left) = Room::shares(files, config);
        let porch = porch_of(left, config);
        let left = left - porch;
        let more = (left / 16).min(GUESTS_MORE_MAX);
        Room::with(left - more, guests + more, porch)
    }

    /// The least limit of open files that bears so many sockets.
    pub(crate) fn files_for(sockets: usize, config: &Config) -> usize {
        // So that a sixteenth of them all are the porch's.
        let porch = match config.has_porch() {
            true => sockets
                .div_ceil(15)
                .max(PORCH_MIN)
                .min(config.server.porch_connections_max),
            false => 0,
        };
        let others = PROCESS_FILES + GUESTS_MIN + porch;
        sockets
            .saturating_add(others)
            .saturating_add(config.webhooks.connections_max)
    }

    /// The most sockets that may be wished for: guests keep what they need at least.
    pub(crate) fn sockets_max(files: usize, config: &Config) -> usize {
        let (_, left) = Room::shares(files, config);
        left - porch_of(left, config)
    }

    /// Of so many files, what guests need at least, and what is left beside that and the process.
    fn shares(files: usize, config: &Config) -> (usize, usize) {
        let process = (PROCESS_FILES + config.webhooks.connections_max).min(files / 2);
        let guests = GUESTS_MIN.min(files / 8);
        (guests, files - process - guests)
    }

    fn with(sockets: usize, guests: usize, porch: usize) -> Room {
        Room {
            sockets,
            guests,
            http: (guests / 2).min(KIND_MAX),
            refused: (guests / 8 * 3).min(KIND_MAX),
            porch,
        }
    }

    /// The same with what the configuration wishes for, as far as it can be had; and what cannot.
    fn wished(config: &Config, files: usize) -> (Room, Vec<String>) {
        let (derived, bears) = (Room::of(files, config), Room::sockets_max(files, config));
        let all = derived.sockets + derived.guests;
        let mut troubles = Vec::new();
        let mut within = |setting: &str, wished: usize, derived: usize, bears: usize| {
            if wished > bears {
                troubles.push(format!(
                    "{setting} is {wished}, but the limit of open files ({files}) bears {bears}: raise it (ulimit -n)"
                ));
            }
            match wished {
                0 => derived,
                wished => wished.min(bears),
            }
        };
        let sockets = within(
            "server.sockets_max",
            config.server.sockets_max,
            derived.sockets,
            bears,
        );
        let room = Room::with(sockets, all - sockets, derived.porch);
        let http = within(
            "server.http_connections_max",
            config.server.http_connections_max,
            room.http,
            room.guests,
        );
        (Room { http, ..room }, troubles)
    }

    /// Connections of all kinds on the shards. Beyond them nobody is accepted: the descriptors that are left are for the process.
    pub(crate) fn connections(self) -> usize {
        self.sockets.saturating_add(self.guests)
    }

    /// Whether those that are no sockets come near to using up what there is for them: then nobody is waited for long.
    pub(crate) fn is_crowded(self, connections: usize, sockets: usize) -> bool {
        connections.saturating_sub(sockets) > self.guests / 4 * 3
    }
}

/// The porch's part of what is left beside the process and what guests need.
fn porch_of(left: usize, config: &Config) -> usize {
    let wished = config.server.porch_connections_max;
    match config.has_porch() {
        true => wished.min((left / 16).max(PORCH_MIN)).min(left / 2),
        false => 0,
    }
}

/// Raises the limit of open files as far as the system allows, and tells what it is then.
pub(crate) fn files_max() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if maximum.is_some() {
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files).unwrap_or(usize::MAX)
}

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
    fn descriptors_are_shared_out_and_none_twice() {
        // Limits that are met with: of a shell, of a unit of systemd, of containers, none at all.
        for (files, sockets, guests) in [
            (256, 90, 38),
            (1_024, 480, 160),
            (4_096, 3_360, 352),
            (65_536, 60_960, 4_192),
            (1_048_576, 1_039_872, 8_320),
        ] {
            let room = Room::of(files, &Config::default());
            assert_eq!((room.sockets, room.guests), (sockets, guests), "{files}");
            assert!(room.http + room.refused <= room.guests, "{files}");
            assert!(room.connections() <= files - (files / 2).min(384), "{files}");
        }
        let room = Room::of(usize::MAX, &Config::default());
        assert!(room.sockets > 1 << 40 && room.connections() < usize::MAX);
        let mut config = with_porch();
        config.webhooks.connections_max = 1_000;
        for files in 0..2_048 {
            let room = Room::of(files, &config);
            assert!(room.connections() + room.porch <= files);
        }
    }

    fn with_porch() -> Config {
        let mut config = Config::default();
        config.tls.cert_file = Some("cert.pem".into());
        config
    }

    #[test]
    fn a_porch_has_its_own_share() {
        for (files, sockets, guests, porch) in [
            (256, 75, 37, 16),
            (1_024, 450, 158, 32),
            (65_536, 57_150, 3_938, 4_064),
            (1_048_576, 1_035_776, 8_320, 4_096),
        ] {
            let room = Room::of(files, &with_porch());
            let shares = (room.sockets, room.guests, room.porch);
            assert_eq!(shares, (sockets, guests, porch), "{files}");
        }
        let mut few = with_porch();
        few.server.porch_connections_max = 100;
        assert_eq!(Room::of(65_536, &few).porch, 100);
        for config in [few, with_porch(), Config::default()] {
            for sockets in [1_000, 3_000, 10_000, 100_000] {
                let files = Room::files_for(sockets, &config);
                let bears = Room::sockets_max(files, &config);
                assert!((sockets..sockets + 2).contains(&bears), "{files} bear {bears}");
            }
        }
    }

    #[test]
    fn what_is_wished_for_is_had_as_far_as_it_goes() {
        let wished = |sockets_max, http_connections_max, files| {
            let mut config = Config::default();
            config.server.sockets_max = sockets_max;
            config.server.http_connections_max = http_connections_max;
            let (room, troubles) = Room::wished(&config, files);
            (room.sockets, room.guests, room.http, troubles.len())
        };
        assert_eq!(wished(0, 0, 65_536), (60_960, 4_192, 2_096, 0));
        assert_eq!(
            wished(1_000, 0, 65_536),
            (1_000, 64_152, 8_192, 0),
            "what sockets do not need is there for others"
        );
        assert_eq!(wished(65_024, 0, 65_536), (65_024, 128, 64, 0));
        assert_eq!(wished(65_025, 0, 65_536), (65_024, 128, 64, 1));
        assert_eq!(wished(0, 4_192, 65_536), (60_960, 4_192, 4_192, 0));
        assert_eq!(wished(0, 5_000, 65_536), (60_960, 4_192, 4_192, 1));
    }

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
