//! The checks. Each kind of broker is held to all of them; one that takes seconds to start is started once, for all
//! checks one after the other. Where only the way in differs, by a name, a key or a certificate, what lies behind is the
//! plain server's, and only those checks are made that depend on the way: every lane and every right is there, big
//! messages come through, and the broker is found again; with TLS, which takes further steps, a frozen one is left.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::{Event, NodeId, Topic};

use crate::node::{Ground, Process};

const CHANNELS: Topic = Topic::Channels(7);
const TOPICS: [Topic; 5] = [
    Topic::Beats,
    Topic::Roster,
    Topic::Node(NodeId(1)),
    CHANNELS,
    Topic::Channels(8),
];

/// Five seconds are promised, and a busy machine may take as long again.
const SOON: Duration = Duration::from_secs(10);

/// No time at all is needed, and a busy machine takes some.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Writes a test of each check for one kind of broker.
macro_rules! suite {
    ($ground:expr) => {
        $crate::suite::suite!(every check: each; $ground;);
    };
    (of processes: $ground:expr) => {
        $crate::suite::suite!(every check: each; $ground; a_frozen_broker_is_left_and_found_again);
    };
    (one after the other: $ground:expr) => {
        $crate::suite::suite!(every check: together; $ground; a_frozen_broker_is_left_and_found_again);
    };
    (of another way in: $ground:expr) => {
        $crate::suite::suite!(each; $ground;
            what_is_confirmed_is_heard_in_order_on_every_lane
            own_messages_come_back
            unwanted_topics_are_silent
            big_messages_come_whole_or_are_given_up
            what_was_wanted_is_heard_again_after_a_restart
        );
    };
    (every check: $how:ident; $ground:expr; $($more:ident)*) => {
        $crate::suite::suite!($how; $ground;
            what_is_confirmed_is_heard_in_order_on_every_lane
            own_messages_come_back
            unwanted_topics_are_silent
            a_new_wish_is_confirmed_anew_and_the_highest_holds
            many_wishes_at_once_are_all_confirmed
            big_messages_come_whole_or_are_given_up
            two_clusters_do_not_hear_each_other
            a_slow_reader_is_refused_and_the_rest_goes_on
            what_was_wanted_is_heard_again_after_a_restart
            $($more)*
        );
    };
    (each; $ground:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::suite::$check(&mut $ground).await;
            }
        )*
    };
    (together; $ground:expr; $($check:ident)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn every_check() {
            let mut ground = $ground;
            $(
                println!("{}", stringify!($check));
                $crate::suite::$check(&mut ground).await;
            )*
        }
    };
}
pub(crate) use suite;

fn texts(count: usize) -> impl Iterator<Item = Bytes> {
    (0..count).map(|number| format!("{number}\r\n\0é").into())
}

pub(crate) async fn what_is_confirmed_is_heard_in_order_on_every_lane(ground: &mut impl Ground) {
    let (mut hearer, first, second) = (ground.node().await, ground.node().await, ground.node().await);
    for topic in TOPICS {
        hearer.want(topic, 1).await;
        assert_eq!(first.publish(topic, texts(500)).await, [true; 500]);
        for text in texts(500) {
            assert_eq!(hearer.hear(topic).await, text);
        }
    }
    // Two senders at once: each in its own order.
    let of = |sender: &'static str| (0..300).map(move |number| Bytes::from(format!("{sender}{number}")));
    let (one, other) = tokio::join!(
        first.publish(CHANNELS, of("a")),
        second.publish(CHANNELS, of("b"))
    );
    assert!(one.into_iter().chain(other).all(|accepted| accepted));
    let mut expected = [of("a"), of("b")];
    for _ in 0..600 {
        let heard = hearer.hear(CHANNELS).await;
        let sender = usize::from(heard[0] == b'b');
        assert_eq!(Some(heard), expected[sender].next());
    }
}

pub(crate) async fn own_messages_come_back(ground: &mut impl Ground) {
    let mut node = ground.node().await;
    for topic in TOPICS {
        node.want(topic, 1).await;
        node.say(topic, "to myself").await;
        assert_eq!(node.hear(topic).await, "to myself");
    }
}

pub(crate) async fn unwanted_topics_are_silent(ground: &mut impl Ground) {
    let (mut node, other) = (ground.node().await, ground.node().await);
    // Of the same lane, so that what comes of the one would come before what comes of the other.
    let [wanted, unwanted] = [Topic::Channels(6), Topic::Channels(8)];
    node.want(wanted, 1).await;
    node.want(unwanted, 1).await;
    node.adapter.want(unwanted, false, 2);
    // It takes a moment until the broker knows.
    let deadline = Instant::now() + SOON;
    loop {
        other.say(unwanted, "for nobody").await;
        other.say(wanted, "for all").await;
        match node.next(wanted, "a message").await {
            Event::Heard(message) if message.topic == wanted => break,
            _ => assert!(Instant::now() < deadline, "{unwanted} is heard still"),
        }
        node.hear(wanted).await;
    }
    // Never wanted at all.
    other.say(Topic::Channels(10), "for nobody").await;
    other.say(wanted, "the end").await;
    assert!(
        matches!(node.next(wanted, "a message").await, Event::Heard(message) if message.bytes == "the end")
    );
}

pub(crate) async fn a_new_wish_is_confirmed_anew_and_the_highest_holds(ground: &mut impl Ground) {
    let mut node = ground.node().await;
    node.want(CHANNELS, 1).await;
    node.want(CHANNELS, 2).await;
    node.adapter.want(CHANNELS, false, 3);
    node.want(CHANNELS, 5).await;
    // Late ones, which were overtaken.
    node.adapter.want(CHANNELS, false, 4);
    node.adapter.want(CHANNELS, true, 2);
    node.want(Topic::Channels(9), 1).await;
    node.say(CHANNELS, "still here").await;
    assert_eq!(node.hear(CHANNELS).await, "still here");
}

