//! Decisions that take a clock, a text or a pair of sessions to tell apart. What clients see of the others is tested
//! at the edge.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::app::{AppConfig, Apps};
use crate::hub::channel::Channel;
use crate::hub::inbox::Inboxes;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::shard::subscriptions::Subscription;

const KEY: &str = "app-key";
const SECRET: &str = AppConfig::DEMO_SECRET;
const S: u64 = 1_000_000_000;

struct Talk {
    session: Session,
    subscriptions: Subscriptions,
}

impl Talk {
    fn with(config: AppConfig, strict: bool) -> Talk {
        let metrics = Metrics::new("test", 0).expect("a legal prefix");
        let apps = Apps::new([config]).expect("a sound configuration");
        let app = apps.by_key(KEY).expect("the demo app").clone();
        let node = Node::new(apps, Inboxes::new(1, 1), Arc::new(metrics));
        let id = SocketId::from_parts(1, 2);
        Talk {
            session: Session::new(id, node.namespace(&app), 7, strict),
            subscriptions: Subscriptions::default(),
        }
    }

    fn new() -> Talk {
        Talk::with(
            AppConfig {
                client_events: true,
                client_events_per_s: 2,
                ..AppConfig::demo()
            },
            false,
        )
    }

    /// The place of a channel that is held from now on.
    fn hold(&mut self, name: &str) -> u32 {
        let name = ChannelName::parse(name, 200).expect("a legal name");
        let metrics = self.session.namespace.metrics.clone();
        let place = self.subscriptions.next_place();
        self.subscriptions.insert(Subscription {
            channel: Arc::new(Channel::new(Topic::Channel(name), metrics)),
            token: 0,
            position: None,
            user_id: None,
        });
        place
    }

    fn hear_at(&mut self, now_ns: u64, message: &Value) -> Reaction {
        let text = message.to_string();
        let message = ClientMessage::parse(&text).expect("a message with sense");
        self.session.handle(message, &self.subscriptions, now_ns)
    }

    fn hear(&mut self, message: &Value) -> Reaction {
        self.hear_at(0, message)
    }

    /// What it is answered, which must be all that comes of it.
    fn answers(&mut self, message: &Value) -> Vec<Value> {
        match self.hear(message) {
            Reaction::Reply(frames) => frames.iter().map(said).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn sign_in(&self, user_data: &Value) -> Value {
        let user_data = user_data.to_string();
        let auth = auth::sign(SECRET, &auth::user_string(self.session.socket_id, &user_data));
        json!({ "event": "pusher:signin",
            "data": { "auth": format!("{KEY}:{auth}"), "user_data": user_data } })
    }
}

fn said(frame: &Frame) -> Value {
    let bytes = frame.as_bytes();
    // Not the first brace: the header holds a length, which may look like one.
    let begin = bytes.windows(2).position(|two| two == br#"{""#).expect("JSON");
    serde_json::from_slice(&bytes[begin..]).expect("JSON to the end")
}

fn subscribe(channel: &str, auth: &Value) -> Value {
    json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth } })
}

fn unsubscribe(channel: &str) -> Value {
    json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })
}

fn client_event(event: &str, channel: &str, data: &str) -> Value {
    json!({ "event": event, "channel": channel, "data": data })
}

#[test]
fn a_refused_signature_is_told_what_was_wrong_with_it() {
    let missing = "Missing auth: this channel needs a signature";
    let long_key = "ä".repeat(100);
    for (auth, text) in [
        (Value::Null, missing.to_owned()),
        ("".into(), missing.to_owned()),
        (
            7.into(),
            "auth must be a string of the form KEY:SIGNATURE".to_owned(),
        ),
        ("0".into(), "auth must be of the form KEY:SIGNATURE".to_owned()),
        (
            ":0".into(),
            "Invalid key in subscription auth data: ''".to_owned(),
        ),
        (
            "a:b:0".into(),
            "Invalid key in subscription auth data: 'a:b'".to_owned(),
        ),
        (
            format!("{long_key}:0").into(),
            format!("Invalid key in subscription auth data: '{}'", "ä".repeat(64)),
        ),
        (
            format!("{KEY}:0").into(),
            "Invalid signature: expected HMAC SHA256 hex digest of 1.2:private-a".to_owned(),
        ),
    ] {
        let answers = Talk::new().answers(&subscribe("private-a", &auth));
        assert_eq!(answers[0]["event"], "pusher:subscription_error", "{auth}");
        assert_eq!(
            answers[1]["data"],
            json!({ "code": 4009, "message": text }),
            "{auth}"
        );
        assert_eq!(answers.len(), 2, "{auth}");
    }
}

