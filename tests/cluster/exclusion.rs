//! The socket that an event leaves out, with the API call, that socket and the others on different nodes.

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::support::client::Client;

over_each_bus![
    the_sender_hears_nothing_and_everybody_else_hears_once,
    on_several_channels_the_sender_is_left_out_of_all,
    in_a_batch_each_event_leaves_out_its_own,
    an_event_to_a_user_leaves_out_one_of_its_sockets,
    an_id_that_nobody_has_leaves_nobody_out,
];

/// Two sockets on each node.
async fn two_of_each(nodes: &Nodes, channel: &str) -> Vec<Client> {
    let mut clients = nodes.subscribe(channel).await;
    clients.extend(nodes.subscribe(channel).await);
    clients
}

async fn the_sender_hears_nothing_and_everybody_else_hears_once(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = two_of_each(&nodes, "a").await;
    for mut api in nodes.backends().await {
        for sender in 0..clients.len() {
            let id = clients[sender].socket_id.clone();
            let data = format!("from {sender}");
            let body = json!({ "name": "ev", "channel": "a", "data": data, "socket_id": id });
            api.trigger(&body).await;
            api.publish("a", "behind", "").await;
            for (place, client) in clients.iter_mut().enumerate() {
                if place != sender {
                    assert_eq!(client.expect("ev").await["data"], data);
                }
                client.expect("behind").await;
            }
        }
    }
    nodes.expect_nothing_more("a", &mut clients).await;
}

async fn on_several_channels_the_sender_is_left_out_of_all(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let channels: Vec<String> = (0..10).map(|number| format!("private-{number}")).collect();
    let mut clients = nodes.connect().await;
    for client in &mut clients {
        for channel in &channels {
            client.subscribe(channel).await;
        }
    }
    let id = clients[1].socket_id.clone();
    for mut api in nodes.backends().await {
        let body = json!({ "name": "ev", "channels": channels, "data": "", "socket_id": id });
        api.trigger(&body).await;
        for place in [0, 2] {
            let mut heard = Vec::new();
            for _ in &channels {
                heard.push(clients[place].expect("ev").await["channel"].take());
            }
            heard.sort_by_key(Value::to_string);
            assert_eq!(json!(heard), json!(channels));
        }
    }
    for channel in &channels {
        nodes.expect_nothing_more(channel, &mut clients).await;
    }
}

async fn in_a_batch_each_event_leaves_out_its_own(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = two_of_each(&nodes, "a").await;
    let event = |(number, client): (usize, &Client)| {
        let (data, id) = (number.to_string(), &client.socket_id);
        json!({ "name": "n", "channel": "a", "data": data, "socket_id": id })
    };
    let batch: Vec<Value> = clients.iter().enumerate().map(event).collect();
    let mut backend = nodes.node(0).backend().await;
    let answer = backend.post("/batch_events", &json!({ "batch": batch })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for (place, client) in clients.iter_mut().enumerate() {
        for number in (0..batch.len()).filter(|number| *number != place) {
            assert_eq!(client.expect("n").await["data"], number.to_string());
        }
    }
    nodes.expect_nothing_more("a", &mut clients).await;
}

async fn an_event_to_a_user_leaves_out_one_of_its_sockets(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.connect().await;
    for client in &mut clients {
        client.sign_in(&json!({ "id": "7" })).await;
    }
    let channel = "#server-to-user-7";
    for sender in 0..clients.len() {
        let id = clients[sender].socket_id.clone();
        let mut api = nodes.node((sender + 1) % 3).backend().await;
        api.trigger(&json!({ "name": "ev", "channel": channel, "data": "", "socket_id": id }))
            .await;
        api.publish(channel, "behind", "").await;
        for (place, client) in clients.iter_mut().enumerate() {
            if place != sender {
                client.expect("ev").await;
            }
            client.expect("behind").await;
        }
    }
}

async fn an_id_that_nobody_has_leaves_nobody_out(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut clients = nodes.subscribe("a").await;
    for mut api in nodes.backends().await {
        api.trigger(&json!({ "name": "ev", "channel": "a", "data": "", "socket_id": "1.1" }))
            .await;
        for client in &mut clients {
            client.expect("ev").await;
        }
    }
    nodes.expect_nothing_more("a", &mut clients).await;
}
