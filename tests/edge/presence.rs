//! Presence channels: who is a member, and who is told of it.

use fanwire::app::AppConfig;
use serde_json::{Value, json};

use crate::support::client::{Client, data};
use crate::support::server::{TestServer, app};

const CHANNEL: &str = "presence-room";

/// Joins with exactly this `channel_data`; the answer is the list of members.
async fn join_as(client: &mut Client, channel_data: &str) -> Value {
    client.ask_for(CHANNEL, channel_data).await;
    data(&client.expect_subscribed(CHANNEL).await)["presence"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_members_includes_the_new_one() {
    let server = TestServer::start().await;
    let mut ada = server.connect().await;
    ada.ask_for(CHANNEL, r#"{"user_id":"1","user_info":{"name":"Ada"}}"#)
        .await;
    assert_eq!(
        ada.next().await,
        json!({ "event": "pusher_internal:subscription_succeeded", "channel": CHANNEL,
            "data": r#"{"presence":{"count":1,"ids":["1"],"hash":{"1":{"name":"Ada"}}}}"# })
    );
    let mut bob = server.connect().await;
    let mut members = join_as(&mut bob, r#"{"user_id":"2"}"#).await;
    let ids = members["ids"].as_array_mut().expect("a list");
    ids.sort_by_key(Value::to_string);
    assert_eq!(
        members,
        json!({ "count": 2, "ids": ["1", "2"], "hash": { "1": { "name": "Ada" }, "2": {} } })
    );
    assert_eq!(
        ada.next().await,
        json!({ "event": "pusher_internal:member_added", "channel": CHANNEL,
            "data": r#"{"user_id":"2","user_info":{}}"# })
    );
    // Nobody is told of itself.
    bob.expect_silence().await;
    bob.unsubscribe(CHANNEL).await;
    assert_eq!(
        ada.next().await,
        json!({ "event": "pusher_internal:member_removed", "channel": CHANNEL, "data": r#"{"user_id":"2"}"# })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_may_be_numbers_and_become_strings() {
    let server = TestServer::start().await;
    let mut witness = server.connect().await;
    join_as(&mut witness, r#"{"user_id":"witness"}"#).await;
    for (given, id) in [
        ("10", "10"),
        (r#""10""#, "10"),
        ("-3", "-3"),
        ("18446744073709551616", "18446744073709551616"),
        (
            r#""Ada Lovelace <ada@b.example>""#,
            "Ada Lovelace <ada@b.example>",
        ),
        (r#""é\"\\\u0001🙂""#, "é\"\\\u{1}🙂"),
    ] {
        let mut client = server.connect().await;
        let members = join_as(
            &mut client,
            &format!(r#"{{"user_id":{given},"user_info":{{"n":1}}}}"#),
        )
        .await;
        assert_eq!(members["hash"][id], json!({ "n": 1 }), "{members}");
        let added = witness.expect("pusher_internal:member_added").await;
        assert_eq!(data(&added), json!({ "user_id": id, "user_info": { "n": 1 } }));
        client.whisper(CHANNEL, "client-hi", "there").await;
        assert_eq!(witness.expect("client-hi").await["user_id"], id);
        client.close().await;
        let removed = witness.expect("pusher_internal:member_removed").await;
        assert_eq!(data(&removed), json!({ "user_id": id }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn info_may_be_anything_and_is_never_missing() {
    let server = TestServer::start().await;
    for (given, shown) in [
        ("", json!({})),
        (r#","user_info":null"#, json!({})),
        (r#","user_info":"text""#, json!("text")),
        (r#","user_info":[1,2]"#, json!([1, 2])),
        (
            r#","user_info":{ "a" : { "b" : "\u00e9" } }"#,
            json!({ "a": { "b": "é" } }),
        ),
        (r#","user_info":0,"other":1"#, json!(0)),
    ] {
        let mut client = server.connect().await;
        let members = join_as(&mut client, &format!(r#"{{"user_id":"1"{given}}}"#)).await;
        assert_eq!(
            members,
            json!({ "count": 1, "ids": ["1"], "hash": { "1": shown } }),
            "{given}"
        );
        client.close().await;
        server.backend().await.wait_for_subscribers(CHANNEL, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sockets_of_one_user_are_one_member() {
    let server = TestServer::start().await;
    let mut witness = server.connect().await;
    witness.join(CHANNEL, "w").await;
    let mut tabs = server.connect_many(3).await;
    for (number, tab) in tabs.iter_mut().enumerate() {
        let channel_data = json!({ "user_id": "1", "user_info": { "tab": number } }).to_string();
        let members = join_as(tab, &channel_data).await;
        assert_eq!(members["count"], 2);
        // The first one's info holds.
        assert_eq!(members["hash"]["1"], json!({ "tab": 0 }));
    }
    let added = witness.expect("pusher_internal:member_added").await;
    assert_eq!(data(&added), json!({ "user_id": "1", "user_info": { "tab": 0 } }));
    witness.expect_silence().await;
    // The first one leaves: the user stays, with the same info.
    let mut first = tabs.remove(0);
    first.unsubscribe(CHANNEL).await;
    first.expect_silence().await;
    assert_eq!(
        join_as(&mut first, r#"{"user_id":"1"}"#).await["hash"]["1"],
        json!({ "tab": 0 })
    );
    tabs.push(first);
    let mut backend = server.backend().await;
    for left in (1..=3).rev() {
        backend.wait_for_subscribers(CHANNEL, left + 1).await;
        tabs.pop().expect("a tab").close().await;
    }
    let removed = witness.expect("pusher_internal:member_removed").await;
    assert_eq!(data(&removed), json!({ "user_id": "1" }));
    witness.expect_silence().await;
    let users = backend.get(&format!("/channels/{CHANNEL}/users")).await;
    assert_eq!(users.json(), json!({ "users": [{ "id": "w" }] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_subscription_answers_with_the_members_of_now_and_keeps_the_first_identity() {
    let server = TestServer::start().await;
    let (mut ada, mut bob) = (server.connect().await, server.connect().await);
    ada.join(CHANNEL, "1").await;
    bob.join(CHANNEL, "2").await;
    ada.expect("pusher_internal:member_added").await;
    let members = join_as(&mut ada, r#"{"user_id":"somebody else"}"#).await;
    assert_eq!(members["count"], 2);
    assert_eq!(members["hash"]["somebody else"], Value::Null);
    bob.expect_silence().await;
    ada.whisper(CHANNEL, "client-a", "{}").await;
    assert_eq!(bob.expect("client-a").await["user_id"], "1");
    ada.close().await;
    assert_eq!(
        data(&bob.expect("pusher_internal:member_removed").await),
        json!({ "user_id": "1" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_101st_user_is_refused_and_a_second_socket_of_a_member_is_not() {
    let server = TestServer::start().await;
    let mut members = server.connect_many(100).await;
    for (id, member) in members.iter_mut().enumerate() {
        let list = member.join(CHANNEL, &id.to_string()).await;
        assert_eq!(list["count"], id + 1);
    }
    let mut late = server.connect().await;
    late.ask_for(CHANNEL, r#"{"user_id":"100"}"#).await;
    late.expect_refusal(CHANNEL, "LimitReached", 4100).await;
    let mut second = server.connect().await;
    assert_eq!(second.join(CHANNEL, "99").await["count"], 100);
    // Both sockets of the last user go: only then is there room.
    members.pop().expect("user 99").close().await;
    late.ask_for(CHANNEL, r#"{"user_id":"100"}"#).await;
    late.expect_refusal(CHANNEL, "LimitReached", 4100).await;
    second.close().await;
    server.backend().await.wait_for_subscribers(CHANNEL, 99).await;
    assert_eq!(late.join(CHANNEL, "100").await["count"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_too_large_or_nobody_are_refused() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let (long, large) = ("u".repeat(129), "x".repeat(1_023));
    for channel_data in [
        format!(r#"{{"user_id":"{long}"}}"#),
        format!(r#"{{"user_id":"1","user_info":"{large}"}}"#),
    ] {
        client.ask_for(CHANNEL, &channel_data).await;
        client.expect_refusal(CHANNEL, "LimitReached", 4301).await;
    }
    for channel_data in [
        "no JSON",
        "{}",
        "null",
        "[]",
        "7",
        r#""1""#,
        r#"{"user_id":""}"#,
        r#"{"user_id":null}"#,
        r#"{"user_id":true}"#,
        r#"{"user_id":["1"]}"#,
        r#"{"user_info":{"user_id":"1"}}"#,
        r#"{"user_id":"1""#,
        r#"{"user_id":"\ud800"}"#,
    ] {
        client.ask_for(CHANNEL, channel_data).await;
        client.expect_refusal(CHANNEL, "AuthError", 401).await;
    }
    // The bounds themselves are inside.
    let (long, large) = ("u".repeat(128), "x".repeat(1_022));
    join_as(
        &mut client,
        &format!(r#"{{"user_id":"{long}","user_info":"{large}"}}"#),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_channel_data_the_member_is_the_signed_in_user() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for channel_data in [Value::Null, "".into()] {
        let auth = client.auth(CHANNEL, "");
        let subscribe = json!({ "channel": CHANNEL, "auth": auth, "channel_data": channel_data });
        client
            .say(&json!({ "event": "pusher:subscribe", "data": subscribe }))
            .await;
        client.expect_refusal(CHANNEL, "AuthError", 401).await;
    }
    client
        .sign_in(&json!({ "id": "42", "user_info": { "name": "Ada" } }))
        .await;
    let members = join_as(&mut client, "").await;
    assert_eq!(
        members,
        json!({ "count": 1, "ids": ["42"], "hash": { "42": { "name": "Ada" } } })
    );
    // Where both are known, what was signed for the channel wins.
    let mut other = server.connect().await;
    other.sign_in(&json!({ "id": "43" })).await;
    assert_eq!(
        join_as(&mut other, r#"{"user_id":"guest"}"#).await["hash"]["guest"],
        json!({})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_data_that_is_no_string_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for channel_data in [json!({ "user_id": "1" }), json!(7), json!([]), json!(false)] {
        for channel in [CHANNEL, "private-a"] {
            let auth = client.auth(channel, "");
            let subscribe = json!({ "channel": channel, "auth": auth, "channel_data": channel_data });
            client
                .say(&json!({ "event": "pusher:subscribe", "data": subscribe }))
                .await;
            client.expect_refusal(channel, "AuthError", 401).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_limit_of_members_counts_users_too() {
    let server = TestServer::with_app(AppConfig {
        presence_members_max: 1,
        ..app()
    })
    .await;
    let mut tabs = server.connect_many(5).await;
    for tab in &mut tabs {
        assert_eq!(tab.join(CHANNEL, "only").await["count"], 1);
    }
    let mut other = server.connect().await;
    other.ask_for(CHANNEL, r#"{"user_id":"other"}"#).await;
    other.expect_refusal(CHANNEL, "LimitReached", 4100).await;
    // The refusal left nothing behind.
    let users = server
        .backend()
        .await
        .get(&format!("/channels/{CHANNEL}?info=user_count,subscription_count"))
        .await;
    assert_eq!(
        users.json(),
        json!({ "occupied": true, "user_count": 1, "subscription_count": 5 })
    );
}
