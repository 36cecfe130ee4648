//! How much memory there is, and how much of it is used: for `GET /usage` and the memory mark.
//!
//! What counts is the bound that is nearest. Each control group (version 2 or 1) on the way up that has a limit is one:
//! against it stands what the whole group uses, the kernel's buffers for sockets and whoever else is in it included,
//! but without the cache of files that the kernel gives back when it is asked (`inactive_file`). The machine is another:
//! what this process uses, of that and what is available. Read from `/proc` and `/sys`, so on Linux only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::param::page_size;
use serde_json::json;

/// How long limits are taken to be what they were. Those of running groups do change, but rarely.
const LIMITS_HOLD: Duration = Duration::from_secs(60);
/// Room for the files that are read: the lines that are looked for stand well before their end.
const FILE_BYTES_MAX: usize = 4096;

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What is used, by this process or by the control group whose limit is nearest.
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
        MemoryWatch::default().look(Instant::now())
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

/// Looks at the memory every second without a cost that anybody notices: a few small files, nothing allocated.
#[derive(Debug)]
pub struct MemoryWatch {
    root: PathBuf,
    statm: PathBuf,
    meminfo: PathBuf,
    groups: Vec<Group>,
    /// When the limits of the groups were read.
    read: Option<Instant>,
}

impl Default for MemoryWatch {
    fn default() -> MemoryWatch {
        MemoryWatch::below(Path::new("/"))
    }
}

impl MemoryWatch {
    fn below(root: &Path) -> MemoryWatch {
        MemoryWatch {
            root: root.to_owned(),
            statm: root.join("proc/self/statm"),
            meminfo: root.join("proc/meminfo"),
            groups: Vec::new(),
            read: None,
        }
    }

    /// What is used now, of what there is; of several bounds the one that is nearest. Limits of groups are as they were
    /// within the last minute.
    ///
    /// # Errors
    /// As [`Memory::read`].
    pub fn look(&mut self, now: Instant) -> io::Result<Memory> {
        let resident = resident(&self.statm)?;
        let machine = machine(&self.meminfo, resident)?;
        if self
            .read
            .is_none_or(|read| now.duration_since(read) >= LIMITS_HOLD)
        {
            let lines = fs::read_to_string(self.root.join("proc/self/cgroup")).unwrap_or_default();
            let groups = lines.lines().flat_map(|line| Group::limited(&self.root, line));
            self.groups = groups.collect();
            self.read = Some(now);
        }
        let groups = self.groups.iter().map(|group| group.memory(resident));
        Ok(groups.fold(machine, |nearest, other| {
            match other.percent() > nearest.percent() {
                true => other,
                false => nearest,
            }
        }))
    }
}

/// What this process uses, of what the machine has for it: that, and what is still to be had.
fn machine(meminfo: &Path, resident: u64) -> io::Result<Memory> {
    with_file(meminfo, |text| {
        let whole = kilobytes(text, "MemTotal:")
            .ok_or_else(|| io::Error::other("no line MemTotal: in kB in meminfo"))?;
        let total = match kilobytes(text, "MemAvailable:") {
            Some(available) => available.saturating_add(resident).min(whole),
            None => whole,
        };
        Ok(Memory {
            used: resident,
            total,
        })
    })?
}

/// The resident set, in bytes: the second number, in pages. `/proc/self/status` tells the same in sixty lines.
fn resident(statm: &Path) -> io::Result<u64> {
    let pages: Option<u64> = with_file(statm, |text| text.split(' ').nth(1)?.parse().ok())?;
    let pages = pages.ok_or_else(|| io::Error::other("no second number in statm"))?;
    Ok(pages.saturating_mul(page_size() as u64))
}

/// Reads the beginning of a file onto the stack: nothing is to be allocated by an idle node.
fn with_file<T>(path: &Path, read: impl FnOnce(&str) -> T) -> io::Result<T> {
    let mut bytes = [0; FILE_BYTES_MAX];
    let length = File::open(path)?.read(&mut bytes)?;
    Ok(read(str::from_utf8(&bytes[..length]).unwrap_or_default()))
}

/// The bytes of a line like `MemTotal:      1234 kB`.
fn kilobytes(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

/// In version 1 of control groups, a number beyond all memory stands for no limit: this and more.
const NO_LIMIT: u64 = 1 << 60;

/// A number alone in a file. `max`, which is none, stands for no limit in version 2.
fn number(path: &Path) -> Option<u64> {
    with_file(path, |text| text.trim().parse().ok()).ok()?
}

/// The names that a version of control groups has for things.
struct Version {
    mount: &'static str,
    /// The smallest of them holds: beyond the first something is killed, beyond the second everything is held up.
    limits: &'static [&'static str],
    usage: &'static str,
    /// In `memory.stat`.
    inactive: &'static str,
}

