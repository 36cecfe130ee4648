//! How much memory this process uses, of how much it may: for `GET /usage` and the memory mark.
//!
//! Used is the resident set; the whole is the smallest limit that the control groups (version 2 or 1) set
//! on the way up, or the machine's memory where none does. Read from `/proc` and `/sys`, so on Linux only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::param::page_size;
use serde_json::json;

/// How long the whole is taken to be what it was. Limits of running groups do change, but rarely.
const WHOLE_HOLDS: Duration = Duration::from_secs(60);
/// One line of numbers, which is read once a second; `/proc/self/status` tells the same in sixty.
const STATM: &str = "/proc/self/statm";
/// Seven numbers.
const STATM_BYTES_MAX: usize = 256;

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The resident set of this process.
    pub used: u64,
    /// What it may grow to before something is killed.
    pub total: u64,
}

impl Memory {
    /// Reads the present figures: a few small files, no disk.
    ///
    /// # Errors
    /// Where there is no `/proc`, or it does not say what it should.
    pub fn read() -> io::Result<Memory> {
        Memory::read_below(Path::new("/"))
    }

    fn read_below(root: &Path) -> io::Result<Memory> {
        let proc = root.join("proc");
        let used = resident(&proc.join("self/statm"))?;
        let machine = kilobytes(&fs::read_to_string(proc.join("meminfo"))?, "MemTotal:")?;
        let groups = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let limit = groups.lines().filter_map(|line| group_limit(root, line)).min();
        Ok(Memory {
            used,
            total: limit.map_or(machine, |limit| limit.min(machine)),
        })
    }

    /// What is left.
    pub fn free(self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// The used part in percent, 0 to 100.
    pub fn percent(self) -> f64 {
        match self.total {
            0 => 100.0,
            total => (self.used as f64 / total as f64 * 100.0).min(100.0),
        }
    }

    /// The body of `GET /usage`, as Soketi has it.
    pub fn to_json(self) -> String {
        json!({ "memory": {
            "free": self.free(),
            "used": self.used,
            "total": self.total,
            "percent": self.percent(),
        }})
        .to_string()
    }
}

/// Looks at the memory every second without a cost that anybody notices: one small file, nothing allocated.
#[derive(Debug, Default)]
pub struct MemoryWatch {
    /// The whole, and when it was read.
    total: Option<(u64, Instant)>,
}

impl MemoryWatch {
    /// What is used now, of the whole as it was within the last minute.
    ///
    /// # Errors
    /// As [`Memory::read`].
    pub fn look(&mut self, now: Instant) -> io::Result<Memory> {
        if let Some((total, read)) = self.total
            && now.duration_since(read) < WHOLE_HOLDS
        {
            let used = resident(Path::new(STATM))?;
            return Ok(Memory { used, total });
        }
        let memory = Memory::read()?;
        self.total = Some((memory.total, now));
        Ok(memory)
    }
}

/// The resident set, in bytes: the second number, in pages.
fn resident(statm: &Path) -> io::Result<u64> {
    let mut bytes = [0; STATM_BYTES_MAX];
    // On the stack: nothing is to be allocated each second.
    let length = File::open(statm)?.read(&mut bytes)?;
    let text = str::from_utf8(&bytes[..length]).unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages: u64 = pages.ok_or_else(|| io::Error::other("no second number in statm"))?;
    Ok(pages.saturating_mul(page_size() as u64))
}

/// The bytes of a line like `MemTotal:      1234 kB`.
fn kilobytes(text: &str, label: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(label)?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .map(|kilobytes: u64| kilobytes.saturating_mul(1024))
        .ok_or_else(|| io::Error::other(format!("no line {label} in kB")))
}

/// The smallest limit from the group in a line of `/proc/self/cgroup` up to the root; none if no group has
/// one. Inside a container the path may be the host's: then only the root of what is mounted can be read,
/// and that is the container's own group.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?);
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        list if list.split(',').any(|one| one == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let mount = root.join(mount);
    // A path of "/../.." points out of what we see.
    let group = if group.contains("..") {
        ""
    } else {
        group.trim_start_matches('/')
    };
    Path::new(group)
        .ancestors()
        .filter_map(|group| {
            let file: PathBuf = mount.join(group).join(file);
            // "max", which is no number, stands for no limit in version 2; a number beyond all memory does in 1.
            fs::read_to_string(file).ok()?.trim().parse().ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATM: &str = "9000 512 100 20 0 300 0\n";
    const MEMINFO: &str = "MemTotal:        8192 kB\nMemFree:         4096 kB\n";
    const KIB: u64 = 1024;

    /// A root with these files in place of the system's.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let always = [("proc/self/statm", STATM), ("proc/meminfo", MEMINFO)];
        for (path, text) in always.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_whole_is_the_smallest_limit_that_holds() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u64);
        let cases: &[Case<'_>] = &[
            ("no groups at all", &[], 8192 * KIB),
            (
                "version 2, in a namespace of its own",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "4194304\n"),
                ],
                4096 * KIB,
            ),
            (
                "version 2, no limit",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "max\n"),
                ],
                8192 * KIB,
            ),
            (
                "version 2, the parent is the strict one",
                &[
                    ("proc/self/cgroup", "0::/pods/one\n"),
                    ("sys/fs/cgroup/pods/one/memory.max", "4194304\n"),
                    ("sys/fs/cgroup/pods/memory.max", "3145728\n"),
                ],
                3072 * KIB,
            ),
            (
                "version 2, a path that leads out of sight",
                &[
                    ("proc/self/cgroup", "0::/../../one\n"),
                    ("sys/fs/cgroup/memory.max", "4194304\n"),
                ],
                4096 * KIB,
            ),
            (
                "version 1, the host's path, the container's mount",
                &[
                    (
                        "proc/self/cgroup",
                        "9:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n",
                    ),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n"),
                ],
                4096 * KIB,
            ),
            (
                "version 1, no limit",
                &[
                    ("proc/self/cgroup", "4:memory:/\n0::/\n"),
                    (
                        "sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                8192 * KIB,
            ),
        ];
        for (name, files, total) in cases {
            let root = system(files);
            let memory = Memory::read_below(root.path()).unwrap();
            assert_eq!(
                (memory.used, memory.total),
                (512 * page_size() as u64, *total),
                "{name}"
            );
        }
    }

    #[test]
    fn without_the_files_it_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(Memory::read_below(root.path()).is_err());
    }

    #[test]
    fn the_parts_add_up_and_never_leave_their_bounds() {
        for (used, total, free, percent) in [
            (1, 4, 3, 25.0),
            (4, 4, 0, 100.0),
            (5, 4, 0, 100.0),
            (1, 0, 0, 100.0),
        ] {
            let memory = Memory { used, total };
            assert_eq!((memory.free(), memory.percent()), (free, percent), "{memory:?}");
        }
        let body = Memory { used: 1, total: 4 }.to_json();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body,
            json!({ "memory": { "free": 3, "used": 1, "total": 4, "percent": 25.0 } })
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_some_of_it() {
        let (mut watch, now) = (MemoryWatch::default(), Instant::now());
        for memory in [Memory::read(), watch.look(now), watch.look(now)] {
            let memory = memory.unwrap();
            assert!(0 < memory.used && memory.used < memory.total, "{memory:?}");
        }
    }
}
