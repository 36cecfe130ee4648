//! A node that is full: newcomers are sent away softly, and nobody else notices.

use std::time::{Duration, Instant};

use fanwire::config::Config;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::client::Client;
use crate::support::http::{Answer, Http};
use crate::support::raw::{CLOSE, FIN, Raw, frame};
use crate::support::server::{TestServer, app, config};
use crate::support::{eventually, soon};

/// Room for so many sockets; who finds none is told within so long.
fn with_room_for(sockets: usize, delay_ms_max: u32) -> Config {
    let mut config = config([app()]);
    config.server.sockets_max = sockets;
    config.server.refusal_delay_ms_max = delay_ms_max;
    config
}

/// A client that is refused, and how long it waited to be told.
async fn refused(server: &TestServer) -> Duration {
    let begun = Instant::now();
    let mut raw = Raw::connect(server.address)
        .await
        .upgraded("/app/key?protocol=7", "")
        .await;
    told(&mut raw).await;
    begun.elapsed()
}

/// What a refused client is told, to its end.
pub(crate) async fn told(raw: &mut Raw) {
    let error = raw.frame().await.expect("an error").json();
    let (code, reason) = raw.expect_close().await;
    assert_eq!(code, 4100);
    assert_eq!(
        error,
        json!({ "event": "pusher:error", "data": { "code": 4100, "message": reason } })
    );
}

