//! What an app may do per second and per day: who is over it is told so, and nothing of it is done.

use std::time::Duration;

use fanwire::app::AppConfig;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::http::{Answer, Backend};
use crate::support::server::{TestServer, app};

fn event(channel: &str) -> Value {
    json!({ "name": "e", "channel": channel, "data": "" })
}

fn batch(count: usize) -> Value {
    json!({ "batch": vec![event("a"); count] })
}

/// Limit, remaining and reset.
fn told(answer: &Answer) -> [Option<u64>; 3] {
    ["limit", "remaining", "reset"].map(|name| {
        let value = answer.header(&format!("x-ratelimit-{name}"))?;
        Some(value.parse().expect("a whole number"))
    })
}

fn retry_after_s(answer: &Answer) -> u64 {
    let value = answer
        .header("retry-after")
        .expect("it is said when to come again");
    value.parse().expect("whole seconds")
}

/// Nothing reached `client` but what it has heard: the next is what is published on another way now.
async fn expect_nothing_more(server: &TestServer, client: &mut Client, channel: &str) {
    let publication = fanwire::node::Publication {
        channels: vec![fanwire::protocol::ChannelName::parse(channel, 200).expect("a legal name")],
        event: "marker".into(),
        data: String::new(),
        except: None,
    };
    server.publish_now(&publication);
    client.expect("marker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_limits_is_told_of_none() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let answer = backend.trigger(&event("a")).await;
    assert!(!answer.head.to_lowercase().contains("ratelimit"), "{answer:?}");
    assert_eq!(server.metric("rate_limit_checks_total", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_too_fast_is_answered_429_delivers_nothing_and_passes_again_when_it_is_said() {
    let server = TestServer::with_app(AppConfig {
        publishes_per_s: 1,
        ..app()
    })
    .await;
    let mut subscriber = server.connect().await;
    subscriber.subscribe("a").await;
    let mut backend = server.backend().await;
    // A batch counts its items. This one is larger than a second's worth: it passes, and the seconds are owed.
    let answer = backend.post("/batch_events", &batch(5)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let [limit, remaining, reset] = told(&answer);
    assert_eq!((limit, remaining), (Some(1), Some(0)));
    assert!(reset.is_some_and(|reset| (3..=5).contains(&reset)), "{reset:?}");
    let many = json!({ "name": "e", "channels": ["a", "b", "c"], "data": "" });
    let refused = backend.post("/events", &many).await;
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!(429)));
    let text = refused.json()["error"].as_str().expect("a text").to_owned();
    assert!(text.contains("1 per second (`publishes_per_s`)"), "{text}");
    assert_eq!(told(&refused)[..2], [Some(1), Some(0)]);
    let wait_s = retry_after_s(&refused);
    assert!((1..=5).contains(&wait_s), "{wait_s}");
    for _ in 0..5 {
        subscriber.expect("e").await;
    }
    expect_nothing_more(&server, &mut subscriber, "a").await;
    tokio::time::sleep(Duration::from_secs(wait_s)).await;
    // An event counts once, whatever the number of its channels.
    let passed = backend.post("/events", &many).await;
    assert_eq!((passed.status, told(&passed)), (200, [Some(1), Some(0), Some(1)]));
    subscriber.expect("e").await;
    assert_eq!(server.metric("rate_limit_checks_total", &[]).await, 3);
    assert_eq!(server.metric("rate_limit_triggered_total", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_have_a_rate_of_their_own() {
    let server = TestServer::with_app(AppConfig {
        queries_per_s: 1,
        ..app()
    })
    .await;
    let mut backend = server.backend().await;
    let first = backend.get("/channels").await;
    assert_eq!((first.status, told(&first)), (200, [Some(1), Some(0), Some(1)]));
    // One bucket for all of them, and an answer that is an error tells of it too.
    let call = backend.call("GET", "/connections", "") + &backend.call("GET", "/channels/a", "");
    backend.http.write(call).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let answer = backend.http.answer().await.expect("an answer");
        assert_eq!(told(&answer)[0], Some(1));
        statuses.push(answer.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(
        backend.trigger(&event("a")).await.header("x-ratelimit-limit"),
        None
    );
    eventually("the next second", async || {
        (backend.get("/usage").await.status == 200).then_some(())
    })
    .await;
    // Nobody who cannot sign for the app learns how much it has left, or takes of it.
    backend.secret = "wrong".into();
    let stranger = backend.get("/channels").await;
    assert_eq!((stranger.status, told(&stranger)), (401, [None; 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_day_count_channels_and_are_all_or_nothing() {
    let server = TestServer::with_app(AppConfig {
        messages_per_day: 10,
        ..app()
    })
    .await;
    let mut subscriber = server.connect().await;
    subscriber.subscribe("a").await;
    let mut backend = server.backend().await;
    let three = json!({ "name": "e", "channels": ["a", "b", "c"], "data": "" });
    let two_events = json!({ "batch": [three, event("a")] });
    assert_eq!(backend.post("/batch_events", &two_events).await.status, 200);
    assert_eq!(backend.post("/batch_events", &batch(5)).await.status, 200);
    let before = Timestamp::now();
    let refused = backend.post("/batch_events", &batch(2)).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let text = refused.json()["error"].as_str().expect("a text").to_owned();
    for part in ["10 messages per day", "1 are left", "needs 2", "The day ends at "] {
        assert!(text.contains(part), "{text}");
    }
    let ends: Timestamp = text
        .split("ends at ")
        .nth(1)
        .and_then(|rest| rest.trim_end_matches('.').parse().ok())
        .expect("a time");
    assert_eq!(ends.as_second() % 86_400, 0);
    let wait_s = i64::try_from(retry_after_s(&refused)).expect("a day at most");
    assert!(
        (before.as_second() + wait_s - ends.as_second()).abs() <= 2,
        "{wait_s}"
    );
    assert_eq!(backend.post("/events", &event("a")).await.status, 200);
    assert_eq!(backend.post("/events", &event("a")).await.status, 403);
    for _ in 0..8 {
        subscriber.expect("e").await;
    }
    expect_nothing_more(&server, &mut subscriber, "a").await;
    // To ask is still allowed.
    assert_eq!(backend.get("/channels").await.status, 200);
    assert_eq!(server.metric("quota_refused_total", &[]).await, 2);
    assert_eq!(server.metric("messages_total", &[]).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_publishers_at_once_get_exactly_the_quota() {
    let server = TestServer::with_app(AppConfig {
        messages_per_day: 250,
        ..app()
    })
    .await;
    let mut subscriber = server.connect().await;
    subscriber.subscribe("a").await;
    let publish = async |mut backend: Backend| {
        let mut accepted = 0;
        for _ in 0..5 {
            let answer = backend.post("/events", &event("a")).await;
            assert!([200, 403].contains(&answer.status), "{answer:?}");
            accepted += usize::from(answer.status == 200);
        }
        accepted
    };
    let backends = join_all((0..100).map(|_| server.backend())).await;
    let accepted: usize = join_all(backends.into_iter().map(publish))
        .await
        .into_iter()
        .sum();
    assert_eq!(accepted, 250);
    for _ in 0..250 {
        subscriber.expect("e").await;
    }
    expect_nothing_more(&server, &mut subscriber, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_at_once_get_exactly_the_quota_of_connections() {
    let server = TestServer::with_app(AppConfig {
        connections_max: 30,
        ..app()
    })
    .await;
    let target = format!("/app/{}?protocol=7", server.app.key);
    let open = async |_| {
        let mut client = Client::open(server.address, &target).await;
        let first = client.next().await;
        match first["event"].as_str() {
            Some("pusher:connection_established") => Some(client),
            _ => {
                assert_eq!(first["data"]["code"], 4004, "{first}");
                assert_eq!(client.expect_close().await.0, 4004);
                None
            }
        }
    };
    let mut let_in: Vec<_> = join_all((0..100).map(open)).await.into_iter().flatten().collect();
    assert_eq!(let_in.len(), 30);
    let_in.truncate(10);
    server.connected_becomes(10).await;
    let_in.extend(join_all((0..50).map(open)).await.into_iter().flatten());
    assert_eq!(let_in.len(), 30);
    assert_eq!(server.metric("peak_connections", &[]).await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_repeated_with_its_key_counts_once() {
    let server = TestServer::with_app(AppConfig {
        messages_per_day: 2,
        publishes_per_s: 3,
        ..app()
    })
    .await;
    let mut backend = server.backend().await;
    let keyed = |key: &str| json!({ "name": "e", "channel": "a", "data": "", "idempotency_key": key });
    for _ in 0..6 {
        assert_eq!(backend.post("/events", &keyed("k")).await.status, 200);
    }
    assert_eq!(server.metric("messages_total", &[]).await, 1);
    // One that was refused was not answered: it may be tried again with its key.
    assert_eq!(backend.post("/events", &keyed("l")).await.status, 200);
    for _ in 0..2 {
        let refused = backend.post("/events", &keyed("m")).await.status;
        assert!([403, 429].contains(&refused), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_events_of_all_sockets_together_have_a_rate() {
    let server = TestServer::with_app(AppConfig {
        client_events_per_s: 100,
        client_events_per_s_total: 2,
        ..app()
    })
    .await;
    let mut clients = server.connect_many(3).await;
    for client in &mut clients {
        client.subscribe("private-a").await;
    }
    // Two at once, and two per second: of nine in one breath, most are over.
    for client in &mut clients {
        for _ in 0..3 {
            client.whisper("private-a", "client-x", "").await;
        }
    }
    let mut refused = 0;
    for client in &mut clients {
        client.say(&json!({ "event": "pusher:ping" })).await;
        loop {
            let message = client.next().await;
            match message["event"].as_str() {
                Some("pusher:pong") => break,
                Some("client-x") => {}
                _ => {
                    assert_eq!(
                        message,
                        json!({ "event": "pusher:error", "channel": "private-a", "data": {
                            "code": 4301,
                            "message": "Client event rejected: over 2 messages per second of all connections together"
                        } })
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(server.metric("rate_limit_checks_total", &[]).await, 9);
    assert_eq!(server.metric("rate_limit_triggered_total", &[]).await, refused);
    assert_eq!(server.metric("messages_total", &[]).await, 9 - refused);
    server.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_events_count_for_the_day_and_are_refused_when_it_is_used_up() {
    let server = TestServer::with_app(AppConfig {
        messages_per_day: 3,
        ..app()
    })
    .await;
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    ada.subscribe("private-a").await;
    bob.subscribe("private-a").await;
    server.backend().await.publish("b", "e", "").await;
    for _ in 0..2 {
        ada.whisper("private-a", "client-x", "").await;
        bob.expect("client-x").await;
    }
    ada.whisper("private-a", "client-x", "").await;
    let refused = ada.next().await;
    assert_eq!(refused["data"]["code"], 4301, "{refused}");
    assert_eq!(
        refused["data"]["message"],
        "Client event rejected: the app has used up its 3 messages of today"
    );
    assert_eq!(
        server.backend().await.post("/events", &event("a")).await.status,
        403
    );
    // Answers and news of members are no messages: whoever comes is served.
    let mut eve = server.connect().await;
    eve.subscribe("private-a").await;
    expect_nothing_more(&server, &mut bob, "private-a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_tells_what_was_counted() {
    let server = TestServer::with_app(AppConfig {
        connections_max: 9,
        ..app()
    })
    .await;
    let mut backend = server.backend().await;
    let mut clients = server.connect_many(3).await;
    for client in &mut clients {
        client.subscribe("private-a").await;
    }
    clients.pop().expect("a client").close().await;
    server.connected_becomes(2).await;
    backend.publish("private-a", "e", "0123456789").await;
    for client in &mut clients {
        client.expect("e").await;
    }
    clients[0].whisper("private-a", "client-x", "").await;
    clients[1].expect("client-x").await;
    // The event's counters are added when the shard's turn is done.
    server.metric_becomes("ws_messages_sent_total", &[], 9).await;
    let answer = backend.get("/usage").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let usage = answer.json();
    let [today] = &usage["days"].as_array().expect("days")[..] else {
        panic!("one day: {usage}");
    };
    assert_eq!(today["date"], Timestamp::now().to_string()[..10]);
    // Greeting and acknowledgement for each of three, the event for two, the whisper for one.
    assert_eq!((&today["messages"], &today["delivered"]), (&json!(2), &json!(9)));
    assert_eq!(today["peak_connections"], 3);
    let counted = |name: &'static str| server.metric(name, &[]);
    // What is read now has the question about usage in it.
    let asked = answer.body.len() as u64;
    assert_eq!(
        today["bytes_sent"].as_u64(),
        Some(counted("socket_transmitted_bytes").await + counted("http_transmitted_bytes").await - asked)
    );
    assert_eq!(
        today["bytes_received"].as_u64(),
        Some(counted("socket_received_bytes").await + counted("http_received_bytes").await)
    );
    assert_eq!(
        usage["limits"],
        json!({ "messages_per_day": 0, "publishes_per_s": 0, "queries_per_s": 0, "client_events_per_s": 10,
                "client_events_per_s_total": 0, "connections_max": 9 })
    );
    assert_eq!(server.metric("messages_today", &[]).await, 2);
    assert_eq!(server.metric("peak_connections", &[]).await, 3);
    for (query, status) in [
        ("?days=31", 200),
        ("?days=0", 400),
        ("?days=32", 400),
        ("?days=x", 400),
    ] {
        assert_eq!(
            backend.get(&format!("/usage{query}")).await.status,
            status,
            "{query}"
        );
    }
}
