//! A node that joins later knows everything when it is ready; one that leaves in good order takes what it had with it,
//! at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::room::Room;
use crate::support::client::{Client, data};

over_each_bus![
    a_node_that_joins_late_knows_everything,
    a_node_that_leaves_takes_its_members_at_once_and_once,
    subscribers_of_a_late_node_are_reached_from_everywhere,
];

/// A node that starts has this long to know what the others know.
const VIEW_MAX: Duration = Duration::from_secs(2);

async fn a_node_that_joins_late_knows_everything(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Watching).await;
    let mut clients = nodes.connect().await;
    for (place, client) in clients.iter_mut().enumerate() {
        client.subscribe("news").await;
        client.sign_in(&json!({ "id": format!("u{place}") })).await;
        client.join("presence-a", &format!("u{place}")).await;
    }
    // Many more than what goes into one message.
    let mut crowd = nodes.node(0).connect().await;
    for number in 0..1_000 {
        let channel = format!("a-channel-with-a-longer-name-{number}");
        crowd.ask_for(&channel, "").await;
    }
    for _ in 0..1_000 {
        crowd.expect("pusher_internal:subscription_succeeded").await;
    }
    nodes
        .node(0)
        .backend()
        .await
        .publish("cache-a", "ev", "kept")
        .await;
    let path = "/channels?filter_by_prefix=a-channel&info=subscription_count";
    let all = nodes.node(0).backend().await.get(path).await.json();
    assert_eq!(all["channels"].as_object().map(|all| all.len()), Some(1_000));

    let begun = Instant::now();
    let late = nodes.one_more().await;
    let ready = begun.elapsed();
    // No waiting: it is ready because it knows.
    let mut backend = late.backend().await;
    assert_eq!(backend.get(path).await.json(), all);
    let mut users = backend.get("/channels/presence-a/users").await.json()["users"].take();
    users
        .as_array_mut()
        .expect("a list")
        .sort_by_key(Value::to_string);
    assert_eq!(users, json!([{ "id": "u0" }, { "id": "u1" }, { "id": "u2" }]));
    let news = backend.get("/channels/news?info=subscription_count").await.json();
    assert_eq!(news, json!({ "occupied": true, "subscription_count": 3 }));
    let cached = backend.get("/channels/cache-a?info=cache").await.json();
    assert_eq!(cached["cache"]["data"], "kept");
    assert_eq!(
        backend.get("/connections").await.json(),
        json!({ "connections": 4 })
    );
    let room = Room::enter(late.connect().await, "presence-a", "late", &json!({})).await;
    assert!(
        room.members.keys().eq(["late", "u0", "u1", "u2"]),
        "{:?}",
        room.members
    );
    let mut watcher = late.connect().await;
    watcher.sign_in(&json!({ "id": "w", "watchlist": ["u1"] })).await;
    let state = watcher.expect("pusher_internal:watchlist_events").await;
    assert_eq!(
        data(&state),
        json!({ "events": [{ "name": "online", "user_ids": ["u1"] }] })
    );
    assert!(ready < VIEW_MAX, "ready after {ready:?}");
    late.drain().await;
}

async fn a_node_that_leaves_takes_its_members_at_once_and_once(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Watching).await;
    let mut witnesses = Vec::new();
    let mut watchers: Vec<Client> = Vec::new();
    for node in nodes.all() {
        witnesses.push(Room::enter(node.connect().await, "presence-a", "w", &json!({})).await);
        let mut watcher = node.connect().await;
        watcher.sign_in(&json!({ "id": "w", "watchlist": ["u0"] })).await;
        watcher.expect("pusher_internal:watchlist_events").await;
        watchers.push(watcher);
    }
    let leaving = nodes.one_more().await;
    let mut guests = Vec::new();
    for number in 0..20 {
        let user = format!("u{number}");
        let mut client = leaving.connect().await;
        client.sign_in(&json!({ "id": user })).await;
        client.subscribe("news").await;
        guests.push(Room::enter(client, "presence-a", &user, &json!({})).await);
    }
    // Half of them have another socket elsewhere.
    let mut kept = Vec::new();
    for number in 10..20 {
        let client = nodes.node(number % 3).connect().await;
        kept.push(Room::enter(client, "presence-a", &format!("u{number}"), &json!({})).await);
    }
    nodes.count("presence-a", 33).await;
    nodes.count("news", 20).await;
    for watcher in &mut watchers {
        let news = watcher.expect("pusher_internal:watchlist_events").await;
        assert_eq!(
            data(&news),
            json!({ "events": [{ "name": "online", "user_ids": ["u0"] }] })
        );
    }
    let mut users: Vec<String> = (0..20).map(|number| format!("u{number}")).collect();
    users.push("w".into());
    users.sort();
    for witness in &mut witnesses {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        witness.becomes(&users).await;
    }

    leaving.drain().await;
    let left = Instant::now();
    nodes.count("presence-a", 13).await;
    nodes.count("news", 0).await;
    users.retain(|user| user == "w" || user.len() == 3);
    for room in witnesses.iter_mut().chain(&mut kept) {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        room.becomes(&users).await;
    }
    for watcher in &mut watchers {
        let news = watcher.expect("pusher_internal:watchlist_events").await;
        assert_eq!(
            data(&news),
            json!({ "events": [{ "name": "offline", "user_ids": ["u0"] }] })
        );
        watcher.expect_silence().await;
    }
    // Nobody had to wait for a lease of ten seconds to run out.
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
}

async fn subscribers_of_a_late_node_are_reached_from_everywhere(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.subscribe("a").await;
    let late = nodes.one_more().await;
    let mut client = late.connect().await;
    client.subscribe("a").await;
    for node in nodes.all().iter().chain([&late]) {
        node.backend().await.publish("a", "ev", "").await;
        for client in clients.iter_mut().chain([&mut client]) {
            client.expect("ev").await;
        }
    }
    client.close().await;
    late.drain().await;
    nodes.count("a", 3).await;
    nodes.expect_nothing_more("a", &mut clients).await;
}
