//! HTTP/1.1 as back ends speak it to us: kept connections, requests in a row, bodies in pieces.

use serde_json::json;

use crate::support::http::Http;
use crate::support::server::{TestServer, config};

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_row_are_answered_in_their_order_and_so_are_their_events() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    // Fast and slow answers mixed: a list is made elsewhere, an error at once.
    let mut calls = String::new();
    for number in 0..50 {
        let body =
            json!({ "name": "n", "channel": "a", "data": number.to_string(), "info": "subscription_count" });
        calls += &backend.call("POST", "/events", &body.to_string());
        calls += &backend.call("GET", "/channels", "");
        calls += &backend.call("GET", &format!("/channels/c{number}"), "");
        calls += "GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
        calls += &backend.call("POST", "/events", "no JSON");
    }
    backend.http.write(calls).await;
    for _ in 0..50 {
        let answers = [
            backend.http.answer().await,
            backend.http.answer().await,
            backend.http.answer().await,
            backend.http.answer().await,
            backend.http.answer().await,
        ]
        .map(|answer| answer.expect("an answer to each"));
        assert_eq!(answers[0].body, r#"{"channels":{"a":{"subscription_count":1}}}"#);
        assert_eq!(answers[1].body, r#"{"channels":{"a":{}}}"#);
        assert_eq!(answers[2].body, r#"{"occupied":false}"#);
        assert_eq!(answers[3].body, r#"{"health":"OK"}"#);
        assert_eq!(answers[4].status, 400);
    }
    for number in 0..50 {
        assert_eq!(client.expect("n").await["data"], number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_until_somebody_says_otherwise() {
    let server = TestServer::start().await;
    let mut http = Http::connect(server.address).await;
    for _ in 0..100 {
        assert_eq!(http.ask("GET", "/live", "").await.status, 200);
    }
    http.write("GET /live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(http.answer().await.expect("an answer").status, 200);
    assert!(http.answer().await.is_none());
    // HTTP/1.0 ends after one answer, unless it asks to be kept.
    let mut http = Http::connect(server.address).await;
    for _ in 0..3 {
        http.write("GET /live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .await;
        let answer = http.answer().await.expect("an answer");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    http.write("GET /live HTTP/1.0\r\n\r\n").await;
    http.answer().await.expect("an answer");
    assert!(http.answer().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_in_pieces_or_in_chunks_or_be_announced() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    let body = json!({ "name": "ev", "channel": "a", "data": "x".repeat(5_000) }).to_string();

    let call = backend.call("POST", "/events", &body);
    for piece in call.as_bytes().chunks(700) {
        backend.http.write(piece).await;
    }
    assert_eq!(backend.http.answer().await.expect("an answer").body, "{}");

    let (head, _) = call.split_once("\r\n\r\n").expect("a head");
    let length = format!("Content-Length: {}", body.len());
    let mut chunked = head.replace(&length, "Transfer-Encoding: chunked") + "\r\n\r\n";
    for piece in body.as_bytes().chunks(999) {
        chunked += &format!(
            "{:x};name=value\r\n{}\r\n",
            piece.len(),
            String::from_utf8_lossy(piece)
        );
    }
    chunked += "0\r\nTrailer: ignored\r\n\r\n";
    backend.http.write(chunked).await;
    assert_eq!(backend.http.answer().await.expect("an answer").body, "{}");

    let announced = head.replace(&length, &format!("{length}\r\nExpect: 100-continue")) + "\r\n\r\n";
    backend.http.write(announced).await;
    assert_eq!(backend.http.answer().await.expect("to go on").status, 100);
    backend.http.write(&body).await;
    assert_eq!(backend.http.answer().await.expect("an answer").body, "{}");

    for _ in 0..3 {
        client.expect("ev").await;
    }
    assert_eq!(server.metric("http_calls_received_total", &[]).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_only_ends_its_side_still_gets_the_answer() {
    let server = TestServer::start().await;
    let mut http = Http::connect(server.address).await;
    http.write("GET /live HTTP/1.1\r\nHost: test\r\n\r\n").await;
    http.end().await;
    assert_eq!(http.answer().await.expect("an answer").status, 200);
    assert!(http.answer().await.is_none());
}

/// Large bodies are read elsewhere than small ones, which must not let these overtake.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_event_does_not_overtake_a_large_batch_on_one_connection() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    let event = |data: String| json!({ "name": "n", "channel": "a", "data": data });
    let mut calls = String::new();
    for round in 0..10 {
        let batch: Vec<_> = (0..10)
            .map(|number| event(format!("{:0>9000}", round * 11 + number)))
            .collect();
        calls += &backend.call("POST", "/batch_events", &json!({ "batch": batch }).to_string());
        calls += &backend.call(
            "POST",
            "/events",
            &event((round * 11 + 10).to_string()).to_string(),
        );
    }
    backend.http.write(calls).await;
    for _ in 0..20 {
        assert_eq!(backend.http.answer().await.expect("an answer").status, 200);
    }
    for expected in 0..110 {
        let data = client.expect("n").await["data"].take();
        let number: u64 = data
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        assert_eq!(number, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_page_finds_its_files_with_and_without_a_path_prefix() {
    for prefix in ["", "/live/ws"] {
        let mut config = config([]);
        config.server.path_prefix = prefix.into();
        let server = TestServer::with_config(config).await;
        let mut http = Http::connect(server.address).await;
        let page = http.ask("GET", &format!("{prefix}/"), "").await;
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let links = page
            .body
            .split(['"', '\''])
            .filter(|link| link.starts_with("demo/"));
        let links: Vec<&str> = links.collect();
        assert_eq!(links, ["demo/style.css", "demo/pusher.min.js", "demo/demo.js"]);
        for link in links {
            let file = http.ask("GET", &format!("{prefix}/{link}"), "").await;
            assert_eq!(file.status, 200, "{link} below {prefix:?}");
        }
    }
}
