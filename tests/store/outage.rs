//! A database that is frozen or dies under load: who is known goes on, who is not is told to come again, and nobody is
//! told that there is no such app.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fanwire::server::Server;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::engine::{Engine, Kind};
use crate::stage::{Place, Served, app, record};
use crate::support::eventually;
use crate::support::http::Http;

over_each_server![
    a_frozen_database_keeps_nobody_waiting,
    a_database_that_dies_is_missed_by_nobody_who_is_known,
    a_flood_of_clients_outlasts_a_restart_of_the_database,
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

/// How the database is, as far as who asks can be sure of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Up,
    Away,
    /// It may be there already.
    Back,
}

impl State {
    fn of(state: &AtomicU8) -> State {
        [State::Up, State::Away, State::Back][usize::from(state.load(Ordering::SeqCst))]
    }
}

/// Clients that connect again and again, ten thousand times in all, half of them with a key that is known here; while the
/// database is away and later, others with keys that only the database has, or nobody.
async fn a_flood_of_clients_outlasts_a_restart_of_the_database(kind: Kind) {
    const CONNECTIONS: usize = 10_000;
    const AT_ONCE: usize = 200;
    let mut engine = engine(kind).await;
    let (place, served) = served_at(&engine, kind).await;
    for late in ["late-0", "late-1"] {
        place.put(late, "{}").await;
    }
    let (served, state) = (Arc::new(served), Arc::new(AtomicU8::new(State::Up as u8)));
    let (begun, looked_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let mut flood = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (served, state) = (served.clone(), state.clone());
        let (begun, looked_up) = (begun.clone(), looked_up.clone());
        flood.spawn(async move {
            loop {
                let number = begun.fetch_add(1, Ordering::SeqCst);
                if number >= CONNECTIONS {
                    return;
                }
                let before = State::of(&state);
                let which = number / 4 % 2;
                match number % 4 {
                    2 if before != State::Up => {
                        let refusal = served.refusal(&format!("key-late-{which}")).await;
                        let is_away = (before, State::of(&state)) == (State::Away, State::Away);
                        assert!(
                            refusal == Some(4100) || refusal.is_none() && !is_away,
                            "{refusal:?}"
                        );
                        looked_up.fetch_add(u64::from(is_away), Ordering::SeqCst);
                    }
                    3 if before != State::Up => {
                        let refusal = served.refusal(&format!("key-nobody-{which}")).await;
                        let is_away = (before, State::of(&state)) == (State::Away, State::Away);
                        assert!(
                            refusal == Some(4100) || refusal == Some(4001) && !is_away,
                            "{refusal:?}"
                        );
                        looked_up.fetch_add(u64::from(is_away), Ordering::SeqCst);
                    }
                    _ => assert_eq!(served.refusal("key-known").await, None),
                }
            }
        });
    }
    let queries = async || served.node().metric("store_queries_total", &[]).await;
    let so_many = async |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(120);
        while begun.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "the flood has dried up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    so_many(CONNECTIONS / 5).await;
    engine.kill();
    let before = queries().await;
    state.store(State::Away as u8, Ordering::SeqCst);
    so_many(CONNECTIONS * 3 / 5).await;
    state.store(State::Back as u8, Ordering::SeqCst);
    let (asked, looked_up) = (queries().await - before, looked_up.load(Ordering::SeqCst));
    // However many ask for the same name, there is one question at a time.
    assert!(looked_up > 1_000, "{looked_up}");
    assert!(
        asked * 5 < looked_up,
        "{asked} questions for {looked_up} look-ups"
    );
    let engine = tokio::task::spawn_blocking(move || {
        engine.go_on();
        engine
    });
    let _engine = engine.await.expect("a server that starts again");
    while let Some(ended) = flood.join_next().await {
        ended.expect("nobody was told the wrong thing");
    }
    recovers(&served).await;
    for late in ["key-late-0", "key-late-1"] {
        assert_eq!(served.refusal(late).await, None);
    }
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
