//! Certificates by ACME, from a real service to a server in a process of its own: ordered, kept, renewed, refused.
//!
//! `make acme`; not part of a plain `cargo test`, since the service is built by Go.

#[path = "../support/certificates.rs"]
#[allow(dead_code, reason = "other tests use what these do not")]
mod authority;
#[path = "../support/brokers/mod.rs"]
mod brokers;
mod service;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use what these do not")]
mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use brokers::{Process, free_port};
use service::Service;
use support::answer::Answer;
use support::client::Client;
use support::http::{Backend, Http};

const SERVER: &str = env!("CARGO_BIN_EXE_fanwire");
const NAME: &str = "ws.example.com";
const OTHER_NAME: &str = "chat.example.com";
/// As Let's Encrypt's are. Seconds.
const LONG: u64 = 90 * 24 * 60 * 60;
/// Renewed after forty seconds, and then there are twenty left for a machine that is busy. Seconds.
const SHORT: u64 = 60;
/// Beyond every pause between two attempts, and every renewal.
const DEADLINE: Duration = Duration::from_secs(90);

/// Boxed, since it is carried about.
type Tls = Box<TlsStream<TcpStream>>;

/// A server that has its certificates issued by a service of its own.
struct Stage {
    service: Service,
    server: Process,
    admin: SocketAddr,
}

