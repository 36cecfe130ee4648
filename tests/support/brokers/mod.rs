//! Private brokers: child processes on free ports of the loopback, in directories of their own, gone with the test.
//! They have nothing to do with a Redis or NATS that this machine may run as a service.

#![allow(dead_code, reason = "each test binary uses the brokers it needs")]

pub(crate) mod nats;
#[path = "../port.rs"]
mod port;
pub(crate) mod redis;
pub(crate) mod tls;

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use port::free_port;
use tempfile::TempDir;

/// Nothing that a broker is waited for takes so long, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One process that listens on a port: killed when dropped, and by the kernel when the test process dies before that.
pub(crate) struct Process {
    pub(crate) port: u16,
    pub(crate) directory: TempDir,
    program: &'static str,
    package: &'static str,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Process {
    /// One that does not run yet. `package` is what to install where the program is missing.
    pub(crate) fn new(program: &'static str, package: &'static str, port: u16) -> Process {
        Process {
            port,
            directory: TempDir::new().expect("a temporary directory"),
            program,
            package,
            arguments: Vec::new(),
            child: None,
        }
    }

    /// A file of its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Adds arguments for the next start.
    pub(crate) fn arguments(&mut self, arguments: impl IntoIterator<Item = impl ToString>) {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.to_string()));
    }

    /// Starts it, again on the same port if it ran before, and waits until it listens.
    pub(crate) fn start(&mut self) {
        self.stop();
        let log = fs::File::create(self.path("log")).expect("a file can be made");
        let errors = log.try_clone().expect("a file can be opened twice");
        // The kernel kills it if the test process dies without dropping it. `setpriv` is part of util-linux, which
        // every Linux has.
        let mut command = match cfg!(target_os = "linux") {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--", self.program]);
                command
            }
            false => Command::new(self.program),
        };
        command
            .args(&self.arguments)
            // Debian has servers where only root looks.
            .env(
                "PATH",
                std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin",
            )
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        self.child = Some(
            command
                .spawn()
                .unwrap_or_else(|error| self.missing(&error.to_string())),
        );
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                self.missing(&format!("{status}: {}", self.log()));
            }
            assert!(
                Instant::now() < deadline,
                "{} does not listen: {}",
                self.program,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn missing(&self, why: &str) -> ! {
        panic!(
            "{} does not start ({why}). If it is missing: `make tools`, or apt-get install {}",
            self.program, self.package
        )
    }

    /// What it wrote since its start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Kills it, as a crash would.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A frozen one dies of this, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it in its tracks: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
