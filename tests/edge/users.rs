//! Signing in, events to a user, and ending a user's connections.

use serde_json::{Value, json};

use crate::support::client::{Client, data};
use crate::support::raw::Raw;
use crate::support::server::{KEY, SECRET, TestServer, app, config};
use crate::support::sign;

#[tokio::test(flavor = "multi_thread")]
async fn a_good_sign_in_is_answered_with_what_was_signed() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let user_data = r#"{ "id" : "42", "user_info":{"näme":"\u00e9"},"other":[1.50] }"#;
    client.ask_sign_in(user_data).await;
    let answer = client.next().await;
    assert_eq!(answer["event"], "pusher:signin_success");
    assert_eq!(
        data(&answer),
        json!({ "user_data": user_data }),
        "and nothing else"
    );
    assert_eq!(answer.as_object().map(|keys| keys.len()), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_sign_in_is_refused_and_closes_nothing() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let id = client.socket_id.clone();
    let user_data = r#"{"id":"42"}"#;
    let good = sign::auth(KEY, SECRET, &format!("{id}::user::{user_data}"));
    let digest = &good[KEY.len() + 1..];
    for (what, auth, user_data) in [
        ("no auth", Value::Null, json!(user_data)),
        ("auth of another type", json!(1), json!(user_data)),
        ("wrong key", json!(format!("other:{digest}")), json!(user_data)),
        (
            "wrong secret",
            json!(sign::auth(KEY, "x", &format!("{id}::user::{user_data}"))),
            json!(user_data),
        ),
        (
            "another socket",
            json!(sign::auth(KEY, SECRET, &format!("1.1::user::{user_data}"))),
            json!(user_data),
        ),
        (
            "signed as a channel",
            json!(sign::auth(KEY, SECRET, &format!("{id}:{user_data}"))),
            json!(user_data),
        ),
        ("other data", json!(&good), json!(r#"{"id":"43"}"#)),
        ("no data", json!(&good), Value::Null),
        ("data of another type", json!(&good), json!({ "id": "42" })),
    ] {
        client
            .say(&json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } }))
            .await;
        let error = client.expect_error(4009).await;
        let text = error["data"]["message"].as_str().expect("a text");
        assert!(!text.is_empty() && !text.contains(digest), "{what}: {text}");
    }
    // Rightly signed, but nobody.
    for user_data in [
        r#"{"id":42}"#,
        r#"{"id":""}"#,
        r#"{"id":null}"#,
        r#"{"id":["42"]}"#,
        "{}",
        "null",
        "no JSON",
        "",
        r#"{"id":"a b"}"#,
        r#"{"id":"ä"}"#,
        r#"{"user_id":"42"}"#,
    ] {
        client.ask_sign_in(user_data).await;
        client.expect_error(4009).await;
    }
    let long = "u".repeat(201);
    client.ask_sign_in(&json!({ "id": long }).to_string()).await;
    client.expect_error(4009).await;
    client.sign_in(&json!({ "id": "u".repeat(200) })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_identity_is_refused_and_the_same_one_is_not() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    client.sign_in(&json!({ "id": "1" })).await;
    client.ask_sign_in(r#"{"id":"2"}"#).await;
    client.expect_error(4009).await;
    client
        .sign_in(&json!({ "id": "1", "user_info": { "again": true } }))
        .await;
    backend.publish("#server-to-user-2", "ev", "not for us").await;
    backend.publish("#server-to-user-1", "ev", "for us, once").await;
    assert_eq!(client.expect("ev").await["data"], "for us, once");
    client.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_to_a_user_reaches_each_of_its_sockets_once() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut sockets = server.connect_many(6).await;
    let channel = "#server-to-user-7";
    for (number, client) in sockets.iter_mut().enumerate() {
        client.sign_in(&json!({ "id": "7" })).await;
        // Some have subscribed as the SDKs do, even twice; for the others it has not come yet.
        for _ in 0..number % 3 {
            client.subscribe(channel).await;
        }
    }
    let mut stranger = server.connect().await;
    stranger.sign_in(&json!({ "id": "8" })).await;
    let except = sockets[5].socket_id.clone();
    backend.publish(channel, "hello", "{}").await;
    backend
        .trigger(&json!({ "name": "others", "channel": channel, "data": "", "socket_id": except }))
        .await;
    for client in &mut sockets[..5] {
        assert_eq!(
            client.next().await,
            json!({ "event": "hello", "channel": channel, "data": "{}" })
        );
        client.expect("others").await;
        client.expect_silence().await;
    }
    sockets[5].expect("hello").await;
    sockets[5].expect_silence().await;
    stranger.expect_silence().await;
    // It is no channel that anybody can see.
    assert_eq!(backend.channels().await, json!({}));
    assert_eq!(server.metric("active_channels", &[]).await, 0);
    assert_eq!(server.metric("channel_subscriptions_total", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_users_channel_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for signed_in in [false, true] {
        if signed_in {
            client.sign_in(&json!({ "id": "1" })).await;
        }
        for channel in ["#server-to-user-2", "#server-to-user-11", "#server-to-user-1,2"] {
            client.ask_for(channel, "").await;
            client.expect_refusal(channel, "AuthError", 401).await;
            let signed = json!({ "channel": channel, "auth": client.auth(channel, "") });
            client
                .say(&json!({ "event": "pusher:subscribe", "data": signed }))
                .await;
            client.expect_refusal(channel, "AuthError", 401).await;
        }
    }
    // Unsubscribing from one's own does not sign out.
    client.subscribe("#server-to-user-1").await;
    client.unsubscribe("#server-to-user-1").await;
    server
        .backend()
        .await
        .publish("#server-to-user-1", "ev", "")
        .await;
    client.expect("ev").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminate_closes_only_sockets_signed_in_as_that_user() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut doomed = server.connect_many(5).await;
    for client in &mut doomed {
        client.sign_in(&json!({ "id": "7" })).await;
    }
    let mut witness = server.connect().await;
    witness.join("presence-a", "w").await;
    doomed[0].join("presence-a", "x").await;
    witness.expect("pusher_internal:member_added").await;
    let (mut other, mut only_member, mut nobody) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    other.sign_in(&json!({ "id": "77" })).await;
    only_member.join("presence-b", "7").await;
    backend.terminate("7").await;
    let text = "You got disconnected by the app";
    for client in &mut doomed {
        let error = client.expect_error(4009).await;
        assert_eq!(error["data"], json!({ "code": 4009, "message": text }));
        assert_eq!(client.expect_close().await, (4009, text.into()));
    }
    let removed = witness.expect("pusher_internal:member_removed").await;
    assert_eq!(data(&removed), json!({ "user_id": "x" }));
    for client in [&mut other, &mut only_member, &mut nobody] {
        client.expect_silence().await;
    }
    backend.terminate("nobody-at-all").await;
    backend.terminate("a%20b").await;
    server
        .metric_becomes("closed_total", &["reason=\"terminated\""], 5)
        .await;
    server.connected_becomes(4).await;
    // The user may come back.
    let mut again = server.connect().await;
    again.sign_in(&json!({ "id": "7" })).await;
    backend.publish("#server-to-user-7", "ev", "welcome back").await;
    again.expect("ev").await;
}

/// What the back end says last is heard, also if it ends the user's connections in the same breath.
#[tokio::test(flavor = "multi_thread")]
async fn a_termination_lines_up_behind_what_was_published_before_it() {
    let mut config = config([app()]);
    // Both calls are then worked in one turn.
    config.server.shards = 1;
    let server = TestServer::with_config(config).await;
    let mut backend = server.backend().await;
    let event = json!({ "name": "bye", "channel": "#server-to-user-7", "data": "x" }).to_string();
    for round in 0..20 {
        let mut client = server.connect().await;
        client.sign_in(&json!({ "id": "7" })).await;
        let call = if round % 2 == 0 {
            "/users/7/terminate_connections"
        } else {
            "/users/7/force_reconnect"
        };
        let calls = backend.call("POST", "/events", &event) + &backend.call("POST", call, "{}");
        backend.http.write(calls).await;
        for _ in 0..2 {
            assert_eq!(backend.http.answer().await.expect("an answer").status, 200);
        }
        client.expect("bye").await;
        let code = if round % 2 == 0 { 4009 } else { 4200 };
        if code == 4009 {
            client.expect_error(4009).await;
        }
        assert_eq!(client.expect_close().await.0, code, "round {round}");
        client.close().await;
    }
}

/// The same with more sockets than a turn serves, on every shard.
#[tokio::test(flavor = "multi_thread")]
async fn a_termination_of_many_lines_up_behind_what_was_published_before_it() {
    let server = TestServer::start().await;
    let mut sockets = Vec::new();
    for _ in 0..1_500 {
        let (mut raw, id) = Raw::greeted(server.address).await;
        let auth = sign::auth(KEY, SECRET, &format!("{id}::user::{{\"id\":\"7\"}}"));
        raw.say(&json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": r#"{"id":"7"}"# } }))
            .await;
        assert_eq!(raw.next().await["event"], "pusher:signin_success");
        sockets.push(raw);
    }
    let mut backend = server.backend().await;
    let data = "x".repeat(5_000);
    let event = json!({ "name": "bye", "channel": "#server-to-user-7", "data": data }).to_string();
    let calls = backend.call("POST", "/events", &event)
        + &backend.call("POST", "/users/7/terminate_connections", "{}");
    backend.http.write(calls).await;
    for _ in 0..2 {
        assert_eq!(backend.http.answer().await.expect("an answer").status, 200);
    }
    for (number, raw) in sockets.iter_mut().enumerate() {
        let heard = raw.next().await;
        assert_eq!(heard["event"], "bye", "socket {number}: {heard}");
        assert_eq!(heard["data"], data);
        assert_eq!(raw.next().await["data"]["code"], 4009, "socket {number}");
        assert_eq!(raw.expect_close().await.0, 4009, "socket {number}");
    }
    server.connected_becomes(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn force_reconnect_closes_with_4200() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    client.sign_in(&json!({ "id": "7" })).await;
    let answer = backend.post("/users/7/force_reconnect", &json!({})).await;
    assert_eq!((answer.status, &*answer.body), (200, "{}"));
    assert_eq!(client.expect_close().await.0, 4200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_closed_socket_still_says_is_not_heard() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let (mut witness, mut doomed) = (server.connect().await, server.connect().await);
    witness.subscribe("private-a").await;
    doomed.subscribe("private-a").await;
    doomed.sign_in(&json!({ "id": "7" })).await;
    backend.terminate("7").await;
    doomed.whisper("private-a", "client-x", "too late").await;
    doomed.ask_for("private-b", "").await;
    doomed.expect_error(4009).await;
    doomed.expect_close().await;
    backend.wait_for_subscribers("private-a", 1).await;
    backend.publish("private-a", "marker", "").await;
    witness.expect("marker").await;
    assert_eq!(
        backend.channels().await,
        json!({ "private-a": { "subscription_count": 1 } })
    );
}

/// Who is told what after the same socket signed in and vanished in one breath.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_signs_in_and_vanishes_leaves_nothing_behind() {
    let server = TestServer::start().await;
    for _ in 0..20 {
        let mut client: Client = server.connect().await;
        client.ask_sign_in(r#"{"id":"7","watchlist":["1"]}"#).await;
        client.ask_for("presence-a", r#"{"user_id":"7"}"#).await;
        drop(client);
    }
    server.connected_becomes(0).await;
    server.metric_becomes("new_disconnections_total", &[], 20).await;
    assert_eq!(server.backend().await.channels().await, json!({}));
    server.backend().await.terminate("7").await;
}
