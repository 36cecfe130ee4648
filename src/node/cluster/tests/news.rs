//! What the subscribers of one node hear of what another one says: many members at once, users, counts, last events.

use super::*;
use crate::adapter::config::AdapterConfig;
use crate::adapter::memory::{Bus, Memory};
use crate::adapter::{self, Link, Sink};
use crate::app::Settings;
use crate::hub::inbox::CacheAnswer;
use crate::node::cluster::Incoming;
use crate::node::{Cluster, Publication, now};
use crate::protocol::frame::Frame;
use crate::protocol::server;
use crate::relay::envelope::{Author, Body, Envelope};
use crate::relay::{Origin, Stamp};
use crate::roster::delta::MemberEntry;

const PEER: NodeId = NodeId(77);

/// The frames for the subscribers here, and what joins brought with them.
fn heard(machine: &Machine) -> (Vec<Value>, Vec<CacheAnswer>) {
    let mut entries = Vec::new();
    machine.node.inboxes().of(0).take(Waker::noop(), &mut entries);
    let (mut messages, mut answers) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Entry::Broadcast(broadcast) => {
                messages.push(serde_json::from_slice(broadcast.frame.payload()).expect("JSON"));
            }
            Entry::Join(join) => answers.push(join.cache),
            other => panic!("unexpected: {other:?}"),
        }
    }
    (messages, answers)
}

fn joiner(slot: u32) -> Joiner {
    Joiner {
        shard: 0,
        socket: SocketKey { slot, generation: 0 },
        place: 0,
        token: 0,
    }
}

fn channel(name: &str, count: u32, members: Vec<MemberEntry>) -> delta::Entry {
    delta::Entry::Channel {
        app: AppConfig::demo().id.into(),
        channel: name.into(),
        count,
        members,
    }
}

fn member(number: usize) -> MemberEntry {
    MemberEntry {
        user_id: format!("member-{number}").into(),
        claim: Some((format!("{{\"name\":\"{number:>100}\"}}").into(), Stamp(1))),
    }
}

/// Brings a node into line with what the peer has, and asks of each slice that it is no larger than it may be. How
/// many slices there were.
fn settle(
    machine: &Machine,
    mut settling: Settling,
    digest: &mut Digest,
    event: &str,
    members: usize,
) -> usize {
    let mut now = Instant::now();
    let (mut slices, mut told) = (0, 0);
    let mut slice_bytes = 0;
    loop {
        let settled = settling.step(&machine.node, digest, now);
        let (messages, _) = heard(machine);
        for message in &messages {
            assert_eq!(message["event"], event);
            slice_bytes += message.to_string().len();
        }
        told += messages.len();
        match settled {
            Settled::Soon => continue,
            Settled::At(next) => {
                assert!(next > now && next <= now + Duration::from_millis(100));
                now = next;
            }
            Settled::Done => {
                assert_eq!(told, members);
                return slices + 1;
            }
        }
        assert!(slice_bytes <= 65 * 1024, "{slice_bytes} bytes of news at once");
        (slices, slice_bytes) = (slices + 1, 0);
    }
}

#[test]
fn a_crowd_comes_and_goes_in_slices() {
    let mut machine = Machine::new(0);
    machine.join("presence-a", 1, 1);
    let mut whole = Whole::default();
    whole.apply(channel("presence-a", 5_000, (0..5_000).map(member).collect()));
    // Nobody here would hear of these: they do not have to be slow.
    whole.apply(channel("presence-b", 5_000, (0..5_000).map(member).collect()));
    let mut digest = Digest::default();
    let settling = Settling::new(&machine.node, PEER, whole.clone());
    let slices = settle(
        &machine,
        settling,
        &mut digest,
        "pusher_internal:member_added",
        5_000,
    );
    assert!((10..40).contains(&slices), "{slices} slices");

    let settling = Settling::new(&machine.node, PEER, whole);
    let again = settle(&machine, settling, &mut digest, "nothing", 0);
    assert_eq!(again, 1, "who is known to be there is no news");

    let settling = Settling::lost(&machine.node, PEER);
    settle(
        &machine,
        settling,
        &mut digest,
        "pusher_internal:member_removed",
        5_000,
    );
    assert_eq!(digest, Digest::default(), "nothing of it is left");
    let channels = machine.node.channels(&machine.app, "");
    assert_eq!(channels.len(), 1, "{channels:?}");
}

