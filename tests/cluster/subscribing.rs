//! "Subscribed" means: subscribed everywhere. What any node publishes behind the acknowledgement arrives, whatever was
//! asked while the broker had not confirmed yet.
//!
//! These cases have nodes of their own: on shared ones others have brought most topics in already.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::Nodes;
use crate::support::client::Client;
use crate::support::server::app;

over_each_bus![
    what_is_published_anywhere_behind_the_acknowledgement_arrives,
    what_is_published_anywhere_behind_a_sign_in_arrives,
    forty_in_one_packet_are_acknowledged_together,
    comings_and_goings_in_one_packet_end_as_the_last_said,
    asked_for_twice_in_one_packet_it_is_one_subscription,
    what_follows_in_the_same_packet_counts,
    a_socket_that_vanishes_while_it_waits_leaves_nothing,
];

fn unsubscription(channel: &str) -> Value {
    json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })
}

async fn what_is_published_anywhere_behind_the_acknowledgement_arrives(bus: Bus) {
    let nodes = Nodes::own(bus, 3, app()).await;
    let (mut clients, mut backends) = (nodes.connect().await, nodes.backends().await);
    for round in 0..200 {
        let channel = format!("fresh-{round}");
        let client = &mut clients[round % 3];
        client.subscribe(&channel).await;
        // Both other nodes, each the first as often.
        let apis = if round % 2 == 0 { [1, 2] } else { [2, 1] };
        for (number, api) in apis.into_iter().enumerate() {
            backends[(round + api) % 3]
                .publish(&channel, "ev", &number.to_string())
                .await;
        }
        let mut heard = [client.expect("ev").await, client.expect("ev").await];
        heard.sort_by_key(|event| event["data"].to_string());
        assert_eq!([&heard[0]["data"], &heard[1]["data"]], [&json!("0"), &json!("1")]);
    }
}

async fn what_is_published_anywhere_behind_a_sign_in_arrives(bus: Bus) {
    let nodes = Nodes::own(bus, 2, app()).await;
    let mut backend = nodes.node(0).backend().await;
    for round in 0..60 {
        let mut client = nodes.node(1).connect().await;
        client.sign_in(&json!({ "id": format!("u{round}") })).await;
        backend
            .publish(&format!("#server-to-user-u{round}"), "ev", "")
            .await;
        client.expect("ev").await;
    }
}

async fn forty_in_one_packet_are_acknowledged_together(bus: Bus) {
    let nodes = Nodes::own(bus, 2, app()).await;
    let mut client = nodes.node(1).connect().await;
    let mut channels: Vec<String> = (0..20).map(|number| format!("private-{number}")).collect();
    channels.extend((20..40).map(|number| format!("public-{number}")));
    let asked: Vec<Value> = channels
        .iter()
        .map(|channel| client.subscription(channel, ""))
        .collect();
    let begun = Instant::now();
    client.say_together(&asked).await;
    let mut acknowledged = Vec::new();
    for _ in &channels {
        let message = client.expect("pusher_internal:subscription_succeeded").await;
        acknowledged.push(message["channel"].as_str().expect("a channel").to_owned());
    }
    // None waited as long as one whose topic is never confirmed.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    acknowledged.sort();
    channels.sort();
    assert_eq!(acknowledged, channels);
    let body = json!({ "name": "ev", "channels": channels, "data": "" });
    nodes.node(0).backend().await.trigger(&body).await;
    for _ in &channels {
        client.expect("ev").await;
    }
    client.expect_silence().await;
}

