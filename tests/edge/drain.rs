//! Leaving in good order.

use std::time::{Duration, Instant};

use fanwire::config::Config;
use fanwire::node::Publication;
use fanwire::protocol::ChannelName;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::{Client, Heard, data};
use crate::support::http::Http;
use crate::support::raw::{CLOSE, FIN, Raw, RawFrame, TEXT, frame};
use crate::support::server::{TestServer, app, config};
use crate::support::{eventually, soon};

fn draining(drain_s: u32) -> Config {
    let mut config = config([app()]);
    config.drain.drain_s = drain_s;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_are_spread_evenly_and_newcomers_are_sent_away() {
    let server = TestServer::with_config(draining(3)).await;
    let (address, admin) = (server.address, server.admin_address);
    let mut backend = server.backend().await;
    let mut clients = JoinSet::new();
    for mut client in server.connect_many(30).await {
        client.subscribe("a").await;
        clients.spawn(async move {
            // Events reach it until the very end.
            loop {
                match client.hear().await {
                    Heard::Message(message) => assert_eq!(message["event"], "during"),
                    Heard::Closed(code, _) => return (code, Instant::now()),
                    Heard::Lost => panic!("dropped without a close"),
                }
            }
        });
    }
    let begun = Instant::now();
    let drained = tokio::spawn(server.drain());
    eventually("readiness to fail", async || {
        let answer = Http::connect(admin).await.ask("GET", "/ready", "").await;
        (answer.status == 503).then_some(())
    })
    .await;
    assert_eq!(
        Http::connect(address).await.ask("GET", "/up", "").await.status,
        503
    );
    assert_eq!(
        Http::connect(address).await.ask("GET", "/live", "").await.status,
        200
    );
    // Never with 42xx, which pusher-js would answer by coming back without any delay.
    let mut newcomer = Raw::connect(address)
        .await
        .upgraded("/app/key?protocol=7", "")
        .await;
    assert_eq!(
        newcomer.frame().await.expect("an error").json()["data"]["code"],
        4100
    );
    assert_eq!(newcomer.expect_close().await.0, 4100);
    backend.publish("a", "during", "").await;

    let mut times = Vec::new();
    for (code, at) in clients.join_all().await {
        assert_eq!(code, 4200);
        times.push(at - begun);
    }
    times.sort();
    // Thirty in three seconds: ten in each, however busy the machine is.
    for second in 1..3 {
        let until = times.iter().filter(|time| time.as_secs() < second).count();
        assert!(
            (second as usize * 10 - 5..=second as usize * 10 + 5).contains(&until),
            "{times:?}"
        );
    }
    soon("the drain to end", drained).await.expect("it ends well");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the port is given back"
    );
    assert!(
        tokio::net::TcpStream::connect(admin).await.is_err(),
        "the port is given back"
    );
}

