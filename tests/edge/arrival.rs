//! Who is let in, and as whom: PROXY protocol, forwarded addresses, limits per address, the Unix socket, and those who come
//! and say nothing.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use fanwire::address::ForwardedHeader;
use fanwire::app::AppConfig;
use fanwire::config::Config;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::http::{Backend, Http, request};
use crate::support::raw::Raw;
use crate::support::server::{KEY, SECRET, TestServer, app, config};

const SOCKET: &str = "/app/key?protocol=7";
const HERE: &str = "127.0.0.1";

/// A server that was told more about how it is reached.
async fn server(change: impl FnOnce(&mut Config)) -> TestServer {
    let mut config = config([app()]);
    change(&mut config);
    TestServer::with_config(config).await
}

fn trust(config: &mut Config, proxies: &[&str]) {
    config.server.trusted_proxies = proxies.iter().map(|&proxy| proxy.to_owned()).collect();
}

/// Asks for a socket with these headers, in what is sent before.
async fn asked(address: SocketAddr, before: &[u8], headers: &str) -> Raw {
    let mut raw = Raw::connect(address).await;
    raw.send([before, Raw::upgrade(SOCKET, headers).as_bytes()].concat())
        .await;
    raw
}

/// Reads the answer to an upgrade: none, or the code with which the socket was refused.
async fn refused(raw: &mut Raw) -> Option<u16> {
    let head = raw.http_head().await.expect("whoever asks is upgraded");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let first = raw.next().await;
    if first["event"] == "pusher:connection_established" {
        return None;
    }
    assert_eq!(first["event"], "pusher:error");
    let (code, _) = raw.expect_close().await;
    assert_eq!(first["data"]["code"], code);
    Some(code)
}

/// The server says nothing any more, and never did.
async fn expect_dropped(mut raw: Raw) {
    assert_eq!(raw.bytes(1).await, None, "it hangs up without a word");
}

/// A header of version 2 for 192.0.2.7, over TLS or not.
fn binary_header(is_tls: bool) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14".to_vec();
    bytes.extend([192, 0, 2, 7, 127, 0, 0, 1, 0xc3, 0x50, 0x17, 0x71]);
    bytes.extend([0x20, 0, 5, u8::from(is_tls), 0, 0, 0, 0]);
    bytes
}

