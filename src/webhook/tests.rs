//! Webhooks from `send` to receivers of all sorts, in virtual time.

pub(super) mod receiver;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::app::{AppConfig, Settings};
use crate::protocol::auth;
use receiver::{Received, Receiver, Reply};

/// An app with these endpoints, and whatever delivers to them.
struct Stage {
    app: Arc<App>,
    webhooks: Webhooks,
    receiver: Receiver,
    _delivery: JoinHandle<()>,
}

pub(super) fn settings(webhooks: &Value, change: &Value) -> Settings {
    let mut config = json!({"id": "1", "key": "k", "secret": "s", "webhooks": webhooks});
    for (key, value) in change.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let config: AppConfig = serde_json::from_value(config).expect("an app's settings");
    Settings::new(config).expect("they are in order")
}

impl Stage {
    fn new(webhooks: &Value, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Stage {
        Stage::with(webhooks, WebhooksConfig::default(), script)
    }

    fn with(
        webhooks: &Value,
        config: WebhooksConfig,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Stage {
        let metrics = Arc::new(Metrics::new("", 0).expect("no prefix is a good one"));
        let handle = Webhooks::new(config, metrics);
        let receiver = Receiver::new(script);
        let over = receiver.clone();
        Stage {
            app: Arc::new(App::new(settings(webhooks, &Value::Null))),
            _delivery: tokio::spawn(handle.clone().deliver_over(|| client::pool_over(over))),
            webhooks: handle,
            receiver,
        }
    }

    fn occupied(&self, channel: &str) -> Sent {
        let channel = ChannelName::parse(channel, 200).expect("a legal name");
        self.webhooks
            .send(&self.app, WebhookEvent::ChannelOccupied { channel }, unix_ms())
    }

    fn dropped(&self, reason: WebhookDrop) -> u64 {
        self.webhooks.shared.metrics.webhooks("1").dropped(reason).get()
    }

    fn endpoint(&self, name: &str) -> EndpointReport {
        let endpoints = self.webhooks.report(&self.app).endpoints;
        let mut found = endpoints.into_iter().filter(|endpoint| endpoint.name == name);
        found.next().expect("it is configured")
    }

    /// Waits until nothing waits for any endpoint.
    async fn settled(&self) {
        while lock(&self.webhooks.shared.dispatch).events() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn one() -> Value {
    json!([{"url": "http://one.example/hooks"}])
}

fn seconds(received: &[Received]) -> Vec<u64> {
    received.iter().map(|it| it.at.as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_what_the_official_libraries_validate() {
    let endpoint = json!([{
        "url": "http://one.example/hooks?a=1",
        "headers": {"Authorization": "Bearer t", "X-Own": "1"},
    }]);
    let stage = Stage::new(&endpoint, |_| Reply::Status(201));
    assert_eq!(stage.occupied("my-channel"), Sent::Queued);
    let received = stage.receiver.wait_for(1).await.remove(0);
    assert!(
        received.head.starts_with("POST /hooks?a=1 HTTP/1.1\r\n"),
        "{}",
        received.head
    );
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.header("x-pusher-key"), Some("k"));
    let signature = auth::sign("s", &received.body);
    assert_eq!(received.header("x-pusher-signature"), Some(&*signature));
    assert_eq!(received.header("authorization"), Some("Bearer t"));
    assert_eq!(received.header("x-own"), Some("1"));
    assert_eq!(received.header("host"), Some("one.example"));
    assert_eq!(received.header("x-fanwire-webhook-id").map(str::len), Some(32));
    let body: Value = serde_json::from_str(&received.body).expect("JSON");
    assert_eq!(
        body["events"],
        json!([{"name": "channel_occupied", "channel": "my-channel"}])
    );
    assert!(body["time_ms"].is_u64());
    stage.settled().await;
    assert_eq!(stage.endpoint("1").last_status, Some(201));
    assert_eq!(stage.endpoint("1").state, EndpointState::Idle);
}

#[tokio::test(start_paused = true)]
async fn four_minutes_of_500_cost_nothing_but_time() {
    let stage = Stage::new(&one(), |it| {
        Reply::Status(if it.at.as_secs() < 240 { 500 } else { 200 })
    });
    stage.occupied("a");
    stage.settled().await;
    let received = stage.receiver.received();
    let times = seconds(&received);
    let (last, tried) = times.split_last().expect("it was sent");
    assert!((240..300).contains(last) && tried.len() >= 8, "{times:?}");
    for (gap, at_most) in received.windows(2).zip([1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]) {
        let gap = (gap[1].at - gap[0].at).as_secs_f64();
        let at_most = f64::from(at_most);
        assert!(
            (at_most * 0.74..at_most * 1.01).contains(&gap),
            "{gap} of {at_most}"
        );
    }
    let first = &received[0];
    for again in &received {
        assert_eq!(again.body, first.body);
        assert_eq!(
            again.header("x-fanwire-webhook-id"),
            first.header("x-fanwire-webhook-id")
        );
    }
    assert_eq!(stage.dropped(WebhookDrop::GivenUp), 0);
    let endpoint = stage.endpoint("1");
    assert_eq!((endpoint.failed_in_a_row, endpoint.last_status), (0, Some(200)));
    assert_eq!(
        endpoint.last_error.as_deref(),
        Some("answered 500 Internal Server Error")
    );
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_delays_nobody_and_is_given_up_after_five_minutes() {
    let two = json!([
        {"name": "hangs", "url": "http://hangs.example/", "timeout_ms": 10_000},
        {"name": "well", "url": "http://well.example/"},
    ]);
    let stage = Stage::new(&two, |it| match &*it.host {
        "hangs.example" => Reply::Hang,
        _ => Reply::Status(200),
    });
    for channel in 0..100 {
        stage.occupied(&format!("c-{channel}"));
    }
    let well = |stage: &Stage| {
        stage
            .receiver
            .received()
            .iter()
            .filter(|it| it.host == "well.example")
            .count()
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(well(&stage), 100, "not one of them waited");
    assert_eq!(stage.endpoint("hangs").in_flight, 8);
    stage.settled().await;
    let at = stage.receiver.begun().elapsed();
    assert!((290..=301).contains(&at.as_secs()), "{at:?}");
    assert_eq!(stage.dropped(WebhookDrop::GivenUp), 100);
    let report = stage.webhooks.report(&stage.app);
    assert_eq!(report.dead_letters.len(), 100);
    let tried = report.dead_letters.iter().filter(|letter| letter.attempts > 0);
    for letter in tried {
        assert_eq!(letter.error, "no answer within 10000 ms");
    }
    assert_eq!(well(&stage), 100);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_success_is_tried_again_and_says_why() {
    for (reply, status, error) in [
        (Reply::Close, None, "connection closed"),
        (Reply::Cut("HTTP/1.1 200 OK\r\nconte"), None, "connection closed"),
        (Reply::Cut("nonsense\r\n\r\n"), None, "invalid HTTP"),
        (
            Reply::Redirect,
            Some(302),
            "answered 302 Found: redirects are not followed",
        ),
        (Reply::Status(404), Some(404), "answered 404 Not Found"),
        (Reply::Status(503), Some(503), "answered 503 Service Unavailable"),
    ] {
        let stage = Stage::new(&one(), move |it| match it.at.as_millis() {
            0..500 => reply,
            _ => Reply::Status(204),
        });
        stage.occupied("a");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let endpoint = stage.endpoint("1");
        let told = endpoint.last_error.unwrap_or_default();
        assert!(told.contains(error), "{reply:?}: {told}");
        assert_eq!(
            (endpoint.last_status, endpoint.state),
            (status, EndpointState::Failing)
        );
        stage.settled().await;
        let received = stage.receiver.received();
        assert_eq!(received.len(), 2, "{received:?}");
        assert!(
            received.iter().all(|it| it.host == "one.example"),
            "no redirect is followed"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_is_one_also_if_its_body_is_cut_off() {
    let stage = Stage::new(&one(), |_| {
        Reply::Cut("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    });
    stage.occupied("a");
    stage.settled().await;
    assert_eq!(stage.endpoint("1").last_status, Some(200));
    assert_eq!(stage.receiver.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_ten_megabytes_is_a_success_that_is_not_waited_for() {
    let stage = Stage::new(&json!([{"url": "http://one.example/", "concurrency": 1}]), |_| {
        Reply::Slow
    });
    stage.occupied("a");
    stage.occupied("b");
    stage.settled().await;
    let at = stage.receiver.begun().elapsed();
    assert!(at < Duration::from_secs(3), "{at:?}, of a hundred seconds");
    assert_eq!(stage.receiver.received().len(), 2, "neither was tried again");
}

#[tokio::test(start_paused = true)]
async fn a_channel_keeps_its_order_while_others_go_on() {
    let stage = Stage::new(&one(), |it| match &*it.channels()[0] {
        "bad" if it.at.as_secs() < 20 => Reply::Status(500),
        _ => Reply::Status(200),
    });
    let client_event = |data: &str| WebhookEvent::ClientEvent {
        channel: ChannelName::parse("bad", 200).expect("a legal name"),
        event: "client-e".into(),
        data: data.into(),
        socket_id: crate::protocol::SocketId::from_parts(1, 1),
        user_id: None,
    };
    for data in ["1", "2", "3"] {
        stage.webhooks.send(&stage.app, client_event(data), unix_ms());
        stage.occupied("good");
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let good = |it: &&Received| it.channels() == ["good"];
    assert_eq!(stage.receiver.received().iter().filter(good).count(), 3);
    stage.settled().await;
    let received = stage.receiver.received();
    let data = |it: &Received| {
        it.body
            .split("\"data\":\"")
            .nth(1)
            .map(|rest| rest[..1].to_owned())
    };
    let mut order: Vec<_> = received.iter().filter_map(data).collect();
    order.dedup();
    assert_eq!(order, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn events_of_many_channels_make_one_request_and_apps_are_never_mixed() {
    let batched = json!([{
        "url": "http://one.example/",
        "batch": {"max_events": 3, "max_delay_ms": 500},
        "filter": {"channel_name_starts_with": "in-"},
    }]);
    let stage = Stage::new(&batched, |_| Reply::Status(200));
    let other = Arc::new(App::new(settings(
        &batched,
        &json!({"id": "2", "key": "l", "secret": "t"}),
    )));
    for channel in ["in-a", "out-b", "in-c", "in-a", "in-d"] {
        let expected = if channel.starts_with("in-") {
            Sent::Queued
        } else {
            Sent::Unwanted
        };
        assert_eq!(stage.occupied(channel), expected);
        let channel = ChannelName::parse(channel, 200).expect("a legal name");
        stage
            .webhooks
            .send(&other, WebhookEvent::ChannelVacated { channel }, unix_ms());
    }
    stage.settled().await;
    let received = stage.receiver.received();
    assert_eq!(received.len(), 4);
    for (key, secret, name) in [("k", "s", "occupied"), ("l", "t", "vacated")] {
        let own: Vec<_> = received
            .iter()
            .filter(|it| it.header("x-pusher-key") == Some(key))
            .collect();
        let channels: Vec<_> = own.iter().map(|it| it.channels()).collect();
        assert_eq!(channels, [vec!["in-a", "in-a", "in-c"], vec!["in-d"]]);
        assert_eq!(
            own.iter().map(|it| it.at.as_millis() / 100).collect::<Vec<_>>(),
            [0, 5]
        );
        for it in own {
            assert_eq!(
                it.header("x-pusher-signature"),
                Some(&*auth::sign(secret, &it.body))
            );
            assert_eq!(it.body.matches(name).count(), it.channels().len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_key_that_may_be_used_signs() {
    let stage = Stage::new(&one(), |_| Reply::Status(200));
    let keys = json!({"keys": [
        {"key": "past", "secret": "p", "expires_at": "2001-01-01T00:00:00Z"},
        {"key": "old", "secret": "o", "active_from": "2002-01-01T00:00:00Z"},
        {"key": "new", "secret": "n", "active_from": "2003-01-01T00:00:00Z"},
    ], "key": "", "secret": ""});
    stage.app.set(settings(&one(), &keys));
    stage.occupied("a");
    let received = stage.receiver.wait_for(1).await.remove(0);
    assert_eq!(received.header("x-pusher-key"), Some("old"));
    assert_eq!(
        received.header("x-pusher-signature"),
        Some(&*auth::sign("o", &received.body))
    );
}

#[tokio::test(start_paused = true)]
async fn changed_settings_hold_from_the_next_attempt_on() {
    let stage = Stage::new(
        &json!([{"name": "e", "url": "http://old.example/"}]),
        |it| match &*it.host {
            "old.example" => Reply::Status(500),
            _ => Reply::Status(200),
        },
    );
    stage.occupied("a");
    stage.receiver.wait_for(1).await;
    stage.app.set(settings(
        &json!([{"name": "e", "url": "http://new.example/"}]),
        &Value::Null,
    ));
    let received = stage.receiver.wait_for(2).await;
    assert_eq!(received[1].host, "new.example");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_endpoint_that_is_gone_is_dropped_and_counted() {
    for change in [
        json!([]),
        json!([{"url": "http://one.example/", "enabled": false}]),
    ] {
        let stage = Stage::new(&one(), |_| Reply::Status(500));
        for _ in 0..3 {
            stage.occupied("a");
        }
        stage.receiver.wait_for(1).await;
        stage.app.set(settings(&change, &Value::Null));
        stage.settled().await;
        assert_eq!(stage.receiver.received().len(), 1);
        assert_eq!(stage.dropped(WebhookDrop::Retired), 3);
        assert_eq!(stage.occupied("a"), Sent::Unwanted);
        assert!(stage.webhooks.report(&stage.app).dead_letters.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn full_is_an_answer_and_spares_other_endpoints() {
    let config = WebhooksConfig {
        endpoint_events_max: 2,
        queue_events_max: 8,
        ..WebhooksConfig::default()
    };
    let two = json!([
        {"name": "hangs", "url": "http://hangs.example/", "event_types": ["channel_occupied"]},
        {"name": "well", "url": "http://well.example/", "event_types": ["channel_vacated"]},
    ]);
    let stage = Stage::with(&two, config, |it| match &*it.host {
        "hangs.example" => Reply::Hang,
        _ => Reply::Status(200),
    });
    let sent: Vec<_> = (0..4).map(|_| stage.occupied("a")).collect();
    assert_eq!(sent, [Sent::Queued, Sent::Queued, Sent::Full, Sent::Full]);
    let channel = ChannelName::parse("a", 200).expect("a legal name");
    let vacated = WebhookEvent::ChannelVacated { channel };
    assert_eq!(stage.webhooks.send(&stage.app, vacated, unix_ms()), Sent::Queued);
    assert_eq!(stage.dropped(WebhookDrop::Full), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_can_be_sent_again() {
    let config = WebhooksConfig {
        give_up_s: 20,
        ..WebhooksConfig::default()
    };
    let stage = Stage::with(&one(), config, |it| {
        Reply::Status(if it.at.as_secs() < 30 { 500 } else { 200 })
    });
    stage.occupied("a");
    stage.occupied("b");
    stage.settled().await;
    let letters = stage.webhooks.report(&stage.app).dead_letters;
    assert_eq!(letters.len(), 2);
    assert!(
        letters.iter().all(|it| it.events == 1 && it.attempts > 3),
        "{letters:?}"
    );
    tokio::time::sleep(Duration::from_secs(15)).await;
    let tried = stage.receiver.received();

    let id = u128::from_str_radix(&letters[0].id, 16).expect("an id is hex");
    assert_eq!(stage.webhooks.redeliver(&stage.app, Letters::Id(id ^ 1)), None);
    assert_eq!(stage.webhooks.redeliver(&stage.app, Letters::Endpoint("2")), None);
    let sent = |sent| Some(Redelivered { sent, left: 0 });
    assert_eq!(stage.webhooks.redeliver(&stage.app, Letters::Id(id)), sent(1));
    let again = stage.receiver.wait_for(tried.len() + 1).await;
    let again = again.last().expect("it was sent again");
    assert_eq!(again.header("x-fanwire-webhook-id"), Some(&*letters[0].id));
    assert!(tried.iter().any(|it| it.body == again.body), "the very same body");
    assert_eq!(
        stage.webhooks.redeliver(&stage.app, Letters::Endpoint("1")),
        sent(1)
    );
    stage.settled().await;
    assert_eq!(
        stage.webhooks.redeliver(&stage.app, Letters::Endpoint("1")),
        sent(0)
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_sends_what_it_can_and_counts_the_rest() {
    let three = json!([
        {"name": "batched", "url": "http://well.example/", "batch": {"max_events": 9, "max_delay_ms": 60_000}},
        {"name": "recovers", "url": "http://recovers.example/"},
        {"name": "hangs", "url": "http://hangs.example/"},
    ]);
    let stage = Stage::new(&three, |it| match &*it.host {
        "hangs.example" => Reply::Hang,
        "recovers.example" if it.at.as_secs() < 10 => Reply::Status(500),
        _ => Reply::Status(200),
    });
    stage.occupied("a");
    stage.occupied("b");
    tokio::time::sleep(Duration::from_secs(12)).await;
    let deadline = now() + Duration::from_secs(5);
    // One of the two waits for its turn, the other one is on its way and may arrive yet.
    let dropped = stage.webhooks.flush(deadline).await;
    assert!(now() <= deadline + Duration::from_millis(50));
    assert!(dropped <= 2, "{dropped}");
    let hosts: Vec<_> = stage.receiver.received().into_iter().map(|it| it.host).collect();
    assert_eq!(hosts.iter().filter(|host| *host == "well.example").count(), 1);
    assert_eq!(
        stage.webhooks.shared.metrics.webhooks("1").delivered_total.get(),
        4
    );
    assert_eq!(stage.dropped(WebhookDrop::Shutdown), dropped as u64);
}

#[tokio::test(start_paused = true)]
async fn an_app_without_webhooks_is_asked_one_thing() {
    let stage = Stage::new(&json!([]), |_| Reply::Status(200));
    assert_eq!(stage.occupied("a"), Sent::Unwanted);
    assert!(stage.webhooks.snapshot().is_empty());
}
