//! What is looked at while a measurement goes on: rates over time, CPU and memory of the server and of this program, how
//! busy the machine is. And the verdict on all of it.

use std::collections::HashMap;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::{Cpu, Machine, Memory, threads};
use crate::result::{Generator, Series, Unit, Verdict};
use crate::swarm::board::Totals;

/// How often rates are taken.
const RATES_EVERY: Duration = Duration::from_millis(100);
/// How often processes are looked at: each look costs a few system calls.
const PROCESSES_EVERY: Duration = Duration::from_millis(500);

/// A thread that works so much of the time has no time left for more.
const BUSY: f64 = 0.9;
/// Below that share of idle time a machine is full.
const FULL: f64 = 0.1;
/// A server that uses so much of what it could use is full: one of its threads, or all cores.
const SERVER_FULL: f64 = 0.85;

/// Looks at a measurement while it goes on.
#[derive(Debug)]
pub(crate) struct Watch {
    server: Option<u32>,
    began: Instant,
    before: Sight,
    rates: Vec<Rates>,
    processes: Vec<Processes>,
}

/// What is read at the beginning and at the end.
#[derive(Debug)]
struct Sight {
    server: Option<(Cpu, Memory)>,
    own: Cpu,
    threads: HashMap<String, Duration>,
    server_threads: HashMap<String, Duration>,
    machine: Machine,
}

#[derive(Clone, Copy, Debug)]
struct Rates {
    at: Instant,
    delivered: u64,
    published: u64,
}

#[derive(Clone, Copy, Debug)]
struct Processes {
    at: Instant,
    own: Cpu,
    server: Option<(Cpu, Memory)>,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What the server has used since the beginning, if its process is known.
    pub(crate) server: Option<Cpu>,
    /// Its memory at the end.
    pub(crate) memory: Option<Memory>,
    pub(crate) own: Cpu,
    loaded: Loaded,
    pub(crate) series: Vec<Series>,
}

/// How busy everybody was while there was load. Shares of the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    busiest_thread: f64,
    machine_idle: f64,
    /// Of what it could have used.
    server_busy: Option<f64>,
}

impl Sight {
    fn now(server: Option<u32>) -> Result<Sight> {
        let own = std::process::id();
        Ok(Sight {
            server: server.map(look).transpose()?,
            own: Cpu::of(own)?,
            threads: threads(own)?,
            server_threads: server.map(threads).transpose()?.unwrap_or_default(),
            machine: Machine::now(),
        })
    }

    /// Of what a server could have used in that time since: of one thread, if its work hangs on one, or of all cores.
    fn server_busy(&self, before: &Sight, lasted: Duration) -> Option<f64> {
        let ((after_cpu, _), (before_cpu, _)) = self.server.zip(before.server)?;
        let cores = available_parallelism().map_or(1, usize::from) as f64;
        let all = after_cpu.since(before_cpu).exact.as_secs_f64() / (lasted.as_secs_f64() * cores);
        Some(all.max(busiest(&self.server_threads, &before.server_threads, lasted)))
    }
}

/// The share of that time that the busiest thread worked.
fn busiest(after: &HashMap<String, Duration>, before: &HashMap<String, Duration>, lasted: Duration) -> f64 {
    let spent = |(thread, cpu): (&String, &Duration)| {
        cpu.saturating_sub(before.get(thread).copied().unwrap_or_default())
    };
    let most = after.iter().map(spent).max().unwrap_or_default();
    most.as_secs_f64() / lasted.as_secs_f64().max(1e-9)
}

fn look(process: u32) -> Result<(Cpu, Memory)> {
    Ok((Cpu::of(process)?, Memory::of(process)?))
}

