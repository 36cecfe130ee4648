//! A database that is frozen or dies under load: who is known goes on, who is not is told to come again, and nobody is
//! told that there is no such app.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fanwire::server::Server;
use jiff::Timestamp;
use serde_json::Value;

use crate::engine::{Engine, Kind};
use crate::stage::{Place, Served, app, record};
use crate::support::eventually;
use crate::support::http::Http;

over_each_server![
    a_frozen_database_keeps_nobody_waiting,
    a_database_that_dies_is_missed_by_nobody_who_is_known,
    a_server_starts_without_its_database,
    a_wrong_password_is_told_and_not_shown,
];

async fn engine(kind: Kind) -> Engine {
    let engine = tokio::task::spawn_blocking(move || Engine::start(kind)).await;
    engine.expect("a server that starts")
}

async fn ready(served: &Served) -> Value {
    let answer = served.node().admin("/ready").await;
    assert_eq!(answer.status, 200, "a store that is away makes no node unready");
    answer.json()["store"]["state"].clone()
}

/// Known apps are served, unknown ones are told to come again.
async fn goes_on(served: &Served) {
    let known = app("known");
    served.of(&known).serves().await;
    assert_eq!(served.status(&known).await, 200);
    assert_eq!(served.refusal("key-unknown").await, Some(4100));
    let answer = served.of(&app("unknown")).backend().await.get("/channels").await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1")),
        "{answer:?}"
    );
    let node = served.node();
    for address in [node.address, node.admin_address] {
        let answer = Http::connect(address).await.ask("GET", "/up/unknown", "").await;
        assert_eq!(
            (answer.status, &answer.json()["causes"][0]),
            (503, &"store_unavailable".into())
        );
    }
    // One that nobody asked for: that there is none was not said before.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nobody = format!("key-nobody-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    assert_eq!(
        served.refusal(&nobody).await,
        Some(4100),
        "nobody can say that there is none"
    );
}

async fn served_at(engine: &Engine, kind: Kind) -> (Place, Served) {
    let place = Place::at(engine, kind).await;
    fanwire::store::SqlStore::migrate(&place.section())
        .await
        .expect("tables are made");
    place.put("known", "{}").await;
    place.put("unknown", "{}").await;
    let mut config = place.config();
    config.store.timeout_ms = 500;
    let served = Served::start(config).await;
    served.of(&app("known")).serves().await;
    assert_eq!(ready(&served).await, "up");
    (place, served)
}

async fn recovers(served: &Served) {
    eventually("the unknown app to be found", async || {
        served.refusal("key-unknown").await.is_none().then_some(())
    })
    .await;
    eventually("the store to be up", async || {
        (ready(served).await == "up").then_some(())
    })
    .await;
    assert_eq!(served.refusal("key-nobody").await, Some(4001));
    served.of(&app("known")).serves().await;
}

async fn a_frozen_database_keeps_nobody_waiting(kind: Kind) {
    let engine = engine(kind).await;
    let (_place, served) = served_at(&engine, kind).await;
    engine.freeze();
    for _ in 0..3 {
        goes_on(&served).await;
    }
    eventually("the store to be degraded", async || {
        (ready(&served).await == "degraded").then_some(())
    })
    .await;
    goes_on(&served).await;
    assert!(served.node().metric("store_stale_total", &[]).await > 0);
    engine.thaw();
    recovers(&served).await;
}

async fn a_database_that_dies_is_missed_by_nobody_who_is_known(kind: Kind) {
    let mut engine = engine(kind).await;
    let (_place, served) = served_at(&engine, kind).await;
    let known = app("known");
    let mut client = served.of(&known).connect().await;
    client.subscribe("a").await;
    let load = {
        let server = served.of(&known);
        tokio::spawn(async move {
            let mut backend = server.backend().await;
            for number in 0_u64.. {
                backend.publish("a", "e", &number.to_string()).await;
                assert_eq!(client.expect("e").await["data"], number.to_string());
                server.connect().await.close().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    for _ in 0..2 {
        engine.kill();
        goes_on(&served).await;
        engine = tokio::task::spawn_blocking(move || {
            engine.go_on();
            engine
        })
        .await
        .expect("a server that starts again");
        recovers(&served).await;
        // To be unknown again.
        served.server.node().apps().remove("unknown");
    }
    assert!(!load.is_finished(), "the load goes on without an error");
    load.abort();
}

async fn a_server_starts_without_its_database(kind: Kind) {
    let mut engine = engine(kind).await;
    let (place, _) = served_at(&engine, kind).await;
    engine.kill();
    let mut config = place.config();
    config.store.timeout_ms = 500;
    config.apps = vec![app("of-the-file")];
    let served = Served::start(config).await;
    served.of(&app("of-the-file")).serves().await;
    assert_eq!(served.refusal("key-known").await, Some(4100));
    engine = tokio::task::spawn_blocking(move || {
        engine.go_on();
        engine
    })
    .await
    .expect("a server that starts again");
    recovers(&served).await;
    drop(engine);
}

async fn a_wrong_password_is_told_and_not_shown(kind: Kind) {
    let place = Place::new(kind).await;
    let engine = tokio::task::spawn_blocking(move || crate::engine::shared(kind)).await;
    let database = place.url.rsplit('/').next().expect("a database");
    let mut config = place.config();
    let url = engine.expect("a server").url_without_password(database);
    config.store.url = fanwire::store::StoreUrl::new(&url);
    config.store.password = fanwire::app::Secret::new("hunter2");
    let store = fanwire::store::SqlStore::open(&config.store).expect("a sound section");
    let error = store
        .create(&record("7", "{}"), Timestamp::now())
        .await
        .expect_err("nobody is let in");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    // A database that lets nobody in may do so in a moment.
    let served = Server::start(config.clone())
        .await
        .expect("a server without its store");
    drop(served);
    config.store.password = fanwire::app::Secret::new(crate::engine::PASSWORD);
    place.put("7", "{}").await;
    Served::start(config).await.of(&app("7")).serves().await;
}
