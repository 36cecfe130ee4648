//! Readers of every pace: what an encrypted socket gets is whole and in order, and who reads too slowly is closed.

use std::time::Duration;

use fanwire::node::Publication;
use fanwire::protocol::ChannelName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::support::eventually;
use crate::support::raw::RawFrame;

const EVENT_BYTES: usize = 10_000;

fn numbered(number: u64) -> String {
    format!("{number:x>EVENT_BYTES$}")
}

/// A client with a small receive buffer, subscribed, that will not read.
async fn stalled(secured: &Secured) -> Raw<Tls> {
    let raw = Raw::over(secured.stream_with_buffer(4_096).await);
    let mut raw = raw.upgraded("/app/key?protocol=7", "").await;
    raw.greeting().await;
    raw.say(&json!({ "event": "pusher:subscribe", "data": { "channel": "a" } }))
        .await;
    assert_eq!(
        raw.next().await["event"],
        "pusher_internal:subscription_succeeded"
    );
    raw
}

/// All that is left for a client that reads again: whole frames, in order, and the last one.
async fn read_on(raw: &mut Raw<Tls>) -> (u64, RawFrame) {
    let mut next = 0;
    loop {
        let frame = raw.frame().await.expect("a close frame before the end");
        if frame.first != FIN | TEXT {
            return (next, frame);
        }
        assert_eq!(frame.json()["data"], numbered(next), "nothing is left out");
        next += 1;
    }
}

/// What happens to the readers of a channel: events of all sizes, alone and many at once, to readers of every pace.
#[tokio::test(flavor = "multi_thread")]
async fn every_reader_gets_the_very_sequence() {
    const EVENTS: u64 = 400;
    let mut config = config([AppConfig {
        outbox_bytes_max: 64 * 1024 * 1024,
        event_data_bytes_max: 200_000,
        ..app()
    }]);
    config.server.shards = 2;
    let secured = Secured::with_config(config, |_, _, _| {}).await;
    let mut readers = Vec::new();
    for seed in 0..6_u64 {
        let mut raw = stalled(&secured).await;
        readers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            for number in 0..EVENTS {
                // The first reads as fast as it can; the others stop now and then.
                if seed > 0 && random.random_ratio(seed as u32, 40) {
                    tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
                    raw.send(frame(FIN | 9, b"and how are you?")).await;
                }
                let mut next = raw.frame().await.expect("a frame");
                while next.first == FIN | 10 {
                    next = raw.frame().await.expect("a frame");
                }
                let data = next.json()["data"].as_str().expect("a text").to_owned();
                assert!(
                    data.starts_with(&format!("{number} ")),
                    "{number}: {}",
                    &data[..20]
                );
            }
        }));
    }
    let mut random = StdRng::seed_from_u64(99);
    for number in 0..EVENTS {
        let bytes = match random.random_range(0..10) {
            0..6 => random.random_range(0..300),
            6..9 => random.random_range(14_000..34_000),
            _ => random.random_range(100_000..190_000),
        };
        secured.server.publish_now(&Publication {
            channels: vec![ChannelName::parse("a", 164).expect("a name")],
            event: "n".into(),
            data: format!("{number} {}", "y".repeat(bytes)),
            except: None,
        });
        if random.random_ratio(1, 8) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
        }
    }
    for reader in readers {
        soon("all events", reader).await.expect("nobody panicked");
    }
    eventually("all to be sent", async || {
        (secured.server.metric("outbox_bytes", &[]).await == 0).then_some(())
    })
    .await;
    let reason = "reason=\"slow\"";
    assert_eq!(secured.server.metric("closed_total", &[reason]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_closed_as_slow_and_delays_nobody() {
    let secured = Secured::with_app(AppConfig {
        outbox_bytes_max: 32 * 1024,
        ..app()
    })
    .await;
    let server = &secured.server;
    let mut stalled = [stalled(&secured).await, stalled(&secured).await];
    let mut reader = secured.connect().await;
    reader.subscribe("a").await;
    let mut backend = secured.backend().await;
    let mut published = 0;
    while server.metric("closed_total", &["reason=\"slow\""]).await < 2 {
        assert!(published < 2_000, "nobody is found slow");
        backend.publish("a", "n", &numbered(published)).await;
        assert_eq!(reader.expect("n").await["data"], numbered(published));
        published += 1;
    }
    backend.wait_for_subscribers("a", 1).await;
    for raw in &mut stalled {
        let (read, last) = read_on(raw).await;
        assert!(read > 0 && read < published, "{read} of {published}");
        assert_eq!(last.close(), (4100, "Connection reads too slowly".into()));
        assert_eq!(raw.stream.read(&mut [0; 1]).await.expect("an orderly end"), 0);
        raw.send(frame(FIN | CLOSE, &4100_u16.to_be_bytes())).await;
    }
    drop(stalled);
    server.connected_becomes(1).await;
    assert_eq!(server.metric("outbox_bytes", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_that_never_comes_back_is_cut() {
    let secured = Secured::with_app(AppConfig {
        outbox_bytes_max: 32 * 1024,
        ..app()
    })
    .await;
    let stalled = stalled(&secured).await;
    let mut backend = secured.backend().await;
    let mut number = 0;
    while secured.server.metric("closed_total", &["reason=\"slow\""]).await < 1 {
        backend.publish("a", "n", &numbered(number)).await;
        number += 1;
    }
    secured.server.connected_becomes(0).await;
    assert_eq!(secured.server.metric("outbox_bytes", &[]).await, 0);
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_in_the_middle_of_a_record_is_answered_behind_the_frame() {
    let secured = Secured::with_app(AppConfig {
        outbox_bytes_max: 8 * 1024 * 1024,
        ..app()
    })
    .await;
    let server = &secured.server;
    let mut raw = stalled(&secured).await;
    let mut backend = secured.backend().await;
    for number in 0..300 {
        backend.publish("a", "n", &numbered(number)).await;
    }
    eventually("something to wait in the outbox", async || {
        (server.metric("outbox_bytes", &[]).await > 1_000_000).then_some(())
    })
    .await;
    raw.send(frame(FIN | CLOSE, &4321_u16.to_be_bytes())).await;
    backend.wait_for_subscribers("a", 0).await;
    let (read, last) = read_on(&mut raw).await;
    assert!(read > 0 && read < 300, "{read}");
    assert_eq!(last.close().0, 4321);
    assert_eq!(raw.stream.read(&mut [0; 1]).await.expect("an orderly end"), 0);
    drop(raw);
    server.connected_becomes(0).await;
    assert_eq!(server.metric("outbox_bytes", &[]).await, 0);
}

/// Sealed records wait outside of the outbox, and count all the same.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_waits_has_a_bound_for_encrypted_sockets_too() {
    let mut config = config([AppConfig {
        outbox_bytes_max: 64 * 1024 * 1024,
        ..app()
    }]);
    config.server.outbox_total_bytes_max = 1024 * 1024;
    let secured = Secured::with_config(config, |_, _, _| {}).await;
    let stalls = [stalled(&secured).await, stalled(&secured).await];
    let mut backend = secured.backend().await;
    let mut number = 0;
    while secured
        .server
        .metric("closed_total", &["reason=\"memory\""])
        .await
        == 0
    {
        assert!(number < 3_000, "nobody is closed");
        backend.publish("a", "n", &numbered(number)).await;
        number += 1;
    }
    secured.serves().await;
    drop(stalls);
}