impl Watch {
    /// Begins. The server is looked at if its process is known.
    ///
    /// # Errors
    /// There is no such process.
    pub(crate) fn begin(server: Option<u32>) -> Result<Watch> {
        let before = Sight::now(server)?;
        let began = Instant::now();
        let rates = vec![Rates {
            at: began,
            delivered: 0,
            published: 0,
        }];
        let processes = vec![Processes {
            at: began,
            own: before.own,
            server: before.server,
        }];
        Ok(Watch {
            server,
            began,
            before,
            rates,
            processes,
        })
    }

    /// Looks, if it is time to.
    pub(crate) fn tick(&mut self, now: Instant, totals: impl FnOnce() -> Totals, published: u64) {
        if self.rates.last().is_none_or(|last| now - last.at < RATES_EVERY) {
            return;
        }
        self.rates.push(Rates {
            at: now,
            delivered: totals().delivered,
            published,
        });
        if self
            .processes
            .last()
            .is_some_and(|last| now - last.at >= PROCESSES_EVERY)
            && let Ok(own) = Cpu::of(std::process::id())
        {
            // A server that has ended is told of by its sockets.
            let server = self.server.and_then(|server| look(server).ok());
            self.processes.push(Processes { at: now, own, server });
        }
    }

    /// How it was until now, when no more load comes: what follows is waiting, and tells nothing of limits.
    ///
    /// # Errors
    /// This program cannot look at itself.
    pub(crate) fn load_stops(&self) -> Result<Loaded> {
        let lasted = self.began.elapsed();
        let now = self.sight()?;
        Ok(Loaded {
            busiest_thread: busiest(&now.threads, &self.before.threads, lasted),
            machine_idle: now.machine.idle_since(self.before.machine),
            server_busy: now.server_busy(&self.before, lasted),
        })
    }

    fn sight(&self) -> Result<Sight> {
        Sight::now(self.server).or_else(|_| Sight::now(None))
    }

    /// Ends; the verdict will be on what was while there was load. Of a server whose process is gone nothing is known.
    ///
    /// # Errors
    /// This program cannot look at itself.
    pub(crate) fn end(self, loaded: Loaded) -> Result<Seen> {
        let after = self.sight()?;
        Ok(Seen {
            server: after
                .server
                .zip(self.before.server)
                .map(|((after, _), (before, _))| after.since(before)),
            memory: after.server.map(|(_, memory)| memory),
            own: after.own.since(self.before.own),
            loaded,
            series: self.series(),
        })
    }

    fn series(&self) -> Vec<Series> {
        let s = |at: Instant| (at - self.began).as_secs_f64();
        let rate = |count: fn(&Rates) -> u64| -> Vec<(f64, f64)> {
            let of_two = |two: &[Rates]| {
                let per_s = (count(&two[1]) - count(&two[0])) as f64 / (two[1].at - two[0].at).as_secs_f64();
                (s(two[1].at), per_s)
            };
            self.rates.windows(2).map(of_two).collect()
        };
        let cores = |cpu: fn(&Processes) -> Option<Cpu>| -> Vec<(f64, f64)> {
            let of_two = |two: &[Processes]| {
                let spent = cpu(&two[1])?.since(cpu(&two[0])?);
                Some((
                    s(two[1].at),
                    spent.exact.as_secs_f64() / (two[1].at - two[0].at).as_secs_f64(),
                ))
            };
            self.processes.windows(2).filter_map(of_two).collect()
        };
        let memory = self
            .processes
            .iter()
            .filter_map(|one| Some((s(one.at), one.server?.1.resident as f64)));
        let all = [
            (
                "delivered",
                "Delivered",
                Unit::PerSecond,
                rate(|rates| rates.delivered),
            ),
            (
                "published",
                "Published",
                Unit::PerSecond,
                rate(|rates| rates.published),
            ),
            (
                "server_cpu",
                "Server CPU",
                Unit::Share,
                cores(|one| Some(one.server?.0)),
            ),
            (
                "own_cpu",
                "This program's CPU",
                Unit::Share,
                cores(|one| Some(one.own)),
            ),
            ("server_memory", "Server memory", Unit::Bytes, memory.collect()),
        ];
        let series = |(key, title, unit, points): (&str, &str, Unit, Vec<(f64, f64)>)| Series {
            key: key.to_owned(),
            title: title.to_owned(),
            unit,
            points,
        };
        all.into_iter()
            .filter(|(.., points)| !points.is_empty())
            .map(series)
            .collect()
    }
}