pub(crate) async fn many_wishes_at_once_are_all_confirmed(ground: &mut impl Ground) {
    let mut node = ground.node().await;
    for number in 0..AdapterConfig::default().topics {
        node.adapter.want(Topic::Channels(number), true, 1);
    }
    for lane in [Topic::Channels(0), Topic::Channels(1)] {
        let mut confirmed = 0;
        while confirmed < usize::from(AdapterConfig::default().topics) / 2 {
            confirmed += usize::from(matches!(node.next(lane, "all").await, Event::Confirmed(_, 1)));
        }
    }
}

pub(crate) async fn big_messages_come_whole_or_are_given_up(ground: &mut impl Ground) {
    let (mut node, other) = (ground.node().await, ground.node().await);
    node.want(CHANNELS, 1).await;
    for length in [1 << 20, 5 << 20] {
        let big = Bytes::from_iter((0..length).map(|place: usize| (place % 251) as u8));
        let fits = ground.message_bytes_max().is_none_or(|max| length <= max);
        let batch = [big.clone(), Bytes::from_static(b"behind it")];
        // One that the broker can never take would hold up what comes behind it for ever.
        assert_eq!(other.publish(CHANNELS, batch).await, [true, true]);
        if fits {
            assert!(node.hear(CHANNELS).await == big, "{length} bytes come whole");
        }
        assert_eq!(node.hear(CHANNELS).await, "behind it");
    }
}

pub(crate) async fn two_clusters_do_not_hear_each_other(ground: &mut impl Ground) {
    let mut node = ground.node_of("fanwire.a", 64 << 20).await;
    let other = ground.node_of("fanwire.b", 64 << 20).await;
    let own = ground.node_of("fanwire.a", 64 << 20).await;
    for topic in TOPICS {
        node.want(topic, 1).await;
        other.say(topic, "from elsewhere").await;
        own.say(topic, "from here").await;
        assert_eq!(node.hear(topic).await, "from here");
    }
}

pub(crate) async fn a_slow_reader_is_refused_and_the_rest_goes_on(ground: &mut impl Ground) {
    let mut node = ground.node_of("fanwire", 100_000).await;
    let other = ground.node().await;
    node.want(CHANNELS, 1).await;
    let message = || Bytes::from(vec![7; 1000]);
    for _ in 0..10 {
        let batch = (0..100).map(|_| message());
        assert_eq!(other.publish(CHANNELS, batch).await, [true; 100]);
    }
    let deadline = Instant::now() + SOON;
    while node.sink.refused() < 900 {
        assert!(Instant::now() < deadline, "refused {}", node.sink.refused());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.sink.refused(), 900);
    for _ in 0..100 {
        assert_eq!(node.hear(CHANNELS).await, message());
    }
    other.say(CHANNELS, "after").await;
    assert_eq!(node.hear(CHANNELS).await, "after");
    assert!(node.adapter.health().is_whole());
    assert_eq!(node.adapter.health().reconnects, 0);
}

pub(crate) async fn what_was_wanted_is_heard_again_after_a_restart(ground: &mut impl Ground) {
    let mut node = ground.node().await;
    for topic in TOPICS {
        node.want(topic, 5).await;
    }
    assert_eq!(node.adapter.health().reconnects, 0);
    ground.stop();
    node.cut_off().await;
    let asked = Instant::now();
    assert_eq!(node.publish(CHANNELS, texts(2)).await, [false, false]);
    assert!(asked.elapsed() < AT_ONCE, "refused after {:?}", asked.elapsed());
    ground.start();
    let back = Instant::now();
    // `Lost` comes before the confirmation: `lost` refuses any other order.
    let of_each_lane = [Topic::Beats, Topic::Roster, CHANNELS, Topic::Channels(8)];
    for topic in of_each_lane {
        node.lost(topic).await;
        node.confirmed(topic, 5).await;
    }
    // Hearing may be back before publishing is.
    node.whole().await;
    for topic in of_each_lane {
        node.say(topic, "after").await;
        assert_eq!(node.hear(topic).await, "after");
    }
    assert!(back.elapsed() < SOON, "heard again after {:?}", back.elapsed());
    let health = node.adapter.health();
    assert!(health.reconnects >= health.wanted as u64, "{health:?}");
}

pub(crate) async fn a_frozen_broker_is_left_and_found_again(ground: &mut impl Process) {
    let mut node = ground.node().await;
    for topic in [Topic::Beats, CHANNELS] {
        node.want(topic, 1).await;
    }
    ground.freeze();
    let frozen = Instant::now();
    assert_eq!(node.publish(CHANNELS, texts(3)).await, [false; 3]);
    node.cut_off().await;
    for topic in [Topic::Beats, CHANNELS] {
        node.lost(topic).await;
    }
    assert!(frozen.elapsed() < SOON, "noticed after {:?}", frozen.elapsed());
    let asked = Instant::now();
    assert_eq!(node.publish(CHANNELS, texts(1)).await, [false]);
    assert!(asked.elapsed() < AT_ONCE, "refused after {:?}", asked.elapsed());
    ground.thaw();
    let back = Instant::now();
    for topic in [Topic::Beats, CHANNELS] {
        node.confirmed(topic, 1).await;
    }
    node.whole().await;
    for topic in [Topic::Beats, CHANNELS] {
        node.say(topic, "after").await;
        // What was published while nobody answered may come now, too.
        while node.hear(topic).await != "after" {}
    }
    assert!(back.elapsed() < SOON, "heard again after {:?}", back.elapsed());
}
