//! What is not joined hears nothing of each other: clusters with different names on one broker, apps of one cluster.

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::server::app;

over_each_bus![
    two_clusters_on_one_broker_hear_nothing_of_each_other,
    two_apps_with_the_same_names_hear_nothing_of_each_other,
    a_node_that_spreads_channels_in_another_way_stays_unready,
];

/// All that can be done with names that the others use as well.
async fn live(nodes: &Nodes) -> Vec<Client> {
    let mut clients = nodes.connect().await;
    for client in &mut clients {
        client.subscribe("private-a").await;
        client.join("presence-a", "member").await;
        client.sign_in(&json!({ "id": "7", "watchlist": ["8"] })).await;
    }
    nodes.count("private-a", clients.len() as u64).await;
    nodes.count("presence-a", clients.len() as u64).await;
    clients
}

/// What the ones do reaches the ones, and never the others.
async fn are_apart(ones: &Nodes, others: &Nodes, cache: &str) {
    let (mut ours, mut theirs) = (live(ones).await, live(others).await);
    let mut backend = ones.node(0).backend().await;
    for channel in ["private-a", "presence-a", "#server-to-user-7"] {
        backend.publish(channel, "ev", "").await;
        for client in &mut ours {
            client.expect("ev").await;
        }
    }
    backend.publish(cache, "ev", "").await;
    let path = format!("/channels/{cache}?info=cache");
    eventually("the cached event to be known", async || {
        let mut other = ones.node(ones.all().len() - 1).backend().await;
        let answer = other.get(&path).await.json();
        answer["cache"].is_object().then_some(())
    })
    .await;
    let answer = others.node(0).backend().await.get(&path).await;
    assert_eq!(answer.json()["cache"], Value::Null);
    ours[0].whisper("private-a", "client-x", "").await;
    for client in &mut ours[1..] {
        client.expect("client-x").await;
    }
    let mut eve = ones.node(0).connect().await;
    eve.join("presence-a", "eve").await;
    eve.sign_in(&json!({ "id": "8" })).await;
    for client in &mut ours {
        client.expect("pusher_internal:member_added").await;
    }
    ones.count("presence-a", ours.len() as u64 + 1).await;
    backend.terminate("7").await;
    for client in &mut ours {
        client.expect_error(4009).await;
    }
    ones.count("presence-a", 1).await;
    for channel in ["private-a", "presence-a", "#server-to-user-7"] {
        others.expect_nothing_more(channel, &mut theirs).await;
    }
    others.count("presence-a", theirs.len() as u64).await;
}

async fn two_clusters_on_one_broker_hear_nothing_of_each_other(bus: Bus) {
    let (ones, others) = tokio::join!(Nodes::own(bus, 2, app()), Nodes::own(bus, 2, app()));
    are_apart(&ones, &others, "cache-1").await;
    are_apart(&others, &ones, "cache-2").await;
    let sizes = [&ones, &others].map(|nodes| {
        let snapshot = nodes.node(0).server.node().cluster_snapshot();
        snapshot.expect("it is in a cluster").nodes
    });
    assert_eq!(sizes, [2, 2]);
}

async fn two_apps_with_the_same_names_hear_nothing_of_each_other(bus: Bus) {
    let (ones, others) = tokio::join!(Nodes::shared(bus, Kind::Plain), Nodes::shared(bus, Kind::Plain));
    are_apart(&ones, &others, "cache-a").await;
}

async fn a_node_that_spreads_channels_in_another_way_stays_unready(bus: Bus) {
    let nodes = Nodes::own(bus, 2, app()).await;
    let mut config = nodes.line().config().clone();
    config.adapter.topics *= 2;
    let stranger = nodes.start(config).await;
    let causes = eventually("a node to say what is wrong with it", async || {
        let answer = stranger.admin("/ready").await;
        let causes = answer.json()["causes"].take();
        (answer.status == 503 && causes.to_string().contains("mismatch")).then_some(causes)
    })
    .await;
    // Those who were there serve on.
    for node in nodes.all() {
        assert_eq!(node.admin("/ready").await.status, 200, "{causes}");
    }
    let mut clients = nodes.subscribe("a").await;
    nodes.expect_nothing_more("a", &mut clients).await;
    assert_eq!(stranger.admin("/ready").await.status, 503);
    stranger.drain().await;
}