#[test]
fn what_cannot_be_is_passed_over_and_an_app_may_be_served_later() {
    let machine = Machine::new(0);
    let mut digest = Digest::default();
    let other_app = delta::Entry::Connections {
        app: "later".into(),
        count: 7,
    };
    let entries = [
        other_app,
        delta::Entry::Channel {
            app: "later".into(),
            channel: "presence-a".into(),
            count: 2,
            members: vec![member(1)],
        },
        channel("no such name!", 1, vec![]),
        channel("a", 1, vec![member(1)]),
    ];
    assert_eq!(machine.node.apply(PEER, &entries, &mut digest, Instant::now()), 1);
    let mut whole = Whole::default();
    entries.into_iter().for_each(|entry| whole.apply(entry));
    let mut settling = Settling::new(&machine.node, PEER, whole);
    while settling.step(&machine.node, &mut digest, Instant::now()) != Settled::Done {}
    assert_eq!(settling.ignored(), 1);
    assert!(machine.node.apps().by_id("later").is_none());
    let config = AppConfig {
        id: "later".into(),
        ..AppConfig::demo()
    };
    let served = machine
        .node
        .apply_app(Settings::new(config).expect("an app in order"));
    assert_eq!(served.connections_everywhere(), 7);
    let name = ChannelName::parse("presence-a", 200).expect("legal");
    let detail = machine.node.channel(&served, &name);
    assert_eq!((detail.subscription_count, detail.user_count), (2, Some(1)));
    let detail = machine
        .node
        .channel(&machine.app, &ChannelName::parse("a", 200).expect("legal"));
    assert_eq!(
        (detail.subscription_count, detail.user_count),
        (1, None),
        "a public channel has no members"
    );
}

#[test]
fn a_user_is_online_while_a_socket_here_or_another_node_says_so() {
    let machine = Machine::new(0);
    let namespace = machine.node.namespace(&machine.app);
    let user: Arc<str> = "42".into();
    let (watch, is_online) = machine.node.watch(&namespace, &user, joiner(1));
    assert!(!is_online);
    heard(&machine);
    let mut digest = Digest::default();
    let mut say = |peer, count| {
        let entry = channel("#server-to-user-42", count, vec![]);
        machine.node.apply(peer, &[entry], &mut digest, Instant::now());
        let late = Instant::now() + Duration::from_secs(3_600);
        machine.node.offline_due(&namespace, &watch, late);
        heard(&machine).0
    };
    let frame = |online: &[&str], offline: &[&str]| {
        let frame = server::watchlist_events(online, offline).expect("some");
        vec![serde_json::from_slice::<Value>(frame.payload()).expect("JSON")]
    };
    assert_eq!(say(PEER, 2), frame(&["42"], &[]));
    assert_eq!(say(PEER, 1), [] as [Value; 0], "one socket less");
    assert_eq!(say(NodeId(78), 1), [] as [Value; 0], "online already");
    assert_eq!(say(PEER, 0), [] as [Value; 0], "still elsewhere");
    machine.node.user_came(&namespace, &user);
    assert_eq!(say(NodeId(78), 0), [] as [Value; 0], "still here");
    machine.node.user_went(&namespace, &user);
    assert_eq!(say(PEER, 0), frame(&[], &["42"]));
}

