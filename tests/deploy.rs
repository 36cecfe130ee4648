//! The proxies of `deploy/` as they stand there, before three nodes that Redis joins: only their addresses are replaced.

#[path = "support/brokers/mod.rs"]
mod brokers;
#[allow(dead_code, reason = "shared with tests that need more")]
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fanwire::adapter::config::Driver;
use fanwire::adapter::redis::RedisUrl;
use fanwire::config::Config;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use brokers::free_port;
use brokers::redis::Redis;
use support::client::{Client, Heard};
use support::http::{Backend, Http};
use support::raw::Raw;
use support::server::{KEY, SECRET, TestServer, app, config};
use support::{eventually, sign};

const NODES: usize = 3;
const SOCKET: &str = "/app/key?protocol=7&client=js&version=8.6.0&flash=false";

/// Three nodes of one cluster.
async fn nodes(redis: &Redis, change: impl Fn(&mut Config)) -> Vec<TestServer> {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let mut config = config([app()]);
        config.server.shards = 1;
        change(&mut config);
        config.adapter.driver = Driver::Redis;
        config.redis.url = RedisUrl::new(&redis.url());
        nodes.push(TestServer::with_config(config).await);
    }
    for node in &nodes {
        eventually("a node is ready", async || {
            (node.admin("/ready").await.status == 200).then_some(())
        })
        .await;
        node.metric_becomes("cluster_nodes", &[], NODES as u64).await;
    }
    nodes
}

