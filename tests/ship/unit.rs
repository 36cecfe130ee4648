//! The systemd unit: right by itself, and as closed as it can be. That it runs like this, `package.rs` shows.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use fanwire::config::DrainConfig;

use crate::tools::{output, read, run, tool};

/// How open a service may be, in tenths, by systemd's own judgement: 0 is not at all; from 50 on it says "medium". Most of
/// what is left is what a server cannot be without: the network.
const EXPOSURE_MAX: [(Option<&str>, &str); 2] = [(None, "15"), (Some("low-port.conf"), "20")];

/// With the files that the package installs in their places, as far as the unit names them.
fn installed(drop_in: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let units = folder.path().join("etc/systemd/system");
    fs::create_dir_all(units.join("fanwire.service.d")).expect("made");
    fs::write(
        units.join("fanwire.service"),
        read("deploy/systemd/fanwire.service"),
    )
    .expect("written");
    if let Some(name) = drop_in {
        fs::write(
            units.join("fanwire.service.d").join(name),
            read(&format!("deploy/systemd/{name}")),
        )
        .expect("written");
    }
    for program in ["usr/bin/fanwire", "bin/sh"] {
        let program = folder.path().join(program);
        fs::create_dir_all(program.parent().expect("a folder")).expect("made");
        fs::write(&program, "").expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("changed");
    }
    folder
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    for drop_in in [None, Some("low-port.conf")] {
        let folder = installed(drop_in);
        let mut verify = tool("systemd-analyze");
        verify.arg(format!("--root={}", folder.path().display()));
        verify.args(["--man=no", "--recursive-errors=no", "verify", "fanwire.service"]);
        let output = output(&mut verify);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complained.is_empty(),
            "{drop_in:?}: {complained}"
        );
    }
}

#[test]
fn the_unit_is_closed() {
    for (drop_in, most) in EXPOSURE_MAX {
        let folder = installed(drop_in);
        let mut security = tool("systemd-analyze");
        security.arg(format!("--root={}", folder.path().display()));
        security.args(["--offline=true", "--no-pager", "security", "fanwire.service"]);
        security.arg(format!("--threshold={most}"));
        let report = run(&mut security);
        let verdict = report.lines().find(|line| line.contains("exposure level"));
        println!("{}", verdict.unwrap_or_else(|| panic!("a verdict: {report}")));
    }
}

/// The unit gives the default drain its time; a longer one asks systemd for more by itself.
#[test]
fn the_unit_waits_for_the_drain() {
    let unit = read("deploy/systemd/fanwire.service");
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let stop_s: u32 = stop
        .and_then(|stop| stop.strip_suffix('s')?.parse().ok())
        .expect("seconds");
    assert!(stop_s >= DrainConfig::default().longest_s(), "{stop_s}");
}
