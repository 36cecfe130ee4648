//! Apps that are found in a database: asked for once, remembered with bounds, and by no other name than their own.

use futures_util::future::join_all;
use serde_json::json;

use crate::engine::Kind;
use crate::stage::{Place, Served, app, comes_down_to};
use crate::support::http::Http;
use crate::support::{eventually, sign};

over_each_database![
    a_client_connects_and_is_reached,
    an_app_is_found_by_id_and_by_key_from_any_path,
    what_no_app_has_is_refused,
    ten_thousand_look_ups_of_one_app_are_one_query,
    unknown_keys_drive_out_no_app,
    an_app_that_nobody_uses_is_forgotten_and_found_again,
    an_app_with_sockets_is_never_forgotten,
    names_that_are_sql_are_names,
    an_app_that_is_wrong_can_be_tried_again,
    the_configuration_counts_before_the_store,
];

async fn a_client_connects_and_is_reached(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", r#"{"client_events": true}"#).await;
    let served = place.serve().await;
    let server = served.of(&app);
    server.serves().await;
    let (mut alice, mut bob) = (server.connect().await, server.connect().await);
    alice.subscribe("private-a").await;
    bob.subscribe("private-a").await;
    alice.whisper("private-a", "client-e", "hello").await;
    assert_eq!(bob.expect("client-e").await["data"], "hello");
}

