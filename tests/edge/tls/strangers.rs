//! Who does not speak TLS, or not to the end.

use std::time::Duration;

use tokio::time::timeout;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_what_is_spoken_here() {
    let secured = Secured::start().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
        Raw::upgrade("/app/key?protocol=7", ""),
        format!(
            "POST /apps/1/events HTTP/1.1\r\nContent-Length: 20000\r\n\r\n{}",
            "a".repeat(20_000)
        ),
    ] {
        let mut http = Http::connect(secured.server.address).await;
        http.write(request).await;
        let answer = http.answer().await.expect("an answer");
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("TLS"), "{answer:?}");
        assert!(http.answer().await.is_none(), "it is over");
    }
    let error = "error_type=\"tls\"";
    secured
        .server
        .metric_becomes("connection_errors_total", &[error], 3)
        .await;
    secured.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_soon() {
    let secured = Secured::start().await;
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let mut long = hello.to_vec();
    long.resize(600, 0xaa);
    for nonsense in [
        b"\0\0\0\0".to_vec(),
        b"ping\r\n".to_vec(),
        vec![22, 3, 1, 255, 255],
        vec![0xff; 70_000],
        // An alert before anything else, and a hello that holds nothing.
        vec![21, 3, 3, 0, 2, 2, 40],
        long,
    ] {
        let mut raw = Raw::connect(secured.server.address).await;
        raw.send(&nonsense).await;
        let mut answer = Vec::new();
        let end = soon("the end", raw.stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok() || answer.is_empty(), "{nonsense:?}");
        assert!(answer.len() < 64, "an alert at most: {answer:?}");
    }
    // Who looks whether somebody listens is no error.
    for _ in 0..3 {
        drop(Raw::connect(secured.server.address).await);
    }
    secured.serves().await;
    let error = "error_type=\"tls\"";
    secured
        .server
        .metric_becomes("connection_errors_total", &[error], 6)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_ends_a_socket_and_nobody_else() {
    let secured = Secured::start().await;
    let mut client = secured.connect().await;
    client.subscribe("a").await;
    let (stream, _) = client.stream.get_mut().get_mut();
    stream.write_all(&[23, 3, 3, 0, 20]).await.expect("it listens");
    stream.write_all(&[7; 20]).await.expect("it listens");
    assert_eq!(client.hear().await, Heard::Lost);
    let reason = "reason=\"lost\"";
    secured.server.metric_becomes("closed_total", &[reason], 1).await;
    secured.serves().await;
}

/// New keys cost more than a word. As many are borne at a stretch as by other servers, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_changes_keys_without_end_and_says_nothing_is_cut() {
    const BORNE: usize = 32;
    let secured = Secured::start().await;
    let mut client = secured.connect().await;
    for changes in [BORNE, BORNE, BORNE + 1] {
        let stream = client.stream.get_mut();
        let (_, session) = stream.get_mut();
        for _ in 0..changes {
            session.refresh_traffic_keys().expect("TLS 1.3");
        }
        stream.flush().await.expect("it listens");
        if changes == BORNE {
            client.expect_silence().await;
        }
    }
    assert_eq!(client.hear().await, Heard::Lost);
    secured.server.connected_becomes(0).await;
    secured.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_and_does_not_go_on_has_so_much_time() {
    let mut config = config([app()]);
    config.server.header_timeout_s = 1;
    let secured = Secured::with_config(config, |_, _, _| {}).await;
    let mut silent = Raw::connect(secured.server.address).await;
    let mut begun = Raw::connect(secured.server.address).await;
    begun.send([22, 3, 1, 2, 0, 1, 0]).await;
    for raw in [&mut silent, &mut begun] {
        let end = soon("the end", raw.stream.read(&mut [0; 64])).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    let error = "error_type=\"timeout\"";
    secured
        .server
        .metric_becomes("connection_errors_total", &[error], 2)
        .await;
    secured.serves().await;
}

/// However many hold out, those who come behind them are served.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_under_way_are_bounded_and_nobody_is_kept_out_for_ever() {
    let mut config = config([app()]);
    config.server.header_timeout_s = 2;
    config.server.porch_connections_max = 16;
    let secured = Secured::with_config(config, |_, _, _| {}).await;
    let mut there = secured.connect().await;
    let mut held = Vec::new();
    for _ in 0..24 {
        held.push(Raw::connect(secured.server.address).await);
    }
    // Nobody who is connected notices.
    there.subscribe("a").await;
    let late = timeout(Duration::from_secs(15), secured.connect()).await;
    assert!(late.is_ok(), "it had its turn");
    drop(held);
    secured.serves().await;
}
