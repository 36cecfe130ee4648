//! Who hears that a watched user comes or goes, when both are on different nodes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::support::client::{Client, data};
use crate::support::eventually;

over_each_bus![
    online_with_the_first_sign_in_anywhere_and_offline_after_the_last,
    who_signs_in_is_told_of_users_on_other_nodes,
    a_page_that_is_reloaded_on_another_node_is_silent,
    every_watcher_knows_the_truth_after_any_comings_and_goings,
];

async fn sign_in(nodes: &Nodes, place: usize, id: &str, watchlist: &[&str]) -> Client {
    let mut client = nodes.node(place).connect().await;
    client.sign_in(&json!({ "id": id, "watchlist": watchlist })).await;
    client
}

async fn expect_news(client: &mut Client, name: &str, ids: &[&str]) {
    let message = client.expect("pusher_internal:watchlist_events").await;
    assert_eq!(
        data(&message),
        json!({ "events": [{ "name": name, "user_ids": ids }] })
    );
}

/// Waits until every node shows a user online, or offline.
async fn shown(nodes: &Nodes, id: &str, name: &str) {
    for place in 0..nodes.all().len() {
        eventually(&format!("{id} to be {name}"), async || {
            let mut client = sign_in(nodes, place, "looks", &[id]).await;
            let message = client.expect("pusher_internal:watchlist_events").await;
            (data(&message)["events"][0]["name"] == name).then_some(())
        })
        .await;
    }
}

async fn online_with_the_first_sign_in_anywhere_and_offline_after_the_last(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Watching).await;
    let mut watchers = Vec::new();
    for place in 0..3 {
        let mut watcher = sign_in(&nodes, place, &format!("w{place}"), &["bob"]).await;
        expect_news(&mut watcher, "offline", &["bob"]).await;
        watchers.push(watcher);
    }
    for first in 0..3 {
        let mut sockets = Vec::new();
        for place in 0..3 {
            let mut bob = sign_in(&nodes, (first + place) % 3, "bob", &[]).await;
            // Whoever knows of this knows of the sign-in before it.
            bob.subscribe("here").await;
            sockets.push(bob);
            nodes.count("here", place as u64 + 1).await;
        }
        for watcher in &mut watchers {
            expect_news(watcher, "online", &["bob"]).await;
            watcher.expect_silence().await;
        }
        // The socket that is left keeps him online.
        for socket in sockets.drain(..2) {
            socket.close().await;
        }
        nodes.count("here", 1).await;
        for watcher in &mut watchers {
            watcher.expect_silence().await;
        }
        drop(sockets);
        for watcher in &mut watchers {
            expect_news(watcher, "offline", &["bob"]).await;
        }
        shown(&nodes, "bob", "offline").await;
        for watcher in &mut watchers {
            watcher.expect_silence().await;
        }
    }
}

async fn who_signs_in_is_told_of_users_on_other_nodes(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Watching).await;
    let _bob = sign_in(&nodes, 0, "bob", &[]).await;
    let _cyd = sign_in(&nodes, 1, "cyd", &[]).await;
    // A member of a channel who is not signed in is not online.
    nodes.node(2).connect().await.join("presence-a", "dan").await;
    for id in ["bob", "cyd"] {
        shown(&nodes, id, "online").await;
    }
    for place in 0..3 {
        let mut watcher = sign_in(&nodes, place, "ada", &["bob", "cyd", "dan"]).await;
        let message = watcher.expect("pusher_internal:watchlist_events").await;
        let mut events = data(&message)["events"].take();
        let online = events[0]["user_ids"].as_array_mut().expect("a list");
        online.sort_by_key(Value::to_string);
        let expected = json!([
            { "name": "online", "user_ids": ["bob", "cyd"] },
            { "name": "offline", "user_ids": ["dan"] },
        ]);
        assert_eq!(events, expected);
    }
}

async fn a_page_that_is_reloaded_on_another_node_is_silent(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Patient).await;
    let mut watcher = sign_in(&nodes, 2, "ada", &["bob"]).await;
    expect_news(&mut watcher, "offline", &["bob"]).await;
    let mut bob = sign_in(&nodes, 0, "bob", &[]).await;
    expect_news(&mut watcher, "online", &["bob"]).await;
    for reload in 0..4 {
        bob.close().await;
        bob = sign_in(&nodes, (reload + 1) % 3, "bob", &[]).await;
    }
    nodes.agree("/connections", &json!({ "connections": 2 })).await;
    bob.close().await;
    let gone = Instant::now();
    // The next news is the one offline, and not before its grace is over.
    expect_news(&mut watcher, "offline", &["bob"]).await;
    assert!(
        gone.elapsed() >= Duration::from_millis(1_300),
        "{:?}",
        gone.elapsed()
    );
    watcher.expect_silence().await;
}

/// Against a model: users come and go on sockets of all nodes, and what each watcher was told is the truth in the end;
/// on the way nobody came who was there, or went who was not.
async fn every_watcher_knows_the_truth_after_any_comings_and_goings(bus: Bus) {
    const USERS: usize = 4;
    let nodes = Nodes::shared(bus, Kind::Watching).await;
    let names: Vec<String> = (0..USERS).map(|user| format!("u{user}")).collect();
    let watched: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut watchers = Vec::new();
    for number in 0..6 {
        let mut watcher = sign_in(&nodes, number % 3, &format!("w{number}"), &watched).await;
        expect_news(&mut watcher, "offline", &watched).await;
        watchers.push((watcher, BTreeSet::new()));
    }
    let mut sockets = JoinSet::new();
    for number in 0..12 {
        let (nodes, user) = (nodes.clone(), names[number % USERS].clone());
        sockets.spawn(async move {
            for life in 0..6 {
                let client = sign_in(&nodes, (number + life) % 3, &user, &[]).await;
                if life % 2 == 0 {
                    client.close().await;
                }
            }
            // Half of them are gone in the end; of u3 all.
            let stays = number % 2 == 0 && number % USERS != 3;
            let client = sign_in(&nodes, number % 3, &user, &[]).await;
            stays.then_some((client, user))
        });
    }
    let staying: Vec<_> = sockets.join_all().await.into_iter().flatten().collect();
    let connections = watchers.len() + staying.len();
    nodes
        .agree("/connections", &json!({ "connections": connections }))
        .await;
    let truth: BTreeSet<String> = staying.iter().map(|(_, user)| user.clone()).collect();
    for (watcher, online) in &mut watchers {
        eventually("a watcher to know the truth", async || {
            watcher.hear_of_users(online).await;
            (*online == truth).then_some(())
        })
        .await;
    }
    for user in &watched {
        shown(
            &nodes,
            user,
            if truth.contains(*user) {
                "online"
            } else {
                "offline"
            },
        )
        .await;
    }
    // And it stays so: nothing is told behind it.
    for (watcher, online) in &mut watchers {
        watcher.hear_of_users(online).await;
        assert_eq!(*online, truth);
    }
}
