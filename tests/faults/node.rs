//! A node: the built binary as a process of its own, with its own configuration file, on ports that the system chose.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

use crate::logbook::{Log, Logbook};
use crate::support::client::Client;
use crate::support::http::{Answer, Backend, Http};
use crate::support::server::{KEY, SECRET};

const BINARY: &str = env!("CARGO_BIN_EXE_fanwire");

/// A start takes no longer, however busy the machine is.
const START_MAX: Duration = Duration::from_secs(20);

/// A running node. Killed when dropped.
pub(crate) struct Node {
    /// `A`, `B`, `C`; of a node that was started anew, the same.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    /// When the process was asked for.
    pub(crate) started: Instant,
    config: PathBuf,
    child: Child,
    log: Log,
}

impl Node {
    /// Starts a node, and waits until it serves.
    pub(crate) async fn start(name: &str, config: &Value, folder: &Path, logbook: &Logbook) -> Node {
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(config).expect("a configuration is JSON");
        std::fs::write(&path, text).expect("the folder can be written to");
        Node::start_from(name, path, logbook).await
    }

    async fn start_from(name: &str, config: PathBuf, logbook: &Logbook) -> Node {
        let started = Instant::now();
        // The kernel kills it if this process dies without dropping it.
        let mut command = match cfg!(target_os = "linux") {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--", BINARY]);
                command
            }
            false => Command::new(BINARY),
        };
        let mut child = command
            .arg("--config")
            .arg(&config)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = logbook.open(&format!("node {name} (process {})", child.id()));
        let lines = BufReader::new(child.stderr.take().expect("the log is piped")).lines();
        let copy = log.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                copy.write(line);
            }
        });
        let mut node = Node {
            name: name.to_owned(),
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            admin_address: SocketAddr::from(([0, 0, 0, 0], 0)),
            started,
            config,
            child,
            log,
        };
        let serving = node.says("serving").await;
        let address = |key: &str| serving[key].as_str().and_then(|address| address.parse().ok());
        node.address = address("address").expect("the log says where it serves");
        node.admin_address = address("admin").expect("the log says where the admin port is");
        node
    }

    /// The entry of the log with this message, as soon as there is one.
    async fn says(&mut self, message: &str) -> Value {
        while self.started.elapsed() < START_MAX {
            let found = self.log.find(|line| {
                let entry: Value = serde_json::from_str(line).ok()?;
                (entry["message"] == message).then_some(entry)
            });
            if let Some(entry) = found {
                return entry;
            }
            let ended = self.child.try_wait().expect("the process can be waited for");
            assert!(ended.is_none(), "node {} ended: {ended:?}", self.name);
            sleep(Duration::from_millis(10)).await;
        }
        panic!("node {} did not say `{message}` within {START_MAX:?}", self.name);
    }

    /// Waits until it is ready.
    pub(crate) async fn is_ready(&self) {
        let begun = Instant::now();
        loop {
            let answer = self.admin("/ready").await;
            if answer.status == 200 {
                return;
            }
            assert!(
                begun.elapsed() < START_MAX,
                "node {} is not ready: {}",
                self.name,
                answer.body
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("the process can be waited for");
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn leaves(&mut self, within: Duration) -> ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return status;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("node {} did not leave within {within:?}", self.name);
    }

    /// Starts it again, with the same configuration: a new life, on new ports.
    pub(crate) async fn start_again(&mut self, logbook: &Logbook) {
        assert!(
            self.child.try_wait().is_ok_and(|status| status.is_some()),
            "node {} has ended",
            self.name
        );
        *self = Node::start_from(&self.name, self.config.clone(), logbook).await;
    }

    /// A client that was greeted.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(
            self.address,
            &format!("/app/{KEY}?protocol=7&client=js&version=8.6.0"),
        )
        .await
    }

    /// The app's back end, with a connection of its own to this node.
    pub(crate) async fn backend(&self) -> Backend {
        Backend {
            http: Http::connect(self.address).await,
            app_id: "1".to_owned(),
            key: KEY.to_owned(),
            secret: SECRET.to_owned(),
        }
    }

    /// A GET on the port of the operators.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        Http::connect(self.admin_address).await.ask("GET", path, "").await
    }

    /// The id of this life of it, as other nodes know it.
    pub(crate) async fn id(&self) -> String {
        let text = self.admin("/metrics").await.body;
        let id = text
            .lines()
            .find(|line| line.starts_with("fanwire_cluster_info{"))
            .and_then(|line| line.split_once("node_id=\""))
            .and_then(|(_, rest)| rest.split_once('"'));
        id.expect("a node in a cluster tells its id").0.to_owned()
    }

    /// The sum of a metric's samples. The prefix is left out.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "").await
    }

    /// The sum of those of a metric's samples that carry this `label="value"`.
    pub(crate) async fn metric_of(&self, name: &str, label: &str) -> f64 {
        let text = self.admin("/metrics").await.body;
        let name = format!("fanwire_{name}");
        let rests = text.lines().filter_map(|line| line.strip_prefix(&*name));
        let samples: Vec<f64> = rests
            .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            .filter_map(|sample| sample.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(
            !samples.is_empty(),
            "node {} has no metric {name}: {text}",
            self.name
        );
        samples.iter().sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Gone already, unless the case is over or failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
