//! Presence channels: one list of members, on whatever nodes they are.

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::room::Room;
use crate::support::client::{Client, data};

over_each_bus![
    all_see_the_same_members_and_themselves_among_them,
    a_user_comes_with_the_first_socket_and_goes_with_the_last_of_all_nodes,
    two_last_leaves_at_once_are_one_removal,
    two_joins_at_once_are_one_member_with_one_info,
    a_user_who_moves_to_another_node_is_consistent_for_all,
    the_limit_counts_the_users_of_all_nodes,
    every_way_to_leave_is_a_leave,
    the_api_of_every_node_lists_the_same_users,
];

const CHANNEL: &str = "presence-room";

async fn enter(nodes: &Nodes, place: usize, user: &str) -> Room {
    let client = nodes.node(place).connect().await;
    Room::enter(client, CHANNEL, user, &json!({ "name": user })).await
}

/// The same user on each node.
async fn witnesses(nodes: &Nodes) -> Vec<Room> {
    let mut witnesses = Vec::new();
    for place in 0..3 {
        witnesses.push(enter(nodes, place, "w").await);
    }
    witnesses
}

/// Waits until every node counts so many members and subscribers.
async fn agree(nodes: &Nodes, user_count: u64, subscription_count: u64) {
    let path = format!("/channels/{CHANNEL}?info=user_count,subscription_count");
    let expected = json!({
        "occupied": subscription_count > 0, "user_count": user_count, "subscription_count": subscription_count
    });
    nodes.agree(&path, &expected).await;
}

async fn all_see_the_same_members_and_themselves_among_them(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    // All at once: whom the list did not show, the news tell.
    let entering = (0..9).map(|number| {
        let nodes = &nodes;
        async move { enter(nodes, number % 3, &number.to_string()).await }
    });
    let mut rooms = futures_util::future::join_all(entering).await;
    let users: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    for room in &mut rooms {
        room.becomes(&users).await;
    }
    agree(&nodes, 9, 9).await;
    // Two who come later, on two nodes, get the same list.
    let (mut ada, mut bob) = (enter(&nodes, 0, "0").await, enter(&nodes, 1, "1").await);
    assert_eq!(ada.members, bob.members);
    assert_eq!(ada.members, rooms[2].members);
    assert_eq!(ada.members["4"], json!({ "name": "4" }));
    ada.becomes(&users).await;
    bob.becomes(&users).await;
}

async fn a_user_comes_with_the_first_socket_and_goes_with_the_last_of_all_nodes(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut witnesses = witnesses(&nodes).await;
    agree(&nodes, 1, 3).await;
    for first_to_go in 0..3 {
        let mut sockets = Vec::new();
        for place in 0..3 {
            sockets.push(enter(&nodes, place, "x").await);
            agree(&nodes, 2, 4 + place as u64).await;
        }
        for witness in &mut witnesses {
            let added = witness.client.expect("pusher_internal:member_added").await;
            assert_eq!(
                data(&added),
                json!({ "user_id": "x", "user_info": { "name": "x" } })
            );
            witness.client.expect_silence().await;
        }
        sockets.rotate_left(first_to_go);
        for left in (1..=2).rev() {
            sockets.remove(0).client.close().await;
            agree(&nodes, 2, 3 + left).await;
        }
        for witness in &mut witnesses {
            witness.client.expect_silence().await;
        }
        sockets.remove(0).client.close().await;
        agree(&nodes, 1, 3).await;
        for witness in &mut witnesses {
            let removed = witness.client.expect("pusher_internal:member_removed").await;
            assert_eq!(data(&removed), json!({ "user_id": "x" }));
            witness.client.expect_silence().await;
        }
    }
    let rooms = witnesses.iter_mut().map(|witness| &mut witness.client);
    nodes.expect_nothing_more(CHANNEL, rooms).await;
}

async fn two_last_leaves_at_once_are_one_removal(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut witnesses = witnesses(&nodes).await;
    agree(&nodes, 1, 3).await;
    for round in 0..25 {
        let (one, other) = (
            enter(&nodes, round % 3, "x").await,
            enter(&nodes, (round + 1) % 3, "x").await,
        );
        agree(&nodes, 2, 5).await;
        for witness in &mut witnesses {
            witness.becomes(&["w", "x"]).await;
        }
        match round % 3 {
            0 => drop((one, other)),
            1 => drop(tokio::join!(one.leave(), other.leave())),
            _ => {
                let _left = one.leave().await;
                drop(other);
            }
        }
        agree(&nodes, 1, 3).await;
        for witness in &mut witnesses {
            let removed = witness.client.expect("pusher_internal:member_removed").await;
            witness.apply(&removed);
            witness.look().await;
            assert_eq!(witness.members.len(), 1);
        }
    }
    let clients = witnesses.iter_mut().map(|witness| &mut witness.client);
    nodes.expect_nothing_more(CHANNEL, clients).await;
}

