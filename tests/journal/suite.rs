//! The checks. Each kind of broker is held to all of them; one that takes seconds to start is started once, for all
//! checks one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fanwire::webhook::queue::{Partitions, Put, Room};

use crate::ground::{Ground, at, set, text};

/// Within so much everything comes that is on its way, on a machine that is not too busy.
const MOMENT: Duration = Duration::from_millis(1500);

/// Writes a test of each check for one kind of broker.
macro_rules! suite {
    ($ground:expr) => {
        $crate::suite::suite!(every check: each; $ground);
    };
    (in one test: $ground:expr) => {
        $crate::suite::suite!(every check: together; $ground);
    };
    (every check: $how:ident; $ground:expr) => {
        $crate::suite::suite!($how; $ground;
            entries_come_as_they_were_put_and_in_order
            only_the_owner_is_given_entries
            a_killed_node_is_succeeded
            what_is_done_never_comes_again
            what_is_left_comes_again_in_order_when_it_is_asked_for
            two_clusters_do_not_meet
            a_restarted_broker_has_everything_in_order
            a_frozen_broker_has_everything_in_order
            full_is_told_and_passes
            a_full_broker_is_told_and_has_room_again
            owners_change_in_a_burst
            many_entries_are_drained_by_two_owners
        );
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
    (each; $ground:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::suite::$check(&mut $ground).await;
            }
        )*
    };
}
pub(crate) use suite;

pub(crate) async fn entries_come_as_they_were_put_and_in_order(ground: &mut impl Ground) {
    let mut node = ground.node("order").await;
    node.journal.own(Partitions::ALL);
    let entries = [
        Bytes::new(),
        Bytes::from_static(b"\0\r\n$5\xff{}"),
        vec![7; 100_000].into(),
        "last".into(),
    ];
    for entry in &entries {
        for partition in [0, 17, 63] {
            node.put(partition, entry.clone());
        }
    }
    let mut came: BTreeMap<u8, Vec<Bytes>> = BTreeMap::new();
    for _ in 0..3 * entries.len() {
        let taken = node.take().await;
        came.entry(taken.receipt.partition.index())
            .or_default()
            .push(taken.entry);
        node.journal.done(taken.receipt);
    }
    for partition in [0, 17, 63] {
        assert_eq!(came[&partition], entries, "partition {partition}");
    }
    node.sent().await;
    ground.is_bare("order").await;
}

pub(crate) async fn only_the_owner_is_given_entries(ground: &mut impl Ground) {
    let (mut one, mut other) = (ground.node("owner").await, ground.node("owner").await);
    let mut nobody = ground.node("owner").await;
    one.journal.own(set([1]));
    other.journal.own(set([2]));
    for (partition, entry) in [(3, "to nobody"), (2, "to the other"), (1, "to one")] {
        nobody.put(partition, entry);
    }
    assert_eq!(one.text().await, "to one");
    assert_eq!(other.text().await, "to the other");
    for node in [&mut one, &mut other, &mut nobody] {
        node.silent(MOMENT).await;
    }
    nobody.journal.own(set([3]));
    assert_eq!(nobody.text().await, "to nobody");
}

pub(crate) async fn a_killed_node_is_succeeded(ground: &mut impl Ground) {
    let mut killed = ground.node("killed").await;
    killed.journal.own(Partitions::ALL);
    for number in 0..20 {
        killed.put(5, number.to_string());
    }
    for number in 0..10 {
        assert_eq!(killed.text().await, number.to_string());
    }
    killed.sent().await;
    drop(killed);
    let mut successor = ground.node("killed").await;
    successor.put(5, "20");
    successor.journal.own(Partitions::ALL);
    let expected: Vec<_> = (0..=20).map(|number| number.to_string()).collect();
    assert_eq!(
        successor.texts(21).await,
        expected,
        "what it had in hand comes first"
    );
    successor.sent().await;
    ground.is_bare("killed").await;
}

