//! Events on their way out of a durable queue, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::metrics::Metrics;
use crate::protocol::ChannelName;
use crate::webhook::queue::memory::Store;
use crate::webhook::queue::{JournalFigures, Partition, Put, Room};
use crate::webhook::tests::receiver::{Receiver, Reply};
use crate::webhook::tests::settings;
use crate::webhook::{Sent, WebhookEvent, WebhooksConfig, client, unix_ms};

/// A queue in memory that keeps its promises.
#[derive(Debug, Default)]
struct Kept {
    entries: Mutex<VecDeque<(Receipt, bytes::Bytes)>>,
    done: Mutex<Vec<Receipt>>,
}

impl Journal for Kept {
    fn put(&self, partition: Partition, entry: bytes::Bytes) -> Put {
        let mut entries = lock(&self.entries);
        let name = entries.len().to_string().into();
        entries.push_back((
            Receipt {
                partition,
                entry: name,
            },
            entry,
        ));
        Put::Queued
    }

    fn own(&self, _: Partitions) {}

    fn done(&self, receipt: Receipt) {
        lock(&self.done).push(receipt);
    }

    fn leave(&self, _: Receipt) -> u64 {
        0
    }

    fn give_again(&self, _: Partitions) {}

    fn unsent(&self) -> usize {
        0
    }

    fn figures(&self) -> JournalFigures {
        JournalFigures::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_durable_queue_keeps_is_done_when_all_endpoints_are() {
    let two = json!([
        {"name": "well", "url": "http://well.example/"},
        {"name": "later", "url": "http://later.example/"},
    ]);
    let metrics = Arc::new(Metrics::new("", 0).expect("no prefix is a good one"));
    let kept = Arc::new(Kept::default());
    let webhooks = Webhooks::durable(WebhooksConfig::default(), metrics, kept.clone());
    let app = Arc::new(App::new(settings(&two, &Value::Null)));
    let receiver = Receiver::new(|it| match &*it.host {
        "later.example" if it.at.as_secs() < 10 => Reply::Status(500),
        "nobody.example" => Reply::Hang,
        _ => Reply::Status(200),
    });
    let over = receiver.clone();
    let delivery = tokio::spawn(webhooks.clone().deliver_over(|| client::pool_over(over)));
    let (put, taken) = mpsc::channel(10);
    let of = app.clone();
    let find = move |id: String| std::future::ready((id == "1").then(|| of.clone()).ok_or(NotFound::Unknown));
    let taking = tokio::spawn(webhooks.clone().take_in(taken, find));

    let channel = ChannelName::parse("a", 200).expect("a legal name");
    assert_eq!(
        webhooks.send(&app, WebhookEvent::CacheMiss { channel }, unix_ms()),
        Sent::Queued
    );
    sleep(Duration::from_secs(1)).await;
    assert!(receiver.received().is_empty(), "it goes by way of the queue");
    let (receipt, entry) = lock(&kept.entries).pop_front().expect("it was put");
    put.send(Taken {
        receipt: receipt.clone(),
        entry: entry.clone(),
        round: 1,
    })
    .await
    .expect("it is taken in");
    let spoilt = Receipt {
        entry: "x".into(),
        ..receipt.clone()
    };
    put.send(Taken {
        receipt: spoilt.clone(),
        entry: "x".into(),
        round: 1,
    })
    .await
    .expect("it is taken in");
    receiver.wait_for(2).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        *lock(&kept.done),
        std::slice::from_ref(&spoilt),
        "one endpoint is still to get it"
    );
    while lock(&kept.done).len() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(*lock(&kept.done), [spoilt, receipt.clone()]);

    // Taken again, and not delivered when the process ends: not done.
    receiver.wait_for(3).await;
    app.set(settings(
        &json!([{"name": "later", "url": "http://nobody.example/", "timeout_ms": 60_000}]),
        &Value::Null,
    ));
    put.send(Taken {
        receipt,
        entry,
        round: 1,
    })
    .await
    .expect("it is taken in");
    sleep(Duration::from_millis(10)).await;
    webhooks.flush(now()).await;
    delivery.abort();
    taking.abort();
    drop(webhooks);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lock(&kept.done).len(), 2);
}