/// A proxy at work.
struct Proxy {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    /// Renders an example of `deploy/` for these nodes and starts it.
    async fn start(
        file: &str,
        nodes: &[TestServer],
        changes: &[(&str, &str)],
        command: fn(&Path) -> Command,
    ) -> Proxy {
        let folder = TempDir::new().expect("a temporary directory");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
        let mut text = fs::read_to_string(example).expect("the example is there");
        for (number, node) in (1..).zip(nodes) {
            text = replaced(
                &text,
                &format!("fanwire-{number}:6001"),
                &node.address.to_string(),
            );
        }
        for (from, to) in changes {
            let to = to
                .replace("ADDRESS", &address.to_string())
                .replace("FOLDER", &folder.path().display().to_string());
            text = replaced(&text, from, &to);
        }
        let config = folder.path().join("proxy.conf");
        fs::write(&config, text).expect("the folder can be written to");
        let log = folder.path().join("log");
        let output = || {
            fs::File::options()
                .create(true)
                .append(true)
                .open(&log)
                .expect("a file can be made")
        };
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let process = command(&config)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .unwrap_or_else(|error| panic!("{file}: {error}; `make tools` installs what is missing"));
        let mut proxy = Proxy {
            process,
            address,
            _folder: folder,
        };
        eventually("the proxy serves", async || {
            let ended = proxy.process.try_wait().expect("it can be waited for");
            assert_eq!(
                ended,
                None,
                "{file}: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
            let up = tokio::net::TcpStream::connect(address).await.is_ok()
                && Http::connect(address).await.ask("GET", "/up", "").await.status == 200;
            up.then_some(())
        })
        .await;
        proxy
    }

    async fn connect(&self) -> Client {
        Client::connect(self.address, SOCKET).await
    }

    async fn backend(&self) -> Backend {
        Backend {
            http: Http::connect(self.address).await,
            app_id: "1".into(),
            key: KEY.into(),
            secret: SECRET.into(),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the example lacks `{from}`");
    text.replace(from, to)
}

async fn nginx(nodes: &[TestServer], more: &[(&str, &str)]) -> Proxy {
    // What only a system's own nginx has: a folder in which it may write, and so many open files.
    let changes = [
        ("listen 80;", "listen ADDRESS;"),
        ("worker_rlimit_nofile 131072;", ""),
        ("worker_connections 65536;", "worker_connections 256;"),
        (
            "http {\n",
            "http {\n access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;\n \
             fastcgi_temp_path FOLDER/f; uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s;\n",
        ),
    ];
    let changes = [&changes, more].concat();
    Proxy::start("nginx/nginx.conf", nodes, &changes, |config| {
        let mut command = Command::new("nginx");
        let folder = config.parent().expect("a folder");
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(config)
            // One process, so that it ends with the test.
            .args([
                "-e",
                "stderr",
                "-g",
                "daemon off; master_process off; pid nginx.pid;",
            ]);
        command
    })
    .await
}

async fn haproxy(file: &str, nodes: &[TestServer], more: &[(&str, &str)]) -> Proxy {
    let changes = [("bind :80\n", "bind ADDRESS\n"), ("maxconn 50000", "maxconn 500")];
    let changes = [&changes, more].concat();
    Proxy::start(&format!("haproxy/{file}"), nodes, &changes, |config| {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(config);
        command
    })
    .await
}

/// Sockets spread over the nodes, each hears what is published and whispered through the proxy, exactly once.
async fn behaves_like_one_server(proxy: &Proxy, nodes: &[TestServer]) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..2 * NODES {
        let mut client = proxy.connect().await;
        client.subscribe("news").await;
        client.subscribe("private-room").await;
        clients.push(client);
    }
    for node in nodes {
        let sockets = node.metric("connected", &[]).await;
        assert!(
            (1..=3).contains(&sockets),
            "{sockets} of 6 sockets on one of 3 nodes"
        );
    }
    let mut backend = proxy.backend().await;
    for number in 0..10 {
        let except = &clients[number % clients.len()].socket_id;
        let event =
            json!({ "name": "n", "channels": ["news"], "data": number.to_string(), "socket_id": except });
        backend.trigger(&event).await;
        for (place, client) in clients.iter_mut().enumerate() {
            if place != number % (2 * NODES) {
                assert_eq!(client.next().await["data"], number.to_string());
            }
        }
    }
    clients[0].whisper("private-room", "client-hello", "there").await;
    for client in &mut clients[1..] {
        assert_eq!(client.next().await["event"], "client-hello");
    }
    let counts = backend.get("/channels/news?info=subscription_count").await.json();
    assert_eq!(counts["subscription_count"], 2 * NODES);
    // More than a proxy holds back in a buffer of its own.
    let large = "x".repeat(9_000);
    backend.publish("news", "large", &large).await;
    for client in &mut clients {
        assert_eq!(client.next().await["data"], large);
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_behind_nginx_are_one_server_and_one_that_is_gone_is_passed_over() {
    let redis = Redis::start();
    let mut nodes = nodes(&redis, |_| {}).await;
    let proxy = nginx(&nodes, &[]).await;
    let mut clients = behaves_like_one_server(&proxy, &nodes).await;

    nodes.pop().expect("three nodes").drain().await;
    let stayed = stayed(&mut clients).await;
    assert!(
        (3..=5).contains(&stayed.len()),
        "{} of 6 sockets stayed",
        stayed.len()
    );
    goes_on(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_behind_haproxy_are_one_server_and_a_draining_one_gets_nobody() {
    let redis = Redis::start();
    let mut nodes = nodes(&redis, |config| config.drain.delay_s = 8).await;
    let proxy = haproxy("haproxy.cfg", &nodes, &[]).await;
    let mut clients = behaves_like_one_server(&proxy, &nodes).await;

    // The probes are asked once a second: long before the drain's delay is over, HAProxy has turned to the others.
    let leaving = tokio::spawn(nodes.pop().expect("three nodes").drain());
    eventually("nobody is sent to the node that drains", async || {
        for _ in 0..2 * NODES {
            let mut client = Client::open(proxy.address, SOCKET).await;
            match client.hear().await {
                Heard::Message(_) => client.close().await,
                Heard::Closed(4100, _) => return None,
                other => panic!("{other:?}"),
            }
        }
        Some(())
    })
    .await;
    assert!(!leaving.is_finished(), "it was still there to be sent to");
    leaving.await.expect("it drains");
    let stayed = stayed(&mut clients).await;
    assert!(
        (3..=5).contains(&stayed.len()),
        "{} of 6 sockets stayed",
        stayed.len()
    );
    goes_on(&proxy).await;
}

/// Every new socket and every call is served by the nodes that are left.
async fn goes_on(proxy: &Proxy) {
    let mut backend = proxy.backend().await;
    for _ in 0..2 * NODES {
        let mut client = proxy.connect().await;
        client.subscribe("news").await;
        backend.publish("news", "again", "").await;
        assert_eq!(client.next().await["event"], "again");
        client.close().await;
    }
}

/// Those that were not closed with the code upon which clients come again at once.
async fn stayed(clients: &mut Vec<Client>) -> Vec<Client> {
    let mut stayed = Vec::new();
    for mut client in clients.drain(..) {
        client.say(&json!({ "event": "pusher:ping" })).await;
        match client.hear().await {
            Heard::Message(message) => {
                assert_eq!(message["event"], "pusher:pong");
                stayed.push(client);
            }
            Heard::Closed(code, _) => assert_eq!(code, 4200),
            Heard::Lost => panic!("a proxy passes the close on"),
        }
    }
    stayed
}

/// The first thing that somebody at this address hears who asks for a socket with these headers: the event, and the code
/// of an error.
async fn first_heard(
    proxy: &Proxy,
    from: [u8; 4],
    target: &str,
    headers: &str,
) -> (Raw, String, serde_json::Value) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from((from, 0)))
        .expect("all of 127/8 is here");
    let mut raw = Raw::of(socket.connect(proxy.address).await)
        .upgraded(target, headers)
        .await;
    let first = raw.next().await;
    let event = first["event"].as_str().expect("an event has a name").to_owned();
    (raw, event, first["data"]["code"].clone())
}

/// Each of two clients has a limit of its own, and what they claim changes nothing.
async fn tells_clients_apart(proxy: &Proxy) {
    let (one, other) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    let (_first, event, _) = first_heard(proxy, one, SOCKET, "").await;
    assert_eq!(event, "pusher:connection_established");
    for spoof in [
        "",
        "X-Forwarded-For: 127.0.0.9\r\n",
        "Forwarded: for=127.0.0.9\r\n",
    ] {
        let (_second, event, code) = first_heard(proxy, one, SOCKET, spoof).await;
        assert_eq!((event.as_str(), code), ("pusher:error", json!(4100)), "{spoof}");
    }
    let (_other, event, _) = first_heard(proxy, other, SOCKET, "").await;
    assert_eq!(event, "pusher:connection_established");
}

fn one_connection_each(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.1".into()];
    config.server.address_connections_max = 1;
}

/// One node that stands for all three.
async fn node(change: impl FnOnce(&mut Config)) -> Vec<TestServer> {
    let mut config = config([app()]);
    change(&mut config);
    vec![TestServer::with_config(config).await]
}

/// The other two lines of an example are taken out.
const ALONE_IN_NGINX: [(&str, &str); 2] = [
    ("server fanwire-2:6001 max_fails=1 fail_timeout=5s;", ""),
    ("server fanwire-3:6001 max_fails=1 fail_timeout=5s;", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_clients_are_told_apart_by_what_it_adds() {
    let nodes = node(one_connection_each).await;
    let proxy = nginx(&nodes, &ALONE_IN_NGINX).await;
    tells_clients_apart(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_an_app_for_tls_only_hears_that_it_was_none() {
    let nodes = node(|config| {
        config.server.trusted_proxies = vec!["127.0.0.1".into()];
        config.apps[0].tls_only = true;
    })
    .await;
    let claim = "X-Forwarded-Proto: https\r\n";
    let proxy = nginx(&nodes, &ALONE_IN_NGINX).await;
    let (_raw, event, code) = first_heard(&proxy, [127, 0, 0, 2], SOCKET, claim).await;
    assert_eq!((event.as_str(), code), ("pusher:error", json!(4000)));
    // The same with a proxy that was spoken to over TLS.
    let says_tls = ("X-Forwarded-Proto $scheme;", "X-Forwarded-Proto https;");
    let proxy = nginx(&nodes, &[&ALONE_IN_NGINX[..], &[says_tls]].concat()).await;
    let (_raw, event, _) = first_heard(&proxy, [127, 0, 0, 2], SOCKET, "").await;
    assert_eq!(event, "pusher:connection_established");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_haproxy_below_http_three_nodes_know_their_clients() {
    let redis = Redis::start();
    let nodes = nodes(&redis, |config| {
        config.server.proxy_protocol = true;
        config.server.trusted_proxies = vec!["127.0.0.1".into()];
    })
    .await;
    let proxy = haproxy("tcp.cfg", &nodes, &[]).await;
    behaves_like_one_server(&proxy, &nodes).await;
    for node in &nodes {
        let errors = node
            .metric("connection_errors_total", &["error_type=\"proxy_header\""])
            .await;
        assert_eq!(errors, 0, "its checks send the header too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_haproxy_below_http_clients_are_told_apart_by_the_header() {
    let nodes = node(|config| {
        one_connection_each(config);
        config.server.proxy_protocol = true;
    })
    .await;
    let lines = |number| format!("    server fanwire-{number} fanwire-{number}:6001 send-proxy-v2 check");
    let alone = [
        (lines(2), format!("#{}", lines(2))),
        (lines(3), format!("#{}", lines(3))),
    ];
    let alone = alone.each_ref().map(|(from, to)| (from.as_str(), to.as_str()));
    let proxy = haproxy("tcp.cfg", &nodes, &alone).await;
    tells_clients_apart(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_path_a_proxy_may_pass_the_prefix_on_or_take_it_away() {
    let nodes = node(|config| config.server.path_prefix = "/ws".into()).await;
    let strips = (
        "location / {\n            proxy_pass http://fanwire;",
        "location /ws/ {\n            proxy_pass http://fanwire/;",
    );
    // Probes, such as the one that this test waits with, have no prefix.
    let and_probes = (
        "        location /ws/ {",
        "        location /up {\n proxy_pass http://fanwire;\n }\n        location /ws/ {",
    );
    let passes = nginx(&nodes, &ALONE_IN_NGINX).await;
    let takes = nginx(&nodes, &[&ALONE_IN_NGINX[..], &[strips, and_probes]].concat()).await;
    for proxy in [&passes, &takes] {
        let mut client = Client::connect(proxy.address, &format!("/ws{SOCKET}")).await;
        client.subscribe("news").await;
        let mut backend = proxy.backend().await;
        // Official SDKs sign the path that they are given, or the one below it.
        for signed in ["/ws/apps/1/events", "/apps/1/events"] {
            let body = json!({ "name": "n", "channel": "news", "data": "d" }).to_string();
            let query = sign::signed_query(KEY, SECRET, "POST", signed, "", &body);
            let target = format!("/ws/apps/1/events?{query}");
            let answer = backend.http.ask("POST", &target, &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(client.next().await["event"], "n");
        }
    }
}
