//! Presence against a model: random joins and leaves of a few users on many sockets over all shards. Each socket
//! keeps its own view, the list it got plus the news since; in the end every view is the truth, and on the way
//! nobody was added who was there nor removed who was not.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{Client, data};
use crate::support::server::TestServer;

const CHANNEL: &str = "presence-model";
const USERS: u32 = 6;
const SOCKETS: usize = 24;
const STEPS: usize = 40;

/// One socket as its page sees it.
struct Page {
    client: Client,
    /// Whom it is joined as, once acknowledged.
    user: Option<String>,
    /// What it takes for the members.
    view: BTreeSet<String>,
    random: StdRng,
}

impl Page {
    fn below(&mut self, bound: u32) -> u32 {
        self.random.random_range(0..bound)
    }

    /// Applies one piece of news, which must fit the view.
    fn apply(&mut self, message: &Value) {
        let user = || data(message)["user_id"].as_str().expect("an id").to_owned();
        match message["event"].as_str().expect("an event") {
            "pusher_internal:member_added" => {
                assert_ne!(Some(user()), self.user, "nobody is told of itself");
                assert!(
                    self.view.insert(user()),
                    "{} was there already: {:?}",
                    user(),
                    self.view
                );
            }
            "pusher_internal:member_removed" => {
                assert_ne!(Some(user()), self.user, "it is still there itself");
                assert!(
                    self.view.remove(&user()),
                    "{} was not there: {:?}",
                    user(),
                    self.view
                );
            }
            other => panic!("{other} was not asked for: {message}"),
        }
    }

    async fn join(&mut self) {
        let user = self.below(USERS).to_string();
        let channel_data = json!({ "user_id": user, "user_info": { "name": user } }).to_string();
        self.client.ask_for(CHANNEL, &channel_data).await;
        // The list comes first: there is no news of a channel before it.
        let list = data(&self.client.expect_subscribed(CHANNEL).await)["presence"].take();
        self.view = ids(&list);
        assert_eq!(list["count"], self.view.len(), "{list}");
        assert!(self.view.contains(&user), "the new member is in it");
        for id in &self.view {
            assert_eq!(list["hash"][id], json!({ "name": id }));
        }
        self.user = Some(user);
    }

    /// Reads all that has come.
    async fn look(&mut self) {
        for message in self.client.hear_out().await {
            self.apply(&message);
        }
    }

    /// Leaves; what it was sent until then still has to fit.
    async fn leave(&mut self) {
        self.client.unsubscribe(CHANNEL).await;
        self.look().await;
        self.user = None;
        self.view.clear();
    }

    async fn live(mut self, begin: usize) -> Page {
        for _ in begin..STEPS {
            if self.user.is_none() {
                self.join().await;
                continue;
            }
            match self.below(12) {
                0 => self.leave().await,
                // A page that is reloaded or lost: the socket ends, another one comes.
                1 => return self,
                _ => self.look().await,
            }
        }
        self
    }
}

fn ids(list: &Value) -> BTreeSet<String> {
    let ids = list["ids"].as_array().expect("a list");
    let unique: BTreeSet<_> = ids
        .iter()
        .map(|id| id.as_str().expect("a string").to_owned())
        .collect();
    assert_eq!(unique.len(), ids.len(), "no id twice: {list}");
    unique
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_the_truth_after_any_joins_and_leaves() {
    let server = TestServer::start().await;
    let seed = std::env::var("FANWIRE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_nanos() as u64)
    });
    #[expect(clippy::print_stdout, reason = "libtest shows it beside a failure")]
    {
        println!("again with FANWIRE_TEST_SEED={seed}");
    }
    let mut pages = JoinSet::new();
    for number in 0..SOCKETS {
        let (address, seed) = (server.address, seed.wrapping_add(number as u64));
        pages.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            for life in 0.. {
                let page = Page {
                    client: Client::connect(address, "/app/key?protocol=7").await,
                    user: None,
                    view: BTreeSet::new(),
                    random,
                };
                let page = page.live(life * 10).await;
                if life == 3 {
                    return page;
                }
                random = page.random;
                // With a word, or dropped without one.
                if life % 2 == 0 {
                    page.client.close().await;
                }
            }
            unreachable!("the fourth life is the last")
        });
    }
    let mut pages = pages.join_all().await;

    // Everybody who has not joined now does not count; the others are the truth.
    let mut truth: BTreeMap<String, usize> = BTreeMap::new();
    for page in &pages {
        if let Some(user) = &page.user {
            *truth.entry(user.clone()).or_default() += 1;
        }
    }
    let mut backend = server.backend().await;
    let joined: usize = truth.values().sum();
    backend.wait_for_subscribers(CHANNEL, joined as u64).await;
    backend.publish(CHANNEL, "the-end", "").await;
    let members: BTreeSet<String> = truth.into_keys().collect();
    for page in pages.iter_mut().filter(|page| page.user.is_some()) {
        loop {
            let message = page.client.next().await;
            if message["event"] == "the-end" {
                break;
            }
            page.apply(&message);
        }
        assert_eq!(page.view, members);
    }
    let answer = backend.get(&format!("/channels/{CHANNEL}/users")).await.json();
    let listed = answer["users"].as_array().expect("a list").iter();
    let listed: BTreeSet<String> = listed
        .map(|user| user["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(listed, members);
    drop(pages);
    backend.wait_for_subscribers(CHANNEL, 0).await;
    server.connected_becomes(0).await;
}
