//! Apps that change while they are served: the configuration file is edited, replaced, swapped and broken under
//! everybody's feet, and nobody is disturbed who need not be.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanwire::app::App;
use fanwire::config::ConfigSource;
use fanwire::server::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Client, Heard};
use crate::support::http::{Backend, Http};
use crate::support::server::{KEY, SECRET, TestServer};
use crate::support::{eventually, sign};

/// A server that follows a file in a folder of its own.
struct Live {
    server: TestServer,
    folder: TempDir,
}

/// A configuration with these apps, on free ports.
fn written(apps: &Value) -> String {
    let config = json!({
        "server": { "port": 0, "shards": 3 },
        "admin": { "port": 0 },
        "drain": { "drain_s": 0 },
        "apps": apps,
    });
    config.to_string()
}

/// The app of most tests, with some settings changed.
fn app(change: Value) -> Value {
    let mut app = json!({ "id": "1", "key": KEY, "secret": SECRET, "client_events": true });
    merge(&mut app, change);
    app
}

fn other_app() -> Value {
    json!({ "id": "2", "key": "other", "secret": "s2" })
}

fn merge(into: &mut Value, change: Value) {
    for (key, value) in change.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

async fn serve(file: PathBuf) -> TestServer {
    let source = ConfigSource::new(Some(file), []);
    let config = source.load().expect("a configuration in order");
    let app = config.apps[0].clone();
    let mut server = Server::start(config).await.expect("free ports");
    server.follow(source);
    TestServer::serving(Arc::new(server), app)
}

impl Live {
    async fn start(apps: Value) -> Live {
        Live::start_with(written(&apps)).await
    }

    async fn start_with(text: String) -> Live {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fanwire.json");
        fs::write(&file, text).expect("the file is written");
        Live {
            server: serve(file).await,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the file as a whole, as editors and deployments do.
    fn put(&self, apps: &Value) {
        let new = self.path("fanwire.json.new");
        fs::write(&new, written(apps)).expect("the file is written");
        fs::rename(new, self.path("fanwire.json")).expect("the file is replaced");
    }

    /// Writes into the file that is there.
    fn write(&self, text: &str) {
        fs::write(self.path("fanwire.json"), text).expect("the file is written");
    }

    fn app(&self) -> Arc<App> {
        self.server
            .server
            .node()
            .apps()
            .by_id("1")
            .expect("the app is served")
    }

    /// Waits until the app's settings are so.
    async fn becomes(&self, what: &str, is_so: impl Fn(&App) -> bool) {
        let apps = self.server.server.node();
        eventually(what, async || {
            apps.apps().by_id("1").filter(|app| is_so(app)).map(drop)
        })
        .await;
    }

    async fn backend(&self, key: &str, secret: &str) -> Backend {
        Backend {
            key: key.into(),
            secret: secret.into(),
            ..self.server.backend().await
        }
    }

    async fn connect_as(&self, key: &str) -> Client {
        Client::connect(self.server.address, &format!("/app/{key}?protocol=7")).await
    }

    /// The code that a handshake with this key is refused with; none if it is not.
    async fn refusal(&self, key: &str) -> Option<u16> {
        let mut client = Client::open(self.server.address, &format!("/app/{key}?protocol=7")).await;
        match client.hear().await {
            Heard::Message(message) if message["event"] == "pusher:connection_established" => None,
            Heard::Message(message) => message["data"]["code"].as_u64().map(|code| code as u16),
            other => panic!("neither let in nor refused: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_switched_off_closes_its_sockets_and_no_others() {
    let live = Live::start(json!([app(json!({})), other_app()])).await;
    let mut clients = live.server.connect_many(60).await;
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("room-{}", n % 7)).await;
    }
    let mut neighbour = live.connect_as("other").await;
    neighbour.subscribe("room-1").await;

    live.put(&json!([app(json!({ "enabled": false })), other_app()]));
    for client in &mut clients {
        assert_eq!(client.expect_close().await.0, 4003);
    }
    assert_eq!(live.refusal(KEY).await, Some(4003));
    let answer = live.server.backend().await.get("/channels").await;
    assert_eq!(answer.status, 403, "{answer:?}");
    eventually("nobody of it is left", async || {
        (live.app().connections() == 0).then_some(())
    })
    .await;
    let mut backend = Backend {
        app_id: "2".into(),
        ..live.backend("other", "s2").await
    };
    backend.publish("room-1", "still", "here").await;
    neighbour.expect("still").await;

    live.put(&json!([app(json!({})), other_app()]));
    live.becomes("enabled again", |app| app.closed().is_none()).await;
    live.server.serves().await;
}

/// More sockets of one shard than it looks at, and closes, in one turn; every fourth is another app's.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_closed_in_turns_and_nobody_is_forgotten() {
    const CROWD: usize = 1_400;
    let mut config: Value =
        serde_json::from_str(&written(&json!([app(json!({})), other_app()]))).expect("JSON");
    config["server"]["shards"] = json!(1);
    let live = Live::start_with(config.to_string()).await;
    let (mut crowd, mut others) = (Vec::new(), Vec::new());
    for number in 0..CROWD {
        match number % 4 {
            3 => others.push(live.connect_as("other").await),
            _ => crowd.push(live.server.connect().await),
        }
    }
    config["apps"] = json!([app(json!({ "enabled": false })), other_app()]);
    live.write(&config.to_string());
    for client in &mut crowd {
        assert_eq!(client.expect_close().await.0, 4003);
    }
    live.server
        .metric_becomes("closed_total", &[r#"reason="app_disabled""#], crowd.len() as u64)
        .await;
    for client in &mut others {
        client.say(&json!({ "event": "pusher:ping", "data": {} })).await;
        client.expect("pusher:pong").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_taken_out_is_gone_with_its_figures_and_one_that_comes_back_is_the_same() {
    let live = Live::start(json!([app(json!({})), other_app()])).await;
    let first = live.app();
    let mut client = live.server.connect().await;
    client.join("presence-a", "7").await;

    live.put(&json!([other_app()]));
    assert_eq!(client.expect_close().await.0, 4001);
    assert_eq!(live.refusal(KEY).await, Some(4001));
    let answer = live.server.backend().await.get("/channels").await;
    assert_eq!(answer.status, 404, "{answer:?}");

    live.put(&json!([other_app(), app(json!({}))]));
    live.becomes("served again", |_| true).await;
    assert!(Arc::ptr_eq(&first, &live.app()));
    live.server.serves().await;
    let channels = live.server.backend().await.channels().await;
    assert_eq!(channels, json!({}), "nobody was left behind");

    drop(first);
    live.put(&json!([other_app()]));
    eventually("the figures of the app are gone", async || {
        let text = live.server.admin("/metrics").await.body;
        (!text.contains(r#"app_id="1""#)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_be_added() {
    let live = Live::start(json!([app(json!({}))])).await;
    assert_eq!(live.refusal("other").await, Some(4001));
    live.put(&json!([app(json!({})), other_app()]));
    eventually("the other app is served", async || {
        (live.refusal("other").await.is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_under_load_and_nothing_is_lost() {
    let live = Live::start(json!([app(json!({}))])).await;
    let mut early = live.server.connect().await;
    early.subscribe("ticker").await;

    // A back end that learns of the new key some time after it was made.
    let is_new = Arc::new(AtomicBool::new(false));
    let is_over = Arc::new(AtomicBool::new(false));
    let (mut old, mut new) = (
        live.backend(KEY, SECRET).await,
        live.backend("new", "new secret").await,
    );
    let publishing = tokio::spawn({
        let (is_new, is_over) = (is_new.clone(), is_over.clone());
        async move {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let backend = if is_new.load(Ordering::Relaxed) {
                    &mut new
                } else {
                    &mut old
                };
                backend.publish("ticker", "tick", &count.to_string()).await;
                count += 1;
            }
            count
        }
    });

    let both = json!([{ "key": "new", "secret": "new secret" }]);
    live.put(&json!([app(json!({ "keys": both }))]));
    live.becomes("two keys", |app| app.settings().keys().count() == 2)
        .await;
    for key in [KEY, "new"] {
        assert_eq!(live.refusal(key).await, None, "{key}");
    }
    is_new.store(true, Ordering::Relaxed);
    // What is under way with the old key is done when as many more have been published with the new one.
    let mut heard = 0;
    for _ in 0..50 {
        assert_eq!(early.expect("tick").await["data"], heard.to_string());
        heard += 1;
    }

    live.put(&json!([{ "id": "1", "keys": both, "client_events": true }]));
    live.becomes("one key", |app| app.settings().keys().count() == 1)
        .await;
    assert_eq!(live.refusal(KEY).await, Some(4001));
    assert_eq!(live.refusal("new").await, None);
    let answer = live.server.backend().await.get("/channels").await;
    assert_eq!(answer.status, 401, "{answer:?}");

    is_over.store(true, Ordering::Relaxed);
    let published = publishing.await.expect("every event was accepted");
    while heard < published {
        assert_eq!(early.expect("tick").await["data"], heard.to_string());
        heard += 1;
    }

    // A socket that came with the old key stays, but nothing signed with that key counts any more.
    for (channel, key, secret, is_right) in [
        ("private-old", KEY, SECRET, false),
        ("private-new", "new", "new secret", true),
        ("private-mixed", "new", SECRET, false),
    ] {
        let auth = sign::auth(key, secret, &format!("{}:{channel}", early.socket_id));
        early
            .say(&json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth } }))
            .await;
        match is_right {
            true => drop(early.expect_subscribed(channel).await),
            false => drop(early.expect_refusal(channel, "AuthError", 401).await),
        }
    }
    let user = r#"{"id":"7"}"#;
    for (key, secret, answer) in [
        (KEY, SECRET, "pusher:error"),
        ("new", "new secret", "pusher:signin_success"),
    ] {
        let auth = sign::auth(key, secret, &format!("{}::user::{user}", early.socket_id));
        early
            .say(&json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user } }))
            .await;
        early.expect(answer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_begins_and_ends_at_its_times() {
    let in_s = |seconds: i64| {
        let now = jiff::Timestamp::now();
        (now + jiff::SignedDuration::from_secs(seconds)).to_string()
    };
    let keys = json!([
        { "key": "later", "secret": "a", "active_from": in_s(3600) },
        { "key": "soon", "secret": "b", "active_from": in_s(2) },
        { "key": "ends", "secret": "c", "expires_at": in_s(2) },
        { "key": "over", "secret": "d", "expires_at": in_s(-1) },
    ]);
    let live = Live::start(json!([app(json!({ "keys": keys }))])).await;
    let mut client = live.connect_as("ends").await;
    assert_eq!(live.refusal("soon").await, Some(4001));
    eventually("the key has begun", async || {
        live.refusal("soon").await.is_none().then_some(())
    })
    .await;
    eventually("the key has ended", async || {
        (live.refusal("ends").await == Some(4001)).then_some(())
    })
    .await;
    for (key, secret) in [("later", "a"), ("ends", "c"), ("over", "d")] {
        assert_eq!(live.refusal(key).await, Some(4001), "{key}");
        let answer = live.backend(key, secret).await.get("/channels").await;
        assert_eq!(answer.status, 401, "{key} {answer:?}");
    }
    // Who came while it counted stays.
    client.subscribe("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_what_happens_next() {
    let live = Live::start(json!([app(json!({ "connections_max": 3 }))])).await;
    let mut clients = live.server.connect_many(3).await;
    clients[0].subscribe("private-a").await;
    clients[1].subscribe("private-a").await;

    live.put(&json!([app(json!({
        "connections_max": 2,
        "channels": [{ "pattern": "private-a", "client_events": false, "event_data_bytes_max": 5 }],
    }))]));
    live.becomes("two connections at most", |app| {
        app.settings().limits.connections_max == 2
    })
    .await;
    assert_eq!(live.refusal(KEY).await, Some(4004));
    for client in &mut clients {
        client.say(&json!({ "event": "pusher:ping", "data": {} })).await;
        client.expect("pusher:pong").await;
    }
    clients[0].whisper("private-a", "client-x", "y").await;
    clients[0].expect_error(4301).await;
    let event = |data: &str| json!({ "name": "e", "channel": "private-a", "data": data });
    let mut backend = live.server.backend().await;
    assert_eq!(backend.post("/events", &event("123456")).await.status, 413);
    assert_eq!(backend.post("/events", &event("12345")).await.status, 200);
    clients[1].expect("e").await;

    live.put(&json!([app(json!({ "connections_max": 4 }))]));
    live.becomes("four connections at most", |app| {
        app.settings().limits.connections_max == 4
    })
    .await;
    let _fourth = live.server.connect().await;
    assert_eq!(live.refusal(KEY).await, Some(4004));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_changes_nothing() {
    let live = Live::start(json!([app(json!({ "connections_max": 7 }))])).await;
    let mut client = live.server.connect().await;
    let right = written(&json!([app(json!({ "connections_max": 8 }))]));
    let wrong = [
        right[..right.len() / 2].to_owned(),
        written(&json!([app(json!({ "conections_max": 8 }))])),
        written(&json!([app(json!({})), app(json!({}))])),
        // The demo app is for a server that is started without apps.
        written(&json!([])),
        String::new(),
    ];
    for (refused, text) in wrong.iter().enumerate() {
        live.write(text);
        let refused = refused as u64 + 1;
        live.server
            .metric_becomes("config_refused_total", &[], refused)
            .await;
        assert_eq!(live.app().settings().limits.connections_max, 7, "{text}");
    }
    fs::remove_file(live.path("fanwire.json")).expect("the file is removed");
    live.server.metric_becomes("config_refused_total", &[], 6).await;
    client.subscribe("a").await;
    live.server.serves().await;

    live.write(&right);
    live.becomes("right again", |app| app.settings().limits.connections_max == 8)
        .await;
    assert_eq!(live.server.metric("config_changes_total", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_at_once_the_last_one_holds() {
    let live = Live::start(json!([app(json!({}))])).await;
    for max in 1..=40 {
        live.put(&json!([app(json!({ "connections_max": max }))]));
    }
    live.becomes("the last change", |app| {
        app.settings().limits.connections_max == 40
    })
    .await;
    live.server.serves().await;
}

/// Makes a folder of a version, and a link to it that takes the place of the old one.
fn swap(root: &Path, version: &str, apps: &Value) {
    let folder = root.join(format!("..{version}"));
    fs::create_dir(&folder).expect("a folder is made");
    fs::write(folder.join("fanwire.json"), written(apps)).expect("the file is written");
    let new = root.join("..data_tmp");
    std::os::unix::fs::symlink(format!("..{version}"), &new).expect("a link is made");
    fs::rename(new, root.join("..data")).expect("the link is replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_of_kubernetes_is_swapped_as_a_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    swap(root, "1", &json!([app(json!({ "connections_max": 1 }))]));
    std::os::unix::fs::symlink("..data/fanwire.json", root.join("fanwire.json")).expect("a link is made");
    let server = serve(root.join("fanwire.json")).await;
    let live = Live { server, folder };
    for max in 2..=3 {
        let version = max.to_string();
        swap(
            live.folder.path(),
            &version,
            &json!([app(json!({ "connections_max": max }))]),
        );
        fs::remove_dir_all(live.path(&format!("..{}", max - 1))).expect("the old folder is removed");
        live.becomes(&version, |app| app.settings().limits.connections_max == max)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_file_of_its_own_may_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "one\n").expect("written");
    let live = Live::start(json!([{ "id": "1", "key": KEY, "secret_file": secret }])).await;
    assert_eq!(live.backend(KEY, "one").await.get("/channels").await.status, 200);
    fs::write(&secret, "two\n").expect("written");
    eventually("the new secret", async || {
        let answer = live.backend(KEY, "two").await.get("/channels").await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(live.backend(KEY, "one").await.get("/channels").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_watched_is_read_again_when_somebody_asks() {
    let unwatched = |apps: Value| {
        let mut config: Value = serde_json::from_str(&written(&apps)).expect("JSON");
        config["server"]["watch_config"] = json!(false);
        config.to_string()
    };
    let live = Live::start_with(unwatched(json!([app(json!({}))]))).await;
    live.write(&unwatched(json!([app(json!({ "connections_max": 7 }))])));
    // A wrong one in between, which is told at once.
    live.server.server.reread();
    live.becomes("read again", |app| app.settings().limits.connections_max == 7)
        .await;
    live.write("{");
    live.server.server.reread();
    live.server.metric_becomes("config_refused_total", &[], 1).await;
    let mut http = Http::connect(live.server.address).await;
    assert_eq!(http.ask("GET", "/up", "").await.status, 200);
}
