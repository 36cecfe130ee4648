//! Webhooks as a back end gets them: signed, in order, once, and nobody waits for a receiver that does not do well.

mod https;
mod misbehaving;
mod receiver;

use std::time::{Duration, Instant};

use fanwire::app::AppConfig;
use fanwire::config::Config;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::server::{KEY, SECRET, TestServer, app, config};
use receiver::{Received, Receiver, Reply};

/// The settings of a server whose app has these endpoints, and hurries. They are told of everything but counts, unless
/// they ask for something else.
fn with(mut webhooks: Value) -> Config {
    for endpoint in webhooks.as_array_mut().expect("a list of endpoints") {
        if endpoint["event_types"].is_null() {
            endpoint["event_types"] = json!([
                "channel_occupied",
                "channel_vacated",
                "member_added",
                "member_removed",
                "client_event"
            ]);
        }
    }
    let app = AppConfig {
        webhooks: serde_json::from_value(webhooks).expect("endpoints"),
        webhook_grace_ms: 50,
        ..app()
    };
    let mut config = config([app]);
    config.webhooks.retry_first_ms = 100;
    config
}

fn names(events: &[Value]) -> Vec<String> {
    let told = |event: &Value| {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("name"), text("channel"), text("user_id"))
            .trim_end()
            .to_owned()
    };
    events.iter().map(told).collect()
}