pub(crate) async fn what_is_done_never_comes_again(ground: &mut impl Ground) {
    let mut first = ground.node("done").await;
    first.journal.own(Partitions::ALL);
    for number in 0..10 {
        first.put(5, number.to_string());
    }
    for number in 0..10 {
        let taken = first.take().await;
        assert_eq!(text(&taken), number.to_string());
        if number % 2 == 0 {
            // Said twice it is as true.
            first.journal.done(taken.receipt.clone());
            first.journal.done(taken.receipt);
        }
    }
    first.sent().await;
    let mut second = ground.node("done").await;
    first.journal.own(Partitions::NONE);
    second.journal.own(Partitions::ALL);
    let mut receipts = Vec::new();
    for number in [1, 3, 5, 7, 9] {
        let taken = second.take().await;
        assert_eq!(text(&taken), number.to_string());
        receipts.push(taken.receipt);
    }
    second.silent(MOMENT).await;
    // Late, from whoever was the owner then.
    receipts
        .into_iter()
        .for_each(|receipt| first.journal.done(receipt));
    first.sent().await;
    drop((first, second));
    let mut third = ground.node("done").await;
    third.journal.own(Partitions::ALL);
    third.silent(MOMENT).await;
    ground.is_bare("done").await;
}

pub(crate) async fn what_is_left_comes_again_in_order_when_it_is_asked_for(ground: &mut impl Ground) {
    let mut node = ground.node("left").await;
    node.journal.own(Partitions::ALL);
    for number in 0..6 {
        node.put(5, number.to_string());
    }
    let mut in_hand = Vec::new();
    let mut round = 0;
    for number in 0..6 {
        let taken = node.take().await;
        match number {
            0 | 1 => in_hand.push(taken.receipt),
            _ => round = node.journal.leave(taken.receipt),
        }
    }
    assert_eq!(node.journal.figures().left, 4);
    // Longer than it takes a journal to look whether it has missed anything.
    node.silent(4 * MOMENT).await;
    node.put(5, "6");
    let newer = node.take().await;
    assert_eq!((&*text(&newer), newer.round), ("6", round));
    assert_eq!(node.journal.leave(newer.receipt), round);

    node.journal.give_again(set([5]));
    for number in 2..7 {
        let taken = node.take().await;
        assert_eq!(text(&taken), number.to_string());
        assert!(taken.round > round, "{} of {round}", taken.round);
        node.journal.done(taken.receipt);
    }
    in_hand.into_iter().for_each(|receipt| node.journal.done(receipt));
    node.sent().await;
    node.silent(MOMENT).await;
    assert_eq!(node.journal.figures().left, 0);
    ground.is_bare("left").await;
}

pub(crate) async fn two_clusters_do_not_meet(ground: &mut impl Ground) {
    let (mut one, mut other) = (ground.node("a.b").await, ground.node("a-b").await);
    one.journal.own(Partitions::ALL);
    other.journal.own(Partitions::ALL);
    one.put(9, "of one");
    other.put(9, "of the other");
    assert_eq!(one.texts(1).await, ["of one"]);
    assert_eq!(other.texts(1).await, ["of the other"]);
}

pub(crate) async fn a_restarted_broker_has_everything_in_order(ground: &mut impl Ground) {
    trouble(ground, "restarted", |ground, is_begin| match is_begin {
        true => ground.stop(),
        false => ground.start(),
    })
    .await;
}

pub(crate) async fn a_frozen_broker_has_everything_in_order(ground: &mut impl Ground) {
    trouble(ground, "frozen", |ground, is_begin| match is_begin {
        true => ground.freeze(),
        false => ground.thaw(),
    })
    .await;
}

/// Puts while the broker is in trouble, which lasts longer than a connection does.
async fn trouble<G: Ground>(ground: &mut G, prefix: &str, trouble: fn(&mut G, bool)) {
    let putting = ground.node(prefix).await;
    let mut owning = ground.node(prefix).await;
    owning.journal.own(Partitions::ALL);
    let mut numbers = 0..;
    let mut put = |count| {
        for number in numbers.by_ref().take(count) {
            putting.put((number % 3) as u8, number.to_string());
        }
    };
    put(300);
    // Some are on their way, in both directions.
    let mut came = owning.texts(1).await;
    trouble(ground, true);
    put(300);
    tokio::time::sleep(Duration::from_secs(4)).await;
    put(300);
    trouble(ground, false);
    put(300);
    came.extend(owning.texts(1199).await);
    let mut lines: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for number in came.iter().map(|text| text.parse::<u32>().expect("a number")) {
        lines.entry(number % 3).or_default().push(number);
    }
    for (partition, line) in lines {
        let expected: Vec<_> = (0..1200).filter(|number| number % 3 == partition).collect();
        assert_eq!(line, expected, "partition {partition}");
    }
    putting.sent().await;
}

