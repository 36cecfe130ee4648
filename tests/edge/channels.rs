//! Subscribing and unsubscribing: names, signatures, acknowledgements.

use fanwire::app::AppConfig;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::raw::Raw;
use crate::support::server::{KEY, SECRET, TestServer, app, config};
use crate::support::sign;

/// Every prefix whose channels need a signature.
const SIGNED: [&str; 6] = [
    "private-encrypted-cache-",
    "private-encrypted-",
    "private-cache-",
    "private-",
    "presence-cache-",
    "presence-",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_public_channel_needs_nothing_and_is_acknowledged_with_empty_data() {
    let server = TestServer::start().await;
    let (mut raw, _) = Raw::greeted(server.address).await;
    for subscribe in [
        json!({ "channel": "a" }),
        json!({ "channel": "a", "auth": "" }),
        json!({ "channel": "a", "auth": "nonsense", "channel_data": 7 }),
        json!({ "channel": "a", "auth": null, "channel_data": null, "more": [{}] }),
        json!(r#"{"channel":"a"}"#),
    ] {
        raw.say(&json!({ "event": "pusher:subscribe", "data": subscribe }))
            .await;
        let frame = raw.frame().await.expect("an answer");
        assert_eq!(
            String::from_utf8_lossy(&frame.payload),
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"a","data":"{}"}"#
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_look_like_a_prefix_are_public() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for name in [
        "privateer",
        "presencex",
        "private",
        "cached",
        "Private-a",
        "my-private-a",
        "encrypted-a",
        "0",
        "_",
    ] {
        client
            .say(&json!({ "event": "pusher:subscribe", "data": { "channel": name } }))
            .await;
        client.expect_subscribed(name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_signature_opens_every_kind_of_channel() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    for prefix in SIGNED {
        // A bare prefix is a legal name of its kind.
        for name in [
            prefix.to_owned(),
            format!("{prefix}a"),
            format!("{prefix}A-z_0=@,.;"),
        ] {
            let channel_data = if prefix.starts_with("presence") {
                r#"{"user_id":"1"}"#
            } else {
                ""
            };
            client.ask_for(&name, channel_data).await;
            client.expect_subscribed(&name).await;
            if prefix.contains("cache") {
                assert_eq!(client.expect("pusher:cache_miss").await["channel"], *name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_signature_is_refused_on_every_prefix() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let id = client.socket_id.clone();
    for prefix in SIGNED {
        let channel = format!("{prefix}a");
        let channel_data = if prefix.starts_with("presence") {
            r#"{"user_id":"1"}"#
        } else {
            ""
        };
        let good = client.auth(&channel, channel_data);
        let digest = &good[KEY.len() + 1..];
        let suffix = if channel_data.is_empty() {
            String::new()
        } else {
            format!(":{channel_data}")
        };
        for (what, auth) in [
            ("none", Value::Null),
            ("an empty one", "".into()),
            ("not a string", 7.into()),
            (
                "another secret",
                sign::auth(KEY, "not it", &format!("{id}:{channel}{suffix}")).into(),
            ),
            (
                "another socket",
                sign::auth(KEY, SECRET, &format!("1.1:{channel}{suffix}")).into(),
            ),
            (
                "another channel",
                sign::auth(KEY, SECRET, &format!("{id}:{channel}b{suffix}")).into(),
            ),
            (
                "other data",
                sign::auth(KEY, SECRET, &format!("{id}:{channel}{suffix}x")).into(),
            ),
            ("wrong key", format!("other:{digest}").into()),
            ("no key", digest.into()),
            ("an empty key", format!(":{digest}").into()),
            ("half a digest", good[..good.len() - 2].into()),
            ("no digest", format!("{KEY}:").into()),
            ("no hex", format!("{KEY}:{}", "zz".repeat(32)).into()),
            (
                "a user's",
                sign::auth(KEY, SECRET, &format!("{id}::user::{channel}{suffix}")).into(),
            ),
        ] {
            let mut data = json!({ "channel": channel, "auth": auth });
            if !channel_data.is_empty() {
                data["channel_data"] = channel_data.into();
            }
            client
                .say(&json!({ "event": "pusher:subscribe", "data": data }))
                .await;
            let text = client.expect_refusal(&channel, "AuthError", 401).await;
            assert!(
                !text.contains(digest),
                "{what}: the expected digest is never told: {text}"
            );
        }
    }
    assert_eq!(
        server.backend().await.channels().await,
        json!({}),
        "nobody got in"
    );
    assert_eq!(server.metric("channel_subscriptions_total", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_what_was_signed_and_closes_nothing() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    client
        .say(&json!({ "event": "pusher:subscribe",
            "data": { "channel": "private-a", "auth": format!("{KEY}:{}", "0".repeat(64)) } }))
        .await;
    assert_eq!(
        client.next().await,
        json!({ "event": "pusher:subscription_error", "channel": "private-a",
            "data": r#"{"type":"AuthError","error":"Invalid signature","status":401}"# })
    );
    let text = format!(
        "Invalid signature: expected HMAC SHA256 hex digest of {}:private-a",
        client.socket_id
    );
    assert_eq!(
        client.next().await,
        json!({ "event": "pusher:error", "channel": "private-a", "data": { "code": 4009, "message": text } })
    );
    client.subscribe("private-a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_may_be_in_capitals_and_cover_data_on_any_channel() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let auth = client.auth("private-a", "");
    let (key, digest) = auth.rsplit_once(':').expect("KEY:HEX");
    let auth = format!("{key}:{}", digest.to_uppercase());
    client
        .say(&json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": auth } }))
        .await;
    client.expect_subscribed("private-a").await;
    // What SDKs do with `authorizeChannel(channel, socket, data)`: the data is part of what is signed.
    client.ask_for("private-b", r#"{"a":1}"#).await;
    client.expect_subscribed("private-b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn illegal_names_of_every_kind_are_refused() {
    let server = TestServer::start().await;
    let mut client = server.connect().await;
    let long = "x".repeat(200);
    client.subscribe(&long).await;
    let longer = "x".repeat(201);
    client.ask_for(&longer, "").await;
    client.expect_refusal(&longer, "LimitReached", 4009).await;
    for name in [
        "",
        " ",
        "a b",
        "a/b",
        "a:b",
        "a#b",
        "#a",
        "#",
        "#server-to-user",
        "#Server-to-user-1",
        "ä",
        "a\n",
        "\u{0}",
        "a\"b",
        "a'b",
        "a*b",
        "a+b",
        "a?b",
        "a%20b",
        "a\\b",
        "private-a b",
        "presence-ä",
        "🙂",
        "a\u{202e}b",
    ] {
        client.ask_for(name, "").await;
        client.expect_refusal(name, "InvalidChannel", 400).await;
        // Nobody can be subscribed to it, so there is nothing to take back.
        client.unsubscribe(name).await;
    }
    for name in [
        json!(7),
        json!(null),
        json!(["a"]),
        json!({ "a": 1 }),
        json!(true),
    ] {
        client
            .say(&json!({ "event": "pusher:subscribe", "data": { "channel": name } }))
            .await;
        client.expect_error(Value::Null).await;
        client
            .say(&json!({ "event": "pusher:unsubscribe", "data": { "channel": name } }))
            .await;
        client.expect_error(Value::Null).await;
    }
    client.expect_silence().await;
    server.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_subscription_is_acknowledged_and_changes_nothing() {
    let server = TestServer::with_app(AppConfig {
        subscription_count_events: true,
        ..app()
    })
    .await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    client.subscribe("cache-a").await;
    client.expect("pusher:cache_miss").await;
    client.expect("pusher_internal:subscription_count").await;
    backend.publish("cache-a", "ev", "1").await;
    client.expect("ev").await;
    client.subscribe("cache-a").await;
    // Neither the cached event nor a count again; and one copy of what follows.
    backend.publish("cache-a", "ev", "2").await;
    assert_eq!(client.expect("ev").await["data"], "2");
    backend.publish("cache-a", "last", "").await;
    client.expect("last").await;
    assert_eq!(
        backend.channels().await,
        json!({ "cache-a": { "subscription_count": 1 } })
    );
    // The signature is looked at again.
    client.subscribe("private-a").await;
    client.expect("pusher_internal:subscription_count").await;
    client
        .say(&json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": "key:00" } }))
        .await;
    client.expect_refusal("private-a", "AuthError", 401).await;
    backend.publish("private-a", "ev", "still subscribed").await;
    client.expect("ev").await;
    // Once is enough to leave.
    client.unsubscribe("cache-a").await;
    client.expect_silence().await;
    assert_eq!(
        backend.channels().await,
        json!({ "private-a": { "subscription_count": 1 } })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unsubscribing_is_silent_and_ends_delivery() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    let mut witness = server.connect().await;
    client.subscribe("a").await;
    witness.subscribe("a").await;
    client.unsubscribe("never-subscribed").await;
    client.unsubscribe("a").await;
    client.unsubscribe("a").await;
    client.expect_silence().await;
    backend.publish("a", "ev", "").await;
    witness.expect("ev").await;
    client.expect_silence().await;
    client.subscribe("a").await;
    backend.publish("a", "again", "").await;
    client.expect("again").await;
    assert_eq!(server.metric("channel_subscriptions_total", &[]).await, 3);
    assert_eq!(server.metric("channel_unsubscriptions_total", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_worked_in_the_order_in_which_it_was_sent() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut client = server.connect().await;
    for round in 0..20 {
        for message in [
            "subscribe",
            "unsubscribe",
            "subscribe",
            "unsubscribe",
            "subscribe",
        ] {
            client
                .say(&json!({ "event": format!("pusher:{message}"), "data": { "channel": "a" } }))
                .await;
        }
        client.say(&json!({ "event": "pusher:ping" })).await;
        // One acknowledgement at least; those of subscriptions taken back meanwhile may be left out.
        let (mut acknowledged, mut has_ponged) = (0, false);
        while !(has_ponged && acknowledged > 0) {
            let message = client.next().await;
            match message["event"].as_str() {
                Some("pusher:pong") => has_ponged = true,
                Some("pusher_internal:subscription_succeeded") => acknowledged += 1,
                _ => panic!("{message}"),
            }
        }
        assert_eq!(
            backend.channels().await,
            json!({ "a": { "subscription_count": 1 } }),
            "round {round}"
        );
        backend.publish("a", "ev", "").await;
        while client.next().await["event"] != "ev" {
            acknowledged += 1;
        }
        assert!(acknowledged <= 3, "{acknowledged}");
        client.unsubscribe("a").await;
        client.expect_silence().await;
        assert_eq!(backend.channels().await, json!({}), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_has_no_more_channels_than_the_app_allows() {
    let server = TestServer::with_app(AppConfig {
        channels_per_connection_max: 3,
        ..app()
    })
    .await;
    let mut client = server.connect().await;
    for channel in ["a", "b", "private-c"] {
        client.subscribe(channel).await;
    }
    client.ask_for("d", "").await;
    client.expect_refusal("d", "LimitReached", 4100).await;
    // One that is held already is no further one, and a place that was left may be taken.
    client.subscribe("a").await;
    client.unsubscribe("b").await;
    client.subscribe("d").await;
    // Neither the user's own channel nor those that are watched were asked for.
    client.sign_in(&json!({ "id": "u" })).await;
    client.unsubscribe("a").await;
    client.subscribe("e").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_server_answers_as_the_hosted_one() {
    let mut config = config([app()]);
    config.server.strict_protocol = true;
    let server = TestServer::with_config(config).await;
    let mut client = server.connect().await;
    client.subscribe("a").await;
    client.ask_for("a", "").await;
    let error = client.expect_error(Value::Null).await;
    assert_eq!(error["data"]["message"], "Existing subscription to channel a");
    client.unsubscribe("b").await;
    let error = client.expect_error(Value::Null).await;
    assert_eq!(
        error["data"]["message"],
        "No current subscription to channel b, or subscription in progress"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_know_nothing_of_each_other() {
    let other = AppConfig {
        id: "2".into(),
        key: "key2".into(),
        ..app()
    };
    let server = TestServer::with_config(config([app(), other])).await;
    let mut ours = server.connect().await;
    let mut theirs = Client::connect(server.address, "/app/key2").await;
    ours.subscribe("a").await;
    theirs.subscribe("a").await;
    server.backend().await.publish("a", "ev", "ours").await;
    assert_eq!(ours.expect("ev").await["data"], "ours");
    let mut backend = server.backend().await;
    (backend.app_id, backend.key) = ("2".into(), "key2".into());
    backend.publish("a", "ev", "theirs").await;
    assert_eq!(theirs.expect("ev").await["data"], "theirs");
    // A signature with the other app's key, over the right text and with the same secret.
    let auth = sign::auth("key2", SECRET, &format!("{}:private-a", ours.socket_id));
    ours.say(&json!({ "event": "pusher:subscribe", "data": { "channel": "private-a", "auth": auth } }))
        .await;
    let text = ours.expect_refusal("private-a", "AuthError", 401).await;
    assert_eq!(text, "Invalid key in subscription auth data: 'key2'");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_exists_while_it_has_subscribers() {
    let server = TestServer::start().await;
    let mut backend = server.backend().await;
    let mut clients = server.connect_many(4).await;
    for (count, client) in clients.iter_mut().enumerate() {
        client.subscribe("a").await;
        assert_eq!(
            backend.channels().await,
            json!({ "a": { "subscription_count": count + 1 } })
        );
    }
    for left in (0..4).rev() {
        clients.pop().expect("one more").close().await;
        backend.wait_for_subscribers("a", left).await;
    }
    assert_eq!(backend.channels().await, json!({}));
    assert_eq!(server.metric("active_channels", &[]).await, 0);
    // To publish to it then is no error.
    backend.publish("a", "ev", "nobody").await;
}