/// What the API says of an endpoint, as soon as it is so.
async fn endpoint(server: &TestServer, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut backend = server.backend().await;
    eventually(&format!("{name} to be so"), async || {
        let report = backend.get("/webhooks").await.json();
        let endpoints = report["endpoints"].as_array().expect("a list").clone();
        endpoints.into_iter().find(|it| it["name"] == name && is_so(it))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channels_life_is_told_in_order_and_signed() {
    let receiver = Receiver::content().await;
    let server = TestServer::with_config(with(json!([{
        "url": receiver.url("/hooks?from=fanwire"),
        "headers": {"Authorization": "Bearer t"},
    }])))
    .await;
    let mut one = server.connect().await;
    one.join("presence-a", "7").await;
    one.whisper("presence-a", "client-e", "{\"b\":1}").await;
    receiver.wait_for(3).await;
    one.unsubscribe("presence-a").await;
    let received = receiver.wait_for(5).await;
    assert_eq!(
        names(&receiver.events()),
        [
            "channel_occupied presence-a",
            "member_added presence-a 7",
            "client_event presence-a 7",
            "member_removed presence-a 7",
            "channel_vacated presence-a",
        ]
    );
    for it in &received {
        it.is_signed_by(KEY, SECRET);
        assert_eq!(it.path, "/hooks?from=fanwire");
        assert_eq!(it.header("authorization"), Some("Bearer t"));
        assert_eq!(it.events().len(), 1, "no batching unless asked for");
    }
    let sent = &received[2].events()[0];
    assert_eq!(sent["event"], "client-e");
    assert!(sent["data"].is_string(), "{sent}");
    assert_eq!(sent["socket_id"], one.socket_id);
    let mut ids: Vec<_> = received.iter().map(Received::id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_gets_what_it_asked_for() {
    let (some, all) = (Receiver::content().await, Receiver::content().await);
    let server = TestServer::with_config(with(json!([
        {
            "url": some.url("/"),
            "event_types": ["channel_occupied"],
            "filter": {"channel_name_starts_with": "room-", "channel_patterns": ["*-eu", "*-us"]},
        },
        {"url": all.url("/"), "batch": {"max_events": 4, "max_delay_ms": 10_000}},
    ])))
    .await;
    let mut client = server.connect().await;
    for channel in ["room-eu", "hall-eu", "room-asia", "room-us"] {
        client.subscribe(channel).await;
    }
    some.wait_for(2).await;
    let mut told = names(&some.events());
    told.sort();
    assert_eq!(told, ["channel_occupied room-eu", "channel_occupied room-us"]);
    let batch = all.wait_for(1).await.remove(0);
    batch.is_signed_by(KEY, SECRET);
    assert_eq!(batch.events().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_until_it_arrives() {
    for reply in [Reply::Status(500), Reply::Close, Reply::Status(404)] {
        let failing = reply.clone();
        let receiver = Receiver::start(move |it| match it.at.as_millis() {
            0..300 => failing.clone(),
            _ => Reply::Status(204),
        })
        .await;
        let server = TestServer::with_config(with(json!([{"name": "e", "url": receiver.url("/")}]))).await;
        let mut client = server.connect().await;
        client.subscribe("a").await;
        let done = endpoint(&server, "e", |it| it["last_success_ms"].is_u64()).await;
        assert_eq!(
            (&done["last_status"], &done["state"]),
            (&json!(204), &json!("idle")),
            "{reply:?}"
        );
        let received = receiver.received();
        assert!(received.len() > 1 && received.iter().all(|it| it.body == received[0].body));
        assert!(received.iter().all(|it| it.id() == received[0].id()));
        let failed = received.len() as u64 - 1;
        assert_eq!(server.metric("webhook_failed_attempts_total", &[]).await, failed);
        assert_eq!(server.metric("webhook_retried_total", &[]).await, failed);
        assert_eq!(
            server
                .metric("webhook_events_delivered_total", &["app_id=\"1\""])
                .await,
            1
        );
        assert_eq!(server.metric("webhook_dropped_total", &[]).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_receiver_that_hangs() {
    let (hanging, well) = (Receiver::start(|_| Reply::Hang).await, Receiver::content().await);
    let server = TestServer::with_config(with(json!([
        {"name": "hangs", "url": hanging.url("/")},
        {"name": "well", "url": well.url("/")},
    ])))
    .await;
    let mut client = server.connect().await;
    let begun = Instant::now();
    for channel in 0..50 {
        client.subscribe(&format!("c-{channel}")).await;
    }
    well.wait_for(50).await;
    // The first request to the other one has not even failed yet.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let hangs = endpoint(&server, "hangs", |it| it["in_flight"] == 8).await;
    assert_eq!(hangs["queue_events"], 50);
    assert_eq!(hangs["state"], "delivering");
    assert_eq!(server.metric("webhook_queue_events", &[]).await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let elsewhere = Receiver::content().await;
    let to = elsewhere.url("/secret");
    let receiver = Receiver::start(move |it| match it.at.as_millis() {
        0..300 => Reply::Redirect(to.clone()),
        _ => Reply::Status(200),
    })
    .await;
    let server = TestServer::with_config(with(json!([{"name": "e", "url": receiver.url("/")}]))).await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    let done = endpoint(&server, "e", |it| it["last_success_ms"].is_u64()).await;
    let error = done["last_error"].as_str().expect("an error");
    assert!(
        error.starts_with("answered 307") && error.contains("not followed"),
        "{error}"
    );
    assert!(elsewhere.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_costs_no_place() {
    let receiver = Receiver::start(|_| Reply::Slow).await;
    let server = TestServer::with_config(with(
        json!([{"name": "e", "url": receiver.url("/"), "concurrency": 1}]),
    ))
    .await;
    let mut client = server.connect().await;
    for channel in ["a", "b", "c"] {
        client.subscribe(channel).await;
    }
    let done = endpoint(&server, "e", |it| {
        it["queue_events"] == 0 && it["last_success_ms"].is_u64()
    })
    .await;
    assert_eq!(done["last_error"], Value::Null);
    assert_eq!(receiver.received().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_where_they_are_blocked() {
    let receiver = Receiver::content().await;
    let port = receiver.address.port();
    let urls = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"]
        .map(|host| format!("http://{host}:{port}/"));
    let endpoints: Vec<_> = urls.iter().map(|url| json!({"url": url})).collect();
    let mut config = with(json!(endpoints));
    config.webhooks.block_private = true;
    let server = TestServer::with_config(config.clone()).await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    for name in ["1", "2", "3", "4"] {
        let refused = endpoint(&server, name, |it| it["last_error"].is_string()).await;
        let error = refused["last_error"].as_str().expect("an error");
        assert!(error.contains("one that webhooks are not sent to"), "{error}");
    }
    assert!(receiver.received().is_empty());

    config.webhooks.allow = vec!["127.0.0.0/8".into()];
    let server = TestServer::with_config(config).await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    receiver.wait_for(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_sees_how_its_endpoints_are_and_sends_dead_letters_again() {
    let receiver = Receiver::start(|it| match it.at.as_secs() {
        0..4 => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await;
    let mut config = with(json!([
        {
            "name": "e",
            "url": receiver.url("/hooks?token=hunter1"),
            "headers": {"X-Token": "hunter2"},
            "timeout_ms": 500,
        },
        {"name": "off", "url": "http://off.example/", "enabled": false},
    ]));
    config.webhooks.give_up_s = 1;
    let server = TestServer::with_config(config).await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    let letters = eventually("two dead letters", async || {
        let report = backend.get("/webhooks").await;
        assert!(
            !report.body.contains("hunter") && !report.body.contains(SECRET),
            "{}",
            report.body
        );
        let letters = report.json()["dead_letters"].as_array().expect("a list").clone();
        Some(letters).filter(|letters| letters.len() == 2)
    })
    .await;
    for letter in &letters {
        assert_eq!((&letter["endpoint"], &letter["events"]), (&json!("e"), &json!(1)));
        assert_eq!(letter["error"], "answered 500 Internal Server Error");
        assert!(letter["attempts"].as_u64() > Some(1), "{letter}");
    }
    let off = endpoint(&server, "off", |_| true).await;
    assert_eq!(off["state"], "disabled");
    assert_eq!(
        server
            .metric("webhook_dropped_total", &["reason=\"given_up\""])
            .await,
        2
    );
    assert_eq!(server.metric("webhook_dead_letters", &["app_id=\"1\""]).await, 2);

    let redeliver = |what: &str| format!("/webhooks/{what}/redeliver");
    let letter = |id: &str| redeliver(&format!("dead_letters/{id}"));
    let unknown = "0".repeat(32);
    for (path, status) in [
        (letter(&unknown), 404),
        (letter("7"), 400),
        (redeliver("nobody"), 404),
    ] {
        assert_eq!(backend.post(&path, &json!({})).await.status, status, "{path}");
    }
    let id = letters[0]["id"].as_str().expect("an id").to_owned();
    eventually("the receiver to recover", async || {
        // What fails again is a dead letter again.
        let sent = backend.post(&letter(&id), &json!({})).await;
        assert!(
            sent.status == 404 || sent.json() == json!({"redelivered": 1, "left": 0}),
            "{sent:?}"
        );
        let report = backend.get("/webhooks").await.json();
        (report["endpoints"][0]["last_status"] == 200).then_some(())
    })
    .await;
    let again = backend.post(&redeliver("e"), &json!({})).await;
    assert_eq!(again.json(), json!({"redelivered": 1, "left": 0}));
    eventually("both to be delivered", async || {
        (server.metric("webhook_events_delivered_total", &[]).await == 2).then_some(())
    })
    .await;
    let received = receiver.received();
    let ours: Vec<_> = received.iter().filter(|it| it.id() == id).collect();
    assert!(ours.iter().all(|it| it.body == ours[0].body));

    let mut stranger = server.backend().await;
    stranger.secret = "wrong".into();
    assert_eq!(stranger.get("/webhooks").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_before_the_server_ends() {
    let receiver = Receiver::content().await;
    let batched = json!([{"url": receiver.url("/"), "batch": {"max_events": 100, "max_delay_ms": 60_000}}]);
    let server = TestServer::with_config(with(batched)).await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    drop(client);
    server.drain().await;
    let mut told = names(&receiver.events());
    told.sort();
    let all = [
        "channel_occupied a",
        "channel_occupied b",
        "channel_vacated a",
        "channel_vacated b",
    ];
    assert_eq!(told, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_webhooks_has_no_figures_of_them() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    let text = server.admin("/metrics").await.body;
    assert!(!text.contains("fanwire_webhook_sent"), "{text}");
    let report = server.backend().await.get("/webhooks").await;
    assert_eq!(report.json(), json!({"endpoints": [], "dead_letters": []}));
}
