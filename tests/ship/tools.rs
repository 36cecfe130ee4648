//! Commands, and where what they make is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Below `target/ship`, which is kept from run to run.
pub(crate) fn kept(name: &str) -> PathBuf {
    let folder = root().join("target/ship");
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder.join(name)
}

/// A tool that `tests/ship/install` has put into the project, or one of the system.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let tools = kept("tools");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{0}/bin:{0}/venv/bin:{path}:/usr/sbin:/sbin", tools.display());
    command.env("PATH", path).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs to the end.
pub(crate) fn output(command: &mut Command) -> Output {
    let output = command.output();
    output
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/ship/install` installs what is missing"))
}

/// Runs to the end, which must be a good one; what was written to standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}\n{complained}",
        output.status
    );
    said
}

/// A file of the checkout.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