/// Two apps of which one hangs for a while, over a queue that holds much more than the process may.
#[tokio::test(start_paused = true)]
async fn what_has_no_room_waits_at_the_broker_and_holds_nobody_up() {
    let store = Store::new();
    let (journal, taken) = store.open(Room::default());
    let config = WebhooksConfig {
        queue_events_max: 40,
        endpoint_events_max: 10,
        ..WebhooksConfig::default()
    };
    let metrics = Arc::new(Metrics::new("", 0).expect("no prefix is a good one"));
    let webhooks = Webhooks::durable(config, metrics, journal.clone());
    let endpoint = |host| json!([{"name": "one", "url": format!("http://{host}.example/")}]);
    let two = json!([
        {"name": "one", "url": "http://late.example/"},
        {"name": "other", "url": "http://beside.example/", "event_types": ["channel_vacated"]},
    ]);
    let late = Arc::new(App::new(settings(&two, &Value::Null)));
    let well = json!({"id": "2", "key": "l", "secret": "t"});
    let well = Arc::new(App::new(settings(&endpoint("well"), &well)));
    let receiver = Receiver::new(|it| match &*it.host {
        "late.example" if it.at.as_secs() < 60 => Reply::Status(500),
        _ => Reply::Status(200),
    });
    let over = receiver.clone();
    let _delivery = tokio::spawn(webhooks.clone().deliver_over(|| client::pool_over(over)));
    let apps = [late.clone(), well.clone()];
    let find = move |id: String| {
        let found = apps.iter().find(|app| app.id() == id).cloned();
        std::future::ready(found.ok_or(NotFound::Unknown))
    };
    let _taking = tokio::spawn(webhooks.clone().take_in(taken, find));
    webhooks.own(Partitions::ALL);

    let send = |app: &Arc<App>, channel: &str, number: usize| {
        let channel = ChannelName::parse(channel, 200).expect("a legal name");
        let event = WebhookEvent::SubscriptionCount {
            channel,
            subscription_count: number as u64,
        };
        assert_eq!(webhooks.send(app, event, unix_ms()), Sent::Queued);
    };
    const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
    for number in 0..50 {
        for channel in CHANNELS {
            send(&late, channel, number);
            send(&well, channel, number);
        }
        sleep(Duration::from_millis(100)).await;
    }
    let of_host = |host: &str| {
        let received = receiver.received().into_iter();
        received.filter(|it| it.host == host).collect::<Vec<_>>()
    };
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        of_host("well.example").len(),
        200,
        "nobody waits for the other app"
    );
    assert!(journal.figures().left > 100, "{:?}", journal.figures());
    // The other endpoint of the very app goes on as well.
    for channel in CHANNELS {
        let channel = ChannelName::parse(channel, 200).expect("a legal name");
        let vacated = WebhookEvent::ChannelVacated { channel };
        assert_eq!(webhooks.send(&late, vacated, unix_ms()), Sent::Queued);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(of_host("beside.example").len(), CHANNELS.len());

    while !store.is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
    // All that was wanted by this endpoint alone, each channel's in its order; what both wanted was taken for the other.
    let mut delivered: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for it in of_host("late.example").iter().filter(|it| it.at.as_secs() >= 60) {
        let body: Value = serde_json::from_str(&it.body).expect("JSON");
        let event = &body["events"][0];
        let numbers = delivered.entry(event["channel"].to_string()).or_default();
        numbers.extend(event["subscription_count"].as_u64());
    }
    assert_eq!(delivered.len(), CHANNELS.len());
    for (channel, numbers) in delivered {
        assert_eq!(numbers, (0..50).collect::<Vec<_>>(), "{channel}");
    }
    let of_app = |id| webhooks.shared.metrics.webhooks(id);
    assert_eq!(
        of_app("1").dropped(WebhookDrop::Full).get(),
        CHANNELS.len() as u64
    );
    assert_eq!(of_app("2").dropped(WebhookDrop::Full).get(), 0);
    assert_eq!((journal.figures().left, journal.unsent()), (0, 0));
}

/// The store does not answer, and of two apps it knows one that is not known here.
#[tokio::test(start_paused = true)]
async fn an_app_that_nobody_can_tell_of_waits_at_the_broker() {
    let store = Store::new();
    let (journal, taken) = store.open(Room::default());
    let metrics = Arc::new(Metrics::new("", 0).expect("no prefix is a good one"));
    let webhooks = Webhooks::durable(WebhooksConfig::default(), metrics, journal.clone());
    let endpoint = |host| json!([{"url": format!("http://{host}.example/")}]);
    let away = Arc::new(App::new(settings(&endpoint("away"), &Value::Null)));
    let known = json!({"id": "2", "key": "l", "secret": "t"});
    let known = Arc::new(App::new(settings(&endpoint("known"), &known)));
    let receiver = Receiver::new(|_| Reply::Status(200));
    let over = receiver.clone();
    let _delivery = tokio::spawn(webhooks.clone().deliver_over(|| client::pool_over(over)));
    let (begun, apps) = (Instant::now(), [away.clone(), known.clone()]);
    let find = move |id: String| {
        let found = apps.iter().find(|app| app.id() == id).cloned();
        async move {
            if id == "1" && begun.elapsed() < Duration::from_secs(30) {
                sleep(Duration::from_secs(2)).await;
                return Err(NotFound::Unavailable);
            }
            found.ok_or(NotFound::Unknown)
        }
    };
    let _taking = tokio::spawn(webhooks.clone().take_in(taken, find));
    webhooks.own(Partitions::ALL);
    let channels = ["a", "b", "c", "d"];
    for number in 0..20 {
        for app in [&away, &known] {
            for channel in channels {
                let channel = ChannelName::parse(channel, 200).expect("a legal name");
                let event = WebhookEvent::SubscriptionCount {
                    channel,
                    subscription_count: number,
                };
                assert_eq!(webhooks.send(app, event, unix_ms()), Sent::Queued);
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
    let of_host = |host: &str| {
        let received = receiver.received().into_iter();
        received.filter(|it| it.host == host).collect::<Vec<_>>()
    };
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        (of_host("known.example").len(), of_host("away.example").len()),
        (80, 0)
    );
    while !store.is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
    for channel in channels {
        let received = of_host("away.example").into_iter();
        let of_channel = received.filter(|it| it.channels() == [channel]);
        let counts = of_channel.map(|it| {
            let body: Value = serde_json::from_str(&it.body).expect("JSON");
            body["events"][0]["subscription_count"].as_u64()
        });
        let in_order: Vec<_> = (0..20).map(Some).collect();
        assert_eq!(counts.collect::<Vec<_>>(), in_order, "{channel}");
    }
}
