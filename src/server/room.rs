//! What the limit of open files bears: how descriptors are shared out between the process, what comes before HTTP, HTTP and
//! sockets. What is kept in reserve for API calls, operators and brokers is never given to sockets. Nothing is counted here.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

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

    pub(super) fn with(sockets: usize, guests: usize, porch: usize) -> Room {
        Room {
            sockets,
            guests,
            http: (guests / 2).min(KIND_MAX),
            refused: (guests / 8 * 3).min(KIND_MAX),
            porch,
        }
    }

    /// The same with what the configuration wishes for, as far as it can be had; and what cannot.
    pub(super) fn wished(config: &Config, files: usize) -> (Room, Vec<String>) {
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
}