/// What was answered before the drain began is not overtaken by it, however many it goes to.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_behind_what_was_published_before_it() {
    let server = TestServer::with_config(draining(0)).await;
    let mut sockets = Vec::new();
    for _ in 0..1_500 {
        let (mut raw, _) = Raw::greeted(server.address).await;
        raw.say(&json!({ "event": "pusher:subscribe", "data": { "channel": "a" } }))
            .await;
        assert_eq!(
            raw.next().await["event"],
            "pusher_internal:subscription_succeeded"
        );
        sockets.push(raw);
    }
    let data = "x".repeat(9_000);
    let channel = ChannelName::parse("a", 200).expect("a legal name");
    // Without the way through HTTP, which would give the shards time.
    server.publish_now(&Publication {
        channels: vec![channel],
        event: "last".to_owned(),
        data: data.clone(),
        except: None,
    });
    let drained = tokio::spawn(server.drain());
    for (number, raw) in sockets.iter_mut().enumerate() {
        let frame = raw.frame().await.expect("an event");
        assert_eq!(frame.first, FIN | TEXT, "socket {number}: {frame:?}");
        assert_eq!(frame.json()["data"], data, "socket {number}");
        assert_eq!(raw.expect_close().await.0, 4200, "socket {number}");
    }
    soon("the drain to end", drained).await.expect("it ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_left_cleanly_by_those_who_go_first() {
    let server = TestServer::with_config(draining(2)).await;
    let mut clients = JoinSet::new();
    let mut joined = Vec::new();
    for number in 0..12 {
        let mut client = server.connect().await;
        client.join("presence-a", &number.to_string()).await;
        joined.push(client);
    }
    for (number, mut client) in joined.into_iter().enumerate() {
        clients.spawn(async move {
            let mut members: std::collections::BTreeSet<usize> = (0..=number).collect();
            loop {
                match client.hear().await {
                    Heard::Message(message) => {
                        let id = data(&message)["user_id"]
                            .as_str()
                            .and_then(|id| id.parse().ok())
                            .expect("an id");
                        let is_news = match message["event"].as_str() {
                            Some("pusher_internal:member_added") => members.insert(id),
                            Some("pusher_internal:member_removed") => members.remove(&id),
                            _ => panic!("{message}"),
                        };
                        assert!(is_news, "{message}");
                    }
                    Heard::Closed(4200, _) => return members.len(),
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    server.drain().await;
    let mut left = clients.join_all().await;
    left.sort_unstable();
    // One of each shard at a time: the first saw nobody leave, those after them did.
    assert_eq!(left[11], 12, "{left:?}");
    assert!(left[0] < 12, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_hand_are_finished_and_kept_connections_end() {
    let server = TestServer::with_config(draining(1)).await;
    let mut idle = server.backend().await;
    assert_eq!(idle.get("/channels").await.status, 200);
    let mut busy = server.backend().await;
    let call = busy.call(
        "POST",
        "/events",
        &json!({ "name": "ev", "channel": "a", "data": "x" }).to_string(),
    );
    let (first, rest) = call.split_at(call.len() - 10);
    busy.http.write(first).await;
    // What waits in the kernel is not in hand.
    let node = server.server.node().clone();
    eventually("both connections to be the server's", async || {
        (node.inboxes().connections() == 2).then_some(())
    })
    .await;
    let address = server.address;
    let drained = tokio::spawn(server.drain());
    assert!(
        idle.http.answer().await.is_none(),
        "a kept connection is not waited for"
    );
    busy.http.write(rest).await;
    assert_eq!(busy.http.answer().await.expect("an answer").status, 200);
    assert!(busy.http.answer().await.is_none());
    soon("the drain to end", drained).await.expect("it ends well");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quiet_code_may_be_chosen() {
    let mut config = draining(0);
    config.drain.close_code = 1001;
    let server = TestServer::with_config(config).await;
    let mut clients = server.connect_many(3).await;
    let drained = tokio::spawn(server.drain());
    for client in &mut clients {
        assert_eq!(client.expect_close().await.0, 1001);
    }
    drop(clients);
    soon("the drain to end", drained).await.expect("it ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_do_not_answer_the_close_do_not_hold_it_up_for_ever() {
    let server = TestServer::with_config(draining(0)).await;
    let (mut mute, _) = Raw::greeted(server.address).await;
    let half = Raw::connect(server.address).await;
    let begun = Instant::now();
    server.drain().await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(mute.frame().await.expect("a close").close().0, 4200);
    drop(half);
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_get_their_time_before_the_first_close() {
    let mut config = draining(0);
    config.drain.delay_s = 1;
    let server = TestServer::with_config(config).await;
    let (address, begun) = (server.address, Instant::now());
    let mut client: Client = server.connect().await;
    let drained = tokio::spawn(server.drain());
    eventually("readiness to fail", async || {
        (Http::connect(address).await.ask("GET", "/ready", "").await.status == 503).then_some(())
    })
    .await;
    client.expect_silence().await;
    assert_eq!(client.expect_close().await.0, 4200);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    drop(client);
    soon("the drain to end", drained).await.expect("it ends well");
}

/// Neither the delay nor the closes are waited for any longer, and whoever does not answer is not either.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_has_what_is_left_closed_over_a_second() {
    for delay_s in [0, 3_600] {
        let mut config = draining(3_600);
        config.drain.delay_s = delay_s;
        let server = TestServer::with_config(config).await;
        let mut clients = server.connect_many(20).await;
        let (mut mute, _) = Raw::greeted(server.address).await;
        let haste = server.server.haste();
        let drained = tokio::spawn(server.drain());
        haste.hurry();
        let begun = Instant::now();
        let mut last = begun;
        for client in &mut clients {
            assert_eq!(client.expect_close().await.0, 4200);
            last = last.max(Instant::now());
        }
        assert!(last - begun > Duration::from_millis(500), "not all at once");
        assert_eq!(mute.frame().await.expect("a close").close().0, 4200);
        drop(clients);
        soon("the drain to end", drained).await.expect("it ends well");
    }
}

/// Who is in the middle of its handshake when a drain begins is greeted and closed, or refused; never left over.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_while_it_begins_are_closed_too() {
    for _ in 0..10 {
        let server = TestServer::with_config(draining(0)).await;
        let address = server.address;
        let mut clients = JoinSet::new();
        for _ in 0..40 {
            clients.spawn(async move {
                let Ok(stream) = tokio::net::TcpStream::connect(address).await else {
                    return None;
                };
                let mut raw = Raw::of(Ok(stream));
                raw.send(Raw::upgrade("/app/key?protocol=7", "")).await;
                // Refused by the kernel or dropped before it was served: as if the port were closed already.
                let head = raw.http_head().await?;
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                loop {
                    let frame = raw.frame().await.expect("a close frame before the end");
                    if frame.first == FIN | CLOSE {
                        raw.send(frame_of_close(&frame)).await;
                        return Some(frame.close().0);
                    }
                }
            });
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        server.drain().await;
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "somebody was left over: {:?}",
            begun.elapsed()
        );
        for code in clients.join_all().await.into_iter().flatten() {
            assert!(matches!(code, 4100 | 4200), "{code}");
        }
    }
}

fn frame_of_close(close: &RawFrame) -> Vec<u8> {
    frame(FIN | CLOSE, &close.payload[..2])
}