async fn accept_traffic(server: &TestServer) -> Answer {
    server.admin("/accept-traffic").await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_mark_only_newcomers_are_refused() {
    let server = TestServer::with_config(with_room_for(20, 0)).await;
    let mut backend = server.backend().await;
    let mut clients = server.connect_many(19).await;
    for client in &mut clients {
        client.subscribe("a").await;
    }
    assert_eq!(accept_traffic(&server).await.status, 200);
    clients.push(server.connect().await);
    refused(&server).await;
    eventually("more traffic to be unwelcome", async || {
        let answer = accept_traffic(&server).await;
        (answer.status == 503 && answer.json()["causes"] == json!(["sockets"])).then_some(())
    })
    .await;
    assert_eq!(server.admin("/ready").await.status, 200, "it still does its work");
    // Who is there is served, and so is the back end, on a new connection too.
    backend.publish("a", "ev", "x").await;
    server.backend().await.publish("a", "ev", "y").await;
    for client in &mut clients[..19] {
        assert_eq!(client.expect("ev").await["data"], "x");
        assert_eq!(client.expect("ev").await["data"], "y");
    }
    clients[19].subscribe("a").await;
    assert_eq!(server.metric("sockets_max", &[]).await, 20);
    assert_eq!(server.metric("refused_total", &["reason=\"sockets\""]).await, 1);
    assert_eq!(
        server.metric("closed_total", &["reason=\"over_capacity\""]).await,
        1
    );

    // One place more is not yet room: it would be gone at once, and nobody could rely on what probes say.
    clients.pop().expect("twenty").close().await;
    server.connected_becomes(19).await;
    refused(&server).await;
    clients.pop().expect("nineteen").close().await;
    server.connected_becomes(18).await;
    clients.push(server.connect().await);
    clients.push(server.connect().await);
    refused(&server).await;
    drop(clients);
    eventually("more traffic to be welcome", async || {
        (accept_traffic(&server).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_answered_at_once_and_told_a_random_while_later() {
    const LONGEST_MS: u32 = 1_000;
    let server = TestServer::with_config(with_room_for(1, LONGEST_MS)).await;
    let _only = server.connect().await;
    let mut times = join_all((0..40).map(|_| refused(&server))).await;
    times.sort();
    let half = Duration::from_millis(u64::from(LONGEST_MS) / 2);
    assert!(
        times[0] < half && times[39] > half,
        "they would come again together: {times:?}"
    );
    server
        .metric_becomes("refused_total", &["reason=\"sockets\""], 40)
        .await;
    eventually("the refused to be gone", async || {
        (server.metric("connections", &[]).await == 1).then_some(())
    })
    .await;
}

/// Of twelve who were refused just now, each is told within ten seconds: hardly more than one of them in the first.
async fn most_wait(server: &TestServer) {
    eventually("most of the refused to wait", async || {
        (server.metric("refusals_waiting", &[]).await >= 6).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_told_is_a_connection_and_no_socket() {
    let server = TestServer::with_config(with_room_for(1, 10_000)).await;
    let only = server.connect().await;
    let mut waiting = Vec::new();
    for _ in 0..12 {
        // The handshake itself is answered: browsers let their tabs wait for each other's.
        let raw = Raw::connect(server.address).await;
        waiting.push(raw.upgraded("/app/key?protocol=7", "").await);
    }
    most_wait(&server).await;
    // Who has been told already is waited for, too.
    assert_eq!(server.metric("connections", &[]).await, 13);
    assert_eq!(server.metric("connected", &[]).await, 1);
    only.close().await;
    server.connected_becomes(0).await;
    // They take no place of anybody.
    server.connect().await;
    // One that loses patience is answered all the same, if it waits for that.
    waiting[0].send(frame(FIN | CLOSE, &1000u16.to_be_bytes())).await;
    // One that just goes is forgotten in its time, as are all others.
    drop(waiting.pop());
    for raw in &mut waiting {
        told(raw).await;
    }
    eventually("nobody to wait", async || {
        let left = server.metric("refusals_waiting", &[]).await;
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_lets_nobody_wait_to_be_told() {
    let mut config = with_room_for(1, 10_000);
    config.drain.drain_s = 4;
    let server = TestServer::with_config(config).await;
    let _only = server.connect().await;
    let mut waiting = Vec::new();
    for _ in 0..12 {
        let raw = Raw::connect(server.address).await;
        waiting.push(raw.upgraded("/app/key?protocol=7", "").await);
    }
    most_wait(&server).await;
    let begun = Instant::now();
    let drained = tokio::spawn(server.drain());
    for raw in &mut waiting {
        told(raw).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    soon("the end of the drain", drained).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_clients_give_their_descriptors_back() {
    let mut config = config([app()]);
    config.apps[0].activity_timeout_s = 1;
    config.apps[0].pong_wait_s = 1;
    let server = TestServer::with_config(config).await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..20 {
        // They answer nothing from now on, not even the end.
        silent.push(Raw::greeted(server.address).await);
    }
    assert_eq!(server.metric("connections", &[]).await, 20);
    eventually("all descriptors to be free", async || {
        (server.metric("connections", &[]).await == 0).then_some(())
    })
    .await;
    // Activity timeout, pong wait, five seconds to close, and a second for each look.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(server.metric("connected", &[]).await, 0);
}

/// A call that has begun, and the byte that it lacks.
async fn begin_call(server: &TestServer) -> (Http, &'static str) {
    let backend = server.backend().await;
    let body = json!({ "name": "ev", "channel": "a", "data": "" }).to_string();
    let call = backend.call("POST", "/events", &body);
    let mut http = backend.http;
    http.write(&call[..call.len() - 1]).await;
    (http, "}")
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_http_connections_make_room_and_busy_ones_do_not() {
    let mut config = config([app()]);
    config.server.http_connections_max = 3;
    // Who has been idle longest is known on each shard.
    config.server.shards = 1;
    let server = TestServer::with_config(config).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut http = Http::connect(server.address).await;
        assert_eq!(http.ask("GET", "/up", "").await.status, 200);
        kept.push(http);
    }
    assert_eq!(kept[0].ask("GET", "/up", "").await.status, 200);
    // The one that has been idle longest goes.
    let mut newcomer = server.backend().await;
    newcomer.publish("a", "ev", "").await;
    assert!(kept[1].answer().await.is_none(), "it is closed");
    for index in [0, 2] {
        assert_eq!(kept[index].ask("GET", "/up", "").await.status, 200);
    }
    newcomer.publish("a", "ev", "").await;
    assert_eq!(server.metric("http_connections", &[]).await, 3);

    // Three calls under way: they cannot make room.
    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(begin_call(&server).await);
    }
    for index in [0, 2] {
        assert!(kept[index].answer().await.is_none(), "it is closed");
    }
    assert!(newcomer.http.answer().await.is_none(), "it is closed");
    let mut late = server.backend().await;
    let answer = late.get("/channels").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.body.contains("server.http_connections_max"), "{answer:?}");
    assert!(late.http.answer().await.is_none(), "it is closed");
    // Who looks after the node, and who wants a socket, finds both.
    let mut probe = Http::connect(server.address).await;
    let answer = probe.ask("GET", "/up", "").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let mut client: Client = server.connect().await;
    client.subscribe("a").await;
    assert_eq!(
        server
            .metric("refused_total", &["reason=\"http_connections\""])
            .await,
        1
    );

    let (mut first, rest) = begun.remove(0);
    first.write(rest).await;
    assert_eq!(first.answer().await.expect("an answer").status, 200);
    client.expect("ev").await;
    assert_eq!(server.backend().await.get("/channels").await.status, 200);
    assert!(first.answer().await.is_none(), "idle by now, it has made room");
}
