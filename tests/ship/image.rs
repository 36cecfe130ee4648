//! The image: built by the Dockerfile as it stands, and run by podman as careful people run it: read-only, without any
//! right.
//!
//! There is no registry here, so the image that the Dockerfile begins with is an imitation (`base.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::base::{BASE, base, buildah, engine};
use crate::brokers::free_port;
use crate::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::http::{Backend, Http};
use crate::support::server::{KEY, SECRET};
use crate::tools::{output, read, root, run, tool};

const IMAGE: &str = "localhost/fanwire:test";
const MB: u64 = 1_000_000;
/// Of all its files together, as they are unpacked.
const BYTES_MAX: u64 = 30 * MB;

fn podman(arguments: &[&str]) -> String {
    run(engine("podman").args(arguments)).trim().to_owned()
}

fn build() {
    let base = base();
    let mut build = engine("buildah");
    build.args([
        "build",
        "--isolation",
        "chroot",
        "--format",
        "docker",
        "--pull-never",
        "--tag",
        IMAGE,
    ]);
    run(build.args(&base.volumes).arg(root()));
}

/// Builds the image, once for all tests.
fn built() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(build);
}

fn config() -> Value {
    let found: Value = serde_json::from_str(&podman(&["image", "inspect", IMAGE])).expect("JSON");
    found[0].clone()
}

/// All files below a folder, and their bytes.
fn files(folder: &Path, below: &Path, found: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let kind = entry.metadata().expect("it is there");
        match kind.is_dir() {
            true => files(&entry.path(), below, found),
            false => {
                let path = entry
                    .path()
                    .strip_prefix(below)
                    .expect("below")
                    .display()
                    .to_string();
                found.push((path, kind.len()));
            }
        }
    }
}

#[test]
fn the_linter_finds_nothing_wrong_with_the_dockerfile() {
    assert!(read("Dockerfile").contains(&format!("FROM {BASE} AS build\n")));
    run(tool("hadolint").args(["--failure-threshold", "info", "Dockerfile"]));
}

#[test]
fn the_image_is_small_and_holds_nothing_but_what_is_needed() {
    built();
    let container = buildah(&["from", "--pull-never", IMAGE]);
    let folder = PathBuf::from(buildah(&["mount", &container]));
    let mut found = Vec::new();
    files(&folder, &folder, &mut found);
    buildah(&["rm", &container]);

    let names: BTreeSet<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "etc/fanwire/config.json",
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/fanwire",
        "usr/share/doc/fanwire/LICENSE-APACHE",
        "usr/share/doc/fanwire/LICENSE-MIT",
        "usr/share/doc/fanwire/README.md",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    let archive = tempfile::tempdir().expect("a folder");
    let directory = format!("dir:{}", archive.path().display());
    run(engine("buildah").args(["push", "--quiet", IMAGE, &directory]));
    let mut packed = Vec::new();
    files(archive.path(), archive.path(), &mut packed);
    let packed: u64 = packed.iter().map(|(_, bytes)| bytes).sum();
    println!(
        "{:.1} MB of files, {:.1} MB to be fetched",
        bytes as f64 / 1e6,
        packed as f64 / 1e6
    );
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
    assert!(packed < bytes, "{packed} bytes");
}

#[test]
fn the_image_says_how_it_is_to_be_run() {
    built();
    let image = config();
    let config = &image["Config"];
    assert_eq!(
        config["User"], "65532:65532",
        "a number, by which an engine knows that it is not root's"
    );
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/bin/fanwire"]));
    let health = &image["HealthCheck"];
    let health = if health.is_null() {
        &image["Healthcheck"]
    } else {
        health
    };
    assert_eq!(
        health["Test"],
        serde_json::json!(["CMD", "/usr/bin/fanwire", "health"]),
        "{image:#}"
    );
    let ports: Vec<_> = config["ExposedPorts"]
        .as_object()
        .expect("ports")
        .keys()
        .collect();
    assert_eq!(ports, ["6001/tcp", "9601/tcp"]);
}

/// A container of the image, in the network of this machine.
struct Container {
    name: String,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Container {
    /// With an app, whose three variables are all that it has to be told, and free ports.
    async fn start(options: &[&str]) -> Container {
        built();
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, admin) = (local(free_port()), local(free_port()));
        let name = format!("fanwire-{}", address.port());
        let mut start = engine("podman");
        start.args([
            "run",
            "--detach",
            "--name",
            &name,
            "--pull=never",
            "--network=host",
            "--cgroups=disabled",
        ]);
        // Not what the engine would like to give, but what any machine has.
        start.args(["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]);
        start.args([
            "--read-only",
            "--read-only-tmpfs=false",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
        ]);
        let app = [("ID", "1"), ("KEY", KEY), ("SECRET", SECRET)];
        for (setting, value) in app {
            start.args(["--env", &format!("FANWIRE_APPS__0__{setting}={value}")]);
        }
        start.args(["--env", &format!("FANWIRE_SERVER__PORT={}", address.port())]);
        start.args(["--env", &format!("FANWIRE_ADMIN__PORT={}", admin.port())]);
        run(start.args(options).arg(IMAGE));
        let container = Container { name, address, admin };
        eventually("the container serves", async || {
            assert_eq!(container.state("Running"), "true", "{}", container.log());
            container.health().then_some(())
        })
        .await;
        container
    }

    fn state(&self, field: &str) -> String {
        podman(&[
            "inspect",
            "--format",
            &format!("{{{{.State.{field}}}}}"),
            &self.name,
        ])
    }

    fn log(&self) -> String {
        let logs = output(engine("podman").args(["logs", &self.name]));
        format!(
            "{}{}",
            String::from_utf8_lossy(&logs.stdout),
            String::from_utf8_lossy(&logs.stderr)
        )
    }

    /// What the engine finds when it checks the health as the image says.
    fn health(&self) -> bool {
        output(engine("podman").args(["healthcheck", "run", &self.name]))
            .status
            .success()
    }

    /// Whether this can be run in it, and what it said.
    fn exec(&self, arguments: &[&str]) -> (bool, String) {
        let output = output(engine("podman").args(["exec", &self.name]).args(arguments));
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), said)
    }

