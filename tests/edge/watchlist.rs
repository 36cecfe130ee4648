//! Who hears that a watched user comes or goes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fanwire::app::AppConfig;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{Client, data};
use crate::support::eventually;
use crate::support::server::{TestServer, app};

fn watching(watch_grace_ms: u32) -> AppConfig {
    AppConfig {
        watchlist: true,
        watch_grace_ms,
        ..app()
    }
}

async fn sign_in(server: &TestServer, id: &str, watchlist: &[&str]) -> Client {
    let mut client = server.connect().await;
    client.sign_in(&json!({ "id": id, "watchlist": watchlist })).await;
    client
}

async fn expect_events(client: &mut Client, events: Value) {
    let message = client.expect("pusher_internal:watchlist_events").await;
    assert_eq!(message["channel"], Value::Null);
    assert_eq!(data(&message), json!({ "events": events }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_comes_at_sign_in_and_then_each_change() {
    let server = TestServer::with_app(watching(0)).await;
    let bob = sign_in(&server, "bob", &[]).await;
    let mut ada = sign_in(&server, "ada", &["bob", "cyd"]).await;
    let state = [
        json!({ "name": "online", "user_ids": ["bob"] }),
        json!({ "name": "offline", "user_ids": ["cyd"] }),
    ];
    expect_events(&mut ada, json!(state)).await;
    let mut second_tab = sign_in(&server, "ada", &["bob"]).await;
    // An empty group is left out.
    expect_events(
        &mut second_tab,
        json!([{ "name": "online", "user_ids": ["bob"] }]),
    )
    .await;

    let cyd = sign_in(&server, "cyd", &["nobody"]).await;
    expect_events(&mut ada, json!([{ "name": "online", "user_ids": ["cyd"] }])).await;
    // A second socket is no news, nor is the end of the first.
    let cyd_again = sign_in(&server, "cyd", &[]).await;
    cyd.close().await;
    bob.close().await;
    for client in [&mut ada, &mut second_tab] {
        expect_events(client, json!([{ "name": "offline", "user_ids": ["bob"] }])).await;
    }
    cyd_again.close().await;
    expect_events(&mut ada, json!([{ "name": "offline", "user_ids": ["cyd"] }])).await;
    second_tab.expect_silence().await;
    // Only signed-in users are online; members of a channel are not.
    let mut member = server.connect().await;
    member.join("presence-a", "bob").await;
    ada.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_reloaded_within_the_grace_is_silent() {
    let server = TestServer::with_app(watching(1_500)).await;
    let mut ada = sign_in(&server, "ada", &["bob"]).await;
    expect_events(&mut ada, json!([{ "name": "offline", "user_ids": ["bob"] }])).await;
    let bob = sign_in(&server, "bob", &[]).await;
    expect_events(&mut ada, json!([{ "name": "online", "user_ids": ["bob"] }])).await;
    bob.close().await;
    let bob = sign_in(&server, "bob", &[]).await;
    bob.close().await;
    let gone = Instant::now();
    // The next news is the one offline, and not before its grace is over.
    expect_events(&mut ada, json!([{ "name": "offline", "user_ids": ["bob"] }])).await;
    assert!(
        gone.elapsed() >= Duration::from_millis(1_300),
        "{:?}",
        gone.elapsed()
    );
    ada.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_again_replaces_the_watchlist() {
    let server = TestServer::with_app(watching(0)).await;
    let mut ada = sign_in(&server, "ada", &["bob"]).await;
    expect_events(&mut ada, json!([{ "name": "offline", "user_ids": ["bob"] }])).await;
    ada.sign_in(&json!({ "id": "ada", "watchlist": ["cyd"] })).await;
    expect_events(&mut ada, json!([{ "name": "offline", "user_ids": ["cyd"] }])).await;
    let _bob = sign_in(&server, "bob", &[]).await;
    let _cyd = sign_in(&server, "cyd", &[]).await;
    expect_events(&mut ada, json!([{ "name": "online", "user_ids": ["cyd"] }])).await;
    ada.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_hundred_are_cut_and_told_with_4302() {
    let server = TestServer::with_app(watching(0)).await;
    let watchlist: Vec<String> = (0..130).map(|number| format!("u{number}")).collect();
    let mut ada = server.connect().await;
    ada.sign_in(&json!({ "id": "ada", "watchlist": watchlist })).await;
    let error = ada.expect_error(4302).await;
    assert_eq!(
        error["data"]["message"],
        "Watchlist limit exceeded. Only the first 100 user IDs are accepted."
    );
    expect_events(
        &mut ada,
        json!([{ "name": "offline", "user_ids": watchlist[..100] }]),
    )
    .await;
    let _beyond = sign_in(&server, "u100", &[]).await;
    let _within = sign_in(&server, "u99", &[]).await;
    expect_events(&mut ada, json!([{ "name": "online", "user_ids": ["u99"] }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_watchlists_says_nothing() {
    let server = TestServer::start().await;
    let mut ada = sign_in(&server, "ada", &["bob"]).await;
    let bob = sign_in(&server, "bob", &["ada"]).await;
    bob.close().await;
    server.connected_becomes(1).await;
    ada.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_watches_itself_hears_of_itself_as_of_others() {
    let server = TestServer::with_app(watching(0)).await;
    let mut ada = sign_in(&server, "ada", &["ada", "ada", "bob"]).await;
    let message = ada.expect("pusher_internal:watchlist_events").await;
    let events = data(&message)["events"].take();
    assert!(
        events
            .to_string()
            .contains(r#"{"name":"online","user_ids":["ada"]}"#),
        "{events}"
    );
}

/// Against a model: users come and go on many sockets, and what each watcher was told is the truth in the end; on the
/// way nobody came who was there, or went who was not.
#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_knows_the_truth_after_any_comings_and_goings() {
    const USERS: usize = 4;
    let server = TestServer::with_app(watching(0)).await;
    let names: Vec<String> = (0..USERS).map(|user| format!("u{user}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut watchers = Vec::new();
    for number in 0..5 {
        let mut watcher = sign_in(&server, &format!("w{number}"), &names).await;
        expect_events(&mut watcher, json!([{ "name": "offline", "user_ids": names }])).await;
        watchers.push((watcher, BTreeSet::new()));
    }
    let mut sockets = JoinSet::new();
    for number in 0..12 {
        let (address, user) = (server.address, names[number % USERS].to_owned());
        sockets.spawn(async move {
            for life in 0..8 {
                let mut client = Client::connect(address, "/app/key?protocol=7").await;
                client.sign_in(&json!({ "id": user })).await;
                if (life + number) % 3 == 0 {
                    client.close().await;
                }
            }
            // Half of them are gone in the end; of u3 all.
            let stays = number % 2 == 0 && number % USERS != 3;
            let mut client = Client::connect(address, "/app/key?protocol=7").await;
            client.sign_in(&json!({ "id": user })).await;
            stays.then_some((client, user))
        });
    }
    let staying: Vec<_> = sockets.join_all().await.into_iter().flatten().collect();
    server
        .connected_becomes(watchers.len() as u64 + staying.len() as u64)
        .await;
    let truth: BTreeSet<String> = staying.iter().map(|(_, user)| user.clone()).collect();
    for (watcher, online) in &mut watchers {
        eventually("a watcher to know the truth", async || {
            watcher.hear_of_users(online).await;
            (*online == truth).then_some(())
        })
        .await;
    }
    // And it stays so: nothing is told behind it.
    for (watcher, online) in &mut watchers {
        watcher.hear_of_users(online).await;
        assert_eq!(*online, truth);
    }
}
