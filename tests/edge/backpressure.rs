//! A reader that stops reading: it delays nobody, waits within its bound, and is closed as slow when that is full.

use std::time::{Duration, Instant};

use fanwire::app::AppConfig;
use serde_json::json;

use crate::support::client::Client;
use crate::support::http::Backend;
use crate::support::raw::{CLOSE, FIN, Raw, RawFrame, TEXT, frame};
use crate::support::server::{KEY, SECRET, TestServer, app};
use crate::support::{eventually, sign, soon};

/// An event that is sent again and again. Bytes.
const EVENT_BYTES: usize = 10_000;

fn bounded() -> AppConfig {
    AppConfig {
        outbox_bytes_max: 32 * 1024,
        ..app()
    }
}

/// A client with a small receive buffer, subscribed, that will not read.
async fn stalled(server: &TestServer, channel: &str) -> Raw {
    stalled_at(server, "/app/key?protocol=7", channel).await.0
}

/// The same with its socket id, connected to this path.
async fn stalled_at(server: &TestServer, target: &str, channel: &str) -> (Raw, String) {
    let raw = Raw::connect_with_buffer(server.address, 4_096).await;
    let mut raw = raw.upgraded(target, "").await;
    let id = raw.greeting().await;
    raw.say(&json!({ "event": "pusher:subscribe", "data": { "channel": channel } }))
        .await;
    assert_eq!(
        raw.next().await["event"],
        "pusher_internal:subscription_succeeded"
    );
    (raw, id)
}

/// All that is left for a client that reads again: whole frames, in order, and the last one.
async fn read_on(raw: &mut Raw) -> (u64, RawFrame) {
    let mut next = 0;
    loop {
        let frame = raw.frame().await.expect("a close frame before the end");
        if frame.first != FIN | TEXT {
            return (next, frame);
        }
        let data = frame.json()["data"].as_str().expect("a string").to_owned();
        let number: u64 = data.trim_start_matches('x').parse().expect("a number");
        assert_eq!(number, next, "nothing is left out of what is sent");
        next += 1;
    }
}

