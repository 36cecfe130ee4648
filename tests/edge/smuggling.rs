//! Requests that are read differently by two servers, or by none: one request gets one answer at most, and nothing
//! behind a broken one is heard. After each of them a normal client is served.

use std::time::{Duration, Instant};

use crate::support::http::Http;
use crate::support::raw::Raw;
use crate::support::server::{TestServer, app, config};

/// All answers up to the end of the connection, which the request behind them asks for.
async fn statuses(server: &TestServer, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    let mut http = Http::connect(server.address).await;
    http.write(bytes).await;
    let mut statuses = Vec::new();
    while let Some(answer) = http.answer().await {
        statuses.push(answer.status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_refused_and_nothing_behind_it_is_heard() {
    let mut config = config([app()]);
    // Who promises a body and sends none is not waited for long.
    (config.server.request_timeout_s, config.server.keep_alive_s) = (1, 1);
    let server = TestServer::with_config(config).await;
    let post = "POST /apps/1/events HTTP/1.1\r\nHost: test\r\n";
    let behind = "GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
    for (what, bytes) in [
        (
            "two lengths",
            format!("{post}Content-Length: 0\r\nContent-Length: 30\r\n\r\n{behind}"),
        ),
        (
            "a list of lengths",
            format!("{post}Content-Length: 0, 30\r\n\r\n{behind}"),
        ),
        (
            "a signed length",
            format!("{post}Content-Length: +0\r\n\r\n{behind}"),
        ),
        (
            "a negative length",
            format!("{post}Content-Length: -1\r\n\r\n{behind}"),
        ),
        (
            "a length in hex",
            format!("{post}Content-Length: 0x0\r\n\r\n{behind}"),
        ),
        (
            "an endless length",
            format!("{post}Content-Length: 99999999999999999999999\r\n\r\n{behind}"),
        ),
        (
            "an empty length",
            format!("{post}Content-Length: \r\n\r\n{behind}"),
        ),
        (
            "an unknown coding",
            format!("{post}Transfer-Encoding: xchunked\r\n\r\n{behind}"),
        ),
        (
            "chunked not last",
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{behind}"),
        ),
        (
            "no chunk size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n{behind}"),
        ),
        (
            "a signed chunk size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n{behind}"),
        ),
        (
            "an endless chunk",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n{behind}"),
        ),
        (
            "a chunk longer than said",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n{behind}"),
        ),
        (
            "HTTP/1.0 with chunks",
            format!(
                "{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{behind}",
                post.replace("1.1", "1.0")
            ),
        ),
        (
            "a space before the colon",
            format!("{post}Content-Length : 0\r\n\r\n{behind}"),
        ),
        (
            "a folded header",
            format!("{post}X: a\r\n Content-Length: 30\r\n\r\n{behind}"),
        ),
        ("a zero byte", format!("{post}X: a\0b\r\n\r\n{behind}")),
        (
            "a lone carriage return",
            format!("{post}X: a\rContent-Length: 30\r\n\r\n{behind}"),
        ),
        ("no version", format!("GET /live\r\n\r\n{behind}")),
        ("HTTP/3.0", format!("GET /live HTTP/3.0\r\n\r\n{behind}")),
        ("no method", format!(" /live HTTP/1.1\r\n\r\n{behind}")),
        ("HTTP/2", format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{behind}")),
        (
            "a TLS greeting",
            format!("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n{behind}"),
        ),
    ] {
        let statuses = statuses(&server, &bytes).await;
        assert!(
            statuses.len() <= 1,
            "{what}: what stands behind it was answered: {statuses:?}"
        );
        assert!(
            statuses.iter().all(|status| (400..500).contains(status)),
            "{what}: {statuses:?}"
        );
        server.serves().await;
    }
}

/// Both are read by the later standard: what the chunks say holds, and nothing else may be sent on this connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_hides_no_request() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    let body = r#"{"name":"ev","channel":"a","data":"x"}"#;
    let call = server.backend().await.call("POST", "/events", body);
    let hidden = "GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("Content-Length: {}\r\n", chunks.len() + hidden.len());
    for headers in [
        format!("{length}Transfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\n{length}"),
    ] {
        let (head, _) = call.split_once("\r\n\r\n").expect("a head");
        let head = head.replace(&format!("Content-Length: {}", body.len()), headers.trim_end());
        let statuses = statuses(&server, format!("{head}\r\n\r\n{chunks}{hidden}")).await;
        assert_eq!(statuses.len(), 1, "{headers}: {statuses:?}");
        server.serves().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_readable_requests_are_answered_once() {
    let server = TestServer::start().await;
    for (what, bytes, status) in [
        (
            "bare line feeds",
            "GET /live HTTP/1.1\nHost: test\nConnection: close\n\n".to_owned(),
            200,
        ),
        (
            "no host",
            "GET /live HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            200,
        ),
        (
            "a whole URL",
            "GET http://test/live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_owned(),
            200,
        ),
        (
            "a proxy's request",
            "CONNECT test:443 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_owned(),
            404,
        ),
        (
            "about the server",
            "OPTIONS * HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_owned(),
            404,
        ),
        (
            "empty lines first",
            "\r\n\r\nGET /live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_owned(),
            200,
        ),
        (
            "dots in the path",
            "GET /app/../live HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_owned(),
            404,
        ),
        (
            "a body nobody asked for",
            "GET /live HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
                .to_owned(),
            200,
        ),
        (
            "too many headers",
            format!(
                "GET /live HTTP/1.1\r\n{}Connection: close\r\n\r\n",
                "X: y\r\n".repeat(500)
            ),
            431,
        ),
        (
            "too long a head",
            format!(
                "GET /live HTTP/1.1\r\nX: {}\r\nConnection: close\r\n\r\n",
                "y".repeat(70_000)
            ),
            431,
        ),
        (
            "too long a path",
            format!(
                "GET /{} HTTP/1.1\r\nConnection: close\r\n\r\n",
                "y".repeat(70_000)
            ),
            414,
        ),
    ] {
        let statuses = statuses(&server, &bytes).await;
        // A path that fills the head's room may be seen as either.
        let is_as_expected = statuses == [status] || (status == 414 && statuses == [431]);
        assert!(is_as_expected, "{what}: {statuses:?}, not {status}");
        server.serves().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_body_or_a_request_behind_it_confuses_nobody() {
    let server = TestServer::start().await;
    let upgrade = |headers: &str| Raw::upgrade("/app/key?protocol=7", headers);
    let get = "GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
    for bytes in [
        upgrade("Content-Length: 5\r\n") + "hello",
        upgrade("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        upgrade("") + get,
        upgrade("") + &upgrade(""),
        upgrade("Upgrade: h2c\r\n"),
        upgrade("Sec-WebSocket-Key: c2Vjb25kIGtleSBvZiBpdA==\r\n"),
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(&bytes).await;
        let head = raw.http_head().await.expect("an answer");
        if head.starts_with("HTTP/1.1 101") {
            // From here on only frames are spoken: HTTP is a broken frame, a body is none.
            raw.greeting().await;
        }
        drop(raw);
        server.connected_becomes(0).await;
        server.serves().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_trickles_in_is_given_up_and_holds_nobody_up() {
    let mut config = config([app()]);
    config.server.header_timeout_s = 1;
    let server = TestServer::with_config(config).await;
    let mut silent = Http::connect(server.address).await;
    let mut trickle = Raw::connect(server.address).await;
    let begun = Instant::now();
    let trickling = async {
        // A byte now and then: the time for the whole head counts, not that between two bytes.
        for byte in Raw::upgrade("/app/key?protocol=7", "").into_bytes() {
            trickle.send([byte]).await;
            if tokio::time::timeout(Duration::from_millis(60), trickle.bytes(1))
                .await
                .is_ok()
            {
                break;
            }
        }
        begun.elapsed()
    };
    let (given_up, ()) = tokio::join!(trickling, async {
        for _ in 0..10 {
            server.serves().await;
        }
    });
    assert!(given_up < Duration::from_secs(4), "{given_up:?}");
    assert!(silent.answer().await.is_none());
    assert!(begun.elapsed() < Duration::from_secs(6));
    assert_eq!(
        server
            .metric("connection_errors_total", &["error_type=\"timeout\""])
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_stays_idle_and_a_body_that_does_not_come_are_given_up() {
    let mut config = config([app()]);
    (config.server.keep_alive_s, config.server.request_timeout_s) = (1, 1);
    let server = TestServer::with_config(config).await;
    let mut idle = Http::connect(server.address).await;
    assert_eq!(idle.ask("GET", "/live", "").await.status, 200);
    let mut backend = server.backend().await;
    let call = backend.call("POST", "/events", r#"{"name":"ev","channel":"a","data":"x"}"#);
    backend.http.write(&call[..call.len() - 5]).await;
    let begun = Instant::now();
    assert!(idle.answer().await.is_none());
    let answer = backend.http.answer().await;
    assert!(
        answer.as_ref().is_none_or(|answer| answer.status == 408),
        "{answer:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    server.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_asks_and_never_reads_is_given_up() {
    let mut config = config([app()]);
    (config.server.keep_alive_s, config.server.request_timeout_s) = (1, 1);
    let server = TestServer::with_config(config).await;
    let mut client = server.connect().await;
    for number in 0..500 {
        client.subscribe(&format!("{number:0>150}")).await;
    }
    let backend = server.backend().await;
    let calls = backend
        .call("GET", "/channels?info=subscription_count", "")
        .repeat(200);
    let mut deaf = Raw::connect_with_buffer(server.address, 4_096).await;
    deaf.send_what_is_taken(calls.as_bytes(), Duration::from_millis(500))
        .await;
    for _ in 0..5 {
        server.serves().await;
    }
    server
        .metric_becomes("connection_errors_total", &["error_type=\"timeout\""], 1)
        .await;
}
