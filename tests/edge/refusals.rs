//! Handshakes that are refused: always inside the socket, by `pusher:error` and a close with the same code.

use std::time::Duration;

use fanwire::app::{AppConfig, Secret};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::client::Client;
use crate::support::raw::Raw;
use crate::support::server::{TestServer, app, config};

/// Upgrades, and reads the refusal in all its parts.
async fn refusal(server: &TestServer, target: &str, headers: &str) -> (u16, String) {
    let mut raw = Raw::connect(server.address).await.upgraded(target, headers).await;
    let error = raw.frame().await.expect("an error").json();
    assert_eq!(error["event"], "pusher:error", "{target}");
    assert!(
        error["data"].is_object(),
        "data of an error is an object: {error}"
    );
    let (code, reason) = raw.expect_close().await;
    assert_eq!(
        error["data"],
        json!({ "code": code, "message": reason }),
        "{target}"
    );
    assert!(reason.len() <= 123);
    (code, reason)
}

fn another(id: &str, key: &str) -> AppConfig {
    AppConfig {
        id: id.into(),
        key: key.into(),
        secret: Secret::new("s"),
        ..AppConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_inside_the_socket() {
    let server = TestServer::with_config(config([
        app(),
        AppConfig {
            enabled: false,
            ..another("2", "disabled")
        },
        AppConfig {
            tls_only: true,
            ..another("3", "tls")
        },
        AppConfig {
            allowed_origins: vec!["https://good.example".into()],
            ..another("4", "origin")
        },
    ]))
    .await;
    let evil = "Origin: https://evil.example\r\n";
    for (target, headers, code) in [
        ("/app/nobody?protocol=7", "", 4001),
        ("/app/KEY?protocol=7", "", 4001),
        ("/app/%ff?protocol=7", "", 4001),
        ("/app/disabled?protocol=7", "", 4003),
        ("/app/tls?protocol=7", "", 4000),
        ("/app/origin?protocol=7", evil, 4009),
        ("/nowhere", "", 4005),
        ("/app/key/more?protocol=7", "", 4005),
        ("/app/key?protocol=3", "", 4007),
        ("/app/key?protocol=8", "", 4007),
        ("/app/key?protocol=0", "", 4007),
        ("/app/key?protocol=", "", 4007),
        ("/app/key?protocol=seven", "", 4007),
        ("/app/key?protocol=-7", "", 4007),
        ("/app/key?protocol=7.0", "", 4007),
        ("/app/key?protocol=263", "", 4007),
        // The first check that fails gives the code.
        ("/app/nobody?protocol=3", "", 4007),
        ("/app/disabled?protocol=99", "", 4007),
    ] {
        assert_eq!(refusal(&server, target, headers).await.0, code, "{target}");
    }
    server.serves().await;
    for (reason, count) in [
        ("no_such_app", 3),
        ("no_such_path", 2),
        ("unsupported_protocol", 10),
    ] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(server.metric("closed_total", &[&label]).await, count, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_server_wants_to_know_the_protocol_and_a_sound_version() {
    let mut config = config([app()]);
    config.server.strict_protocol = true;
    let server = TestServer::with_config(config).await;
    for (query, code) in [
        ("", 4008),
        ("?client=js", 4008),
        ("?protocol=7&version=x", 4006),
        ("?protocol=9", 4007),
    ] {
        assert_eq!(
            refusal(&server, &format!("/app/key{query}"), "").await.0,
            code,
            "{query}"
        );
    }
    for query in [
        "?protocol=7",
        "?protocol=7&version=8.6.0",
        "?protocol=5&version=2.4.4-SNAPSHOT+1",
    ] {
        Client::connect(server.address, &format!("/app/key{query}"))
            .await
            .close()
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_beyond_the_quota_is_refused_and_a_place_is_given_back() {
    let server = TestServer::with_app(AppConfig {
        connections_max: 2,
        ..app()
    })
    .await;
    let first = server.connect().await;
    let _second = server.connect().await;
    assert_eq!(refusal(&server, "/app/key?protocol=7", "").await.0, 4004);
    assert_eq!(server.metric("connected", &[]).await, 2);
    first.close().await;
    server.connected_becomes(1).await;
    server.connect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_asks_to_come_back_and_still_answers_its_back_end() {
    let mut config = config([app()]);
    config.server.sockets_max = 2;
    let server = TestServer::with_config(config).await;
    let mut backend = server.backend().await;
    let clients = server.connect_many(2).await;
    assert_eq!(refusal(&server, "/app/key?protocol=7", "").await.0, 4100);
    backend.publish("a", "ev", "x").await;
    assert_eq!(
        server.metric("closed_total", &["reason=\"over_capacity\""]).await,
        1
    );
    for client in clients {
        client.close().await;
    }
    server.connected_becomes(0).await;
    server.connect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_are_checked_where_the_app_says_so() {
    let origins = ["https://a.example", "b.example", "*.c.example"].map(str::to_owned);
    let server = TestServer::with_config(config([
        AppConfig {
            allowed_origins: origins.into(),
            ..app()
        },
        AppConfig {
            require_origin: true,
            ..another("2", "browsers")
        },
    ]))
    .await;
    for (target, origin, is_allowed) in [
        ("/app/key", "https://a.example", true),
        ("/app/key", "http://a.example", false),
        ("/app/key", "https://a.example.evil", false),
        ("/app/key", "http://b.example:8080", true),
        ("/app/key", "https://x.c.example", true),
        ("/app/key", "https://xc.example", false),
        ("/app/key", "null", false),
        ("/app/key", "", true),
        ("/app/browsers", "", false),
        ("/app/browsers", "https://any.example", true),
    ] {
        let header = if origin.is_empty() {
            String::new()
        } else {
            format!("Origin: {origin}\r\n")
        };
        if is_allowed {
            let mut raw = Raw::connect(server.address).await.upgraded(target, &header).await;
            raw.greeting().await;
        } else {
            assert_eq!(
                refusal(&server, target, &header).await,
                (4009, "Origin not allowed".into()),
                "{origin}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_cannot_be_read_is_not_taken_for_none() {
    let server = TestServer::with_config(config([AppConfig {
        allowed_origins: vec!["https://a.example".into()],
        ..app()
    }]))
    .await;
    let request = Raw::upgrade("/app/key", "Origin: https://evil.example?\r\n");
    let request: Vec<u8> = request
        .replace("evil.example?", "evil.example\0")
        .bytes()
        .map(|byte| if byte == 0 { 0xff } else { byte })
        .collect();
    let mut raw = Raw::connect(server.address).await;
    raw.send(request).await;
    raw.http_head().await.expect("an answer");
    assert_eq!(raw.next().await["data"]["code"], 4009);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_that_never_answers_the_close_is_let_go() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.address)
        .await
        .upgraded("/app/nobody", "")
        .await;
    raw.frame().await.expect("an error");
    raw.frame().await.expect("a close");
    // It neither closes nor reads on: the server ends its side at once, and forgets it after five seconds.
    let begun = std::time::Instant::now();
    assert_eq!(raw.frame().await, None);
    while raw.stream.write(b"x").await.is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "the connection is never given up"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