fn numbered(number: u64) -> String {
    format!("{:x>EVENT_BYTES$}", number)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_closed_with_4100_and_counted_and_delays_nobody() {
    let server = TestServer::with_app(bounded()).await;
    let mut stalled: Vec<Raw> = vec![
        stalled(&server, "a").await,
        stalled(&server, "a").await,
        stalled(&server, "a").await,
    ];
    let mut readers = server.connect_many(3).await;
    for reader in &mut readers {
        reader.subscribe("a").await;
    }
    let mut backend = server.backend().await;
    let mut published = 0;
    let mut slowest = Duration::ZERO;
    while server.metric("closed_total", &["reason=\"slow\""]).await < 3 {
        assert!(published < 2_000, "nobody is found slow");
        let begun = Instant::now();
        backend.publish("a", "n", &numbered(published)).await;
        for reader in &mut readers {
            assert_eq!(reader.expect("n").await["data"], numbered(published));
        }
        slowest = slowest.max(begun.elapsed());
        published += 1;
    }
    assert!(slowest < Duration::from_secs(2), "others waited {slowest:?}");
    // They have left at once, whether they ever read again or not.
    backend.wait_for_subscribers("a", 3).await;
    for raw in &mut stalled {
        let (read, last) = read_on(raw).await;
        assert!(read > 0 && read < published, "{read} of {published}");
        assert_eq!(last.close(), (4100, "Connection reads too slowly".into()));
        raw.send(frame(FIN | CLOSE, &4100_u16.to_be_bytes())).await;
        assert_eq!(raw.frame().await, None);
    }
    server.connected_becomes(3).await;
    assert_eq!(server.metric("outbox_bytes", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_that_never_reads_again_is_cut_after_five_seconds() {
    let server = TestServer::with_app(bounded()).await;
    let stalled = stalled(&server, "a").await;
    let mut backend = server.backend().await;
    let mut number = 0;
    while server.metric("closed_total", &["reason=\"slow\""]).await < 1 {
        backend.publish("a", "n", &numbered(number)).await;
        number += 1;
    }
    let begun = Instant::now();
    server.connected_becomes(0).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(server.metric("outbox_bytes", &[]).await, 0);
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_within_its_bound_misses_nothing() {
    let server = TestServer::with_app(AppConfig {
        outbox_bytes_max: 8 * 1024 * 1024,
        ..app()
    })
    .await;
    let mut raw = stalled(&server, "a").await;
    let mut backend = pile_up(&server).await;
    // A ping overtakes what waits, between two frames and never inside one.
    raw.send(frame(FIN | 9, b"overtakes")).await;
    let mut pong_after = None;
    for number in 0..300 {
        let mut next = raw.frame().await.expect("a frame");
        if next.first == FIN | 10 {
            pong_after = Some(number);
            next = raw.frame().await.expect("a frame");
        }
        assert_eq!(next.json()["data"], numbered(number));
    }
    assert!(pong_after.is_some_and(|number| number < 250), "{pong_after:?}");
    // Now that it has caught up, it is served as before.
    backend.publish("a", "n", &numbered(300)).await;
    assert_eq!(raw.next().await["data"], numbered(300));
    assert_eq!(server.metric("outbox_bytes", &[]).await, 0);
    assert_eq!(server.metric("ws_messages_sent_total", &[]).await, 1 + 1 + 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_larger_than_the_bound_is_still_given() {
    let server = TestServer::with_app(AppConfig {
        outbox_bytes_max: 16 * 1024,
        presence_members_max: 300,
        ..app()
    })
    .await;
    let mut members = server.connect_many(40).await;
    let info = "i".repeat(1_000);
    for (number, member) in members.iter_mut().enumerate() {
        let channel_data = json!({ "user_id": number.to_string(), "user_info": info }).to_string();
        member.ask_for("presence-a", &channel_data).await;
        loop {
            if member.next().await["event"] == "pusher_internal:subscription_succeeded" {
                break;
            }
        }
    }
    // A list of 40 KB for a client that is in no hurry.
    let raw = Raw::connect_with_buffer(server.address, 4_096).await;
    let mut raw = raw.upgraded("/app/key?protocol=7", "").await;
    let id = raw.greeting().await;
    let channel_data = json!({ "user_id": "late" }).to_string();
    let auth = sign::auth("key", "secret", &format!("{id}:presence-a:{channel_data}"));
    raw.say(&json!({ "event": "pusher:subscribe",
        "data": { "channel": "presence-a", "auth": auth, "channel_data": channel_data } }))
        .await;
    server
        .backend()
        .await
        .wait_for_subscribers("presence-a", 41)
        .await;
    let list = raw.next().await;
    assert_eq!(crate::support::client::data(&list)["presence"]["count"], 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_provokes_answers_and_does_not_read_them_is_closed_as_slow() {
    let server = TestServer::with_app(bounded()).await;
    let raw = Raw::connect_with_buffer(server.address, 4_096).await;
    let mut raw = raw.upgraded("/app/key?protocol=7", "").await;
    raw.greeting().await;
    let nonsense = frame(FIN | TEXT, b"nonsense").repeat(1_000);
    let provoking = async {
        while server.metric("closed_total", &["reason=\"slow\""]).await == 0 {
            raw.send(&nonsense).await;
        }
    };
    soon("to be found slow", provoking).await;
    server.serves().await;
}

/// Process-wide: many who are each within their own bound.
#[tokio::test(flavor = "multi_thread")]
async fn all_outboxes_together_have_a_bound_too() {
    let mut config = crate::support::server::config([AppConfig {
        outbox_bytes_max: 64 * 1024 * 1024,
        ..app()
    }]);
    config.server.outbox_total_bytes_max = 1024 * 1024;
    let server = TestServer::with_config(config).await;
    // Each on a channel of its own: what they wait for is not shared.
    let mut stalls = Vec::new();
    for number in 0..6 {
        stalls.push(stalled(&server, &format!("c{number}")).await);
    }
    let mut reader: Client = server.connect().await;
    reader.subscribe("r").await;
    let mut backend = server.backend().await;
    for number in 0..200 {
        for channel in 0..6 {
            backend
                .publish(&format!("c{channel}"), "n", &numbered(number))
                .await;
        }
        backend.publish("r", "n", &numbered(number)).await;
        reader.expect("n").await;
    }
    assert!(server.metric("closed_total", &["reason=\"memory\""]).await >= 1);
    // What is in hand on the way may come on top of it.
    let waiting = server.metric("outbox_bytes", &[]).await;
    assert!(waiting <= 1_500_000, "{waiting}");
    server.serves().await;
}

/// A client that stopped reading, with megabytes of what was published in its outbox: events 0 to 299.
async fn with_a_queue(target: &str) -> (TestServer, Raw) {
    let server = TestServer::with_app(AppConfig {
        outbox_bytes_max: 8 * 1024 * 1024,
        ..app()
    })
    .await;
    let (mut raw, id) = stalled_at(&server, target, "a").await;
    let user_data = json!({ "id": "7" }).to_string();
    let auth = sign::auth(KEY, SECRET, &format!("{id}::user::{user_data}"));
    raw.say(&json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } }))
        .await;
    assert_eq!(raw.next().await["event"], "pusher:signin_success");
    pile_up(&server).await;
    (server, raw)
}

/// Publishes to a stalled reader of `a` until its outbox holds some of it: 300 numbered events.
async fn pile_up(server: &TestServer) -> Backend {
    let mut backend = server.backend().await;
    for number in 0..300 {
        backend.publish("a", "n", &numbered(number)).await;
    }
    eventually("something to wait in the outbox", async || {
        (server.metric("outbox_bytes", &[]).await > 1_000_000).then_some(())
    })
    .await;
    backend
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_is_answered_behind_the_frame_in_progress() {
    for code in [1000_u16, 4321] {
        let (server, mut raw) = with_a_queue("/app/key?protocol=7").await;
        raw.send(frame(FIN | CLOSE, &code.to_be_bytes())).await;
        // It has left at once; what it still gets is on its way already.
        server.backend().await.wait_for_subscribers("a", 0).await;
        let (read, last) = read_on(&mut raw).await;
        assert!(read > 0 && read < 300, "{read}");
        assert_eq!(last.close(), (code, String::new()));
        assert_eq!(raw.frame().await, None);
        drop(raw);
        server
            .metric_becomes("closed_total", &["reason=\"client\""], 1)
            .await;
        server.connected_becomes(0).await;
        assert_eq!(server.metric("outbox_bytes", &[]).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_is_told_behind_all_that_waits() {
    for protocol in [5, 7] {
        let (server, mut raw) = with_a_queue(&format!("/app/key?protocol={protocol}")).await;
        server.backend().await.terminate("7").await;
        server.backend().await.wait_for_subscribers("a", 0).await;
        for number in 0..300 {
            assert_eq!(raw.next().await["data"], numbered(number), "protocol {protocol}");
        }
        let error = raw.next().await;
        assert_eq!(error["event"], "pusher:error");
        assert_eq!(error["data"]["code"], 4009);
        assert_eq!(raw.expect_close().await.0, 4009);
        server.connected_becomes(0).await;
        assert_eq!(server.metric("outbox_bytes", &[]).await, 0);
    }
}
