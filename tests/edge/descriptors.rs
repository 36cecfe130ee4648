//! A process that runs out of descriptors, or would if it were not for its reserves. In a process of its own, with a low
//! limit of open files.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::Value;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::http::{Backend, Http, request};
use crate::support::raw::Raw;
use crate::support::server::{KEY, SECRET};

/// Open files of the process that is looked at.
const FILES: u64 = 512;
/// As many connections as are opened from here.
const CROWD: usize = 700;

/// A server in a process of its own.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    fn start(settings: &[(&str, &str)]) -> Process {
        // The crowd takes descriptors here too.
        let mut here = getrlimit(Resource::Nofile);
        here.current = here.maximum;
        let _ = setrlimit(Resource::Nofile, here);
        let shell = format!("ulimit -n {FILES} && exec \"$0\"");
        let arguments = ["-c", &*shell, env!("CARGO_BIN_EXE_fanwire")];
        Process::by(Command::new("sh").args(arguments), settings)
    }

    /// As this command starts it.
    pub(crate) fn by(command: &mut Command, settings: &[(&str, &str)]) -> Process {
        let apps = format!(r#"[{{"id": "1", "key": "{KEY}", "secret": "{SECRET}"}}]"#);
        let mut child = command
            .env_clear()
            .envs([
                ("FANWIRE_SERVER__PORT", "0"),
                ("FANWIRE_ADMIN__PORT", "0"),
                ("FANWIRE_LOG__FORMAT", "json"),
                ("FANWIRE_APPS", &apps),
            ])
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = BufReader::new(child.stderr.take().expect("the log is piped"));
        let mut entries = log.lines().map(|line| {
            let line = line.expect("the log can be read");
            serde_json::from_str::<Value>(&line).expect("each line of the log is JSON")
        });
        let serving = entries.find(|entry| entry["message"] == "serving");
        let serving = serving.expect("the log says where it serves");
        // What is said later must not fill the pipe.
        std::thread::spawn(move || entries.count());
        let address = |name: &str| serving[name].as_str().and_then(|address| address.parse().ok());
        Process {
            address: address("address").expect("an address"),
            admin: address("admin").expect("an address"),
            child,
        }
    }

    fn files(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("it runs").count() as u64
    }

    fn limit_files(&self, current: u64) {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(FILES),
        };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).expect("it runs");
    }

    pub(crate) async fn backend(&self) -> Backend {
        Backend {
            http: Http::connect(self.address).await,
            app_id: "1".into(),
            key: KEY.into(),
            secret: SECRET.into(),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address, &format!("/app/{KEY}?protocol=7")).await
    }

    /// The sum of a metric's samples that carry this label, or of all of them.
    async fn metric_of(&self, name: &str, label: &str) -> u64 {
        let text = Http::connect(self.admin)
            .await
            .ask("GET", "/metrics", "")
            .await
            .body;
        let samples = text.lines().filter_map(|line| line.strip_prefix(name));
        let samples = samples.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        samples
            .map(|rest| {
                rest.rsplit(' ')
                    .next()
                    .and_then(|value| value.parse::<f64>().ok())
            })
            .map(|value| value.expect("a number") as u64)
            .sum()
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        self.metric_of(name, "").await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_descriptor_left_nobody_connected_loses_anything() {
    let process = Process::start(&[]);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = process.client().await;
        client.subscribe("a").await;
        clients.push(client);
    }
    let mut backend = process.backend().await;
    backend.publish("a", "ev", "before").await;
    process.limit_files(process.files());
    // The kernel takes it in; the process cannot.
    let mut newcomer = Raw::connect(process.address).await;
    newcomer.send(Raw::upgrade("/app/key?protocol=7", "")).await;
    backend.publish("a", "ev", "meanwhile").await;
    for client in &mut clients {
        for data in ["before", "meanwhile"] {
            assert_eq!(client.expect("ev").await["data"], data);
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    process.limit_files(FILES);
    let head = newcomer.http_head().await.expect("it is let in at last");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    newcomer.greeting().await;
    assert!(process.metric("fanwire_connection_errors_total").await > 0);
    for client in &mut clients {
        client.expect_silence().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_leave_their_reserve_to_others() {
    // Those beyond the bound of who waits to be told are told at once.
    let process = Process::start(&[("FANWIRE_SERVER__REFUSAL_DELAY_MS_MAX", "10000")]);
    let sockets_max = process.metric("fanwire_sockets_max").await as usize;
    assert!(sockets_max < FILES as usize / 2, "{sockets_max}");
    let mut clients = Vec::new();
    for _ in 0..sockets_max {
        clients.push(process.client().await);
    }
    clients[0].subscribe("a").await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD - sockets_max {
        let mut raw = Raw::connect(process.address).await;
        raw.send(Raw::upgrade("/app/key?protocol=7", "")).await;
        crowd.push(raw);
    }
    let mut backend = process.backend().await;
    backend.publish("a", "ev", "x").await;
    clients[0].expect("ev").await;
    eventually("all of them to be refused", async || {
        let refused = process.metric("fanwire_refused_total").await as usize;
        (refused == CROWD - sockets_max).then_some(())
    })
    .await;
    assert!(process.metric("process_open_fds").await < FILES);
    for client in &mut clients {
        client.expect_silence().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_calls_nor_silence_take_the_last_descriptors() {
    let process = Process::start(&[]);
    let mut client = process.client().await;
    client.subscribe("a").await;
    let mut crowd = Vec::new();
    for number in 0..2 * CROWD {
        let mut http = Http::connect(process.address).await;
        // Every other one says nothing at all.
        if number % 2 == 0 {
            http.write(request("GET", "/up", "")).await;
        }
        crowd.push(http);
    }
    // Operators have descriptors of their own, and are not kept waiting.
    let open = process.metric("process_open_fds").await;
    assert!(open < FILES, "{open}");
    assert_eq!(
        Http::connect(process.admin)
            .await
            .ask("GET", "/ready", "")
            .await
            .status,
        200
    );
    // Whoever comes last is served too, within seconds: silent ones are not waited for as long as usual.
    let mut backend = process.backend().await;
    backend.publish("a", "ev", "x").await;
    client.expect("ev").await;
    process.client().await;
    assert_eq!(
        process
            .metric_of("fanwire_connection_errors_total", "error_type=\"accept\"")
            .await,
        0
    );
}
