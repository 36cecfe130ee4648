//! Private Redis servers: child processes on free ports, in a directory of their own, gone with the test.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// One server.
pub(crate) struct Server {
    pub(crate) port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Server {
    /// A server with some settings beside those that every private one has.
    pub(crate) fn start(settings: &[&str]) -> Server {
        let mut server = Server::prepared(settings);
        server.restart();
        server
    }

    pub(crate) fn prepared(settings: &[&str]) -> Server {
        Server {
            port: free_port(),
            directory: TempDir::new().expect("a temporary directory"),
            arguments: settings.iter().map(|setting| setting.to_string()).collect(),
            process: None,
        }
    }

    /// Kills it if it runs, and starts it on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let port = self.port.to_string();
        let is_sentinel = self.arguments.iter().any(|argument| argument == "--sentinel");
        let mut command = Command::new("redis-server");
        if is_sentinel {
            let file = self.path("sentinel.conf");
            if !file.exists() {
                fs::write(&file, "").expect("a file can be written");
            }
            command.arg(file);
        }
        command
            .args(["--bind", "127.0.0.1", "--dir"])
            .arg(self.directory.path())
            .args(&self.arguments);
        if !self.arguments.iter().any(|argument| argument == "--tls-port") {
            command.args(["--port", &port]);
        }
        if !is_sentinel {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        let log = fs::File::create(self.path("log")).expect("a file can be made");
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("redis-server starts"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "redis-server does not listen: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A stopped one dies of this, too.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// What `redis-cli` answers.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.port.to_string()]).args(command);
        let output = cli.output().expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A cluster of masters, each with a replica: the masters first.
pub(crate) fn cluster(masters: usize, replicas: usize) -> Vec<Server> {
    let servers: Vec<_> = (0..masters + replicas)
        .map(|_| {
            let bus = free_port().to_string();
            let settings = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
            ];
            Server::start(&settings)
        })
        .collect();
    let addresses: Vec<_> = servers
        .iter()
        .map(|server| format!("127.0.0.1:{}", server.port))
        .collect();
    let per_master = (replicas / masters).to_string();
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(&addresses);
    create.args(["--cluster-yes", "--cluster-replicas", &per_master]);
    let created = create.stdout(Stdio::null()).status().expect("redis-cli runs");
    assert!(created.success());
    for server in &servers {
        eventually("the cluster is up", || {
            server.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        // A replica that never followed its master cannot take its place.
        eventually("the replicas follow", || {
            let said = server.ask(&["INFO", "replication"]);
            said.contains("role:master") || said.contains("master_link_status:up")
        });
    }
    servers
}