async fn an_app_is_found_by_id_and_by_key_from_any_path(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    // By id, by a call that is the first thing the server hears of it.
    assert_eq!(place.serve().await.status(&app).await, 200);
    // By a probe, on each port.
    for is_admin in [false, true] {
        let node = place.serve().await.node();
        let address = if is_admin {
            node.admin_address
        } else {
            node.address
        };
        for (path, status) in [("/up/7", 200), ("/up/8", 404)] {
            let answer = Http::connect(address).await.ask("GET", path, "").await;
            assert_eq!(answer.status, status, "{path}: {answer:?}");
        }
    }
    // By key, in a handshake that comes in pieces, and so is hyper's.
    let server = place.serve().await;
    let mut http = Http::connect(server.server.address()).await;
    http.write("GET /app/key%2D7?protocol=7 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n")
        .await;
    tokio::task::yield_now().await;
    http.write("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await;
    let answer = http.answer().await.expect("an answer");
    assert_eq!(answer.status, 101);
    eventually("the socket is the app's", async || {
        (served_connections(&server, "7") == 1).then_some(())
    })
    .await;
}

fn served_connections(served: &Served, id: &str) -> usize {
    let app = served.server.node().apps().by_id(id);
    app.map_or(0, |app| app.connections())
}

async fn what_no_app_has_is_refused(kind: Kind) {
    let place = Place::new(kind).await;
    let known = place.put("7", "{}").await;
    let served = place.serve().await;
    assert_eq!(served.refusal("key-8").await, Some(4001));
    assert_eq!(served.status(&app("8")).await, 404);
    // A key of another app is not this one's.
    let foreign = fanwire::app::AppConfig {
        id: "7".into(),
        ..app("8")
    };
    assert_eq!(served.status(&foreign).await, 401);
    // As soon as what was not there is no longer remembered, an app that is made is found.
    place.put("8", "{}").await;
    eventually("the new app to be found", async || {
        served.refusal("key-8").await.is_none().then_some(())
    })
    .await;
    assert_eq!(served.refusal(&known.key).await, None);
}

async fn ten_thousand_look_ups_of_one_app_are_one_query(kind: Kind) {
    let place = Place::new(kind).await;
    place.put("7", "{}").await;
    let mut config = place.config();
    config.store.refresh_s = 3_600;
    config.store.timeout_ms = 20_000;
    let served = Served::start(config).await;
    let apps = served.server.node().apps();
    let found = join_all((0..10_000).map(|_| apps.find_by_key("key-7"))).await;
    assert!(
        found
            .iter()
            .all(|app| app.as_ref().is_ok_and(|app| app.id() == "7"))
    );
    assert_eq!(served.node().metric("store_queries_total", &[]).await, 1);
    // And so are the clients of an app that all come back.
    let clients = join_all((0..200).map(|_| served.refusal("key-7"))).await;
    assert!(clients.iter().all(Option::is_none));
    assert_eq!(served.node().metric("store_queries_total", &[]).await, 1);
}

async fn unknown_keys_drive_out_no_app(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    let mut config = place.config();
    config.store.refresh_s = 3_600;
    config.store.negative_ttl_s = 3_600;
    config.store.apps_max = 1;
    config.store.unknown_max = 10;
    let served = Served::start(config).await;
    assert_eq!(served.status(&app).await, 200);
    let apps = served.server.node().apps();
    for made_up in 0..20 {
        let looked =
            (0..50).map(|more| async move { apps.find_by_key(&format!("made-up-{made_up}-{more}")).await });
        assert!(join_all(looked).await.iter().all(Result::is_err));
    }
    let node = served.node();
    let queries = node.metric("store_queries_total", &[]).await;
    assert_eq!(served.status(&app).await, 200);
    assert_eq!(served.refusal(&app.key).await, None);
    assert_eq!(node.metric("store_queries_total", &[]).await, queries);
    assert_eq!(node.metric("store_apps", &[]).await, 1);
    // What is remembered of them has a bound; the cache tidies up when it is used.
    eventually("the bound of unknown names", async || {
        let _ = apps.find_by_key("made-up").await;
        (node.metric("store_unknown_names", &[]).await <= 10).then_some(())
    })
    .await;
}

async fn an_app_that_nobody_uses_is_forgotten_and_found_again(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    let mut config = place.config();
    config.store.ttl_s = 1;
    let served = Served::start(config).await;
    assert_eq!(served.status(&app).await, 200);
    let node = served.node();
    assert_eq!(node.metric("store_apps", &[]).await, 1);
    // Not before what it used is saved, which takes some seconds.
    comes_down_to(&node, "store_apps", 0).await;
    served.of(&app).serves().await;
}

async fn an_app_with_sockets_is_never_forgotten(kind: Kind) {
    let place = Place::new(kind).await;
    let used = place.put("7", "{}").await;
    let mut config = place.config();
    config.store.ttl_s = 1;
    config.store.apps_max = 1;
    let served = Served::start(config).await;
    let mut client = served.of(&used).connect().await;
    client.subscribe("a").await;
    for other in 10..15 {
        let other = place.put(&other.to_string(), "{}").await;
        assert_eq!(served.status(&other).await, 200);
    }
    let node = served.node();
    comes_down_to(&node, "store_apps", 1).await;
    assert_eq!(served_connections(&served, "7"), 1);
    served
        .of(&used)
        .backend()
        .await
        .publish("a", "e", "still here")
        .await;
    assert_eq!(client.expect("e").await["data"], "still here");
}

async fn names_that_are_sql_are_names(kind: Kind) {
    let place = Place::new(kind).await;
    let known = place.put("7", "{}").await;
    let served = place.serve().await;
    let apps = served.server.node().apps();
    let long = "k".repeat(100_000);
    for name in [
        "'",
        "''",
        "'--",
        "x'OR'1'='1",
        "key-7'--",
        "1;DROP(TABLE)apps",
        "$1",
        "key-7\0",
        "key-7 ",
        "KEY-7",
        "kéy",
        "key_7",
        "key-_",
        "*",
        "\\",
        "\u{1F600}",
        "",
        &long,
    ] {
        assert!(apps.find_by_key(name).await.is_err(), "{name:?}");
        assert!(apps.find_by_id(name).await.is_err(), "{name:?}");
    }
    for escaped in ["%27", "x'OR'1'='1", "key-7%00", "key-7%20", "%ff", "KEY-7"] {
        assert_eq!(served.refusal(escaped).await, Some(4001), "{escaped}");
        let mut http = Http::connect(served.server.address()).await;
        let path = format!("/apps/{escaped}/channels");
        let query = sign::signed_query(&known.key, "secret", "GET", &path, "", "");
        let answer = http.ask("GET", &format!("{path}?{query}"), "").await;
        assert!(matches!(answer.status, 400 | 404), "{escaped}: {answer:?}");
    }
    // An app may be called so, and the store does not stumble.
    let odd = place.put("x'OR'1'='1", "{}").await;
    assert_eq!(served.refusal(&odd.key).await, None);
    assert_eq!(served.refusal(&known.key).await, None);
    assert_eq!(place.store().list().await.expect("the tables are there").len(), 2);
}

async fn an_app_that_is_wrong_can_be_tried_again(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", r#"{"client_event": true}"#).await;
    let served = place.serve().await;
    assert_eq!(served.refusal(&app.key).await, Some(4100));
    let answer = served.of(&app).backend().await.get("/channels").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    place
        .by_hand("UPDATE apps SET settings = '{\"client_events\": true}'")
        .await;
    eventually("the app to be found", async || {
        served.refusal(&app.key).await.is_none().then_some(())
    })
    .await;
    // Wrong again, it goes on as it was.
    place.by_hand("UPDATE apps SET settings = 'no JSON'").await;
    let node = served.node();
    let queries = node.metric("store_queries_total", &[]).await;
    eventually("it to be read again", async || {
        (node.metric("store_queries_total", &[]).await > queries + 1).then_some(())
    })
    .await;
    served.of(&app).serves().await;
}

async fn the_configuration_counts_before_the_store(kind: Kind) {
    let place = Place::new(kind).await;
    place.put("7", r#"{"connections_max": 1}"#).await;
    place.put("8", "{}").await;
    let mut config = place.config();
    config.apps = vec![fanwire::app::AppConfig {
        key: "key-of-the-file".into(),
        ..app("7")
    }];
    let mut of_file = config.apps[0].clone();
    let served = Served::start(config).await;
    served.of(&of_file).serves().await;
    // Its namesake's key leads nowhere, and its own settings stay.
    assert_eq!(served.refusal("key-7").await, Some(4100));
    let settings = served.server.node().apps().by_id("7").expect("it is served");
    assert_eq!(settings.settings().config.connections_max, 0);
    assert_eq!(served.refusal("key-8").await, None);
    of_file.id = "8".into();
    assert_eq!(served.status(&of_file).await, 401);
    assert_eq!(json!(settings.id()), "7");
}