impl Stage {
    /// Nothing runs yet.
    fn new(validity_s: u64) -> Stage {
        let (port, admin_port) = (free_port(), free_port());
        let service = Service::new(port, validity_s);
        let mut server = Process::new(SERVER, "nothing: cargo builds it", port);
        fs::write(server.path("ca.pem"), service.ca()).expect("a file can be written");
        let config = json!({
            "server": { "port": port },
            "admin": { "port": admin_port },
            "tls": { "acme": {
                "domains": [NAME, OTHER_NAME],
                "terms_agreed": true,
                "email": "operator@example.com",
                "folder": server.path("state/acme"),
                "directory_url": service.directory(),
                "ca_file": server.path("ca.pem"),
            } },
            "apps": [{ "id": "1", "key": "key", "secret": "secret" }],
        });
        fs::write(server.path("config.json"), config.to_string()).expect("a file can be written");
        server.arguments(["--config", "config.json"]);
        Stage {
            service,
            server,
            admin: (Ipv4Addr::LOCALHOST, admin_port).into(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.server.path("state/acme")
    }

    async fn admin(&self, path: &str) -> Answer {
        Http::connect(self.admin).await.ask("GET", path, "").await
    }

    /// A metric's sample that carries this label, if one is named.
    async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.admin("/metrics").await.body;
        let samples = text
            .lines()
            .filter_map(|line| line.strip_prefix(&*format!("fanwire_{name}")));
        let mut samples = samples.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        let value = samples
            .next()
            .and_then(|sample| sample.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no sample of {name} in {text}"))
    }

    /// How many orders have come to this.
    async fn orders(&self, result: &str) -> f64 {
        self.metric("tls_acme_orders_total", result).await
    }

    async fn becomes_ready(&self) {
        eventually("a certificate", async || {
            (self.admin("/ready").await.status == 200).then_some(())
        })
        .await;
    }

    /// Waits for words in the server's log.
    async fn says(&self, words: &str) {
        eventually(words, async || self.server.log().contains(words).then_some(())).await;
    }

    async fn handshake(&self, trust: &Arc<ClientConfig>, name: &'static str) -> std::io::Result<Tls> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server.port)).await?;
        let name = ServerName::try_from(name).expect("a name");
        let connecting = Box::pin(TlsConnector::from(trust.clone()).connect(name, stream));
        support::soon("a handshake", connecting).await.map(Box::new)
    }

    /// One that succeeds: with a certificate that is short-lived, some moments are bad.
    async fn stream(&self, trust: &Arc<ClientConfig>, name: &'static str) -> Tls {
        eventually("a handshake", async || self.handshake(trust, name).await.ok()).await
    }

    async fn connect(&self, trust: &Arc<ClientConfig>) -> Client<Tls> {
        let stream = self.stream(trust, NAME).await;
        let target = "/app/key?protocol=7&client=js&version=8.6.0&flash=false";
        Client::over(stream, target).await.greeted().await
    }

    async fn backend(&self, trust: &Arc<ClientConfig>) -> Backend<Tls> {
        Backend {
            http: Http::over(self.stream(trust, OTHER_NAME).await),
            app_id: "1".into(),
            key: "key".into(),
            secret: "secret".into(),
        }
    }

    /// What a command says that needs no server.
    fn command(&self, name: &str) -> (bool, String) {
        let ran = Command::new(SERVER)
            .args(["--config", "config.json", name])
            .current_dir(self.server.directory.path())
            .env_clear()
            .output()
            .expect("the binary starts");
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// Asks again and again until the answer is `Some`.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn shown(stream: &Tls) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().expect("one is shown");
    chain[0].to_vec()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_gets_its_first_certificate_and_orders_none_at_its_next_start() {
    let mut stage = Stage::new(LONG);
    let (is_right, said) = stage.command("check-config");
    assert!(is_right, "{said}");
    assert!(stage.command("doctor").1.contains("there is no certificate yet"));

    // The service is not there yet: nobody can connect, and whoever asks is told why.
    stage.server.start();
    eventually("it to wait for nothing else", async || {
        let ready = stage.admin("/ready").await;
        assert_eq!(ready.status, 503);
        (ready.json()["causes"] == json!(["no_certificate"])).then_some(())
    })
    .await;
    assert_eq!(stage.admin("/live").await.status, 200);
    assert_eq!(stage.metric("tls_certificate_expiry_seconds", "").await, 0.0);
    stage
        .says("there is no certificate yet, so nobody can connect")
        .await;
    stage.says("this machine has to reach https://localhost").await;
    assert!(stage.orders("failed").await >= 1.0);
    let stranger = Arc::new(authority::Authority::new().client(&[&rustls::version::TLS13], None));
    for _ in 0..3 {
        stage
            .handshake(&stranger, NAME)
            .await
            .expect_err("there is nothing to show");
    }
    assert_eq!(stage.server.log().matches("so nobody can connect").count(), 1);

    stage.service.start();
    stage.becomes_ready().await;
    let trust = stage.service.trust().await;
    let mut client = stage.connect(&trust).await;
    client.subscribe("a").await;
    stage.backend(&trust).await.publish("a", "n", "1").await;
    assert_eq!(client.expect("n").await["data"], "1");
    let first = shown(&stage.stream(&trust, NAME).await);

    // The service has come for both names, and is counted as nobody who failed.
    assert_eq!(stage.orders("issued").await, 1.0);
    assert_eq!(stage.metric("connection_errors_total", "\"tls\"").await, 3.0);
    let days = stage.metric("tls_certificate_expiry_seconds", "").await / 86_400.0;
    assert!((89.0..=90.0).contains(&days), "{days}");
    let said = stage.command("doctor").1;
    assert!(
        said.contains("goes with its key, and is good for 89 days"),
        "{said}"
    );

    let kept = fs::read_dir(stage.folder()).expect("the folder is there");
    let kept: Vec<_> = kept.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(kept.len(), 2, "the account and the certificate: {kept:?}");
    assert!(kept.iter().all(|path| mode(path) == 0o600));
    assert_eq!(mode(&stage.folder()), 0o700);
    let log = stage.server.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");

    // Killed, and started again.
    drop(client);
    stage.server.stop();
    stage.server.start();
    stage.says("is used until it is to be renewed").await;
    stage.becomes_ready().await;
    assert_eq!(shown(&stage.stream(&trust, NAME).await), first);
    assert_eq!(stage.service.issued(), 1);
    assert_eq!(stage.orders("issued").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_is_seen_by_who_comes_and_not_noticed_by_who_is_there() {
    let mut stage = Stage::new(SHORT);
    stage.service.start();
    stage.server.start();
    stage.becomes_ready().await;
    let trust = stage.service.trust().await;
    let mut there = stage.connect(&trust).await;
    there.subscribe("a").await;
    let before = shown(&stage.stream(&trust, NAME).await);
    eventually("a renewed certificate", async || {
        let stream = stage.handshake(&trust, NAME).await.ok()?;
        Some(()).filter(|()| shown(&stream) != before)
    })
    .await;
    let mut backend = stage.backend(&trust).await;
    backend.publish("a", "n", "1").await;
    assert_eq!(there.expect("n").await["data"], "1");
    assert!(stage.orders("issued").await >= 2.0);
    assert!(stage.metric("tls_certificate_changes_total", "").await >= 2.0);
    assert_eq!(stage.orders("failed").await, 0.0);
    assert_eq!(stage.metric("tls_certificate_refused_total", "").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_refused_is_told_with_what_to_do_and_tried_again() {
    let mut stage = Stage::new(LONG);
    stage.service.start();
    // Where nobody listens.
    stage.service.lead_names_to(Ipv4Addr::new(127, 0, 0, 2)).await;
    stage.server.start();
    // Whichever name it looks at first.
    stage
        .says(".example.com does not lead here, says the service: ")
        .await;
    stage
        .says(".example.com has to lead to server.port as it is")
        .await;
    assert!(stage.orders("failed").await >= 1.0);
    assert_eq!(stage.admin("/ready").await.status, 503);
    assert_eq!(stage.service.issued(), 0);

    stage.service.lead_names_to(Ipv4Addr::LOCALHOST).await;
    stage.becomes_ready().await;
    let trust = stage.service.trust().await;
    stage.connect(&trust).await.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_a_challenge_that_nobody_has_set() {
    let mut stage = Stage::new(LONG);
    stage.service.start();
    stage.server.start();
    stage.becomes_ready().await;
    let mut curious = Arc::unwrap_or_clone(stage.service.trust().await);
    curious.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let curious = Arc::new(curious);
    stage
        .handshake(&curious, NAME)
        .await
        .expect_err("there is no challenge");
    eventually("it to be counted", async || {
        (stage.metric("connection_errors_total", "\"tls\"").await == 1.0).then_some(())
    })
    .await;
}
