//! Encrypted sockets beside plain ones in one server, which come by the Unix socket: what is published goes to both, and a
//! drain closes both behind it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fanwire::node::{Node, Publication};
use fanwire::protocol::ChannelName;
use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::arrival::over_unix_socket;

/// A server that speaks TLS on its port and listens at a path as well.
async fn with_unix_socket(drain_s: u32) -> (Secured, PathBuf, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fanwire.sock");
    let secured = Secured::with_config(config([app()]), |config, _, _| {
        config.server.unix_socket = path.to_str().expect("a path in UTF-8").to_owned();
        config.drain.drain_s = drain_s;
    })
    .await;
    (secured, path, folder)
}

async fn subscribed<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Raw<S> {
    let mut raw = Raw::over(stream).upgraded(TARGET, "").await;
    raw.greeting().await;
    let subscription = json!({ "event": "pusher:subscribe", "data": { "channel": "a" } });
    raw.say(&subscription).await;
    assert_eq!(
        raw.next().await["event"],
        "pusher_internal:subscription_succeeded"
    );
    raw
}

/// So many of each kind, each subscribed.
async fn both(secured: &Secured, path: &Path, each: usize) -> (Vec<Raw<Tls>>, Vec<Raw>) {
    let (mut encrypted, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..each {
        encrypted.push(subscribed(secured.stream().await).await);
        plain.push(subscribed(over_unix_socket(path).expect("it listens")).await);
    }
    (encrypted, plain)
}

fn publish(node: &Node, number: u64, bytes: usize) {
    let app = node.apps().by_id("1").expect("the app of all tests");
    let publication = Publication {
        channels: vec![ChannelName::parse("a", 200).expect("a legal name")],
        event: "n".to_owned(),
        data: format!("{number} {}", "x".repeat(bytes)),
        except: None,
    };
    node.publish(&app, [&publication]);
}

/// The numbers that a socket hears until it is closed, in good order and to the very end of the stream.
async fn until_closed<S: AsyncRead + AsyncWrite + Unpin>(raw: &mut Raw<S>) -> u64 {
    let mut next = 0;
    loop {
        let heard = raw.frame().await.expect("a close frame before the end");
        if heard.first != FIN | TEXT {
            assert_eq!(heard.close().0, 4200);
            break;
        }
        let data = heard.json()["data"].as_str().expect("a text").to_owned();
        assert!(
            data.starts_with(&format!("{next} ")),
            "after {next}: {}",
            &data[..20]
        );
        next += 1;
    }
    raw.send(frame(FIN | CLOSE, &4200_u16.to_be_bytes())).await;
    assert_eq!(raw.stream.read(&mut [0; 1]).await.expect("an orderly end"), 0);
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_goes_to_both_and_from_both_to_each_other() {
    let (secured, path, _folder) = with_unix_socket(0).await;
    let mut encrypted = secured.connect().await;
    let plain = over_unix_socket(&path).expect("it listens");
    let mut plain = Client::over(plain, TARGET).await.greeted().await;
    encrypted.subscribe("private-a").await;
    plain.subscribe("private-a").await;
    let mut by_tls = secured.backend().await;
    let mut by_path = secured.backend_over(over_unix_socket(&path).expect("it listens"));
    for number in 0..8 {
        let data = number.to_string().repeat(400);
        match number % 2 {
            0 => by_tls.publish("private-a", "n", &data).await,
            _ => by_path.publish("private-a", "n", &data).await,
        }
        assert_eq!(encrypted.expect("n").await["data"], data);
        assert_eq!(plain.expect("n").await["data"], data);
        encrypted
            .whisper("private-a", "client-e", number.to_string())
            .await;
        assert_eq!(plain.expect("client-e").await["data"], number.to_string());
        plain.whisper("private-a", "client-p", number.to_string()).await;
        assert_eq!(encrypted.expect("client-p").await["data"], number.to_string());
    }
    encrypted.close().await;
    plain.close().await;
}

/// What was published before the drain is not overtaken by it, whatever it goes through.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_both_behind_what_was_published_before_it() {
    const EVENTS: u64 = 10;
    let (secured, path, _folder) = with_unix_socket(0).await;
    let (mut encrypted, mut plain) = both(&secured, &path, 40).await;
    for number in 0..EVENTS {
        publish(secured.server.server.node(), number, 9_000);
    }
    let drained = tokio::spawn(secured.server.drain());
    let heard = tokio::join!(
        join_all(encrypted.iter_mut().map(until_closed)),
        join_all(plain.iter_mut().map(until_closed))
    );
    assert_eq!(heard, (vec![EVENTS; 40], vec![EVENTS; 40]));
    soon("the drain to end", drained).await.expect("it ends well");
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_hear_what_is_published_during_a_drain_until_they_are_closed() {
    const EACH: usize = 12;
    let (secured, path, _folder) = with_unix_socket(2).await;
    let (mut encrypted, mut plain) = both(&secured, &path, EACH).await;
    let node = secured.server.server.node().clone();
    publish(&node, 0, 300);
    let drained = tokio::spawn(secured.server.drain());
    let publishing = tokio::spawn(async move {
        for number in 1.. {
            tokio::time::sleep(Duration::from_millis(20)).await;
            publish(&node, number, 300);
        }
    });
    let (encrypted, plain) = tokio::join!(
        join_all(encrypted.iter_mut().map(until_closed)),
        join_all(plain.iter_mut().map(until_closed))
    );
    publishing.abort();
    for heard in [&encrypted, &plain] {
        let (first, last) = (heard.iter().min(), heard.iter().max());
        assert!(first >= Some(&1) && first < last, "{heard:?}");
    }
    soon("the drain to end", drained).await.expect("it ends well");
}