#[test]
fn an_answer_holds_no_more_than_the_beginning_of_what_was_signed() {
    let mut talk = Talk::new();
    for letter in ["x", "é", "🙂"] {
        let channel_data = letter.repeat(5_000);
        let mut message = subscribe("private-a", &format!("{KEY}:0").into());
        message["data"]["channel_data"] = channel_data.into();
        for answer in talk.answers(&message) {
            assert!(answer.to_string().len() < TOLD_BYTES_MAX + 300, "{answer}");
        }
    }
}

/// Who lost the right to a channel does not get it confirmed because it is still held.
#[test]
fn a_channel_that_is_held_needs_its_signature_again() {
    let mut talk = Talk::new();
    let place = talk.hold("private-a");
    let signed = auth::sign(SECRET, "1.2:private-a");
    let again = talk.hear(&subscribe("private-a", &format!("{KEY}:{signed}").into()));
    assert!(
        matches!(again, Reaction::AcknowledgeAgain(at) if at == place),
        "{again:?}"
    );
    let answers = talk.answers(&subscribe("private-a", &format!("{KEY}:0").into()));
    assert_eq!(answers[0]["event"], "pusher:subscription_error");
}

#[test]
fn only_a_strict_server_minds_what_changes_nothing() {
    for strict in [false, true] {
        let mut talk = Talk::with(AppConfig::demo(), strict);
        let place = talk.hold("a");
        for (message, error) in [
            (subscribe("a", &"".into()), "Existing subscription to channel a"),
            (
                unsubscribe("b"),
                "No current subscription to channel b, or subscription in progress",
            ),
            (
                unsubscribe("no name"),
                "No current subscription to channel no name, or subscription in progress",
            ),
            (
                unsubscribe("#server-to-user-1"),
                "No current subscription to channel #server-to-user-1, or subscription in progress",
            ),
        ] {
            match talk.hear(&message) {
                Reaction::Reply(frames) if strict => {
                    assert_eq!(said(&frames[0])["data"]["message"], error);
                }
                Reaction::AcknowledgeAgain(at) if !strict => assert_eq!(at, place),
                Reaction::Nothing if !strict => {}
                other => panic!("strict {strict}, {message}: {other:?}"),
            }
        }
        let leaves = talk.hear(&unsubscribe("a"));
        assert!(
            matches!(leaves, Reaction::Unsubscribe(at) if at == place),
            "{leaves:?}"
        );
    }
}

#[test]
fn a_client_event_is_told_the_first_thing_that_is_wrong_with_it() {
    let mut talk = Talk::new();
    talk.hold("private-a");
    talk.hold("public");
    let long_name = format!("client-{}", "n".repeat(200));
    let much_data = "d".repeat(10_241);
    for (event, channel, data, code, text) in [
        (
            &*long_name,
            "a b",
            &*much_data,
            json!(4301),
            "its name is over 200 characters",
        ),
        (
            "client-x",
            "a b",
            &much_data,
            json!(4301),
            "its data is over 10240 bytes",
        ),
        (
            "client-x",
            "public",
            "",
            Value::Null,
            "only private and presence channels take client events",
        ),
        (
            "client-x",
            "private-b",
            "",
            Value::Null,
            "not subscribed to private-b",
        ),
    ] {
        let answers = talk.answers(&client_event(event, channel, data));
        let text = format!("Client event rejected: {text}");
        assert_eq!(answers[0]["data"], json!({ "code": code, "message": text }));
        assert_eq!(answers[0]["channel"], channel);
        assert_eq!(answers.len(), 1);
    }
    let mut talk = Talk::with(
        AppConfig {
            client_events: false,
            ..AppConfig::demo()
        },
        false,
    );
    let answers = talk.answers(&client_event(&long_name, "a b", ""));
    assert_eq!(
        answers[0]["data"]["message"],
        "Client event rejected: client events are not enabled for this app"
    );
}

