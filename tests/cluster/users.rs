//! Signed-in users: one user, on whatever nodes its sockets are.

use serde_json::json;

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::support::client::Client;

over_each_bus![
    an_event_to_a_user_reaches_each_of_its_sockets_once,
    terminate_closes_the_users_sockets_on_all_nodes_and_no_others,
    reconnect_closes_the_users_sockets_on_all_nodes,
    a_termination_lines_up_behind_what_was_published_before_it,
    a_user_who_comes_back_is_reached,
];

/// A socket on each node, signed in as this user.
async fn signed_in(nodes: &Nodes, id: &str) -> Vec<Client> {
    let mut clients = nodes.connect().await;
    for client in &mut clients {
        client.sign_in(&json!({ "id": id })).await;
    }
    clients
}

async fn an_event_to_a_user_reaches_each_of_its_sockets_once(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let channel = "#server-to-user-7";
    let mut sockets = signed_in(&nodes, "7").await;
    sockets.extend(signed_in(&nodes, "7").await);
    // Some have subscribed as the SDKs do; for the others it has not come yet.
    for client in &mut sockets[..2] {
        client.subscribe(channel).await;
    }
    let mut strangers = signed_in(&nodes, "8").await;
    for mut backend in nodes.backends().await {
        backend.publish(channel, "hello", "{}").await;
        for client in &mut sockets {
            assert_eq!(
                client.next().await,
                json!({ "event": "hello", "channel": channel, "data": "{}" })
            );
        }
    }
    nodes.expect_nothing_more(channel, &mut sockets).await;
    nodes
        .expect_nothing_more("#server-to-user-8", &mut strangers)
        .await;
    // It is no channel that anybody can see.
    nodes.agree("/channels", &json!({ "channels": {} })).await;
}

async fn terminate_closes_the_users_sockets_on_all_nodes_and_no_others(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let text = "You got disconnected by the app";
    for mut backend in nodes.backends().await {
        let mut doomed = signed_in(&nodes, "7").await;
        doomed.extend(signed_in(&nodes, "7").await);
        let mut others = signed_in(&nodes, "77").await;
        let mut members = nodes.connect().await;
        for client in &mut members {
            client.join("presence-a", "7").await;
        }
        backend.terminate("7").await;
        for client in &mut doomed {
            let error = client.expect_error(4009).await;
            assert_eq!(error["data"], json!({ "code": 4009, "message": text }));
            assert_eq!(client.expect_close().await, (4009, text.into()));
        }
        nodes.expect_nothing_more("#server-to-user-77", &mut others).await;
        nodes.expect_nothing_more("presence-a", &mut members).await;
        backend.terminate("nobody-at-all").await;
    }
}

async fn reconnect_closes_the_users_sockets_on_all_nodes(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    for mut backend in nodes.backends().await {
        let mut moved = signed_in(&nodes, "7").await;
        let answer = backend.post("/users/7/force_reconnect", &json!({})).await;
        assert_eq!((answer.status, &*answer.body), (200, "{}"));
        for client in &mut moved {
            assert_eq!(client.expect_close().await.0, 4200);
        }
    }
}

async fn a_termination_lines_up_behind_what_was_published_before_it(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut backend = nodes.node(0).backend().await;
    let event = json!({ "name": "bye", "channel": "#server-to-user-7", "data": "x" }).to_string();
    for round in 0..20 {
        let mut clients = signed_in(&nodes, "7").await;
        let calls = backend.call("POST", "/events", &event)
            + &backend.call("POST", "/users/7/terminate_connections", "{}");
        backend.http.write(calls).await;
        for _ in 0..2 {
            assert_eq!(backend.http.answer().await.expect("an answer").status, 200);
        }
        for client in &mut clients {
            client.expect("bye").await;
            client.expect_error(4009).await;
            assert_eq!(client.expect_close().await.0, 4009, "round {round}");
        }
    }
}

async fn a_user_who_comes_back_is_reached(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut backends = nodes.backends().await;
    for round in 0..15 {
        let mut clients = signed_in(&nodes, "7").await;
        let api = &mut backends[round % 3];
        api.publish("#server-to-user-7", "ev", "welcome back").await;
        for client in &mut clients {
            client.expect("ev").await;
        }
        api.terminate("7").await;
        for client in &mut clients {
            client.expect_error(4009).await;
        }
    }
}
