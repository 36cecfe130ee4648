//! What apps used: added up by day, whoever adds, each batch once however often it is sent.

use std::sync::Arc;

use fanwire::app::{AppStore, UsageBatch, UsageDay};
use futures_util::future::join_all;
use jiff::civil::date;

use crate::engine::Kind;
use crate::stage::Place;

over_each_database![
    what_is_added_adds_up_and_the_highest_peak_stays,
    a_batch_that_is_sent_again_counts_once,
    many_nodes_may_add_at_once,
    a_batch_may_be_of_many_apps,
    what_an_app_used_outlives_a_restart,
];

fn used(day: i8, messages: u64, connections_peak: u64) -> UsageDay {
    UsageDay {
        messages,
        delivered: messages * 7,
        bytes_sent: messages * 10,
        bytes_received: messages * 3,
        connections_peak,
        ..UsageDay::new(date(2026, 1, day))
    }
}

fn batch(writer: &str, number: u64, used: impl IntoIterator<Item = (&'static str, UsageDay)>) -> UsageBatch {
    UsageBatch {
        writer: writer.to_owned(),
        number,
        used: used
            .into_iter()
            .map(|(app, used)| (app.to_owned(), used))
            .collect(),
    }
}

async fn what_is_added_adds_up_and_the_highest_peak_stays(kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.store();
    for (number, used) in [(0, used(1, 5, 9)), (1, used(1, 7, 3))] {
        store
            .add_usage(&batch("a", number, [("7", used)]))
            .await
            .expect("added");
    }
    // Twice in one batch, too.
    let twice = batch("a", 2, [("7", used(2, 1, 1)), ("7", used(2, 2, 4))]);
    store.add_usage(&twice).await.expect("added");
    assert_eq!(
        store.usage("7", 10).await,
        Ok(vec![used(2, 3, 4), used(1, 12, 9)])
    );
    assert_eq!(store.usage("7", 1).await, Ok(vec![used(2, 3, 4)]));
    assert_eq!(store.usage("8", 10).await, Ok(vec![]));
    store
        .add_usage(&batch("a", 3, []))
        .await
        .expect("nothing is added");
}

async fn a_batch_that_is_sent_again_counts_once(kind: Kind) {
    let place = Place::new(kind).await;
    let (one, other) = (place.store(), place.store());
    let sent = batch("a", 5, [("7", used(1, 1, 1))]);
    for store in [&one, &one, &other] {
        store.add_usage(&sent).await.expect("added, or known");
    }
    one.add_usage(&batch("b", 5, [("7", used(1, 1, 1))]))
        .await
        .expect("another node's");
    one.add_usage(&batch("a", 6, [("7", used(1, 1, 1))]))
        .await
        .expect("the next one");
    assert_eq!(one.usage("7", 1).await, Ok(vec![used(1, 3, 1)]));
}

async fn many_nodes_may_add_at_once(kind: Kind) {
    let place = Place::new(kind).await;
    let stores: Vec<_> = ["a", "b", "c", "d"].map(|writer| (writer, place.store())).into();
    let added = join_all(stores.iter().map(async |(writer, store)| {
        for number in 0..5 {
            let used = ["1", "2", "3"].map(|app| (app, used(1, 1, 1)));
            store.add_usage(&batch(writer, number, used)).await?;
        }
        Ok::<_, fanwire::app::StoreError>(())
    }))
    .await;
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    assert_eq!(place.store().usage("2", 1).await, Ok(vec![used(1, 20, 1)]));
}

async fn a_batch_may_be_of_many_apps(kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.store();
    let many = UsageBatch {
        used: (0..1_050)
            .map(|app| (format!("app-{app}"), used(1, app, app)))
            .collect(),
        ..batch("a", 0, [])
    };
    store.add_usage(&many).await.expect("added");
    assert_eq!(store.usage("app-1049", 1).await, Ok(vec![used(1, 1_049, 1_049)]));
    let ids = ["app-3".to_owned(), "app-4".to_owned(), "nobody".to_owned()];
    let mut messages = store.messages(date(2026, 1, 1), &ids).await.expect("read");
    messages.sort();
    assert_eq!(messages, [("app-3".to_owned(), 3), ("app-4".to_owned(), 4)]);
}

async fn what_an_app_used_outlives_a_restart(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    for round in 1..=2 {
        let served = place.serve().await;
        let server = served.of(&app);
        let mut backend = server.backend().await;
        for _ in 0..3 {
            backend.publish("a", "e", "").await;
        }
        // Two days, for it may be midnight.
        let usage = backend.get("/usage?days=2").await.json();
        let days = usage["days"].as_array().expect("days").iter();
        let messages: u64 = days.filter_map(|day| day["messages"].as_u64()).sum();
        assert_eq!(messages, round * 3, "{usage}");
        drop((backend, server));
        let server = Arc::into_inner(served.server).expect("nobody else holds it");
        server.drain().await;
    }
    let days = place.store().usage("7", 2).await.expect("an answer");
    assert_eq!(days.iter().map(|day| day.messages).sum::<u64>(), 6, "{days:?}");
    assert!(
        days.iter()
            .all(|day| day.bytes_sent > 0 && day.bytes_received > 0),
        "{days:?}"
    );
}
