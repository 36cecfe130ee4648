//! What another process has used, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The unit of `utime` and `stime`. It has been this on Linux, whatever the timer's rate.
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// How often the kernel looks whether a process is in user space: mostly 250 times a second.
const SAMPLE: Duration = Duration::from_millis(4);

/// CPU time of a process, all its threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// From the scheduler, to the nanosecond.
    exact: Duration,
    /// In user space; sampled by the kernel's timer.
    user: Duration,
    /// In the kernel; sampled.
    system: Duration,
}

impl Cpu {
    /// So far.
    pub(crate) fn of(process: u32) -> Result<Cpu> {
        let mut exact = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu_ns = schedstat.split(' ').next().unwrap_or_default();
            exact += Duration::from_nanos(on_cpu_ns.parse()?);
        }
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

    /// Both together.
    pub(crate) fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            exact: self.exact + other.exact,
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }

    /// Shared out over so many. Microseconds.
    pub(crate) fn us_per(self, count: u64) -> f64 {
        self.exact.as_secs_f64() * 1e6 / count as f64
    }

    /// The part in user space shared out over so many, and one standard error of the sampling. Microseconds.
    pub(crate) fn user_us_per(self, count: u64) -> (f64, f64) {
        let sampled = (self.user + self.system).as_secs_f64();
        if sampled == 0.0 {
            return (0.0, self.us_per(count));
        }
        let share = |user_s: f64| self.us_per(count) * user_s / sampled;
        let user_s = self.user.as_secs_f64();
        let samples = (user_s / SAMPLE.as_secs_f64()).max(1.0);
        (share(user_s), share(SAMPLE.as_secs_f64() * samples.sqrt()))
    }
}

/// Resident memory of a process. Bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All of it: `VmRSS`.
    pub(crate) resident: u64,
    /// Without mapped files: `RssAnon`.
    pub(crate) anonymous: u64,
}

impl Memory {
    /// Now.
    pub(crate) fn of(process: u32) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
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

/// Raises the limit of open files as far as the system allows.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(())
}