async fn comings_and_goings_in_one_packet_end_as_the_last_said(bus: Bus) {
    let nodes = Nodes::own(bus, 2, app()).await;
    let mut client = nodes.node(1).connect().await;
    let mut backend = nodes.node(0).backend().await;
    for round in 0..30 {
        let channel = format!("private-{round}");
        let (come, go) = (client.subscription(&channel, ""), unsubscription(&channel));
        let ends_subscribed = round % 2 == 0;
        let said = match ends_subscribed {
            true => vec![come.clone(), go.clone(), come],
            false => vec![come.clone(), go.clone(), come, go],
        };
        client.say_together(&said).await;
        client.say(&json!({ "event": "pusher:ping" })).await;
        let (mut acknowledged, mut ponged) = (0, false);
        // If it ends subscribed, the last acknowledgement may come behind the answer to the ping.
        while !ponged || (ends_subscribed && acknowledged == 0) {
            match client.next().await {
                message if message["event"] == "pusher:pong" => ponged = true,
                message => {
                    assert_eq!(message["event"], "pusher_internal:subscription_succeeded");
                    assert_eq!(message["channel"], *channel);
                    acknowledged += 1;
                }
            }
        }
        assert!(acknowledged <= 2);
        nodes.count(&channel, u64::from(ends_subscribed)).await;
        backend.publish(&channel, "ev", "").await;
        if ends_subscribed {
            while client.next().await["event"] != "ev" {}
        }
    }
    // Nothing came twice, and nothing of what was left.
    client.subscribe("marker").await;
    backend.publish("marker", "marker", "").await;
    client.expect("marker").await;
}

async fn asked_for_twice_in_one_packet_it_is_one_subscription(bus: Bus) {
    let nodes = Nodes::own(bus, 2, app()).await;
    let mut client = nodes.node(1).connect().await;
    let mut backend = nodes.node(0).backend().await;
    for round in 0..20 {
        let channel = format!("private-{round}");
        let come = client.subscription(&channel, "");
        client.say_together(&[come.clone(), come]).await;
        client.expect_subscribed(&channel).await;
        nodes.count(&channel, 1).await;
        backend.publish(&channel, "ev", "").await;
        // If both had to wait, one answer is for both.
        let mut next = client.next().await;
        if next["event"] == "pusher_internal:subscription_succeeded" {
            next = client.next().await;
        }
        assert_eq!(next["event"], "ev");
        client.unsubscribe(&channel).await;
        nodes.count(&channel, 0).await;
        client.expect_silence().await;
    }
}

async fn what_follows_in_the_same_packet_counts(bus: Bus) {
    let nodes = Nodes::own(
        bus,
        2,
        fanwire::app::AppConfig {
            client_events_per_s: 1_000,
            ..app()
        },
    )
    .await;
    let mut witness = nodes.node(0).connect().await;
    for round in 0..20 {
        let channel = format!("private-{round}");
        witness.subscribe(&channel).await;
        let mut client: Client = nodes.node(1).connect().await;
        let user = format!(r#"{{"id":"u{round}"}}"#);
        let said = [
            client.subscription(&channel, ""),
            json!({ "event": "client-first", "channel": channel, "data": "" }),
            client.signing_in(&user),
            client.subscription(&format!("#server-to-user-u{round}"), ""),
            json!({ "event": "client-last", "channel": channel, "data": "" }),
        ];
        client.say_together(&said).await;
        witness.expect("client-first").await;
        witness.expect("client-last").await;
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(client.next().await["event"].take());
        }
        events.sort_by_key(Value::to_string);
        let expected = [
            "pusher:signin_success",
            "pusher_internal:subscription_succeeded",
            "pusher_internal:subscription_succeeded",
        ];
        assert_eq!(json!(events), json!(expected));
        client.expect_silence().await;
    }
}

async fn a_socket_that_vanishes_while_it_waits_leaves_nothing(bus: Bus) {
    let nodes = Nodes::own(bus, 2, app()).await;
    for round in 0..20 {
        let mut client = nodes.node(1).connect().await;
        let member = format!(r#"{{"user_id":"{round}"}}"#);
        let said = [
            client.subscription(&format!("private-{round}"), ""),
            client.subscription(&format!("presence-{round}"), &member),
            client.signing_in(r#"{"id":"7"}"#),
        ];
        client.say_together(&said).await;
        drop(client);
    }
    nodes.node(1).connected_becomes(0).await;
    nodes.agree("/channels", &json!({ "channels": {} })).await;
    nodes
        .node(1)
        .metric_becomes("new_disconnections_total", &[], 20)
        .await;
}
