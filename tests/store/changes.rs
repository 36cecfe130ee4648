//! What changes in a database changes here within seconds, whoever wrote it there.

use jiff::{SignedDuration, Timestamp};

use fanwire::app::{AppConfig, KeyRecord, Secret};

use crate::engine::Kind;
use crate::stage::Place;
use crate::support::eventually;

over_each_database![
    settings_change_without_a_restart,
    an_app_that_is_switched_off_refuses_and_closes,
    an_app_that_is_deleted_is_unknown,
    a_key_is_replaced_with_an_overlap,
    a_key_that_is_deleted_stops_working,
];

async fn settings_change_without_a_restart(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    let served = place.serve().await;
    let _first = served.of(&app).connect().await;
    place
        .by_hand(r#"UPDATE apps SET settings = '{"connections_max": 1}'"#)
        .await;
    eventually("the quota", async || {
        (served.refusal(&app.key).await == Some(4004)).then_some(())
    })
    .await;
    place
        .by_hand(r#"UPDATE apps SET settings = '{"connections_max": 2}'"#)
        .await;
    eventually("a higher quota", async || {
        served.refusal(&app.key).await.is_none().then_some(())
    })
    .await;
}

async fn an_app_that_is_switched_off_refuses_and_closes(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    let served = place.serve().await;
    let mut client = served.of(&app).connect().await;
    place
        .store()
        .set_enabled("7", false, Timestamp::now())
        .await
        .expect("the app is there");
    assert_eq!(client.expect_close().await.0, 4003);
    assert_eq!(served.refusal(&app.key).await, Some(4003));
    assert_eq!(served.status(&app).await, 403);
    place
        .store()
        .set_enabled("7", true, Timestamp::now())
        .await
        .expect("the app is there");
    eventually("the app to be served", async || {
        served.refusal(&app.key).await.is_none().then_some(())
    })
    .await;
}

async fn an_app_that_is_deleted_is_unknown(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    let served = place.serve().await;
    let mut client = served.of(&app).connect().await;
    client.subscribe("a").await;
    place.by_hand("DELETE FROM apps WHERE id = '7'").await;
    eventually("the app to be gone", async || {
        (served.refusal(&app.key).await == Some(4001)).then_some(())
    })
    .await;
    assert_eq!(served.status(&app).await, 404);
    assert_eq!(client.expect_close().await.0, 4001);
    // Should it come back, it is the same app.
    place.put("7", "{}").await;
    eventually("the app to be back", async || {
        served.refusal(&app.key).await.is_none().then_some(())
    })
    .await;
    served.of(&app).serves().await;
}

async fn a_key_is_replaced_with_an_overlap(kind: Kind) {
    let place = Place::new(kind).await;
    let old = place.put("7", "{}").await;
    let served = place.serve().await;
    served.of(&old).serves().await;
    let new = KeyRecord {
        key: "new-key".into(),
        secret: Secret::new("secret"),
        active_from: Some(Timestamp::now().to_string()),
        expires_at: None,
    };
    let now = Timestamp::now();
    let end = now + SignedDuration::from_secs(4);
    let rotated = place
        .store()
        .rotate_key("7", &new, end, now)
        .await
        .expect("the app is there");
    assert_eq!(rotated.ending.join(" "), old.key);
    let new = AppConfig {
        key: new.key,
        ..old.clone()
    };
    // The new one at once, since nobody knew it yet; the old one as long as it was said to.
    served.of(&new).serves().await;
    assert_eq!(served.status(&new).await, 200);
    eventually("the old key to end", async || {
        (served.refusal(&old.key).await == Some(4001)).then_some(())
    })
    .await;
    assert!(
        Timestamp::now() >= end - SignedDuration::from_secs(1),
        "no sooner than it was said"
    );
    assert_eq!(served.status(&old).await, 401);
    served.of(&new).serves().await;
}

async fn a_key_that_is_deleted_stops_working(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    place
        .by_hand("INSERT INTO app_keys (app_key, app_id, secret) VALUES ('by-hand', '7', 'secret')")
        .await;
    let served = place.serve().await;
    let by_hand = AppConfig {
        key: "by-hand".into(),
        ..app.clone()
    };
    served.of(&by_hand).serves().await;
    place
        .by_hand("DELETE FROM app_keys WHERE app_key = 'by-hand'")
        .await;
    eventually("the key to stop working", async || {
        (served.refusal("by-hand").await == Some(4001)).then_some(())
    })
    .await;
    served.of(&app).serves().await;
}