const VERSION_2: Version = Version {
    mount: "sys/fs/cgroup",
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    inactive: "inactive_file",
};
const VERSION_1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    // Groups below are counted in what is used, and so they are here.
    inactive: "total_inactive_file",
};

/// A control group that has a limit.
#[derive(Debug)]
struct Group {
    limit: u64,
    usage: PathBuf,
    stat: PathBuf,
    inactive: &'static str,
}

impl Group {
    /// Those from the group in a line of `/proc/self/cgroup` up to the root. Inside a container the path may be the
    /// host's: then only the root of what is mounted can be read, and that is the container's own group.
    fn limited(root: &Path, line: &str) -> Vec<Group> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            return Vec::new();
        };
        let version = match controllers {
            "" => VERSION_2,
            list if list.split(',').any(|one| one == "memory") => VERSION_1,
            _ => return Vec::new(),
        };
        let mount = root.join(version.mount);
        // A path of "/../.." points out of what we see.
        let group = match group.contains("..") {
            true => "",
            false => group.trim_start_matches('/'),
        };
        let groups = Path::new(group).ancestors().map(|group| mount.join(group));
        groups
            .filter_map(|group| {
                let limits = version.limits.iter().filter_map(|file| number(&group.join(file)));
                // Others need not be looked at.
                let limits = limits.filter(|limit| *limit < NO_LIMIT);
                Some(Group {
                    limit: limits.min()?,
                    usage: group.join(version.usage),
                    stat: group.join("memory.stat"),
                    inactive: version.inactive,
                })
            })
            .collect()
    }

    /// What is used of it; what this process does where the group does not say.
    fn memory(&self, resident: u64) -> Memory {
        let used = number(&self.usage).map(|usage| usage.saturating_sub(self.inactive_files()));
        Memory {
            used: used.unwrap_or(resident),
            total: self.limit,
        }
    }

    fn inactive_files(&self) -> u64 {
        let bytes = with_file(&self.stat, |text| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let (_, bytes) = lines.find(|(name, _)| *name == self.inactive)?;
            bytes.parse().ok()
        });
        bytes.ok().flatten().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 512 pages are resident.
    const STATM: &str = "9000 512 100 20 0 300 0\n";
    const MEMINFO: &str = "MemTotal:        8192000 kB\nMemFree:          301208 kB\nMemAvailable:    4096000 kB\n\
                           Buffers:          102400 kB\nCached:          3903128 kB\n";
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    /// The beginning of the real thing, in both versions.
    const STAT_2: &str = "anon 41943040\nfile 146800640\nkernel 9175040\nkernel_stack 475136\npagetables 1064960\n\
                          sec_pagetables 0\npercpu 13440\nsock 2097152\nvmalloc 32768\nshmem 0\nzswap 0\n\
                          zswapped 0\nfile_mapped 12582912\nfile_dirty 0\nfile_writeback 0\nswapcached 0\n\
                          anon_thp 0\nfile_thp 0\nshmem_thp 0\ninactive_anon 0\nactive_anon 41934848\n\
                          inactive_file 104857600\nactive_file 41943040\nunevictable 0\n";
    const STAT_1: &str = "cache 146800640\nrss 41943040\nrss_huge 0\nshmem 0\nmapped_file 12582912\ndirty 0\n\
                          writeback 0\nswap 0\npgpgin 89100\npgpgout 43000\npgfault 61000\npgmajfault 12\n\
                          inactive_anon 0\nactive_anon 41943040\ninactive_file 7\nactive_file 41943040\n\
                          unevictable 0\nhierarchical_memory_limit 268435456\nhierarchical_memsw_limit \
                          9223372036854771712\ntotal_cache 146800640\ntotal_rss 41943040\n\
                          total_inactive_anon 0\ntotal_active_anon 41943040\ntotal_inactive_file 104857600\n\
                          total_active_file 41943040\ntotal_unevictable 0\n";

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

    fn read_below(root: &Path) -> io::Result<Memory> {
        MemoryWatch::below(root).look(Instant::now())
    }

    #[test]
    fn the_nearest_bound_is_the_one_that_counts() {
        let resident = 512 * page_size() as u64;
        let machine = (resident, 4_096_000 * KIB + resident);
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], (u64, u64));
        let cases: &[Case<'_>] = &[
            ("no groups at all", &[], machine),
            (
                "an old kernel that does not say what is available",
                &[(
                    "proc/meminfo",
                    "MemTotal:        8192 kB\nMemFree:         4096 kB\n",
                )],
                (resident, 8192 * KIB),
            ),
            (
                "version 2, in a namespace of its own, as in a container",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "268435456\n"),
                    ("sys/fs/cgroup/memory.high", "max\n"),
                    ("sys/fs/cgroup/memory.current", "198180864\n"),
                    ("sys/fs/cgroup/memory.stat", STAT_2),
                ],
                (198_180_864 - 100 * MIB, 256 * MIB),
            ),
            (
                "version 2, no limit",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "max\n"),
                    ("sys/fs/cgroup/memory.high", "max\n"),
                    ("sys/fs/cgroup/memory.current", "198180864\n"),
                ],
                machine,
            ),
            (
                "version 2, a unit of systemd with MemoryHigh and MemoryMax",
                &[
                    ("proc/self/cgroup", "0::/system.slice/fanwire.service\n"),
                    (
                        "sys/fs/cgroup/system.slice/fanwire.service/memory.max",
                        "536870912\n",
                    ),
                    (
                        "sys/fs/cgroup/system.slice/fanwire.service/memory.high",
                        "402653184\n",
                    ),
                    (
                        "sys/fs/cgroup/system.slice/fanwire.service/memory.current",
                        "209715200\n",
                    ),
                    ("sys/fs/cgroup/system.slice/fanwire.service/memory.stat", STAT_2),
                    ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
                ],
                (100 * MIB, 384 * MIB),
            ),
            (
                "version 2, the pod is nearer to its limit than the container is",
                &[
                    ("proc/self/cgroup", "0::/kubepods.slice/pod1.slice/cri-1.scope\n"),
                    (
                        "sys/fs/cgroup/kubepods.slice/pod1.slice/cri-1.scope/memory.max",
                        "268435456\n",
                    ),
                    (
                        "sys/fs/cgroup/kubepods.slice/pod1.slice/cri-1.scope/memory.current",
                        "104857600\n",
                    ),
                    (
                        "sys/fs/cgroup/kubepods.slice/pod1.slice/memory.max",
                        "314572800\n",
                    ),
                    (
                        "sys/fs/cgroup/kubepods.slice/pod1.slice/memory.current",
                        "398458880\n",
                    ),
                    ("sys/fs/cgroup/kubepods.slice/pod1.slice/memory.stat", STAT_2),
                    ("sys/fs/cgroup/kubepods.slice/memory.max", "8000000000\n"),
                    ("sys/fs/cgroup/kubepods.slice/memory.current", "400000000\n"),
                ],
                (280 * MIB, 300 * MIB),
            ),
            (
                "version 2, a path that leads out of sight, and a group that does not say what it uses",
                &[
                    ("proc/self/cgroup", "0::/../../one\n"),
                    ("sys/fs/cgroup/memory.max", "4194304\n"),
                ],
                (resident, 4 * MIB),
            ),
            (
                "version 1, the host's path, the container's mount",
                &[
                    (
                        "proc/self/cgroup",
                        "12:devices:/docker/8c1f\n9:cpu,cpuacct:/docker/8c1f\n4:memory:/docker/8c1f\n\
                         1:name=systemd:/docker/8c1f\n0::/system.slice/containerd.service\n",
                    ),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
                    ("sys/fs/cgroup/memory/memory.usage_in_bytes", "198180864\n"),
                    ("sys/fs/cgroup/memory/memory.stat", STAT_1),
                ],
                (198_180_864 - 100 * MIB, 256 * MIB),
            ),
            (
                "version 1, no limit",
                &[
                    ("proc/self/cgroup", "4:memory:/\n0::/\n"),
                    (
                        "sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                    ("sys/fs/cgroup/memory/memory.usage_in_bytes", "198180864\n"),
                ],
                machine,
            ),
            (
                "what cannot be understood bounds nothing",
                &[
                    ("proc/self/cgroup", "\n:\nmemory\n0::/\n4:memory\n"),
                    ("sys/fs/cgroup/memory.max", "a lot\n"),
                    ("sys/fs/cgroup/memory.current", "-1\n"),
                ],
                machine,
            ),
        ];
        for (name, files, (used, total)) in cases {
            let root = system(files);
            let memory = read_below(root.path()).unwrap();
            assert_eq!((memory.used, memory.total), (*used, *total), "{name}");
        }
    }

    #[test]
    fn what_is_used_is_read_each_time_and_limits_once_a_minute() {
        let root = system(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "4194304\n"),
            ("sys/fs/cgroup/memory.current", "3000000\n"),
        ]);
        let group = root.path().join("sys/fs/cgroup");
        let (mut watch, now) = (MemoryWatch::below(root.path()), Instant::now());
        let mut look = |later| {
            let memory = watch.look(now + later).unwrap();
            (memory.used, memory.total)
        };
        assert_eq!(look(Duration::ZERO), (3_000_000, 4_194_304));
        fs::write(group.join("memory.current"), "4000000\n").unwrap();
        fs::write(group.join("memory.max"), "8388608\n").unwrap();
        assert_eq!(
            look(LIMITS_HOLD - Duration::from_millis(1)),
            (4_000_000, 4_194_304)
        );
        assert_eq!(look(LIMITS_HOLD), (4_000_000, 8_388_608));
    }

    #[test]
    fn without_the_files_it_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(read_below(root.path()).is_err());
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
