//! The Debian package: built by cargo-deb, and installed in a Debian that boots, where systemd runs the server in its
//! sandbox, reloads it, lets it drain, and takes it away again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::base::base;
use crate::support::eventually;
use crate::tools::{kept, output, read, run, tool};

const SUITE: &str = "bookworm";
/// What the package asks for, and an init.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,ca-certificates";

/// The package of the release that this checkout comes to.
fn built() -> PathBuf {
    base().run("cargo build --release --locked --package fanwire");
    let package = kept("fanwire.deb");
    let mut deb = tool("cargo-deb");
    deb.args(["--no-build", "--locked", "--output"]).arg(&package);
    run(deb.env("CARGO_TARGET_DIR", kept("target")));
    package
}

/// What `ls -l` would say of each file: rights, owner and group, name.
fn contents(package: &Path) -> Vec<(String, String, String)> {
    let listed = run(tool("dpkg-deb").arg("--contents").arg(package));
    let lines = listed.lines().filter(|line| !line.ends_with('/'));
    lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[0].into(), words[1].into(), words[5].into())
        })
        .collect()
}

/// A Debian as it comes, made once.
fn debian() -> PathBuf {
    let (folder, made) = (kept("debian"), kept("debian.made"));
    let key = format!("{SUITE} {PACKAGES}");
    if fs::read_to_string(&made).is_ok_and(|found| found == key) {
        return folder;
    }
    let _ = fs::remove_dir_all(&folder);
    let mut debootstrap = tool("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
        .arg(&folder);
    run(&mut debootstrap);
    fs::write(made, key).expect("written");
    folder
}

/// That Debian with a layer of its own above it, booted, in a network of its own.
struct Machine {
    nspawn: Child,
    folder: tempfile::TempDir,
}

impl Machine {
    async fn boot(package: &Path) -> Machine {
        let folder = tempfile::tempdir().expect("a folder");
        for part in ["above", "work", "root"] {
            fs::create_dir(folder.path().join(part)).expect("made");
        }
        let path = |part: &str| folder.path().join(part).display().to_string();
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            debian().display(),
            path("above"),
            path("work")
        );
        run(tool("mount").args(["-t", "overlay", "overlay", "-o", &layers, &path("root")]));
        let name = format!("root/root/fanwire_{}_all.deb", env!("CARGO_PKG_VERSION"));
        fs::copy(package, folder.path().join(name)).expect("copied");
        let log = fs::File::create(folder.path().join("log")).expect("made");
        let mut nspawn = tool("systemd-nspawn");
        nspawn.args([
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--console=pipe",
        ]);
        nspawn.args([
            "--machine=fanwire-test",
            "--resolv-conf=off",
            "--timezone=off",
            "--directory",
            &path("root"),
        ]);
        nspawn.stdout(log.try_clone().expect("a file")).stderr(log);
        let nspawn = nspawn.spawn().expect("systemd-nspawn is there");
        let mut machine = Machine { nspawn, folder };
        eventually("it has booted", async || {
            let ended = machine.nspawn.try_wait().expect("it can be waited for");
            assert_eq!(ended, None, "{}", machine.log());
            machine.init()?;
            let said = machine.run("systemctl is-system-running || true").1;
            (said.contains("running") || said.contains("degraded")).then_some(())
        })
        .await;
        machine
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its first process, seen from here.
    fn init(&self) -> Option<String> {
        let nspawn = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    /// Runs a script in it: whether it ended well, and what it said.
    fn run(&self, script: &str) -> (bool, String) {
        let init = self.init().expect("it runs");
        let mut command = tool("nsenter");
        command.args([
            "--target", &init, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root",
        ]);
        command.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND=noninteractive",
        ]);
        let Output {
            status,
            stdout,
            stderr,
        } = output(command.args(["sh", "-ec", &format!("cd /root\n{script}")]));
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
        (status.success(), said.trim().to_owned())
    }

    /// The same; it must end well.
    fn must(&self, script: &str) -> String {
        let (is_well, said) = self.run(script);
        assert!(
            is_well,
            "{script}: {said}\n{}",
            self.run("journalctl --no-pager -u fanwire || true").1
        );
        said
    }

    fn show(&self, property: &str) -> String {
        self.must(&format!("systemctl show --value --property={property} fanwire"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(init) = self.init() {
            // All of its processes go with the first one.
            let _ = Command::new("kill").args(["-KILL", &init]).status();
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
        let _ = Command::new("umount")
            .arg(self.folder.path().join("root"))
            .stderr(Stdio::null())
            .status();
    }
}

#[test]
fn the_package_holds_what_a_debian_expects() {
    let package = built();
    let contents = contents(&package);
    let is_there = |rights: &str, name: &str| {
        assert!(
            contents.iter().any(|(found, owner, path)| found == rights
                && ["0/0", "root/root"].contains(&&**owner)
                && path == name),
            "{rights} {name} in {contents:#?}"
        );
    };
    is_there("-rwxr-xr-x", "./usr/bin/fanwire");
    is_there("-rw-r-----", "./etc/fanwire/config.json");
    is_there("-rw-r--r--", "./usr/lib/systemd/system/fanwire.service");
    is_there("-rw-r--r--", "./usr/lib/sysusers.d/fanwire.conf");
    for name in [
        "README.md",
        "install.md",
        "copyright",
        "examples/config.example.json",
        "examples/low-port.conf",
    ] {
        is_there("-rw-r--r--", &format!("./usr/share/doc/fanwire/{name}"));
    }
    let field = |name: &str| {
        run(tool("dpkg-deb").arg("--field").arg(&package).arg(name))
            .trim()
            .to_owned()
    };
    assert_eq!(field("Package"), "fanwire");
    assert!(field("Version").starts_with(env!("CARGO_PKG_VERSION")));
    let depends = field("Depends");
    assert!(
        depends.contains("libc6 (>= ") && depends.contains("ca-certificates"),
        "{depends}"
    );
    let control = run(tool("dpkg-deb").args(["--info"]).arg(&package).arg("conffiles"));
    assert_eq!(control.trim(), "/etc/fanwire/config.json");
}

/// The commands of `docs/install.md` that are meant for a machine such as this one, one script for each fence.
fn documented() -> Vec<String> {
    let document = read("docs/install.md");
    let fences = document.split("\n```sh vm\n").skip(1);
    fences
        .map(|rest| {
            rest.split("\n```\n")
                .next()
                .expect("the fence is closed")
                .to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_installed_runs_in_its_sandbox_and_goes_without_a_trace() {
    let machine = Machine::boot(&built()).await;
    let documented = documented();
    let [install, configure, open_low_port, upgrade] = &documented[..] else {
        panic!("the document has other commands: {documented:#?}");
    };

    machine.must(install);
    assert_eq!(
        machine.must("systemctl is-active fanwire; systemctl is-enabled fanwire"),
        "active\nenabled"
    );
    assert_eq!(
        machine.must("stat -c '%U:%G %a' /etc/fanwire/config.json /var/lib/fanwire /run/fanwire"),
        "root:fanwire 640\nfanwire:fanwire 700\nfanwire:fanwire 750"
    );

    // As the unit says: its own user, no rights, a filter of system calls, a limit of files that bears a million.
    let process = |file: &str| {
        machine.must(&format!(
            "cat /proc/$(systemctl show --value --property=MainPID fanwire)/{file}"
        ))
    };
    let (status, user) = (process("status"), machine.must("id -u fanwire"));
    for line in [
        format!("Uid:\t{user}\t{user}\t{user}\t{user}"),
        "CapBnd:\t0000000000000000".into(),
        "NoNewPrivs:\t1".into(),
        "Seccomp:\t2".into(),
    ] {
        assert!(status.contains(&line), "{line} in {status}");
    }
    // Or of as many as this machine gives.
    let files = getrlimit(Resource::Nofile)
        .maximum
        .map_or(1 << 20, |files| files.min(1 << 20));
    let limits = process("limits");
    let mut limits = limits.lines().filter(|line| line.starts_with("Max open files"));
    assert!(limits.any(|line| line.contains(&files.to_string())));

    // An app of one's own; a change of it is taken over by a reload, by the same process.
    machine.must(configure);
    let before = machine.show("MainPID");
    machine.must("sed -i 's/my-key/another-key/' /etc/fanwire/config.json; systemctl reload fanwire");
    eventually("the app is taken over", async || {
        let log = machine.must("journalctl --no-pager -u fanwire");
        log.contains("the apps of the configuration have changed")
            .then_some(())
    })
    .await;
    assert_eq!(machine.show("MainPID"), before);

    machine.must(open_low_port);
    machine.must("fanwire health --url http://127.0.0.1:443/live");

    // A drain that is longer than the unit allows: systemd is told in time.
    machine.must(
        "printf '[Service]\nTimeoutStopSec=1s\n' > /etc/systemd/system/fanwire.service.d/impatient.conf
        echo FANWIRE_DRAIN__DELAY_S=4 >> /etc/default/fanwire
        systemctl daemon-reload
        systemctl restart fanwire",
    );
    let begun = Instant::now();
    machine.must("systemctl stop fanwire");
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(machine.show("Result"), "success");
    machine.must(
        "rm -r /etc/systemd/system/fanwire.service.d /etc/default/fanwire
        systemctl daemon-reload
        systemctl start fanwire",
    );

    // What was configured stays, and the new program runs.
    let before = machine.show("MainPID");
    machine.must(upgrade);
    assert_ne!(machine.show("MainPID"), before);
    machine.must("fanwire health --url http://127.0.0.1:6001/up/1");
    assert_eq!(
        machine.must("stat -c '%U:%G %a' /etc/fanwire/config.json"),
        "root:fanwire 640"
    );

    // Removed, it is stopped; purged, nothing of it is left but its user.
    machine.must("dpkg --remove fanwire");
    assert_eq!(machine.run("systemctl is-active fanwire").1, "inactive");
    machine.must("test -e /etc/fanwire/config.json && dpkg --purge fanwire");
    let left = machine.must("find / -xdev -iname '*fanwire*' -not -path '/root/*' -not -path '/var/log/*'");
    assert_eq!(left, "");
}