pub(crate) async fn full_is_told_and_passes(ground: &mut impl Ground) {
    let room = Room {
        entries: 100,
        bytes: 1000,
        ..Room::default()
    };
    let mut node = ground.node_with("full", room).await;
    node.put(1, "at the broker");
    node.sent().await;
    ground.stop();
    let mut queued = 0;
    while node.journal.put(at(2), "ten bytes!".into()) == Put::Queued {
        queued += 1;
    }
    assert_eq!(queued, 100);
    assert_eq!(node.journal.unsent(), 100);
    ground.start();
    node.put_soon(3, "there is room again").await;
    node.sent().await;
    node.journal.own(Partitions::ALL);
    assert_eq!(node.texts(3).await.len(), 3, "of each partition something");
}

pub(crate) async fn a_full_broker_is_told_and_has_room_again(ground: &mut impl Ground) {
    let room = Room {
        stored: 20,
        ..Room::default()
    };
    let mut node = ground.node_with("stored", room).await;
    let mut queued: u32 = 0;
    let mut is_full = false;
    for _ in 0..1000 {
        match node.journal.put(at(4), queued.to_string().into()) {
            Put::Queued => queued += 1,
            Put::Full => {
                is_full = true;
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(is_full && queued >= 20, "after {queued} entries");
    node.put(5, "other partitions have room");
    node.journal.own(Partitions::ALL);
    let texts = node.texts(queued as usize + 1).await;
    let line: Vec<u32> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    assert_eq!(line, (0..queued).collect::<Vec<_>>(), "none is lost");
    node.put_soon(4, "again").await;
    assert_eq!(node.texts(1).await, ["again"]);
}

pub(crate) async fn owners_change_in_a_burst(ground: &mut impl Ground) {
    let mut nodes = [ground.node("burst").await, ground.node("burst").await];
    let mut numbers = 0..;
    let (mut put, mut done) = (0_u32, BTreeSet::new());
    for round in 0..40_u8 {
        for number in numbers.by_ref().take(10) {
            nodes[usize::from(round % 2)].put((number % 64) as u8, u32::to_string(&number));
            put += 1;
        }
        let mine: Partitions = set((0..64_u8).filter(|index| index % (1 + round % 5) == 0));
        let other = set((0..64).filter(|index| !mine.contains(at(*index))));
        nodes[0].journal.own(mine);
        nodes[1].journal.own(other);
        for node in &mut nodes {
            while let Some(taken) = node.take_soon(Duration::from_millis(3)).await {
                done.insert(text(&taken));
                node.journal.done(taken.receipt);
            }
        }
    }
    while done.len() < put as usize {
        for node in &mut nodes {
            if let Some(taken) = node.take_soon(Duration::from_millis(50)).await {
                done.insert(text(&taken));
                node.journal.done(taken.receipt);
            }
        }
    }
    for node in &mut nodes {
        node.sent().await;
    }
    // What came twice is done twice.
    for node in &mut nodes {
        while let Some(taken) = node.take_soon(MOMENT).await {
            node.journal.done(taken.receipt);
        }
        node.sent().await;
    }
    ground.is_bare("burst").await;
}

pub(crate) async fn many_entries_are_drained_by_two_owners(ground: &mut impl Ground) {
    const ENTRIES: u32 = 10_000;
    let putting = ground.node("many").await;
    let mut nodes = [ground.node("many").await, ground.node("many").await];
    nodes[0].journal.own(set((0..64).filter(|index| index % 2 == 0)));
    nodes[1].journal.own(set((0..64).filter(|index| index % 2 == 1)));
    for number in 0..ENTRIES {
        putting.put((number % 64) as u8, number.to_string());
    }
    let mut lines: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    let mut turn = 0;
    for _ in 0..ENTRIES {
        // Half of them belong to each.
        let taken = nodes[turn].take().await;
        turn = 1 - turn;
        let number: u32 = text(&taken).parse().expect("a number");
        lines
            .entry(taken.receipt.partition.index())
            .or_default()
            .push(number);
        nodes[1 - turn].journal.done(taken.receipt);
    }
    for (partition, line) in lines {
        let expected: Vec<_> = (0..ENTRIES)
            .filter(|number| number % 64 == u32::from(partition))
            .collect();
        assert_eq!(line, expected, "partition {partition}: each once, in order");
    }
    for node in &nodes {
        node.sent().await;
    }
    ground.is_bare("many").await;
}
