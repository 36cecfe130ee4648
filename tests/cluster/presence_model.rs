//! Presence against a model: random joins and leaves of a few users on many sockets of all nodes. Each socket keeps
//! its own view; in the end every view is the truth, and on the way nobody was added who was there nor removed who was
//! not.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;

use crate::bus::Bus;
use crate::nodes::{Kind, Nodes};
use crate::room::Room;
use crate::support::client::Client;

over_each_bus![every_view_is_the_truth_after_any_joins_and_leaves];

const CHANNEL: &str = "presence-model";
const USERS: u32 = 6;
const SOCKETS: usize = 24;
const STEPS: usize = 30;

/// What a page has open.
enum Page {
    Outside(Client),
    Inside(Room),
}

fn seed() -> u64 {
    let given = std::env::var("FANWIRE_TEST_SEED").ok();
    let now = || {
        std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_nanos() as u64)
    };
    let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
    #[expect(clippy::print_stdout, reason = "libtest shows it beside a failure")]
    {
        println!("again with FANWIRE_TEST_SEED={seed}");
    }
    seed
}

async fn every_view_is_the_truth_after_any_joins_and_leaves(bus: Bus) {
    let nodes = Nodes::shared(bus, Kind::Plain).await;
    let seed = seed();
    let mut pages = JoinSet::new();
    for number in 0..SOCKETS {
        let nodes = nodes.clone();
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        pages.spawn(async move {
            let mut page = Page::Outside(nodes.node(number % 3).connect().await);
            for _ in 0..STEPS {
                page = match page {
                    Page::Outside(client) => {
                        let user = random.random_range(0..USERS).to_string();
                        Page::Inside(Room::enter(client, CHANNEL, &user, &json!({ "name": user })).await)
                    }
                    Page::Inside(mut room) => match random.random_range(0..8) {
                        0 => Page::Outside(room.leave().await),
                        // A page that is reloaded, with a word or without one: it may land on another node.
                        what @ 1..=2 => {
                            if what == 1 {
                                room.client.close().await;
                            }
                            Page::Outside(nodes.node(random.random_range(0..3)).connect().await)
                        }
                        _ => {
                            room.look().await;
                            Page::Inside(room)
                        }
                    },
                };
            }
            page
        });
    }
    let pages = pages.join_all().await;
    let rooms = pages.into_iter().filter_map(|page| match page {
        Page::Inside(room) => Some(room),
        Page::Outside(_) => None,
    });
    let mut rooms: Vec<Room> = rooms.collect();
    // Whoever is inside now is the truth.
    let truth: BTreeMap<String, _> = rooms
        .iter()
        .map(|room| (room.user.clone(), json!({ "name": room.user })))
        .collect();
    let expected = json!({
        "occupied": !rooms.is_empty(), "user_count": truth.len(), "subscription_count": rooms.len()
    });
    let path = format!("/channels/{CHANNEL}?info=user_count,subscription_count");
    nodes.agree(&path, &expected).await;
    // A node that counts them all has told all that there was to tell.
    for room in &mut rooms {
        room.look().await;
        assert_eq!(room.members, truth);
    }
    drop(rooms);
    nodes.agree("/channels", &json!({ "channels": {} })).await;
}
