//! Figures that operators rely on are exact.

use serde_json::json;

use crate::support::client::Heard;
use crate::support::server::{TestServer, app, config};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_counted_one_for_each_recipient() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut clients = server.connect_many(10).await;
    let mut sent = 10;
    for client in &mut clients {
        client.subscribe("a").await;
        client.subscribe("private-a").await;
        sent += 2;
    }
    for number in 0..20 {
        let except = clients[number % 10].socket_id.clone();
        backend
            .trigger(&json!({ "name": "n", "channels": ["a", "nobody"], "data": "", "socket_id": except }))
            .await;
        sent += 9;
    }
    clients[0].whisper("private-a", "client-x", "").await;
    sent += 9;
    clients[1].say(&json!({ "event": "pusher:ping" })).await;
    clients[2].say_text("nonsense").await;
    clients[3].ask_for("private-b", "not what was signed").await;
    clients[3]
        .say(&json!({ "event": "pusher:subscribe", "data": { "channel": "private-c" } }))
        .await;
    sent += 2 + 1 + 2;
    // 18 events each, one whisper for all but its sender; then the four answers.
    for (number, client) in clients.iter_mut().enumerate() {
        let answers = [0, 1, 1, 3].get(number).copied().unwrap_or(0);
        for _ in 0..18 + usize::from(number > 0) + answers {
            client.next().await;
        }
    }
    assert_eq!(
        server.metric("ws_messages_sent_total", &["app_id=\"1\""]).await,
        sent
    );
    // 20 subscriptions, the whisper, the ping, nonsense, two more subscriptions.
    assert_eq!(server.metric("ws_messages_received_total", &[]).await, 25);
    assert_eq!(server.metric("http_calls_received_total", &[]).await, 20);
    assert_eq!(server.metric("new_connections_total", &[]).await, 10);
    // Two shards or three had subscribers; each tells its latency once for each publication.
    let observed = server.metric("broadcast_latency_ms_count", &[]).await;
    assert!((20..=63).contains(&observed), "{observed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_are_the_truth_after_any_churn() {
    let server = TestServer::start().await;
    let mut kept = Vec::new();
    for round in 0..60 {
        let mut client = server.connect().await;
        client.subscribe("a").await;
        client.join("presence-a", &(round % 7).to_string()).await;
        client.sign_in(&json!({ "id": "u" })).await;
        match round % 4 {
            0 => kept.push(client),
            1 => client.close().await,
            2 => {
                client.unsubscribe("a").await;
                drop(client);
            }
            _ => {
                client
                    .send_frame(tokio_tungstenite::tungstenite::Message::binary(vec![0]))
                    .await;
                loop {
                    if !matches!(client.hear().await, Heard::Message(_)) {
                        break;
                    }
                }
            }
        }
    }
    server.connected_becomes(15).await;
    let mut backend = server.backend().await;
    backend.wait_for_subscribers("a", 15).await;
    backend.wait_for_subscribers("presence-a", 15).await;
    assert_eq!(server.metric("active_channels", &[]).await, 2);
    assert_eq!(
        backend.get("/connections").await.json(),
        json!({ "connections": 15 })
    );
    assert_eq!(server.metric("new_connections_total", &[]).await, 60);
    server.metric_becomes("new_disconnections_total", &[], 45).await;
    let subscribed = server.metric("channel_subscriptions_total", &[]).await;
    let unsubscribed = server.metric("channel_unsubscriptions_total", &[]).await;
    assert_eq!((subscribed, subscribed - unsubscribed), (120, 30));
    drop(kept);
    server.connected_becomes(0).await;
    assert_eq!(server.metric("active_channels", &[]).await, 0);
    for gauge in ["outbox_bytes", "inbox_bytes"] {
        assert_eq!(server.metric(gauge, &[]).await, 0, "{gauge}");
    }
    assert_eq!(server.metric("shards", &[]).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_counted_once_by_its_reason() {
    let server = TestServer::start().await;
    let mut clients = server.connect_many(4).await;
    clients.pop().expect("one").close().await;
    drop(clients.pop());
    let mut terminated = clients.pop().expect("one");
    terminated.sign_in(&json!({ "id": "u" })).await;
    server.backend().await.terminate("u").await;
    terminated.expect_error(4009).await;
    terminated.expect_close().await;
    drop(terminated);
    server.connected_becomes(1).await;
    for reason in ["client", "lost", "terminated"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(server.metric("closed_total", &[&label]).await, 1, "{reason}");
    }
    assert_eq!(server.metric("closed_total", &[]).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_scrapes_are_no_api_calls_and_the_prefix_is_chosen() {
    let mut config = config([app()]);
    config.metrics.prefix = "soketi".into();
    let server = TestServer::with_config(config).await;
    let _client = server.connect().await;
    let answer = server.admin("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    let port = server.address.port();
    let line = format!("soketi_connected{{app_id=\"1\",port=\"{port}\"}} 1\n");
    assert!(answer.body.contains(&line), "{}", answer.body);
    assert!(answer.body.contains("# TYPE soketi_connected gauge\n"));
    assert!(
        !answer
            .body
            .contains("soketi_http_calls_received_total{app_id=\"1\",port=\"{port}\"} 1")
    );
    let json = server.admin("/metrics?json=1").await;
    assert!(json.json().is_object() || json.json().is_array());
    assert!(server.admin("/usage").await.json()["memory"]["percent"].is_number());
}
