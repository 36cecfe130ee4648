use std::future::ready;
use std::net::SocketAddr;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::metrics::AppSnapshot;

/// An admin port on a free port of loopback, for one test.
struct Admin {
    address: SocketAddr,
    state: Arc<AdminState>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Admin {
    async fn start(limits: Limits) -> Admin {
        Admin::start_for(limits, false).await
    }

    /// `is_away`: nobody on this machine may have anything done.
    async fn start_for(limits: Limits, is_away: bool) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(AdminState {
            metrics: Arc::new(Metrics::new("fanwire", 6001).unwrap()),
            health: Arc::new(Health::default()),
            app: Box::new(|path: String| {
                let is_there = path == "/up/1";
                ready(is_there.then_some(true).ok_or(NotFound::Unknown)).boxed()
            }),
            act: Box::new(|action| match action {
                Action::Drain => Ok(json!({ "draining": true })),
                Action::Shed { percent: 99, .. } => Err("another one is at work".to_owned()),
                Action::Shed { percent, over_s } => Ok(json!({ "percent": percent, "over_s": over_s })),
            }),
            may_act: Box::new(move |from| from.is_loopback() != is_away),
            snapshot: Box::new(|| Snapshot {
                apps: vec![AppSnapshot {
                    app_id: "1".into(),
                    connected: 42,
                    active_channels: 3,
                    ..AppSnapshot::default()
                }],
                inbox_bytes: vec![0, 0],
                ..Snapshot::default()
            }),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, state.clone(), limits, async {
            let _ = stopped.await;
        }));
        Admin {
            address,
            state,
            stop,
            server,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn request(&self, method: &str, target: &str) -> Reply {
        self.request_with(method, target, "").await
    }

    /// Each of `headers` ends with a line end.
    async fn request_with(&self, method: &str, target: &str, headers: &str) -> Reply {
        let mut stream = self.connect().await;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: admin\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Reply::read(&mut stream).await
    }

    async fn get(&self, target: &str) -> Reply {
        self.request("GET", target).await
    }
}

/// All that came until the server closed, taken apart.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    async fn read(stream: &mut TcpStream) -> Reply {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header)
    }
}

#[tokio::test]
async fn a_scrape_shows_counters_and_the_snapshot() {
    let admin = Admin::start(Limits::default()).await;
    admin.state.metrics.app("1").new_connections_total.inc_by(50);
    let reply = admin.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.has("content-type: text/plain; version=0.0.4"),
        "{}",
        reply.head
    );
    for line in [
        "# TYPE fanwire_connected gauge",
        "fanwire_connected{app_id=\"1\",port=\"6001\"} 42",
        "fanwire_new_connections_total{app_id=\"1\",port=\"6001\"} 50",
        "fanwire_shards 2",
    ] {
        assert!(reply.body.lines().any(|one| one == line), "{line}");
    }
}

