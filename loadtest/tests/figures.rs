//! `loadtest figures` on a few sockets: that every row is measured, not what it says.

use std::path::{Path, PathBuf};
use std::process::Command;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

/// All rows but "overload": a floor refuses nobody. The real server is tried with that one, too.
const WITHOUT_REFUSALS: [&str; 16] = [
    "lone",
    "sixteen",
    "flood",
    "steady",
    "crossed",
    "one_vs_many",
    "mixed",
    "large",
    "stalls",
    "answer",
    "triggers",
    "client_events",
    "memory",
    "connect",
    "stalled",
    "webhooks",
];

/// The table of a trial with these rows, or with all there are.
fn trial(server: &str, rows: &[&str]) -> String {
    let output = Command::new(LOADTEST)
        .args(["figures", "--quick", "--repeat", "1", "--server", server])
        .args(rows)
        .output()
        .expect("it was built for this test");
    let (table, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{table}");
    table.into_owned()
}

/// Of a figure, the column with what was measured.
fn is_measured(line: &str) -> bool {
    // Time in user space is sampled, and a trial may be over before the first sample.
    line.contains("sampled") || !line.contains(" – ")
}

/// The floors speak enough of the protocol to stand in for a server: the table can be tried without one.
#[test]
fn every_figure_is_measured() {
    let table = trial(&format!("{LOADTEST} floor --port {{port}}"), &WITHOUT_REFUSALS);
    for row in ["lone:", "sixteen:", "large:", "triggers:"] {
        assert!(table.contains(row), "{row} is missing in\n{table}");
    }
    for line in table.lines() {
        assert!(is_measured(line), "{line} in\n{table}");
    }
}

/// With the real server, if it was built beside this program, as a run of all tests does: it must know every setting.
#[test]
fn fanwire_knows_the_settings() {
    let fanwire: PathBuf = Path::new(LOADTEST).with_file_name("fanwire");
    if fanwire.exists() {
        trial(&format!("{} --config {{config}}", fanwire.display()), &[]);
    }
}
