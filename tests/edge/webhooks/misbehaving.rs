//! All the receivers together that do not do well, for some seconds of real time, and one beside them that does.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::receiver::{Receiver, Reply};
use super::with;
use crate::support::eventually;
use crate::support::server::TestServer;

/// One after the other, so many channels are occupied.
const CHANNELS: usize = 250;
const PACE: Duration = Duration::from_millis(20);
/// Nothing that happens on this machine holds the healthy endpoint up for so long; a single receiver that hangs would.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A receiver that speaks no HTTP, or not to its end.
async fn raw<F: Future<Output = io::Result<()>> + Send>(
    serve: impl Fn(TcpStream) -> F + Send + Sync + Copy + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // How it ends is the sender's business.
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    });
    address
}

/// Reads some of a request, and answers with these bytes and the end of the connection.
async fn cut(mut stream: TcpStream, answer: &str) -> io::Result<()> {
    stream.read_u8().await?;
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_misbehave_hold_nobody_up() {
    let elsewhere = Receiver::content().await;
    let to = elsewhere.url("/");
    let begun = Instant::now();
    let well = Receiver::content().await;
    let recovers = Receiver::start(|it| match it.at.as_secs() {
        0..4 => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await;
    let slow = Receiver::start(|_| Reply::Slow).await;
    let redirects = Receiver::start(move |_| Reply::Redirect(to.clone())).await;
    let fails = Receiver::start(|_| Reply::Status(500)).await;
    let hangs = Receiver::start(|_| Reply::Hang).await;
    let closes = raw(async |_| Ok(())).await;
    let cuts = raw(async |stream| cut(stream, "HTTP/1.1 200 OK\r\nconte").await).await;
    let babbles = raw(async |stream| cut(stream, "good evening\r\n\r\n").await).await;
    let resets = raw(async |stream| {
        stream.set_zero_linger()?;
        stream.readable().await
    })
    .await;
    // Connections to it are made by the kernel, and nobody ever looks at them.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    // Bound, so that it is nobody else's, and not listened at.
    let closed = TcpSocket::new_v4().expect("a socket");
    closed
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a free port");

    let url = |address: SocketAddr| format!("http://{address}/");
    let good = ["well", "recovers", "slow"];
    let bad = [
        ("redirects", redirects.url("/"), "answered 307"),
        ("fails", fails.url("/"), "answered 500"),
        ("hangs", hangs.url("/"), "no answer within 700 ms"),
        ("closes", url(closes), ""),
        ("cuts", url(cuts), ""),
        ("babbles", url(babbles), ""),
        ("resets", url(resets), ""),
        (
            "silent",
            url(silent.local_addr().expect("an address")),
            "no answer within 700 ms",
        ),
        ("closed", url(closed.local_addr().expect("an address")), "refused"),
    ];
    let mut endpoints = vec![
        json!({"name": "well", "url": well.url("/"), "timeout_ms": 2_000}),
        json!({"name": "recovers", "url": recovers.url("/"), "timeout_ms": 2_000}),
        json!({"name": "slow", "url": slow.url("/"), "concurrency": 64, "timeout_ms": 2_000}),
    ];
    endpoints.extend(
        bad.iter()
            .map(|(name, url, _)| json!({"name": name, "url": url, "timeout_ms": 700})),
    );
    for endpoint in &mut endpoints {
        endpoint["event_types"] = json!(["channel_occupied"]);
    }
    let mut config = with(Value::Array(endpoints));
    config.webhooks.retry_max_ms = 1_000;
    config.webhooks.give_up_s = 12;
    config.webhooks.dead_letters_max = 10_000;
    let server = TestServer::with_config(config).await;

    let mut client = server.connect().await;
    let mut occupied = HashMap::new();
    for number in 0..CHANNELS {
        let channel = format!("c-{number}");
        occupied.insert(channel.clone(), begun.elapsed());
        client.subscribe(&channel).await;
        tokio::time::sleep(PACE).await;
    }
    for it in well.wait_for(CHANNELS).await {
        let channel = it.events()[0]["channel"].as_str().expect("a channel").to_owned();
        let since = it.at.saturating_sub(occupied[&channel]);
        assert!(since < AT_ONCE, "{channel} came after {since:?}");
    }
    let dropped = (bad.len() * CHANNELS) as u64;
    eventually("all to be delivered or given up", async || {
        (server.metric("webhook_queue_events", &[]).await == 0).then_some(())
    })
    .await;
    let given_up = server
        .metric("webhook_dropped_total", &["reason=\"given_up\""])
        .await;
    let delivered = server.metric("webhook_events_delivered_total", &[]).await;
    assert_eq!((given_up, delivered), (dropped, (good.len() * CHANNELS) as u64));
    assert_eq!(server.metric("webhook_dropped_total", &[]).await, dropped);
    assert_eq!(
        (well.received().len(), slow.received().len()),
        (CHANNELS, CHANNELS)
    );
    assert!(elsewhere.received().is_empty(), "no redirect is followed");

    let report = server.backend().await.get("/webhooks").await.json();
    let reports = report["endpoints"].as_array().expect("a list");
    for (name, _, expected) in bad {
        let report = reports.iter().find(|it| it["name"] == name).expect(name);
        let error = report["last_error"].as_str().expect("an error");
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(
            (&report["last_success_ms"], &report["state"]),
            (&Value::Null, &json!("idle")),
            "{name}"
        );
    }
    // What was tried again arrived once it could.
    let mut channels: Vec<_> = recovers
        .received()
        .iter()
        .filter(|it| it.at.as_secs() >= 4)
        .map(|it| it.events()[0]["channel"].as_str().expect("a channel").to_owned())
        .collect();
    channels.sort();
    channels.dedup();
    assert_eq!(channels.len(), CHANNELS);
}
