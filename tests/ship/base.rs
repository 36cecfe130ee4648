//! An imitation of the image that the Dockerfile begins with, since there is no registry here: an empty one, in which the
//! machine's own `/usr` and Rust are mounted for as long as something is run in it. What is compiled in it is kept, so that
//! package and image come of one compilation, and the next run has little left to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::tools::{kept, root, run, tool};

/// What the Dockerfile begins with.
pub(crate) const BASE: &str = "rust:1.95-bookworm";

/// The runtime below podman runs nothing where control groups of both versions are mounted: it is not shown the second.
const WITHOUT_A_MIX: &str = "umount /sys/fs/cgroup/unified 2>/dev/null || true; exec \"$@\"";

/// buildah or podman, with a store of their own.
pub(crate) fn engine(name: &str) -> Command {
    let mut command = tool("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        WITHOUT_A_MIX,
        "sh",
        name,
    ]);
    command
        .arg("--root")
        .arg(kept("images"))
        .arg("--runroot")
        .arg(kept("run"));
    command.args(["--storage-driver", "vfs"]);
    command
}

pub(crate) fn buildah(arguments: &[&str]) -> String {
    run(engine("buildah").args(arguments)).trim().to_owned()
}

/// The imitation.
pub(crate) struct Base {
    /// The arguments that mount what makes it useful.
    pub(crate) volumes: Vec<String>,
}

/// Makes it, once for all tests.
pub(crate) fn base() -> &'static Base {
    static MADE: OnceLock<Base> = OnceLock::new();
    MADE.get_or_init(imitate)
}

impl Base {
    /// Runs something in it, in the checkout, where the Dockerfile has its copy: what is compiled here or there is the same.
    pub(crate) fn run(&self, script: &str) {
        let container = buildah(&["from", "--pull-never", BASE]);
        let mut work = engine("buildah");
        work.args(["run", "--isolation", "chroot", "--workingdir", "/src"]);
        work.args(["--volume", &format!("{}:/src:ro", root().display())]);
        run(work
            .args(&self.volumes)
            .args([&container, "--", "/bin/sh", "-ec", script]));
        buildah(&["rm", &container]);
    }
}

fn imitate() -> Base {
    let container = buildah(&["from", "scratch"]);
    let files = PathBuf::from(buildah(&["mount", &container]));
    for folder in [
        "usr",
        "etc/ssl",
        "etc/alternatives",
        "tmp",
        "rust",
        "cargo/registry",
    ] {
        fs::create_dir_all(files.join(folder)).expect("made");
    }
    fs::set_permissions(files.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("changed");
    for folder in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), files.join(folder)).expect("linked");
    }
    for variable in ["PATH=/rust/bin:/usr/bin:/bin", "CARGO_HOME=/cargo"] {
        buildah(&["config", "--env", variable, &container]);
    }
    let name = format!("docker.io/library/{BASE}");
    buildah(&["commit", "--quiet", "--rm", &container, &name]);

    let sysroot = run(tool("rustc").args(["--print", "sysroot"])).trim().to_owned();
    let cargo_home = std::env::var("CARGO_HOME").unwrap_or_else(|_| {
        let home = std::env::var("HOME").expect("a home");
        format!("{home}/.cargo")
    });
    let target = kept("target");
    fs::create_dir_all(&target).expect("made");
    let mounted = [
        ("/usr", "/usr:ro"),
        ("/etc/ssl", "/etc/ssl:ro"),
        ("/etc/alternatives", "/etc/alternatives:ro"),
        (&sysroot, "/rust:ro"),
        (&format!("{cargo_home}/registry"), "/cargo/registry"),
        (&target.display().to_string(), "/src/target"),
    ];
    let volumes = mounted.map(|(from, to)| format!("--volume={from}:{to}"));
    Base {
        volumes: volumes.into(),
    }
}
