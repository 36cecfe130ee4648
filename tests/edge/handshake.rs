//! From the upgrade to `connection_established`.

use std::collections::HashSet;

use fanwire::app::AppConfig;
use serde_json::json;

use crate::support::client::{Client, data};
use crate::support::http::Http;
use crate::support::raw::{FIN, PONG, Raw, TEXT, frame};
use crate::support::server::{TestServer, app, config};

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_is_connection_established() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.address).await;
    raw.send(Raw::upgrade(
        "/app/key?protocol=7&client=js&version=8.6.0&flash=false",
        "",
    ))
    .await;
    let head = raw.http_head().await.expect("an answer").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The key and its answer of RFC 6455, section 1.3.
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{head}"
    );
    assert!(
        head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
        "{head}"
    );
    assert!(
        !head.contains("sec-websocket-protocol") && !head.contains("sec-websocket-extensions"),
        "{head}"
    );

    let greeting = raw.frame().await.expect("a greeting");
    assert_eq!(greeting.first, FIN | TEXT);
    let message = greeting.json();
    assert_eq!(message["event"], "pusher:connection_established");
    assert_eq!(data(&message)["activity_timeout"], 120);
    let inner = data(&message);
    let id = inner["socket_id"].as_str().expect("a string");
    let (left, right) = id.split_once('.').expect("two numbers and a dot");
    assert!(is_decimal(left) && is_decimal(right), "{id}");
    // To the byte, as hosted clients have always seen it.
    let text = format!(
        r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{id}\",\"activity_timeout\":120}}"}}"#
    );
    assert_eq!(greeting.payload, text.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greeting_tells_the_activity_timeout_of_the_app() {
    let server = TestServer::with_app(AppConfig {
        activity_timeout_s: 33,
        ..app()
    })
    .await;
    let mut client = Client::open(server.address, "/app/key").await;
    assert_eq!(data(&client.next().await)["activity_timeout"], 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_sockets_have_one_id() {
    let server = TestServer::start().await;
    let clients = server.connect_many(100).await;
    let ids: HashSet<_> = clients.iter().map(|client| client.socket_id.clone()).collect();
    assert_eq!(ids.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn protocols_4_to_7_work_end_to_end_and_so_does_none() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    for query in [
        "?protocol=4",
        "?protocol=5",
        "?protocol=6",
        "?protocol=7",
        "",
        "?client=x&flash=false",
    ] {
        let mut client = Client::connect(server.address, &format!("/app/key{query}")).await;
        client.subscribe("private-a").await;
        backend.publish("private-a", "ev", "{}").await;
        assert_eq!(
            client.next().await,
            json!({ "event": "ev", "channel": "private-a", "data": "{}" })
        );
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_established_socket_is_told_before_its_close_only_below_protocol_6() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    for (protocol, is_told) in [(4, true), (5, true), (6, false), (7, false)] {
        let mut client = Client::connect(server.address, &format!("/app/key?protocol={protocol}")).await;
        client.sign_in(&json!({ "id": "u" })).await;
        let answer = backend.post("/users/u/force_reconnect", &json!({})).await;
        assert_eq!(answer.status, 200);
        if is_told {
            client.expect_error(4200).await;
        }
        assert_eq!(client.expect_close().await.0, 4200, "protocol {protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_the_library_does_not_matter() {
    let server = TestServer::start().await;
    for version in ["", "8.6.0", "x", "8.6.0-beta+1", "%00", "1e9"] {
        let target = format!("/app/key?protocol=7&version={version}");
        Client::connect(server.address, &target).await.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_prefix_may_stand_in_front_or_be_taken_away_by_a_proxy() {
    let mut config = config([app()]);
    config.server.path_prefix = "/live/ws".into();
    let server = TestServer::with_config(config).await;
    for target in [
        "/live/ws/app/key",
        "/app/key?protocol=7",
        "/live/ws/app/k%65y?protocol=7",
    ] {
        Client::connect(server.address, target).await.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_behind_the_handshake_is_heard() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.address).await;
    let mut bytes = Raw::upgrade("/app/key?protocol=7", "").into_bytes();
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "early" } });
    bytes.extend(frame(FIN | TEXT, subscribe.to_string().as_bytes()));
    bytes.extend(frame(FIN | TEXT, br#"{"event":"pusher:ping"}"#));
    raw.send(bytes).await;
    raw.http_head().await.expect("an answer");
    raw.greeting().await;
    let mut heard = [raw.next().await, raw.next().await].map(|message| message["event"].to_string());
    heard.sort();
    assert_eq!(
        heard,
        [r#""pusher:pong""#, r#""pusher_internal:subscription_succeeded""#]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_may_come_in_single_bytes() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.address).await;
    for byte in Raw::upgrade("/app/key?protocol=7", "").into_bytes() {
        raw.send([byte]).await;
    }
    raw.http_head().await.expect("an answer");
    raw.greeting().await;
    for byte in frame(FIN | TEXT, br#"{"event":"pusher:ping","data":{}}"#) {
        raw.send([byte]).await;
    }
    assert_eq!(raw.next().await["event"], "pusher:pong");
    for byte in frame(FIN | 9, b"are you there") {
        raw.send([byte]).await;
    }
    let pong = raw.frame().await.expect("a pong");
    assert_eq!((pong.first, &*pong.payload), (FIN | PONG, &b"are you there"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_handshake_is_answered_in_http() {
    let server = TestServer::start().await;
    let upgrade = Raw::upgrade("/app/key?protocol=7", "");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (what, request, status) in [
        (
            "no upgrade",
            "GET /app/key HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
            426,
        ),
        ("POST", upgrade.replace("GET", "POST"), 426),
        ("no key", upgrade.replace(key, ""), 426),
        ("version 8", upgrade.replace("Version: 13", "Version: 8"), 426),
        (
            "no version",
            upgrade.replace("Sec-WebSocket-Version: 13\r\n", ""),
            426,
        ),
        (
            "another upgrade",
            upgrade.replace("Upgrade: websocket", "Upgrade: h2c"),
            426,
        ),
        (
            "a body",
            upgrade.replace(key, &format!("{key}Content-Length: 2\r\n")) + "{}",
            426,
        ),
        (
            "a body in chunks",
            upgrade.replace(key, &format!("{key}Transfer-Encoding: chunked\r\n")) + "0\r\n\r\n",
            426,
        ),
        (
            "no such path",
            "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
            404,
        ),
        (
            "no key in the path",
            "GET /app/ HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
            404,
        ),
    ] {
        let mut http = Http::connect(server.address).await;
        http.write(&request).await;
        let answer = http.answer().await.expect("an answer");
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(answer.json()["error"].is_string(), "{what}: {answer:?}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{what}");
        }
        server.serves().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_may_follow_an_answered_request() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /live HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(
        raw.http_head()
            .await
            .expect("an answer")
            .starts_with("HTTP/1.1 200 ")
    );
    // The body of /live, whose length the head told.
    let mut body = Vec::new();
    while !body.ends_with(b"}") {
        body.extend(raw.bytes(1).await.expect("a body"));
    }
    let mut raw = raw.upgraded("/app/key?protocol=7", "").await;
    raw.greeting().await;
}