#[test]
fn only_client_events_that_are_in_order_count_against_the_rate() {
    let mut talk = Talk::new();
    let place = talk.hold("private-a");
    for _ in 0..100 {
        talk.answers(&client_event("client-x", "private-b", ""));
        talk.answers(&client_event("client-x", "private-a", &"d".repeat(10_241)));
    }
    let good = client_event("client-x", "private-a", "");
    // Two per second: two at once, then one each half second; a refused one costs nothing either.
    for (now_ns, goes_out) in [
        (0, true),
        (0, true),
        (0, false),
        (S / 2 - 1, false),
        (S / 2, true),
        (S / 2, false),
        (9 * S, true),
        (9 * S, true),
        (9 * S, false),
    ] {
        match talk.hear_at(now_ns, &good) {
            Reaction::Publish(at, _) if goes_out => assert_eq!(at, place),
            Reaction::OverLimit(frame) if !goes_out => assert_eq!(
                said(&frame),
                json!({ "event": "pusher:error", "channel": "private-a", "data": {
                    "code": 4301, "message": "Client event rejected: over 2 messages per second" } })
            ),
            other => panic!("at {now_ns}: {other:?}"),
        }
    }
}

/// A page that comes back with all its channels is not slowed down; what never ends is.
#[test]
fn joining_and_leaving_without_end_makes_pauses() {
    let mut session = Talk::new().session;
    for _ in 0..MEMBERSHIP_BURST {
        assert_eq!(session.charge_membership(0), Ok(()));
    }
    assert_eq!(session.charge_membership(0), Err(Duration::from_millis(1)));
    // What all members hear of is counted for itself.
    for _ in 0..NEWS_BURST {
        assert_eq!(session.charge_news(0), Ok(()));
    }
    assert_eq!(session.charge_news(0), Err(Duration::from_millis(50)));
    assert_eq!(session.charge_membership(S / 1_000), Ok(()));
    assert_eq!(session.charge_news(S / 20), Ok(()));
}

#[test]
fn a_watchlist_that_was_cut_is_told_only_where_there_are_watchlists() {
    for watchlist in [false, true] {
        let mut talk = Talk::with(
            AppConfig {
                watchlist,
                watchlist_length_max: 2,
                ..AppConfig::demo()
            },
            false,
        );
        let message = talk.sign_in(&json!({ "id": "1", "watchlist": ["2", "3", "4"] }));
        let Reaction::SignIn(user, replies) = talk.hear(&message) else {
            panic!("rightly signed");
        };
        assert_eq!(user.watchlist, ["2", "3"]);
        let events: Vec<Value> = replies.iter().map(|frame| said(frame)["event"].take()).collect();
        let expected: &[&str] = match watchlist {
            false => &["pusher:signin_success"],
            true => &["pusher:signin_success", "pusher:error"],
        };
        assert_eq!(events, expected);
    }
}

#[test]
fn a_socket_is_one_user_for_life() {
    let mut talk = Talk::new();
    let (one, other) = (
        talk.sign_in(&json!({ "id": "1" })),
        talk.sign_in(&json!({ "id": "2" })),
    );
    let Reaction::SignIn(user, _) = talk.hear(&one) else {
        panic!("rightly signed");
    };
    // Nothing is true before it has been carried out.
    assert!(matches!(talk.hear(&other), Reaction::SignIn(..)));
    talk.session.user = Some(Box::new(user));
    assert_eq!(
        talk.answers(&other)[0]["data"],
        json!({ "code": 4009, "message": "Already signed in as user 1" })
    );
    assert!(matches!(talk.hear(&one), Reaction::SignIn(..)));
}