    /// A file of its main process in `/proc`.
    fn process(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.state("Pid"))).expect("it runs")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = output(engine("podman").args(["rm", "--force", "--time=0", &self.name]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_as_nobody_on_a_root_that_cannot_be_written_to() {
    let container = Container::start(&[]).await;
    let status = container.process("status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect("a field")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(field("Uid"), "65532 65532 65532 65532");
    assert_eq!(
        (&*field("CapEff"), &*field("CapBnd"), &*field("NoNewPrivs")),
        ("0000000000000000", "0000000000000000", "1")
    );
    let mounts = container.process("mountinfo");
    let whole = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .expect("a root");
    assert!(
        whole
            .split(' ')
            .nth(5)
            .expect("options")
            .split(',')
            .any(|option| option == "ro"),
        "{whole}"
    );
    let (is_run, said) = container.exec(&["sh", "-c", "true"]);
    assert!(!is_run, "there is a shell: {said}");
    // The allocator's own threads, which give memory back: in a static program, too.
    let tasks = fs::read_dir(format!("/proc/{}/task", container.state("Pid"))).expect("it runs");
    let names: Vec<_> = tasks
        .map(|task| fs::read_to_string(task.expect("a task").path().join("comm")).unwrap_or_default())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("jemalloc_bg_thd")),
        "{names:?}"
    );

    let mut client = Client::connect(container.address, &format!("/app/{KEY}?protocol=7")).await;
    client.subscribe("news").await;
    let mut backend = Backend {
        http: Http::connect(container.address).await,
        app_id: "1".into(),
        key: KEY.into(),
        secret: SECRET.into(),
    };
    backend.publish("news", "hello", "there").await;
    assert_eq!(client.next().await["data"], "there");

    podman(&["stop", "--time=30", &container.name]);
    assert_eq!(client.expect_close().await.0, 4200, "it drains");
    assert_eq!(container.state("ExitCode"), "0", "{}", container.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_notices_a_server_that_hangs_and_one_that_leaves() {
    let container = Container::start(&["--env", "FANWIRE_DRAIN__DELAY_S=60"]).await;
    let ready = ["/usr/bin/fanwire", "health", "--ready"];
    assert!(container.exec(&ready).0);
    podman(&["kill", "--signal=STOP", &container.name]);
    assert!(!container.health(), "it hangs");
    podman(&["kill", "--signal=CONT", &container.name]);
    assert!(container.health(), "it goes on");
    podman(&["kill", "--signal=TERM", &container.name]);
    eventually("it is not ready", async || {
        (!container.exec(&ready).0).then_some(())
    })
    .await;
    assert!(container.health(), "to leave is no illness");
}

/// A name server that knows one name.
fn name_server(known: &'static str) -> String {
    let address = Ipv4Addr::new(127, 77, 0, 1);
    let socket =
        UdpSocket::bind((address, 53)).expect("this address is nobody's, and root may take its port");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let asked = &question[..length];
            // Behind the head of twelve bytes: labels with their lengths, a zero, type and class.
            let labels: Vec<u8> = known
                .split('.')
                .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
                .collect();
            let end = 12
                + asked[12..]
                    .iter()
                    .position(|byte| *byte == 0)
                    .expect("the end of a name")
                + 5;
            let is_known = asked[12..].starts_with(&[&labels[..], &[0]].concat());
            let is_for_v4 = asked[end - 4..end - 2] == [0, 1];
            let mut answer = asked[..end].to_vec();
            // A response, recursion available; no error, or no such name.
            answer[2..4].copy_from_slice(&[0x81, if is_known { 0x80 } else { 0x83 }]);
            answer[6..12].copy_from_slice(&[0, u8::from(is_known && is_for_v4), 0, 0, 0, 0]);
            if is_known && is_for_v4 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    address.to_string()
}

/// The C library is linked in, and looks names up by itself: in `/etc/hosts` first, then in DNS.
#[tokio::test(flavor = "multi_thread")]
async fn it_finds_names_in_its_hosts_file_and_in_dns() {
    let redis = Redis::start();
    let server = name_server("broker.fanwire.test");
    let url = redis.url().replace("127.0.0.1", "broker.fanwire.test");
    let container = Container::start(&[
        &format!("--dns={server}"),
        "--add-host=named.fanwire.test:127.0.0.1",
        "--env=FANWIRE_ADAPTER__DRIVER=redis",
        &format!("--env=FANWIRE_REDIS__URL={url}"),
    ])
    .await;
    eventually("the broker is found", async || {
        let ready = Http::connect(container.admin)
            .await
            .ask("GET", "/ready", "")
            .await;
        (ready.json()["cluster"]["bus"] == "up").then_some(())
    })
    .await;
    for (host, is_known) in [
        ("localhost", true),
        ("named.fanwire.test", true),
        ("broker.fanwire.test", true),
        ("nobody.fanwire.test", false),
    ] {
        let url = format!("http://{host}:{}/live", container.admin.port());
        let (is_found, said) = container.exec(&["/usr/bin/fanwire", "health", "--url", &url]);
        assert_eq!(is_found, is_known, "{host}: {said}");
    }
}