#[test]
fn subscribers_hear_the_count_of_the_whole_cluster() {
    let mut machine = Machine::new(0);
    let mut digest = Digest::default();
    let mut say = |machine: &Machine, count| {
        machine.node.apply(
            PEER,
            &[channel("plain", count, vec![])],
            &mut digest,
            Instant::now(),
        );
        let told = |message: &Value| message["data"].as_str().map(str::to_owned);
        heard(machine).0.iter().filter_map(told).collect::<Vec<_>>()
    };
    assert_eq!(say(&machine, 2), [] as [String; 0], "nobody is here to hear it");
    machine.join("plain", 0, 0);
    assert_eq!(say(&machine, 3), [r#"{"subscription_count":4}"#]);
    assert_eq!(say(&machine, 3), [] as [String; 0], "twice is once");
    assert_eq!(say(&machine, 0), [r#"{"subscription_count":1}"#]);
}

#[test]
fn of_two_last_events_the_later_one_is_kept_wherever_it_was_published() {
    let (publisher, other) = (Machine::new(0), Machine::new(1));
    let name = ChannelName::parse("cache-a", 200).expect("legal");
    let publish = |machine: &Machine, data: &str| {
        let publication = Publication {
            channels: vec![name.clone()],
            event: "e".into(),
            data: data.into(),
            except: None,
        };
        machine.node.publish(&machine.app, [&publication]);
    };
    let shown = |machine: &Machine| {
        machine
            .node
            .channel(&machine.app, &name)
            .cache
            .map(|event| event.data)
    };
    let told = |machine: &Machine| {
        let mut entries = Vec::new();
        machine.node.flush(Instant::now(), |piece| {
            entries.extend(delta::read(piece).expect("well-formed"));
            0
        });
        entries
    };
    let hear = |machine: &Machine, entries: &[delta::Entry]| {
        let mut digest = Digest::default();
        assert_eq!(machine.node.apply(PEER, entries, &mut digest, Instant::now()), 0);
    };
    publish(&publisher, "1");
    publish(&publisher, "2");
    let second = told(&publisher);
    assert_eq!(second.len(), 1, "only the last one travels: {second:?}");
    publish(&publisher, "3");
    let third = told(&publisher);
    hear(&other, &third);
    assert_eq!(
        shown(&other).as_deref(),
        Some("3"),
        "of a channel that was never heard of"
    );
    hear(&other, &second);
    assert_eq!(shown(&other).as_deref(), Some("3"), "the older one came late");
    publish(&other, "4");
    hear(&other, &third);
    assert_eq!(shown(&other).as_deref(), Some("4"));
    hear(&publisher, &told(&other));
    assert_eq!(shown(&publisher).as_deref(), Some("4"));

    let too_late = third.into_iter().map(|entry| match entry {
        delta::Entry::Cached {
            app, channel, frame, ..
        } => delta::Entry::Cached {
            app,
            channel,
            frame,
            origin: Origin {
                stamp: Stamp(u64::MAX),
                node: PEER,
            },
            left_ms: 0,
        },
        other => other,
    });
    hear(&publisher, &too_late.collect::<Vec<_>>());
    assert_eq!(
        shown(&publisher).as_deref(),
        Some("4"),
        "no time is left to the other"
    );
}

#[test]
fn a_burst_is_told_together_and_alone_a_node_tells_nothing() {
    let mut machine = Machine::new(0);
    (0..1_000).for_each(|user| machine.join("presence-a", user as u8, 0));
    let mut pieces = Vec::new();
    machine.node.flush(Instant::now(), |piece| {
        pieces.push(piece);
        0
    });
    assert_eq!(pieces.len(), 1);
    let entries = delta::read(pieces.remove(0)).expect("well-formed");
    assert!(
        matches!(&entries[..], [delta::Entry::Channel { count: 1_000, members, .. }] if members.len() == 256),
        "{entries:?}"
    );
    machine
        .node
        .flush(Instant::now(), |_| panic!("nothing has changed since"));
    machine.leave(0);
    let slots: Vec<_> = machine.sockets.keys().copied().collect();
    slots.iter().for_each(|_| machine.leave(0));
    machine.node.flush(Instant::now(), |piece| {
        pieces.push(piece);
        0
    });
    let entries = delta::read(pieces.remove(0)).expect("well-formed");
    assert!(
        matches!(&entries[..], [delta::Entry::Channel { count: 0, .. }]),
        "the last leave, too"
    );
    assert!(machine.node.channels(&machine.app, "").is_empty());

    let alone = Machine::new(0);
    let node = Node {
        announcer: None,
        ..alone.node
    };
    let name = ChannelName::parse("a", 200).expect("legal");
    node.subscribe(&node.namespace(&alone.app), &name, joiner(1), None)
        .expect("not full");
    node.flush(Instant::now(), |_| panic!("there is nobody to tell"));
}

/// A node among others, of which it hears what the test says for them: itself, or through this sink once its tasks run.
pub(super) fn among_others() -> (Machine, Sink, Incoming) {
    let (sink, events) = adapter::events(1, 1 << 20);
    let link = Link {
        driver: "memory",
        adapter: Arc::new(Memory::join(&Bus::new(0), sink.clone())),
        events,
        sink: sink.clone(),
    };
    let (joined, incoming) = Cluster::new(AdapterConfig::default(), link);
    let mut machine = Machine::new(0);
    machine.node.join(joined);
    (machine, sink, incoming)
}

/// An event of `cache-a`, as its subscribers get it.
fn price(number: u64) -> Frame {
    Frame::text(format!(
        r#"{{"event":"price","channel":"cache-a","data":"{number}"}}"#
    ))
}

/// The peer announces that it has published an event.
fn announce_price(machine: &Machine, number: u64) {
    let entry = delta::Entry::Cached {
        app: AppConfig::demo().id.into(),
        channel: "cache-a".into(),
        origin: Origin {
            stamp: Stamp(number),
            node: PEER,
        },
        left_ms: 60_000,
        frame: price(number).into_bytes(),
    };
    machine.node.apply(PEER, &[entry], &mut Digest::default(), now());
}

/// The event that a node published comes over the relay. What the subscribers here are sent.
fn relay_price(machine: &Machine, sender: NodeId, number: u64) -> Vec<String> {
    let id = AppConfig::demo().id;
    let envelope = Envelope {
        stamp: Stamp(number),
        body: Body::Event {
            app: &*id,
            channel: "cache-a",
            except: None,
            author: Author::Backend,
            after: 0,
            frame: price(number).into_bytes(),
        },
    };
    let envelope = Envelope::decode(envelope.encode()).expect("well-formed");
    let mut delivery = machine.node.inboxes().deliver();
    machine.node.carry_out(sender, envelope, &mut delivery);
    drop(delivery);
    let (messages, _) = heard(machine);
    let prices = messages.iter().filter(|message| message["event"] == "price");
    prices
        .map(|message| message["data"].as_str().expect("text").to_owned())
        .collect()
}

/// The cached event that somebody who subscribes now gets.
fn price_for_a_newcomer(machine: &Machine, slot: u32) -> Option<String> {
    let name = ChannelName::parse("cache-a", 200).expect("legal");
    let namespace = machine.node.namespace(&machine.app);
    let joined = machine.node.subscribe(&namespace, &name, joiner(slot), None);
    joined.expect("not full");
    match heard(machine).1.pop() {
        Some(CacheAnswer::Hit(frame)) => frame.event_data(),
        Some(CacheAnswer::Miss) => None,
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_got_an_announced_event_when_joining_is_not_sent_it_again_by_the_relay() {
    let (machine, ..) = among_others();
    announce_price(&machine, 2);
    assert_eq!(price_for_a_newcomer(&machine, 1).as_deref(), Some("2"));
    assert_eq!(
        relay_price(&machine, PEER, 1),
        [""; 0],
        "older than what is known"
    );
    assert_eq!(relay_price(&machine, PEER, 2), [""; 0], "what is known");
    assert_eq!(price_for_a_newcomer(&machine, 2).as_deref(), Some("2"));
    let other = NodeId(78);
    assert_eq!(relay_price(&machine, other, 1), ["1"], "nobody was told of it");
    assert_eq!(relay_price(&machine, PEER, 3), ["3"]);
    assert_eq!(price_for_a_newcomer(&machine, 3).as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn where_somebody_is_subscribed_an_announced_event_waits_for_the_relay() {
    let (machine, ..) = among_others();
    let wait = async |ms| {
        let duties = machine.node.work_duties();
        let worked = tokio::time::timeout(Duration::from_millis(ms), duties).await;
        worked.expect_err("duties have no end");
    };
    assert_eq!(price_for_a_newcomer(&machine, 1), None);
    announce_price(&machine, 1);
    assert_eq!(price_for_a_newcomer(&machine, 2), None, "the relay brings it");
    assert_eq!(relay_price(&machine, PEER, 1), ["1"], "to both");
    assert_eq!(price_for_a_newcomer(&machine, 3).as_deref(), Some("1"));
    announce_price(&machine, 2);
    wait(400).await;
    assert_eq!(price_for_a_newcomer(&machine, 4).as_deref(), Some("1"));
    wait(200).await;
    let newest = price_for_a_newcomer(&machine, 5);
    assert_eq!(
        newest.as_deref(),
        Some("2"),
        "the relay does not bring it in time"
    );
    assert_eq!(
        relay_price(&machine, PEER, 2),
        ["2"],
        "who was here before has not got it"
    );
}
