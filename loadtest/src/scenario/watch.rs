//! What is looked at while a measurement goes on: rates over time, CPU and memory of the server and of this program, how
//! busy the machine is. And the verdict on all of it.

use std::collections::HashMap;
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
const FULL: f64 = 0.08;

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
    pub(crate) busiest_thread: f64,
    pub(crate) machine_idle: f64,
    pub(crate) series: Vec<Series>,
}

impl Sight {
    fn now(server: Option<u32>) -> Result<Sight> {
        let own = std::process::id();
        Ok(Sight {
            server: server.map(look).transpose()?,
            own: Cpu::of(own)?,
            threads: threads(own)?,
            machine: Machine::now(),
        })
    }
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

    /// Ends. Of a server whose process is gone nothing is known.
    ///
    /// # Errors
    /// This program cannot look at itself.
    pub(crate) fn end(self) -> Result<Seen> {
        let after = Sight::now(self.server).or_else(|_| Sight::now(None))?;
        let lasted = self.began.elapsed();
        let spent = |(thread, cpu): (&String, &Duration)| {
            cpu.saturating_sub(self.before.threads.get(thread).copied().unwrap_or_default())
        };
        let busiest = after.threads.iter().map(spent).max().unwrap_or_default();
        Ok(Seen {
            server: after
                .server
                .zip(self.before.server)
                .map(|((after, _), (before, _))| after.since(before)),
            memory: after.server.map(|(_, memory)| memory),
            own: after.own.since(self.before.own),
            busiest_thread: busiest.as_secs_f64() / lasted.as_secs_f64(),
            machine_idle: after.machine.idle_since(self.before.machine),
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

impl Seen {
    /// Whose limit the result is. `kept` says whether all that was offered was delivered; a workload that offers as much
    /// as it can is never kept.
    pub(crate) fn generator(&self, kept: bool, is_same_machine: bool) -> Generator {
        Generator {
            cpu_s: self.own.exact.as_secs_f64(),
            busiest_thread: self.busiest_thread,
            machine_idle: self.machine_idle,
            verdict: judge(kept, self.busiest_thread, self.machine_idle, is_same_machine),
        }
    }
}

/// A full machine comes before a busy thread: where both share it, each of them keeps the other from working.
fn judge(kept: bool, busiest_thread: f64, machine_idle: f64, is_same_machine: bool) -> Verdict {
    match (kept, busiest_thread >= BUSY, machine_idle <= FULL) {
        (true, ..) => Verdict::Kept,
        (false, _, true) if is_same_machine => Verdict::Shared,
        (false, true, _) | (false, _, true) => Verdict::Generator,
        (false, false, false) => Verdict::Server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_named_only_when_nothing_else_was_the_limit() {
        for (kept, busiest_thread, machine_idle, is_same_machine, verdict) in [
            (true, 0.99, 0.01, true, Verdict::Kept),
            (false, 0.95, 0.40, true, Verdict::Generator),
            (false, 0.95, 0.02, true, Verdict::Shared),
            (false, 0.50, 0.02, true, Verdict::Shared),
            (false, 0.50, 0.02, false, Verdict::Generator),
            (false, 0.95, 0.50, false, Verdict::Generator),
            (false, 0.50, 0.50, false, Verdict::Server),
            (false, 0.50, 0.30, true, Verdict::Server),
        ] {
            assert_eq!(
                judge(kept, busiest_thread, machine_idle, is_same_machine),
                verdict
            );
        }
    }
}
