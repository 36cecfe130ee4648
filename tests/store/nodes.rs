//! Two nodes with one database: what a node hears of an app before it has read it is not lost.

use std::sync::Arc;

use fanwire::adapter::memory::{Bus, Memory};
use fanwire::adapter::{self, Link};
use fanwire::server::Server;

use crate::engine::Kind;
use crate::stage::{Place, Served, comes_down_to};
use crate::support::eventually;

over_each_database![what_other_nodes_have_of_an_app_is_known_before_the_app_is];

async fn join(place: &Place, bus: &Bus) -> Served {
    let mut config = place.config();
    config.store.ttl_s = 1;
    let lanes = usize::from(config.adapter.connections);
    let (sink, events) = adapter::events(lanes, config.adapter.inbox_bytes_max);
    let link = Link {
        driver: "memory",
        adapter: Arc::new(Memory::join(bus, sink.clone())),
        events,
        sink,
    };
    let server = Server::start_on(config, link)
        .await
        .expect("a free port and a sound store");
    Served {
        server: Arc::new(server),
    }
}

async fn what_other_nodes_have_of_an_app_is_known_before_the_app_is(kind: Kind) {
    let place = Place::new(kind).await;
    let app = place.put("7", "{}").await;
    let bus = Bus::new(0);
    let (one, other) = (join(&place, &bus).await, join(&place, &bus).await);
    for node in [&one, &other] {
        eventually("the nodes to know each other", async || {
            (node.node().metric("cluster_nodes", &[]).await == 2).then_some(())
        })
        .await;
    }
    let mut alice = one.of(&app).connect().await;
    alice.join("presence-room", "alice").await;
    // The other node has never been asked for the app.
    let mut backend = other.of(&app).backend().await;
    eventually("alice to be seen from the other node", async || {
        let users = backend.get("/channels/presence-room/users").await.json();
        (users["users"][0]["id"] == "alice").then_some(())
    })
    .await;
    // And a member there is seen by alice, and is told of her.
    let mut bob = other.of(&app).connect().await;
    let members = bob.join("presence-room", "bob").await;
    assert_eq!(members["count"], 2);
    assert_eq!(
        alice.expect("pusher_internal:member_added").await["channel"],
        "presence-room"
    );
    backend.publish("presence-room", "e", "for both").await;
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.expect("e").await["data"], "for both");
    }
    // When nobody is there any more, both forget it.
    alice.close().await;
    bob.close().await;
    for node in [&one, &other] {
        comes_down_to(&node.node(), "store_apps", 0).await;
    }
}