#[tokio::test]
async fn a_scrape_may_be_json() {
    let admin = Admin::start(Limits::default()).await;
    let reply = admin.get("/metrics?json=1").await;
    assert!(reply.has("content-type: application/json"));
    let families: Vec<Value> = serde_json::from_str(&reply.body).unwrap();
    assert!(
        families
            .iter()
            .any(|family| family["name"] == "fanwire_connected")
    );
    assert!(wants_json(Some("a=b&json=true")));
    for query in [None, Some(""), Some("json"), Some("json="), Some("notjson=1")] {
        assert!(!wants_json(query), "{query:?}");
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn usage_tells_the_memory() {
    let reply = Admin::start(Limits::default()).await.get("/usage").await;
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    let of = |key: &str| body["memory"][key].as_f64().expect(key);
    assert_eq!(of("used") + of("free"), of("total"));
    assert!(of("percent") > 0.0);
}

#[tokio::test]
async fn the_probes_follow_the_state_of_the_process() {
    let admin = Admin::start(Limits::default()).await;
    assert_eq!(admin.get("/ready").await.status, 503);
    assert_eq!(admin.get("/live").await.status, 200);
    admin.state.health.started();
    assert_eq!(admin.get("/ready").await.status, 200);
    assert_eq!(admin.get("/up/1").await.status, 200);
    assert_eq!(admin.get("/up/2").await.status, 404);
    admin.state.health.drain();
    let reply = admin.get("/ready").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (503, r#"{"causes":["draining"],"ready":false}"#)
    );
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_asked_for_405() {
    let admin = Admin::start(Limits::default()).await;
    for (method, target, status) in [
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("GET", "/metrics/", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/ready", 405),
        ("PUT", "/usage", 405),
    ] {
        let reply = admin.request(method, target).await;
        assert_eq!(reply.status, status, "{method} {target}");
        assert_eq!(reply.has("allow: get, head"), status == 405, "{method} {target}");
        assert!(serde_json::from_str::<Value>(&reply.body).unwrap()["error"].is_string());
    }
}

#[tokio::test]
async fn what_an_operator_asks_for_is_done_and_answered() {
    let admin = Admin::start(Limits::default()).await;
    for (method, target, status, body) in [
        ("POST", "/drain", 202, r#"{"draining":true}"#),
        ("POST", "/shed?percent=25", 202, r#"{"over_s":null,"percent":25}"#),
        (
            "POST",
            "/shed?percent=25&over_s=60",
            202,
            r#"{"over_s":60,"percent":25}"#,
        ),
        (
            "POST",
            "/shed?percent=99",
            409,
            r#"{"error":"another one is at work"}"#,
        ),
        (
            "POST",
            "/shed?percent=0",
            400,
            r#"{"error":"percent is \"0\", and has to be a whole number from 1 to 100"}"#,
        ),
        ("GET", "/drain", 405, r#"{"error":"only POST"}"#),
        ("PUT", "/shed?percent=25", 405, r#"{"error":"only POST"}"#),
    ] {
        let reply = admin.request(method, target).await;
        assert_eq!((reply.status, &*reply.body), (status, body), "{method} {target}");
        assert_eq!(reply.has("allow: post"), status == 405, "{method} {target}");
    }
}

/// A page of anybody can have an operator's browser send a POST to loopback; it cannot leave out where it is from.
#[tokio::test]
async fn nothing_is_done_for_pages_in_browsers_webhooks_or_strangers() {
    let admin = Admin::start(Limits::default()).await;
    for headers in [
        "Origin: https://attacker.example\r\n",
        "Origin: null\r\n",
        "Origin: http://admin\r\nSec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        // A webhook, whose URL says so.
        "X-Pusher-Key: key\r\nX-Pusher-Signature: 0\r\n",
    ] {
        let reply = admin.request_with("POST", "/drain", headers).await;
        assert_eq!(reply.status, 403, "{headers}");
        // To look is another matter.
        assert_eq!(
            admin.request_with("GET", "/live", headers).await.status,
            200,
            "{headers}"
        );
    }
    let admin = Admin::start_for(Limits::default(), true).await;
    let reply = admin.request("POST", "/shed?percent=25").await;
    assert_eq!(
        (reply.status, &*reply.body),
        (
            403,
            r#"{"error":"not from 127.0.0.1: admin.actions_from names who may, beside the machine itself"}"#
        )
    );
    assert_eq!(admin.get("/live").await.status, 200);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let admin = Admin::start(Limits::default()).await;
    for target in ["/live", "/metrics", "/usage"] {
        let reply = admin.request("HEAD", target).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{target}");
        assert!(reply.head.contains("\r\ncontent-length: "), "{target}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let soon = Duration::from_millis(20);
    let head = Limits {
        head_max: soon,
        ..Limits::default()
    };
    let whole = Limits {
        connection_max: soon,
        ..Limits::default()
    };
    for limits in [head, whole] {
        let admin = Admin::start(limits).await;
        for begun in ["", "GET /live HT"] {
            let mut stream = admin.connect().await;
            let mut rest = Vec::new();
            // Cut off before the write or the read, the system reports a reset: that will do as well.
            let _ = stream.write_all(begun.as_bytes()).await;
            let _ = stream.read_to_end(&mut rest).await;
            assert!(!rest.starts_with(b"HTTP/1.1 200"), "{begun:?}");
        }
    }
}

#[tokio::test]
async fn beyond_the_bound_connections_wait_for_their_turn() {
    let admin = Admin::start(Limits {
        connections_max: 1,
        ..Limits::default()
    })
    .await;
    let first = admin.connect().await;
    let mut second = admin.connect().await;
    second
        .write_all(b"GET /live HTTP/1.1\r\nHost: admin\r\n\r\n")
        .await
        .unwrap();
    let early = timeout(Duration::from_millis(50), second.readable()).await;
    assert!(early.is_err(), "served while the only place was taken");
    drop(first);
    assert_eq!(Reply::read(&mut second).await.status, 200);
}

#[tokio::test]
async fn stopping_finishes_what_is_under_way_and_waits_no_longer_than_that() {
    let admin = Admin::start(Limits {
        stop_max: Duration::from_millis(20),
        ..Limits::default()
    })
    .await;
    let _silent = admin.connect().await;
    assert_eq!(admin.get("/live").await.status, 200);
    admin.stop.send(()).unwrap();
    admin.server.await.unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
}
