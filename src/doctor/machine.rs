//! What the machine and its limits bear: open files, memory, the clock.

use std::num::NonZero;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, geteuid, getrlimit};

use crate::adapter::config::Driver;
use crate::checkup::Report;
use crate::config::Config;
use crate::server::memory::Memory;
use crate::server::room::Room;

/// Fewer sockets than this are hardly what a server is started for.
const SOCKETS_MIN: usize = 4096;
/// What a node takes before its first socket, generously. Bytes.
const BASE_BYTES: u64 = 64 * 1024 * 1024;
/// This server is younger than any right clock: the start of 2026, in seconds.
const CLOCK_MIN_S: u64 = 1_767_225_600;

pub(super) fn examine(config: &Config, report: &mut Report<'_>) {
    whose(report);
    files(config, report);
    memory(config, Memory::read().ok(), report);
    clock(SystemTime::now(), report);
}

/// What is found here holds for whoever looks; a service has a user and limits of its own.
fn whose(report: &mut Report<'_>) {
    let user = geteuid();
    let root = match user.is_root() {
        true => ", and root may read files that it may not",
        false => "",
    };
    report.note(format!(
        "the limits and rights are those of this shell, of the user {}: a service has its own{root}; look as the user that it \
         runs as, and at `process_max_fds` and `sockets_max` among its metrics while it runs",
        user.as_raw()
    ));
}

/// Each socket is an open file. The server raises the soft limit to the hard one by itself.
fn files(config: &Config, report: &mut Report<'_>) {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    judge_files(config, usize::try_from(limit).unwrap_or(usize::MAX), report);
}

fn judge_files(config: &Config, files: usize, report: &mut Report<'_>) {
    let (derived, bears) = (Room::of(files, config).sockets, Room::sockets_max(files, config));
    let advice = |wanted: usize| {
        format!(
            "raise the hard limit to {} or more: `LimitNOFILE=` of a systemd unit, `--ulimit nofile=` of a \
             container, `ulimit -Hn` of a shell",
            Room::files_for(wanted, config)
        )
    };
    match config.server.sockets_max {
        0 if derived < SOCKETS_MIN => report.warning(
            format!("the limit of open files ({files}) bears {derived} sockets"),
            advice(100_000),
        ),
        0 => report.good(format!(
            "the limit of open files ({files}) bears {derived} sockets"
        )),
        wanted if wanted > bears => report.failure(
            format!("server.sockets_max is {wanted}, but the limit of open files ({files}) bears {bears}"),
            advice(wanted),
        ),
        wanted => report.good(format!(
            "the limit of open files ({files}) bears the {wanted} sockets of server.sockets_max"
        )),
    }
}

/// Everything that may fill up does so at once on a bad day.
fn memory(config: &Config, memory: Option<Memory>, report: &mut Report<'_>) {
    let Some(memory) = memory else {
        return report.note("how much memory there is cannot be read on this system");
    };
    let server = &config.server;
    let shards = match server.shards {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        shards => shards,
    };
    let inboxes = format!("{shards} × server.inbox_bytes_max");
    let mut bounds = vec![
        (
            "server.outbox_total_bytes_max",
            server.outbox_total_bytes_max as u64,
        ),
        (
            &*inboxes,
            (shards as u64).saturating_mul(server.inbox_bytes_max as u64),
        ),
    ];
    if config.adapter.driver != Driver::None {
        bounds.push(("adapter.ring_bytes_max", config.adapter.ring_bytes_max as u64));
        bounds.push(("adapter.inbox_bytes_max", config.adapter.inbox_bytes_max as u64));
    }
    let full = bounds
        .iter()
        .fold(BASE_BYTES, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let names: Vec<_> = bounds.iter().map(|(name, _)| *name).collect();
    let base = mebibytes(BASE_BYTES);
    let (total, names) = (memory.total, format!("{base} + {}", names.join(" + ")));
    if full > total {
        report.warning(
            format!(
                "{} of memory; a node with queues filled to their bounds ({names}) takes {}, sockets not counted",
                mebibytes(total),
                mebibytes(full)
            ),
            "raise the memory limit, or lower these settings",
        );
    } else {
        report.good(format!(
            "{} of memory; a node with queues filled to their bounds ({names}) takes {}, sockets not counted",
            mebibytes(total),
            mebibytes(full)
        ));
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

/// Calls of the HTTP API are signed with the time: ten minutes off, and all of them are refused.
fn clock(now: SystemTime, report: &mut Report<'_>) {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if seconds < CLOCK_MIN_S {
        report.failure(
            "the clock is years behind: API calls are signed with the time, and would all be refused",
            "set it, and keep it right with NTP (`timedatectl set-ntp true`)",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(examine: impl FnOnce(&mut Report<'_>)) -> String {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        examine(&mut report);
        drop(report);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn files_bear_sockets_less_what_is_kept_in_reserve() {
        for (sockets_max, files, word, part) in [
            (0, 1_048_576, "ok", "bears 1039872 sockets"),
            (0, 1024, "warning", "bears 480 sockets"),
            (10_000, 10_512, "ok", "10000 sockets"),
            (10_000, 10_511, "FAILURE", "to 10512 or more"),
            (10_000, 100, "FAILURE", "bears 38"),
        ] {
            let mut config = Config::default();
            config.server.sockets_max = sockets_max;
            let told = told(|report| judge_files(&config, files, report));
            assert!(
                told.trim_start().starts_with(word) && told.contains(part),
                "{sockets_max} {files}: {told}"
            );
        }
    }

    #[test]
    fn full_queues_have_to_fit_into_the_memory() {
        let memory_of = |total| Some(Memory { used: 0, total });
        let mut config = Config::default();
        config.server.outbox_total_bytes_max = 100 << 20;
        (config.server.shards, config.server.inbox_bytes_max) = (2, 10 << 20);
        config.adapter.ring_bytes_max = 100 << 20;
        config.adapter.inbox_bytes_max = 100 << 20;
        let alone = told(|report| memory(&config, memory_of(200 << 20), report));
        let sum = "(64 MiB + server.outbox_total_bytes_max + 2 × server.inbox_bytes_max) takes 184 MiB";
        assert!(alone.contains("ok ") && alone.contains(sum), "{alone}");
        config.adapter.driver = Driver::Redis;
        let joined = told(|report| memory(&config, memory_of(200 << 20), report));
        assert!(
            joined.contains("warning") && joined.contains("takes 384 MiB"),
            "{joined}"
        );
    }

    #[test]
    fn a_clock_in_the_past_is_a_failure() {
        assert!(told(|report| clock(UNIX_EPOCH + Duration::from_secs(1), report)).contains("FAILURE"));
        assert_eq!(told(|report| clock(SystemTime::now(), report)), "");
    }
}
