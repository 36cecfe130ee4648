//! Channels that are worked off in several batches, and publishers who are faster than the shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fanwire::app::AppConfig;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::raw::{FIN, Raw, TEXT};
use crate::support::server::{TestServer, app, config};

async fn subscribe(raw: &mut Raw, channel: &str) {
    raw.say(&json!({ "event": "pusher:subscribe", "data": { "channel": channel } }))
        .await;
    assert_eq!(
        raw.next().await["event"],
        "pusher_internal:subscription_succeeded"
    );
}

/// The number in the next event, or `None` for the last one.
async fn next_number(raw: &mut Raw) -> Option<u64> {
    let frame = raw.frame().await.expect("the connection holds");
    assert_eq!(frame.first, FIN | TEXT);
    let message = frame.json();
    let text = message["data"].as_str().expect("a string");
    (message["event"] == "n").then(|| text.trim_start_matches('x').parse().expect("a number"))
}

/// More sockets on one shard than any batch takes, of whom some leave and others come while it is worked.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_skipped_or_served_twice_while_others_come_and_go() {
    const STEADY: usize = 600;
    const EVENTS: u64 = 150;
    let mut config = config([app()]);
    config.server.shards = 1;
    let server = TestServer::with_config(config).await;
    let address = server.address;
    let mut steady = JoinSet::new();
    let mut churn = JoinSet::new();
    let done = Arc::new(AtomicBool::new(false));
    let stays = Arc::new(AtomicU64::new(0));
    // Steady ones and others by turns, so that the gaps are everywhere.
    for number in 0..STEADY {
        let (mut raw, _) = Raw::greeted(address).await;
        subscribe(&mut raw, "crowd").await;
        steady.spawn(async move {
            let mut next = 0;
            while let Some(number) = next_number(&mut raw).await {
                assert_eq!(number, next);
                next += 1;
            }
            next
        });
        if number % 20 == 0 {
            let (done, stays) = (done.clone(), stays.clone());
            churn.spawn(async move {
                let mut stay = number;
                while !done.load(Ordering::Relaxed) {
                    let (mut raw, _) = Raw::greeted(address).await;
                    subscribe(&mut raw, "crowd").await;
                    let mut next = None;
                    for _ in 0..stay % 4 {
                        let Some(number) = next_number(&mut raw).await else {
                            return;
                        };
                        assert_eq!(number, next.unwrap_or(number));
                        next = Some(number + 1);
                    }
                    stay += 1;
                    stays.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let mut backend = server.backend().await;
    for number in 0..EVENTS {
        backend.publish("crowd", "n", &number.to_string()).await;
    }
    done.store(true, Ordering::Relaxed);
    // For those who still wait for the next number, too.
    backend.publish("crowd", "end", "").await;
    assert_eq!(steady.join_all().await, vec![EVENTS; STEADY]);
    churn.abort_all();
    while let Some(ended) = churn.join_next().await {
        assert!(ended.as_ref().is_ok() || ended.is_err_and(|error| error.is_cancelled()));
    }
    assert!(stays.load(Ordering::Relaxed) > 30, "somebody came and went");
    server.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_with_200_is_delivered_and_what_is_answered_with_503_is_not() {
    const PUBLISHERS: usize = 4;
    // Readers who are slower than all this shall not be closed for it here.
    let mut config = config([AppConfig {
        outbox_bytes_max: 64 * 1024 * 1024,
        ..app()
    }]);
    // Hardly more than one event may be in hand.
    config.server.inbox_bytes_max = 65_536;
    config.server.shards = 2;
    let server = TestServer::with_config(config).await;
    let mut readers = JoinSet::new();
    for _ in 0..20 {
        let (mut raw, _) = Raw::greeted(server.address).await;
        subscribe(&mut raw, "a").await;
        readers.spawn(async move {
            let mut heard = Vec::new();
            while let Some(number) = next_number(&mut raw).await {
                heard.push(number);
            }
            heard
        });
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS as u64 {
        let mut backend = server.backend().await;
        publishers.spawn(async move {
            let mut accepted = Vec::new();
            // Many calls in one write: the next one waits already while this one is answered.
            for round in 0..10 {
                let numbers: Vec<u64> = (0..10).map(|n| publisher * 1_000 + round * 10 + n).collect();
                let calls: String = numbers
                    .iter()
                    .map(|number| {
                        let data = format!("{number:x>9000}");
                        backend.call(
                            "POST",
                            "/events",
                            &json!({ "name": "n", "channel": "a", "data": data }).to_string(),
                        )
                    })
                    .collect();
                backend.http.write(calls).await;
                for number in numbers {
                    let answer = backend.http.answer().await.expect("an answer");
                    match answer.status {
                        200 => accepted.push(number),
                        503 => assert!(answer.header("retry-after").is_some(), "{answer:?}"),
                        _ => panic!("{answer:?}"),
                    }
                }
            }
            accepted
        });
    }
    let mut accepted = publishers.join_all().await;
    server.backend().await.publish("a", "end", "").await;
    accepted.sort();
    for heard in readers.join_all().await {
        let by_publisher: Vec<Vec<u64>> = (0..PUBLISHERS as u64)
            .map(|publisher| {
                heard
                    .iter()
                    .copied()
                    .filter(|number| number / 1_000 == publisher)
                    .collect()
            })
            .collect();
        assert_eq!(by_publisher, accepted);
    }
    assert!(
        server.metric("inbox_waits_total", &[]).await > 0,
        "nobody ever had to wait"
    );
    assert_eq!(server.metric("inbox_bytes", &[]).await, 0);
}
