//! A process at its memory mark, to the byte. It is in a small control group as far as it can see: in a mount namespace of
//! its own (`unshare`, of util-linux) it finds files of the test where the system's are, so what it uses is what the test
//! says, whatever the machine is busy with.

use std::fs;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::descriptors::Process;
use crate::overload::told;
use crate::support::eventually;
use crate::support::http::{Answer, Http};
use crate::support::raw::Raw;

const LIMIT: u64 = 1_000_000_000;
/// At the default of 90 %.
const MARK: u64 = 900_000_000;
/// Files that the kernel may drop are no use of memory.
const INACTIVE: u64 = 50_000_000;

/// A control group that says what it is told to say.
struct Group {
    folder: TempDir,
}

impl Group {
    fn new() -> Group {
        let group = Group {
            folder: tempfile::tempdir().expect("a folder"),
        };
        group.write("memory.max", &format!("{LIMIT}\n"));
        group.write("memory.stat", &format!("anon 7\ninactive_file {INACTIVE}\n"));
        group.uses(0);
        group
    }

    /// At once, as the system's own files change: whoever reads never finds half of it.
    fn write(&self, name: &str, text: &str) {
        let (path, new) = (self.folder.path().join(name), self.folder.path().join("new"));
        fs::write(&new, text).expect("a file");
        fs::rename(new, path).expect("the same folder");
    }

    fn uses(&self, bytes: u64) {
        self.write("memory.current", &format!("{}\n", bytes + INACTIVE));
    }

    /// A server in this group.
    fn start(&self) -> Process {
        let shell = "mount --bind \"$1\" /sys/fs/cgroup && exec \"$0\"";
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--mount", "sh", "-c", shell])
            .arg(env!("CARGO_BIN_EXE_fanwire"))
            .arg(self.folder.path());
        Process::by(&mut command, &[("FANWIRE_SERVER__REFUSAL_DELAY_MS_MAX", "0")])
    }
}

/// Waits until the process has looked, and tells the probes this.
async fn seen(process: &Process, used: u64, status: u16) -> Answer {
    eventually("the process to see what is used", async || {
        let is_seen = process.metric("fanwire_memory_used_bytes").await == used;
        let mut operator = Http::connect(process.admin).await;
        let answer = operator.ask("GET", "/accept-traffic", "").await;
        (is_seen && answer.status == status).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_takes_sockets_in_up_to_its_memory_mark_and_loses_nobody_above_it() {
    let group = Group::new();
    group.uses(MARK - 1);
    let process = group.start();
    seen(&process, MARK - 1, 200).await;
    assert_eq!(process.metric("fanwire_memory_mark_bytes").await, MARK);
    let mut client = process.client().await;
    client.subscribe("a").await;

    for used in [MARK, LIMIT, MARK / 100 * 95] {
        group.uses(used);
        let answer = seen(&process, used, 503).await;
        assert_eq!(answer.json()["causes"], json!(["memory"]));
        let newcomer = Raw::connect(process.address).await;
        told(&mut newcomer.upgraded("/app/key?protocol=7", "").await).await;
        // Who is there is served, and so are calls.
        process
            .backend()
            .await
            .publish("a", "ev", &used.to_string())
            .await;
        assert_eq!(client.expect("ev").await["data"], used.to_string());
    }
    assert_eq!(process.metric("fanwire_refused_total").await, 3);

    // Some room below the mark, and nothing flaps.
    group.uses(MARK / 100 * 95 - 1);
    seen(&process, MARK / 100 * 95 - 1, 200).await;
    process.client().await.subscribe("a").await;
}