async fn two_joins_at_once_are_one_member_with_one_info(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut witnesses = witnesses(&nodes).await;
    agree(&nodes, 1, 3).await;
    for round in 0..25 {
        let (one, other) = (nodes.node(round % 3), nodes.node((round + 1) % 3));
        let (one, other) = tokio::join!(one.connect(), other.connect());
        let (tab_1, tab_2) = (json!({ "tab": 1 }), json!({ "tab": 2 }));
        let (one, other) = tokio::join!(
            Room::enter(one, CHANNEL, "x", &tab_1),
            Room::enter(other, CHANNEL, "x", &tab_2),
        );
        agree(&nodes, 2, 5).await;
        for witness in &mut witnesses {
            witness.becomes(&["w", "x"]).await;
        }
        // Whoever comes now, wherever, is shown the same.
        let mut shown = Vec::new();
        for place in 0..3 {
            let room = enter(&nodes, place, "w").await;
            shown.push(room.members["x"].clone());
            room.leave().await;
        }
        assert!([tab_1, tab_2].contains(&shown[0]), "{shown:?}");
        assert!(shown.iter().all(|info| *info == shown[0]), "{shown:?}");
        drop((one, other));
        agree(&nodes, 1, 3).await;
        for witness in &mut witnesses {
            witness.becomes(&["w"]).await;
        }
    }
}

/// A page that is reloaded and lands on another node, again and again: for everybody else each news fits.
async fn a_user_who_moves_to_another_node_is_consistent_for_all(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut witnesses = witnesses(&nodes).await;
    let mut room = enter(&nodes, 0, "x").await;
    for step in 1..40 {
        let next = nodes.node(step % 3).connect();
        room = if step % 2 == 0 {
            drop(room);
            Room::enter(next.await, CHANNEL, "x", &json!({ "step": step })).await
        } else {
            let next = Room::enter(next.await, CHANNEL, "x", &json!({ "step": step })).await;
            room.leave().await;
            next
        };
    }
    agree(&nodes, 2, 4).await;
    for witness in &mut witnesses {
        witness.becomes(&["w", "x"]).await;
    }
    room.becomes(&["w", "x"]).await;
}

async fn the_limit_counts_the_users_of_all_nodes(bus: Bus) {
    // Two members, and three connections.
    let nodes = Nodes::shared(bus, Kind::Small).await;
    let (ada, bob) = (enter(&nodes, 0, "ada").await, enter(&nodes, 1, "bob").await);
    agree(&nodes, 2, 2).await;
    let mut late = nodes.node(2).connect().await;
    late.ask_for(CHANNEL, r#"{"user_id":"cyd"}"#).await;
    late.expect_refusal(CHANNEL, "LimitReached", 4100).await;
    // Another socket of a member is welcome, and keeps him when the first one goes.
    let second = Room::enter(late, CHANNEL, "ada", &json!({})).await;
    assert_eq!(second.members.len(), 2);
    ada.client.close().await;
    agree(&nodes, 2, 2).await;
    let mut late = nodes.node(0).connect().await;
    late.ask_for(CHANNEL, r#"{"user_id":"cyd"}"#).await;
    late.expect_refusal(CHANNEL, "LimitReached", 4100).await;
    bob.client.close().await;
    agree(&nodes, 1, 1).await;
    Room::enter(late, CHANNEL, "cyd", &json!({})).await;
}

async fn every_way_to_leave_is_a_leave(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut witness = enter(&nodes, 0, "w").await;
    agree(&nodes, 1, 1).await;
    for round in 0..8 {
        let mut room = enter(&nodes, 1, "x").await;
        room.client.sign_in(&json!({ "id": "u" })).await;
        witness.becomes(&["w", "x"]).await;
        let mut kept: Option<Client> = None;
        match round % 4 {
            0 => kept = Some(room.leave().await),
            1 => room.client.close().await,
            2 => drop(room),
            _ => nodes.node(2).backend().await.terminate("u").await,
        }
        agree(&nodes, 1, 1).await;
        witness.becomes(&["w"]).await;
        drop(kept);
    }
}

async fn the_api_of_every_node_lists_the_same_users(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let mut rooms = Vec::new();
    for number in 0..6 {
        // Three users with two sockets each, on two nodes.
        rooms.push(enter(&nodes, number % 3, &format!("u{}", number / 2)).await);
    }
    agree(&nodes, 3, 6).await;
    for mut backend in nodes.backends().await {
        let answer = backend
            .get(&format!("/channels/{CHANNEL}/users?with_user_info=1"))
            .await;
        let mut users = answer.json()["users"].take();
        users
            .as_array_mut()
            .expect("a list")
            .sort_by_key(Value::to_string);
        let user = |id: &str| json!({ "id": id, "user_info": { "name": id } });
        assert_eq!(users, json!([user("u0"), user("u1"), user("u2")]));
        let listed = backend
            .get("/channels?filter_by_prefix=presence-&info=user_count")
            .await;
        assert_eq!(
            listed.json(),
            json!({ "channels": { CHANNEL: { "user_count": 3 } } })
        );
    }
    drop(rooms);
    let users = format!("/channels/{CHANNEL}/users");
    nodes.agree(&users, &json!({ "users": [] })).await;
    nodes.agree("/channels", &json!({ "channels": {} })).await;
}