/// What was offered, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// An open loop, and all of it was delivered.
    Kept,
    /// An open loop that was not kept up with.
    Missed,
    /// A closed loop: the next thing is offered when one before it is done.
    Closed,
}

impl Offer {
    /// An open loop's.
    pub(crate) fn open(is_kept: bool) -> Offer {
        if is_kept { Offer::Kept } else { Offer::Missed }
    }
}

impl Seen {
    /// Whose limit the result is.
    pub(crate) fn generator(&self, offer: Offer, is_same_machine: bool) -> Generator {
        Generator {
            cpu_s: self.own.exact.as_secs_f64(),
            busiest_thread: self.loaded.busiest_thread,
            machine_idle: self.loaded.machine_idle,
            server_busy: self.loaded.server_busy,
            verdict: judge(offer, self.loaded, is_same_machine),
        }
    }
}

/// A full machine comes before a busy thread: where both share it, each of them keeps the other from working. The server
/// is named only on evidence: it was full, or did not keep up with a load that did not wait for it.
fn judge(offer: Offer, loaded: Loaded, is_same_machine: bool) -> Verdict {
    let Loaded {
        busiest_thread,
        machine_idle,
        server_busy,
    } = loaded;
    let is_full = machine_idle <= FULL;
    match offer {
        Offer::Kept => Verdict::Kept,
        _ if is_full && is_same_machine => Verdict::Shared,
        _ if is_full || busiest_thread >= BUSY => Verdict::Generator,
        Offer::Missed => Verdict::Server,
        Offer::Closed if server_busy.is_some_and(|busy| busy >= SERVER_FULL) => Verdict::Server,
        Offer::Closed => Verdict::Paced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_named_only_on_evidence() {
        use Offer::{Closed, Kept, Missed};
        for (offer, busiest_thread, machine_idle, server_busy, is_same_machine, verdict) in [
            (Kept, 0.99, 0.01, Some(0.99), true, Verdict::Kept),
            (Closed, 0.95, 0.40, Some(0.99), true, Verdict::Generator),
            (Missed, 0.95, 0.40, None, true, Verdict::Generator),
            (Closed, 0.95, 0.02, Some(0.99), true, Verdict::Shared),
            (Missed, 0.50, 0.02, None, true, Verdict::Shared),
            (Closed, 0.50, 0.02, None, false, Verdict::Generator),
            (Closed, 0.95, 0.50, None, false, Verdict::Generator),
            (Missed, 0.50, 0.50, None, false, Verdict::Server),
            (Missed, 0.50, 0.30, Some(0.40), true, Verdict::Server),
            (Closed, 0.50, 0.30, Some(0.90), true, Verdict::Server),
            (Closed, 0.50, 0.30, Some(0.60), true, Verdict::Paced),
            (Closed, 0.50, 0.50, None, false, Verdict::Paced),
        ] {
            let loaded = Loaded {
                busiest_thread,
                machine_idle,
                server_busy,
            };
            assert_eq!(judge(offer, loaded, is_same_machine), verdict);
        }
    }

    #[test]
    fn waiting_after_the_load_does_not_dilute_it() {
        let watch = Watch::begin(Some(std::process::id())).expect("this process is there");
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let loaded = watch.load_stops().expect("this process is there");
        std::thread::sleep(Duration::from_millis(60));
        let seen = watch.end(loaded).expect("this process is there");
        let generator = seen.generator(Offer::Closed, true);
        assert!((generator.busiest_thread - loaded.busiest_thread).abs() < 1e-9);
        assert!(generator.server_busy.is_some_and(|server| server > 0.0));
    }
}
