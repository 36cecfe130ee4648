//! The process from outside: it says where it serves, to systemd too, tells whoever asks for its health, drains at a signal,
//! hurries at a second one, and leaves at once at a third.

#[path = "support/port.rs"]
mod port;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A server process on ports that the system chose.
struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Process {
    fn start(environment: &[(&str, &str)]) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanwire"))
            .env_clear()
            .envs([
                ("FANWIRE_SERVER__PORT", "0"),
                ("FANWIRE_ADMIN__PORT", "0"),
                ("FANWIRE_LOG__FORMAT", "json"),
            ])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("the log is piped"));
        let serving = entry(&mut log, "serving");
        let address = serving["address"]
            .as_str()
            .and_then(|address| address.parse().ok());
        Process {
            child,
            log,
            address: address.expect("the log says where it serves"),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    fn leaves(&mut self) -> ExitStatus {
        self.child.wait().expect("the process can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log up to the entry with this message.
fn entry(log: &mut impl BufRead, message: &str) -> Value {
    let mut seen = String::new();
    for line in log.lines() {
        let line = line.expect("the log can be read");
        let entry: Value = serde_json::from_str(&line).expect("each line of the log is JSON");
        if entry["message"] == message {
            return entry;
        }
        seen += &line;
    }
    panic!("the log ended without `{message}`: {seen}");
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer
}

#[test]
fn it_serves_where_it_says_and_drains_at_sigterm() {
    let mut process = Process::start(&[
        ("FANWIRE_DRAIN__DRAIN_S", "0"),
        ("FANWIRE_SERVER__PATH_PREFIX", "/a"),
    ]);
    assert!(
        get(process.address, "/ready").starts_with("HTTP/1.1 200"),
        "ready"
    );
    process.signal(Signal::TERM);
    assert!(process.leaves().success());

    let mut welcome = String::new();
    let mut stdout = process.child.stdout.take().expect("the output is piped");
    stdout
        .read_to_string(&mut welcome)
        .expect("the output can be read");
    for part in [
        "new Pusher(\"app-key\"",
        "wsPath: \"/a\"",
        &format!("http://{}/a/apps/1/events", process.address),
    ] {
        assert!(welcome.contains(part), "the welcome lacks {part}: {welcome}");
    }
}

/// Waits for the close frame of the server, and does not answer it.
fn closed(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 2];
    loop {
        stream.read_exact(&mut head).expect("a frame before the end");
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).expect("a short frame");
        if head[0] == 0x88 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

#[test]
fn a_second_signal_shortens_the_drain() {
    let mut process = Process::start(&[
        ("FANWIRE_DRAIN__DELAY_S", "3600"),
        ("FANWIRE_DRAIN__DRAIN_S", "3600"),
    ]);
    let mut socket = greeted(process.address, "app-key").expect("it is let in");
    process.signal(Signal::INT);
    entry(&mut process.log, "asked to leave; a second signal hurries");
    process.signal(Signal::TERM);
    assert_eq!(closed(&mut socket), 4200);
    assert_eq!(process.leaves().code(), Some(0));
}

#[test]
fn a_third_signal_ends_it_at_once() {
    let mut process = Process::start(&[("FANWIRE_DRAIN__DELAY_S", "3600")]);
    // Which keeps it from being over at the second one.
    let _mute = greeted(process.address, "app-key").expect("it is let in");
    process.signal(Signal::TERM);
    entry(&mut process.log, "asked to leave; a second signal hurries");
    process.signal(Signal::TERM);
    entry(
        &mut process.log,
        "asked again: closing what is left over a second; a third signal ends it at once",
    );
    process.signal(Signal::TERM);
    assert_eq!(process.leaves().code(), Some(1));
}

/// Nobody reads the log: sooner or later everything that writes into it stands still, the drain too.
#[test]
fn it_ends_in_time_whatever_hangs() {
    let mut process = Process::start(&[
        ("FANWIRE_LOG__LEVEL", "debug"),
        ("FANWIRE_SERVER__SHARDS", "1"),
        ("FANWIRE_DRAIN__DRAIN_S", "0"),
    ]);
    let hangs = || {
        let mut stream = TcpStream::connect(process.address).expect("the system accepts");
        let patience = Some(Duration::from_secs(1));
        stream.set_read_timeout(patience).expect("a socket takes options");
        stream.write_all(b"no HTTP\r\n\r\n").expect("there is room");
        // An answer, or the end, if there is still somebody there.
        stream
            .read(&mut [0])
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    while !hangs() {}
    let told = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.leaves().code(), Some(1));
    assert!(told.elapsed() >= Duration::from_secs(u64::from(fanwire::config::LEAVING_S)));
}

#[test]
fn a_port_that_is_taken_is_told_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .env_clear()
        .envs([
            ("FANWIRE_SERVER__PORT", port.as_str()),
            ("FANWIRE_ADMIN__PORT", "0"),
        ])
        .output()
        .expect("the binary starts");
    let said = String::from_utf8(output.stderr).expect("output is UTF-8");
    assert!(
        !output.status.success()
            && said.contains("server.port")
            && said.contains(&port)
            && said.contains("another process listens there"),
        "{said}"
    );
}

#[test]
fn it_serves_at_every_log_level() {
    for level in ["error", "warn", "debug", "trace"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanwire"))
            .env_clear()
            .envs([
                ("FANWIRE_SERVER__PORT", "0"),
                ("FANWIRE_ADMIN__PORT", "0"),
                ("FANWIRE_LOG__LEVEL", level),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let welcome = BufReader::new(child.stdout.take().expect("the welcome is piped"));
        let line = welcome
            .lines()
            .map_while(Result::ok)
            .find(|line| line.starts_with("Try it at http://"));
        let line = line.unwrap_or_else(|| panic!("no welcome at level {level}"));
        let address = line.split(['/', ',']).nth(2).expect("an address");
        let mut connection = TcpStream::connect(address).expect("it listens");
        connection
            .write_all(b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200 "), "at level {level}: {answer}");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is there");
        assert!(child.wait().expect("it ends").success(), "at level {level}");
    }
}

/// Whoever looks for who sends what is refused finds the address, as proxies that are trusted tell it, and no secret.
#[test]
fn it_says_from_whom_a_call_came_that_was_refused() {
    let mut process = Process::start(&[
        ("FANWIRE_LOG__LEVEL", "debug"),
        ("FANWIRE_SERVER__TRUSTED_PROXIES", r#"["127.0.0.1"]"#),
    ]);
    let signature = "0123456789abcdef".repeat(4);
    let mut stream = TcpStream::connect(process.address).expect("it listens");
    let request = format!(
        "GET /apps/1/channels?auth_key=app-key&auth_timestamp=1&auth_version=1.0&auth_signature={signature} \
         HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let refused = entry(&mut process.log, "API call refused");
    assert_eq!(refused["client"], "192.0.2.7", "{refused}");
    assert!(refused["status"].to_string().contains("401"), "{refused}");
    let told = refused.to_string();
    assert!(
        !told.contains(&signature) && !told.contains(fanwire::app::AppConfig::DEMO_SECRET),
        "{told}"
    );
}

/// The answer to a handshake for this key: a socket that was greeted, if it was let in.
fn greeted(address: SocketAddr, key: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    let request = format!(
        "GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut heard = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        let read = stream.read(&mut bytes).expect("the server answers");
        heard.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8_lossy(&heard);
        // The greeting is one message, which ends with the brace of its envelope.
        if text.contains("pusher:connection_established") && text.ends_with('}') {
            return Some(stream);
        }
        if text.contains("pusher:error") || read == 0 {
            return None;
        }
    }
}

fn lets_in(address: SocketAddr, key: &str) -> bool {
    greeted(address, key).is_some()
}

#[test]
fn sighup_reads_the_apps_again_and_tells_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanwire.json");
    let write = |apps: Value, port: u16| {
        let config = serde_json::json!({
            "server": { "watch_config": false },
            "drain": { "drain_s": 0 },
            "metrics": { "prefix": format!("a{port}") },
            "apps": apps,
        });
        std::fs::write(&file, config.to_string()).expect("the file is written");
    };
    let app = |key: &str| serde_json::json!({ "id": "1", "key": key, "secret": "s3cr3t" });
    write(serde_json::json!([app("one")]), 1);
    let path = file.to_str().expect("a plain path").to_owned();
    let mut process = Process::start(&[("FANWIRE_CONFIG", &path)]);
    assert!(lets_in(process.address, "one") && !lets_in(process.address, "two"));

    write(serde_json::json!([app("two")]), 2);
    process.signal(Signal::HUP);
    entry(&mut process.log, "asked to read the configuration again");
    let waits = entry(
        &mut process.log,
        "what has changed here takes effect when the server is started again",
    );
    assert_eq!(waits["settings"], "metrics.prefix");
    let changes = entry(&mut process.log, "the apps of the configuration have changed");
    assert_eq!(changes["changed"], "1");
    assert!(!changes.to_string().contains("s3cr3t"), "{changes}");
    while !lets_in(process.address, "two") {}
    assert!(!lets_in(process.address, "one"));

    write(serde_json::json!([app("two"), app("two")]), 2);
    process.signal(Signal::HUP);
    let problem = entry(&mut process.log, "the changed configuration is wrong");
    assert!(problem.to_string().contains("apps[1].id"), "{problem}");
    entry(
        &mut process.log,
        "the changed configuration is not used: all stays as it was",
    );
    assert!(lets_in(process.address, "two"));

    process.signal(Signal::TERM);
    assert!(process.leaves().success());
}

#[test]
fn sighup_does_not_end_a_server_with_the_demo_app() {
    let mut process = Process::start(&[("FANWIRE_DRAIN__DRAIN_S", "0")]);
    process.signal(Signal::HUP);
    entry(
        &mut process.log,
        "the demo app is served: there is no configuration to read again",
    );
    process.signal(Signal::TERM);
    assert!(process.leaves().success());
}

/// What `fanwire health` comes to, and what it says.
fn health(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fanwire"))
        .arg("health")
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(said).expect("output is UTF-8"),
    )
}

#[test]
fn health_says_whether_it_lives_and_whether_it_is_ready() {
    let port = port::free_port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanwire.json");
    let admin = format!(r#""admin": {{ "host": "0.0.0.0", "port": {port} }}"#);
    std::fs::write(&file, format!("{{ {admin} }}")).expect("the file is written");
    let config = [("FANWIRE_CONFIG", file.to_str().expect("a plain path"))];

    let (is_well, said) = health(&[], &config);
    assert!(!is_well && said.contains("nobody is at"), "{said}");

    let mut process = Process::start(&[("FANWIRE_ADMIN__PORT", &port), ("FANWIRE_DRAIN__DELAY_S", "3600")]);
    // Whoever configures, and whatever is wrong with that by now: the server goes on with what it has.
    std::fs::write(&file, format!(r#"{{ {admin}, "server": {{ "port": "x" }} }}"#)).expect("written");
    for arguments in [
        &[][..],
        &["--ready"],
        &["--url", &format!("http://{}/up/1", process.address)],
    ] {
        let (is_well, said) = health(arguments, &config);
        assert!(is_well, "{arguments:?}: {said}");
    }
    let (is_well, said) = health(&["--ready", "--url", "http://127.0.0.1:1/live"], &config);
    assert!(!is_well && said.contains("path says what is asked"), "{said}");
    let elsewhere = format!("http://{}/up/nobody", process.address);
    let (is_well, said) = health(&["--url", &elsewhere], &config);
    assert!(!is_well && said.contains("404"), "{said}");

    process.signal(Signal::TERM);
    entry(&mut process.log, "asked to leave; a second signal hurries");
    let (is_well, said) = loop {
        // It is said before it is done.
        let answer = health(&["--ready"], &config);
        if !answer.0 {
            break answer;
        }
    };
    assert!(
        !is_well && said.contains("503") && said.contains("draining"),
        "{said}"
    );
    assert!(health(&[], &config).0, "to leave is no illness");
    process.signal(Signal::TERM);
    process.leaves();
}

#[test]
fn health_waits_for_nobody_for_long_and_takes_nothing_for_an_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let babbling = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = |listener: &TcpListener| format!("http://{}/live", listener.local_addr().expect("an address"));
    let (silent_url, babbling_url) = (url(&silent), url(&babbling));
    let babbler = std::thread::spawn(move || {
        let (mut stream, _) = babbling.accept().expect("it is asked");
        let _ = stream.read(&mut [0; 1024]).expect("it is asked something");
        let _ = stream.write_all(b"220 ready\r\n\r\n");
    });
    for (url, says) in [
        (&*silent_url, "has not answered within 3 s"),
        (&babbling_url, "HTTP"),
        ("https://127.0.0.1:1/", "http://"),
        ("127.0.0.1:1", "http://"),
    ] {
        let (is_well, said) = health(&["--url", url], &[]);
        assert!(!is_well && said.contains(says), "{url}: {said}");
    }
    babbler.join().expect("it has babbled");
}

#[test]
fn systemd_hears_when_it_serves_and_how_long_it_takes_to_leave() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    let hear = || {
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..length].to_vec()).expect("a text")
    };
    let mut process = Process::start(&[
        ("NOTIFY_SOCKET", path.to_str().expect("a plain path")),
        ("FANWIRE_DRAIN__DELAY_S", "0"),
        ("FANWIRE_DRAIN__DRAIN_S", "600"),
    ]);
    assert_eq!(hear(), "READY=1");
    process.signal(Signal::TERM);
    assert_eq!(hear(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=625000000");
    assert!(process.leaves().success(), "nobody was connected");
}
