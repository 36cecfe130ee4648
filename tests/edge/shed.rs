//! What operators have a node do: shed some of its sockets, or all of them.

use fanwire::config::Config;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{Client, Heard};
use crate::support::http::{Answer, Http};
use crate::support::raw::Raw;
use crate::support::server::{TestServer, app, config};
use crate::support::{eventually, soon};

fn closing_over(drain_s: u32) -> Config {
    let mut config = config([app()]);
    config.drain.drain_s = drain_s;
    config
}

async fn post(server: &TestServer, path: &str) -> Answer {
    Http::connect(server.admin_address)
        .await
        .ask("POST", path, "")
        .await
}

/// Has some shed, as soon as no others are.
async fn shed(server: &TestServer, query: &str) -> Value {
    let path = format!("/shed?{query}");
    eventually("nothing to be shed", async || {
        let answer = post(server, &path).await;
        assert!(matches!(answer.status, 202 | 409), "{answer:?}");
        (answer.status == 202).then(|| answer.json())
    })
    .await
}

/// Takes those out who were closed with 4200; all that the others hear is events.
async fn take_closed(clients: &mut Vec<Client>, count: usize) -> Vec<Client> {
    let mut listening = JoinSet::new();
    for (number, mut client) in clients.drain(..).enumerate() {
        listening.spawn(async move {
            loop {
                match client.hear().await {
                    Heard::Message(message) if message["event"] == "over" => return (number, client, false),
                    Heard::Message(message) => assert_eq!(message["event"], "during"),
                    Heard::Closed(4200, _) => return (number, client, true),
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    let mut all = listening.join_all().await;
    all.sort_by_key(|(number, ..)| *number);
    let mut closed = Vec::new();
    for (_, client, is_closed) in all {
        match is_closed {
            true => closed.push(client),
            false => clients.push(client),
        }
    }
    assert_eq!(closed.len(), count);
    closed
}

async fn subscribed(server: &TestServer, count: usize) -> Vec<Client> {
    let mut clients = server.connect_many(count).await;
    for client in &mut clients {
        client.subscribe("a").await;
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_closed_evenly_and_the_node_serves_on() {
    let server = TestServer::with_config(closing_over(1)).await;
    let mut clients = subscribed(&server, 40).await;
    assert_eq!(
        shed(&server, "percent=25&over_s=2").await,
        json!({ "sockets": 10, "of": 40, "over_s": 2, "close_code": 4200 })
    );
    let busy = post(&server, "/shed?percent=25").await;
    assert_eq!(busy.status, 409, "{busy:?}");
    assert_eq!(
        busy.json()["error"],
        "10 of 40 sockets are being shed over 2 s: ask again when that is done"
    );
    assert_eq!(server.admin("/ready").await.status, 200);
    // Who comes meanwhile is welcome, and who is not closed hears all.
    server.serves().await;
    server.backend().await.publish("a", "during", "").await;
    server
        .metric_becomes("closed_total", &["reason=\"shed\""], 10)
        .await;
    server.backend().await.publish("a", "over", "").await;
    take_closed(&mut clients, 10).await;

    // When it is done another one may be asked for; over the time of a drain, if none is said.
    assert_eq!(
        shed(&server, "percent=1").await,
        json!({ "sockets": 1, "of": 30, "over_s": 1, "close_code": 4200 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_shed_again_before_all_others_had_their_turn() {
    let server = TestServer::with_config(closing_over(0)).await;
    let mut first = subscribed(&server, 12).await;
    shed(&server, "percent=50").await;
    server
        .metric_becomes("closed_total", &["reason=\"shed\""], 6)
        .await;
    server.backend().await.publish("a", "over", "").await;
    let gone = take_closed(&mut first, 6).await;
    // They come back, as if there were no other node.
    drop(gone);
    server.connected_becomes(6).await;
    let mut back = subscribed(&server, 6).await;

    shed(&server, "percent=50").await;
    server
        .metric_becomes("closed_total", &["reason=\"shed\""], 12)
        .await;
    server.backend().await.publish("a", "over", "").await;
    take_closed(&mut back, 0).await;
    take_closed(&mut first, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_takes_over_from_a_shed() {
    let server = TestServer::with_config(closing_over(0)).await;
    let mut clients = subscribed(&server, 6).await;
    shed(&server, "percent=50&over_s=3600").await;
    assert_eq!(post(&server, "/drain").await.status, 202);
    for client in &mut clients {
        assert_eq!(client.expect_close().await.0, 4200);
    }
    let refused = post(&server, "/shed?percent=50").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(
        refused.json()["error"],
        "the node drains: all of its sockets are being closed"
    );
}

/// Whatever restarts a process that ends would bring an empty and ready one back: so it stays until it is told to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_an_operator_asks_for_empties_the_node_and_leaves_it_there() {
    let server = TestServer::with_config(closing_over(1)).await;
    let mut clients = subscribed(&server, 4).await;
    let answer = post(&server, "/drain").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let told = answer.json();
    assert_eq!(
        (
            &told["sockets"],
            &told["delay_s"],
            &told["drain_s"],
            &told["close_code"]
        ),
        (&json!(4), &json!(0), &json!(1), &json!(4200))
    );
    assert_eq!(server.admin("/ready").await.json()["causes"], json!(["draining"]));
    for client in &mut clients {
        assert_eq!(client.expect_close().await.0, 4200);
    }
    drop(clients);
    server.connected_becomes(0).await;

    // Whoever comes all the same is sent on; calls are answered, and to ask again changes nothing.
    let mut newcomer = Raw::connect(server.address)
        .await
        .upgraded("/app/key?protocol=7", "")
        .await;
    assert_eq!(
        newcomer.frame().await.expect("an error").json()["data"]["code"],
        4100
    );
    assert_eq!(newcomer.expect_close().await.0, 4100);
    assert_eq!(server.backend().await.get("/channels").await.status, 200);
    assert_eq!(post(&server, "/drain").await.json()["sockets"], 0);
    assert_eq!(server.admin("/live").await.status, 200);

    // Nothing is left to wait for.
    soon("the end", server.drain()).await;
}
