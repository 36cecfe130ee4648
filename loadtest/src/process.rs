//! What processes and the machine have used, from `/proc`. On systems without it nothing is known.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The unit of `utime` and `stime`. It has been this on Linux, whatever the timer's rate.
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// How often the kernel looks whether a process is in user space: mostly 250 times a second.
const SAMPLE: Duration = Duration::from_millis(4);
/// For what is open besides sockets of clients.
const SPARE_DESCRIPTORS: u64 = 200;

/// CPU time of a process, all its threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// From the scheduler, to the nanosecond.
    pub(crate) exact: Duration,
    /// In user space; sampled by the kernel's timer.
    user: Duration,
    /// In the kernel; sampled.
    system: Duration,
}

impl Cpu {
    /// So far.
    ///
    /// # Errors
    /// There is no such process, or it is another user's.
    pub(crate) fn of(process: u32) -> Result<Cpu> {
        let exact = threads(process)?.into_values().sum();
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name before it, in parentheses, may hold anything. Fields 14 and 15 count from the process id.
        let (_, fields) = stat
            .rsplit_once(')')
            .context("/proc/PID/stat names its process")?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || -> Result<Duration> {
            let ticks = fields.next().context("/proc/PID/stat holds CPU times")?;
            Ok(CLOCK_TICK * ticks.parse()?)
        };
        Ok(Cpu {
            exact,
            user: ticks()?,
            system: ticks()?,
        })
    }

    /// Spent since.
    pub(crate) fn since(self, before: Cpu) -> Cpu {
        Cpu {
            exact: self.exact.saturating_sub(before.exact),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }

    /// The share of it in user space, and one standard error of the sampling; nothing if no sample was taken.
    pub(crate) fn user_share(self) -> Option<(f64, f64)> {
        let sampled_s = (self.user + self.system).as_secs_f64();
        let user_s = self.user.as_secs_f64();
        let samples = (user_s / SAMPLE.as_secs_f64()).max(1.0);
        (sampled_s > 0.0).then(|| {
            (
                user_s / sampled_s,
                SAMPLE.as_secs_f64() * samples.sqrt() / sampled_s,
            )
        })
    }
}

/// CPU time of each thread of a process.
///
/// # Errors
/// There is no such process, or it is another user's.
pub(crate) fn threads(process: u32) -> Result<HashMap<String, Duration>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))
        .with_context(|| format!("there is no process {process} to look at (--pid)"))?;
    let mut threads = HashMap::new();
    for task in tasks {
        let task = task?;
        // A thread may have ended since it was listed.
        let Ok(schedstat) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        let on_cpu_ns = schedstat.split(' ').next().unwrap_or_default();
        let thread = task.file_name().to_string_lossy().into_owned();
        threads.insert(thread, Duration::from_nanos(on_cpu_ns.parse()?));
    }
    Ok(threads)
}

/// Resident memory of a process. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All of it: `VmRSS`.
    pub(crate) resident: u64,
    /// Without mapped files: `RssAnon`.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// Now.
    ///
    /// # Errors
    /// There is no such process.
    pub(crate) fn of(process: u32) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))
            .with_context(|| format!("there is no process {process} to look at (--pid)"))?;
        let bytes = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
            Ok(kib
                .with_context(|| format!("/proc/PID/status holds {name}"))?
                .parse::<u64>()?
                * 1024)
        };
        Ok(Memory {
            resident: bytes("VmRSS")?,
            anonymous: bytes("RssAnon")?,
        })
    }
}

/// What all cores of the machine have done so far, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    idle: u64,
    all: u64,
}

impl Machine {
    /// So far; all zero where it is not known.
    pub(crate) fn now() -> Machine {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Machine::read(&stat)
    }

    fn read(stat: &str) -> Machine {
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guests are counted in the first two.
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .map_while(|field| field.parse().ok())
            .collect();
        let idle = ticks.iter().skip(3).take(2).sum();
        Machine {
            idle,
            all: ticks.iter().sum(),
        }
    }

    /// The share of the time since in which cores were idle; one where it is not known.
    pub(crate) fn idle_since(self, before: Machine) -> f64 {
        let all = self.all.saturating_sub(before.all);
        if all == 0 {
            return 1.0;
        }
        self.idle.saturating_sub(before.idle) as f64 / all as f64
    }
}

/// Raises the limit of open files as far as the system allows.
///
/// # Errors
/// That is not enough for so many clients: in words that say what to do.
pub(crate) fn raise_descriptor_limit(clients: u64) -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    let needed = clients + SPARE_DESCRIPTORS;
    ensure!(
        maximum.is_none_or(|maximum| maximum >= needed),
        "{clients} clients need {needed} descriptors, and this process may have {}: raise the hard limit (as root: \
         ulimit -n {needed}; for a service: LimitNOFILE={needed}; beyond fs.nr_open: sysctl -w fs.nr_open={needed})",
        maximum.unwrap_or_default()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idleness_is_a_share_of_what_all_cores_did() {
        let before = Machine::read("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 …");
        let after = Machine::read("cpu  150 0 150 760 140 0 0 0 50 0\ncpu0 …");
        assert!((after.idle_since(before) - 0.5).abs() < 1e-9);
        assert!((after.idle_since(after) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_is_known_and_none_is_told_of() {
        let own = std::process::id();
        assert!(Cpu::of(own).is_ok_and(|cpu| cpu.exact > Duration::ZERO));
        assert!(Memory::of(own).is_ok_and(|memory| memory.resident >= memory.anonymous));
        assert!(Cpu::of(u32::MAX).is_err_and(|error| error.to_string().contains("--pid")));
    }
}