fn expects_header(config: &mut Config) {
    trust(config, &[HERE]);
    config.server.proxy_protocol = true;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_begins_with_the_header_of_a_proxy_where_that_is_expected() {
    let server = server(expects_header).await;
    let text = b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 6001\r\n";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for header in [&text[..], b"PROXY UNKNOWN\r\n", &binary_header(false), local] {
        // In one packet with the request.
        let mut raw = asked(server.address, header, "").await;
        assert_eq!(refused(&mut raw).await, None, "{header:x?}");
        // And byte by byte.
        let mut raw = Raw::connect(server.address).await;
        for byte in header {
            raw.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        let mut raw = raw.upgraded(SOCKET, "").await;
        raw.greeting().await;
        // What comes behind it may be a call as well.
        let mut http = Http::connect(server.address).await;
        http.write([header, request("GET", "/up", "").as_bytes()].concat())
            .await;
        assert_eq!(http.answer().await.expect("an answer").status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_its_header_is_dropped() {
    let server = server(|config| {
        expects_header(config);
        config.server.header_timeout_s = 1;
    })
    .await;
    let errors = async |kind: &str| {
        let label = format!("error_type=\"{kind}\"");
        server.metric("connection_errors_total", &[&label]).await
    };
    let upgrade = Raw::upgrade(SOCKET, "");
    for bytes in [
        upgrade.as_bytes(),
        b"PROXY TCP9 192.0.2.7 127.0.0.1 50000 6001\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 65536\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &[b'\n'; 4096],
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(bytes).await;
        expect_dropped(raw).await;
    }
    // Who hangs up in the middle; who never began has only looked whether somebody listens.
    for _ in 0..3 {
        drop(Raw::connect(server.address).await);
    }
    let mut raw = Raw::connect(server.address).await;
    raw.send(b"PROXY TCP4").await;
    drop(raw);
    server
        .metric_becomes("connection_errors_total", &["error_type=\"proxy_header\""], 7)
        .await;
    // Who does not go on.
    let mut raw = Raw::connect(server.address).await;
    raw.send(&binary_header(false)[..20]).await;
    expect_dropped(raw).await;
    assert_eq!((errors("proxy_header").await, errors("timeout").await), (7, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_say_nothing_on_the_porch_make_room_for_newcomers() {
    let server = server(|config| {
        expects_header(config);
        config.server.porch_connections_max = 16;
    })
    .await;
    let mut silent = Vec::new();
    for number in 0..40 {
        let mut raw = Raw::connect(server.address).await;
        // Some begin and do not go on.
        if number % 2 == 0 {
            raw.send(b"PROXY TCP4 192.0.2.7").await;
        }
        silent.push(raw);
    }
    // Nobody who speaks is turned away.
    let mut raw = asked(server.address, &binary_header(false), "").await;
    assert_eq!(refused(&mut raw).await, None);
    eventually("all but those who fit on it to have gone", async || {
        let errors = async |kind: &str| {
            let label = format!("error_type=\"{kind}\"");
            server.metric("connection_errors_total", &[&label]).await
        };
        // Those who came while there were many have little time, so some may have gone by themselves.
        let (pending, timeouts) = (errors("pending").await, errors("timeout").await);
        (pending > 0 && pending + timeouts >= 40 - 16).then_some(())
    })
    .await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_trusted_proxies_may_send_a_header() {
    let server = server(|config| {
        expects_header(config);
        trust(config, &["192.0.2.0/24"]);
    })
    .await;
    let raw = asked(server.address, &binary_header(false), "").await;
    expect_dropped(raw).await;
    let label = "error_type=\"proxy_header\"";
    assert_eq!(server.metric("connection_errors_total", &[label]).await, 1);
}

/// Whoever starts a server without reading its settings from a file hears of it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_none_is_not_passed_over() {
    let mut config = config([app()]);
    trust(&mut config, &["10.0.0.0/8", "10.0.0.0/80"]);
    let refused = fanwire::server::Server::start(config).await.err();
    let error = refused.expect("it does not start").to_string();
    assert!(
        error.starts_with("server.trusted_proxies: must be a network"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_for_tls_only_takes_the_word_of_a_trusted_proxy() {
    let tls_only = AppConfig {
        tls_only: true,
        ..app()
    };
    let serve = async |change: &dyn Fn(&mut Config)| {
        let mut config = config([tls_only.clone()]);
        change(&mut config);
        TestServer::with_config(config).await
    };
    let behind_proxy = serve(&|config| trust(config, &[HERE])).await;
    let by_rfc = serve(&|config| {
        trust(config, &[HERE]);
        config.server.forwarded_header = ForwardedHeader::Forwarded;
    })
    .await;
    let behind_another = serve(&|config| trust(config, &["192.0.2.0/24"])).await;
    let by_header = serve(&expects_header).await;
    let x = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    let x_plain = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n";
    let rfc = "Forwarded: for=192.0.2.7;proto=https\r\n";
    let (tls, plain): (&[u8], &[u8]) = (&binary_header(true), &binary_header(false));
    for (server, before, headers, code) in [
        (&behind_proxy, &b""[..], x, None),
        (&behind_proxy, b"", x_plain, Some(4000)),
        (&behind_proxy, b"", rfc, Some(4000)),
        (&behind_proxy, b"", "", Some(4000)),
        (&by_rfc, b"", rfc, None),
        (&by_rfc, b"", x, Some(4000)),
        (&behind_another, b"", x, Some(4000)),
        (&by_header, tls, "", None),
        (&by_header, plain, "", Some(4000)),
        // The client of the proxy that sent the header is no proxy itself.
        (&by_header, plain, x, Some(4000)),
    ] {
        let mut raw = asked(server.address, before, headers).await;
        assert_eq!(refused(&mut raw).await, code, "{headers}");
    }
    // Also on a connection that was kept, which is read in another way.
    for (headers, code) in [(x, None), (x_plain, Some(4000))] {
        let mut raw = Raw::connect(behind_proxy.address).await;
        raw.send(request("GET", "/up", "")).await;
        assert!(
            raw.http_head()
                .await
                .expect("an answer")
                .starts_with("HTTP/1.1 200 ")
        );
        assert_eq!(raw.bytes(15).await.as_deref(), Some(&br#"{"health":"OK"}"#[..]));
        raw.send(Raw::upgrade(SOCKET, headers)).await;
        assert_eq!(refused(&mut raw).await, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_connections_and_hears_when_it_has_more() {
    let server = server(|config| config.server.address_connections_max = 2).await;
    let mut first = asked(server.address, b"", "").await;
    assert_eq!(refused(&mut first).await, None);
    let mut backend = server.backend().await;
    let event = json!({ "name": "e", "channel": "a", "data": "" });
    assert_eq!(backend.post("/events", &event).await.status, 200);

    // A socket is told so inside it, so that clients come again; nothing is said of whether the app exists.
    for target in [SOCKET, "/app/nobody"] {
        let mut raw = Raw::connect(server.address).await.upgraded(target, "").await;
        assert_eq!(raw.next().await["data"]["code"], 4100);
        assert_eq!(raw.expect_close().await.0, 4100);
    }
    let mut further = server.backend().await;
    let answer = further.post("/events", &event).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("1")),
        "{answer:?}"
    );
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(further.http.answer().await.is_none(), "and it ends");
    let refusals = server.metric("closed_total", &["reason=\"address_limit\""]).await;
    assert_eq!(refusals, 2);

    // Calls on a connection that is within the limit are not counted by address.
    for _ in 0..5 {
        assert_eq!(backend.post("/events", &event).await.status, 200);
    }
    // Who goes makes room.
    drop(first);
    eventually("there is room for one more", async || {
        let mut raw = asked(server.address, b"", "").await;
        refused(&mut raw).await.is_none().then_some(())
    })
    .await;
    // Those whom nobody would tell are not kept.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Raw::connect(server.address).await);
    }
    eventually("the last ones are dropped", async || {
        let label = "error_type=\"address_limit\"";
        (server.metric("connection_errors_total", &[label]).await > 30).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_client_has_its_own_limit_and_cannot_take_anothers() {
    let server = server(|config| {
        trust(config, &[HERE, "10.0.0.0/8"]);
        config.server.address_connections_max = 1;
    })
    .await;
    let from = async |chain: &str| {
        let mut raw = asked(server.address, b"", &format!("X-Forwarded-For: {chain}\r\n")).await;
        let refused = refused(&mut raw).await;
        (raw, refused)
    };
    let (_first, code) = from("192.0.2.7").await;
    assert_eq!(code, None);
    for chain in [
        "192.0.2.7",
        "192.0.2.7:1234, 10.1.1.1",
        // What the client wrote itself.
        "198.51.100.1, 192.0.2.7",
        "127.0.0.1, 10.0.0.1, 192.0.2.7",
    ] {
        assert_eq!(from(chain).await.1, Some(4100), "{chain}");
    }
    let (_neighbour, code) = from("192.0.2.8").await;
    assert_eq!(code, None);
    let (_of_64, code) = from("2001:db8::1").await;
    assert_eq!(code, None);
    assert_eq!(from("2001:db8::2").await.1, Some(4100));
    // The proxy itself is not limited, nor are the calls that it passes on.
    let mut kept = Vec::new();
    for _ in 0..5 {
        let mut raw = asked(server.address, b"", "").await;
        assert_eq!(refused(&mut raw).await, None);
        kept.push(raw);
        let mut backend = server.backend().await;
        assert_eq!(backend.get("/channels").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_header_of_a_proxy_connections_are_counted_by_it() {
    let server = server(|config| {
        expects_header(config);
        config.server.address_connections_max = 1;
    })
    .await;
    let mut first = asked(server.address, &binary_header(false), "").await;
    assert_eq!(refused(&mut first).await, None);
    let mut second = asked(server.address, &binary_header(false), "").await;
    assert_eq!(refused(&mut second).await, Some(4100));
    let mut other = asked(server.address, b"PROXY TCP4 192.0.2.8 127.0.0.1 1 2\r\n", "").await;
    assert_eq!(refused(&mut other).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_ask_for_so_many_sockets_each_second() {
    let server = server(|config| config.server.address_handshakes_per_s = 3).await;
    let mut codes = Vec::new();
    for _ in 0..10 {
        let mut raw = asked(server.address, b"", "").await;
        codes.push(refused(&mut raw).await);
    }
    assert_eq!(codes[..3], [None; 3]);
    assert!(codes.contains(&Some(4100)), "{codes:?}");
    // Calls are not handshakes.
    for _ in 0..10 {
        assert_eq!(server.backend().await.get("/channels").await.status, 200);
    }
    eventually("a second has passed", async || {
        let mut raw = asked(server.address, b"", "").await;
        refused(&mut raw).await.is_none().then_some(())
    })
    .await;
}

/// A stream is a descriptor, here as on the server.
pub(crate) fn over_unix_socket(path: &Path) -> std::io::Result<TcpStream> {
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(stream)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unix_socket_serves_sockets_and_calls_and_is_gone_with_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fanwire.sock");
    let server = server(|config| {
        config.server.unix_socket = path.to_str().expect("a path in UTF-8").to_owned();
        // Neither limits nor the header of a proxy concern it.
        config.server.address_connections_max = 1;
        config.server.address_handshakes_per_s = 1;
        expects_header(config);
    })
    .await;
    let mut subscriber = Raw::over(over_unix_socket(&path).expect("it listens"))
        .upgraded(SOCKET, "")
        .await;
    subscriber.greeting().await;
    subscriber
        .say(&json!({ "event": "pusher:subscribe", "data": { "channel": "a" } }))
        .await;
    assert_eq!(
        subscriber.next().await["event"],
        "pusher_internal:subscription_succeeded"
    );

    let large = "x".repeat(9_000);
    let mut backend = Backend {
        http: Http::over(over_unix_socket(&path).expect("it listens")),
        app_id: "1".into(),
        key: KEY.into(),
        secret: SECRET.into(),
    };
    let event = json!({ "name": "e", "channel": "a", "data": large });
    assert_eq!(backend.post("/events", &event).await.status, 200);
    assert_eq!(subscriber.next().await["data"], large);
    drop((subscriber, backend));

    server.drain().await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_that_is_in_use_is_not_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fanwire.sock");
    let configured = || {
        let mut config = config([app()]);
        config.server.unix_socket = path.to_str().expect("a path in UTF-8").to_owned();
        config
    };
    let first = TestServer::with_config(configured()).await;
    let refused = fanwire::server::Server::start(configured()).await.err();
    let error = anyhow::Error::from(refused.expect("the path is taken"));
    let text = format!("{error:#}");
    assert!(text.contains("server.unix_socket"), "{text}");
    assert!(text.contains("another process listens there"), "{text}");
    over_unix_socket(&path).expect("the first one still listens");
    first.drain().await;
    let _second = TestServer::with_config(configured()).await;
    over_unix_socket(&path).expect("now the second one does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let server = server(|config| {
        config.server.shards = 1;
        config.server.pending_connections_max = 16;
    })
    .await;
    let mut crowd = Vec::new();
    for number in 0..64 {
        let mut raw = Raw::connect(server.address).await;
        // Some begin to ask and do not go on.
        if number % 2 == 0 {
            raw.send(b"GET /app/key HTTP/1.1\r\nHost:").await;
        }
        crowd.push(raw);
    }
    // Those who came first have gone, and nobody else.
    let label = "error_type=\"pending\"";
    server
        .metric_becomes("connection_errors_total", &[label], 48)
        .await;
    let still = crowd.split_off(48);
    for raw in crowd {
        expect_dropped(raw).await;
    }
    server.serves().await;
    // Who has asked is not of the crowd: kept connections and sockets stay, however many come.
    let mut backend = server.backend().await;
    assert_eq!(backend.get("/channels").await.status, 200);
    let (mut socket, _) = Raw::greeted(server.address).await;
    let mut crowd = Vec::new();
    for _ in 0..32 {
        crowd.push(Raw::connect(server.address).await);
    }
    assert_eq!(backend.get("/channels").await.status, 200);
    socket.say(&json!({ "event": "pusher:ping" })).await;
    assert_eq!(socket.next().await["event"], "pusher:pong");
    drop(still);
}
