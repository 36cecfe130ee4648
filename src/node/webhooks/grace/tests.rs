//! The back end's view, replayed from what it was told, held against the truth: on one node against a model that reads
//! it off the times of joins and leaves, and on several nodes that hear of each other late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

const GRACE: u64 = 3_000;
const UNTOLD_MAX: usize = 1_000;

fn at(ms: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(ms)
}

fn user(number: u8) -> Arc<str> {
    format!("u{number}").into()
}

/// A place, and a member of it or the channel itself.
type Thing = (u8, Option<Arc<str>>);

/// What the back end was told: when, of what, and whether it is there.
type Log = Vec<(u64, Thing, bool)>;

/// It is always this node's turn.
struct Alone<'a> {
    ms: u64,
    log: &'a mut Log,
}

impl Teller<u8> for Alone<'_> {
    fn turn(&self, _: &u8, untold: &Untold) -> Option<Instant> {
        Some(untold.due)
    }

    fn tell(&mut self, place: &u8, member: Option<&Arc<str>>, is_there: bool) {
        self.log.push((self.ms, (*place, member.cloned()), is_there));
    }
}

/// One node: who is there, how often, and what the back end was told.
struct Node {
    grace: Grace<u8>,
    grace_ms: u64,
    ms: u64,
    sockets: BTreeMap<(u8, u8), u32>,
    /// The transitions, for the model.
    changes: BTreeMap<Thing, Vec<(u64, bool)>>,
    log: Log,
}

impl Node {
    fn new(grace_ms: u64) -> Node {
        Node {
            grace: Grace::new(UNTOLD_MAX),
            grace_ms,
            ms: 0,
            sockets: BTreeMap::new(),
            changes: BTreeMap::new(),
            log: Log::new(),
        }
    }

    fn pass(&mut self, ms: u64) {
        let end = self.ms + ms;
        while let Some(next) = self.grace.next().filter(|next| *next <= at(end)) {
            self.ms = next.saturating_duration_since(at(0)).as_millis() as u64;
            let mut alone = Alone {
                ms: self.ms,
                log: &mut self.log,
            };
            self.grace.work(next, &mut alone);
        }
        self.ms = end;
    }

    fn change(&mut self, place: u8, member: Option<Arc<str>>, is_there: bool) {
        let mut alone = Alone {
            ms: self.ms,
            log: &mut self.log,
        };
        let grace = Duration::from_millis(self.grace_ms);
        self.grace
            .changed(&place, member.as_ref(), is_there, grace, at(self.ms), &mut alone);
        let changes = self.changes.entry((place, member)).or_default();
        changes.push((self.ms, is_there));
    }

    fn is_occupied(&self, place: u8) -> bool {
        self.sockets.keys().any(|(of, _)| *of == place)
    }

    fn join(&mut self, place: u8, number: u8) {
        if !self.is_occupied(place) {
            self.change(place, None, true);
        }
        let sockets = self.sockets.entry((place, number)).or_default();
        *sockets += 1;
        if *sockets == 1 {
            self.change(place, Some(user(number)), true);
        }
    }

    fn leave(&mut self, place: u8, number: u8) {
        let Some(sockets) = self.sockets.get_mut(&(place, number)) else {
            return;
        };
        *sockets -= 1;
        if *sockets > 0 {
            return;
        }
        self.sockets.remove(&(place, number));
        self.change(place, Some(user(number)), false);
        if !self.is_occupied(place) {
            self.change(place, None, false);
        }
    }

    /// What is to be told of one thing, read off the times: a leave that lasted for the grace, and each return from it.
    fn expected(&self, changes: &[(u64, bool)]) -> Vec<(u64, bool)> {
        let mut told = Vec::new();
        for (index, (ms, is_there)) in changes.iter().enumerate() {
            let believed = told.last().is_some_and(|(_, is_there)| *is_there);
            let next = changes.get(index + 1).map(|(ms, _)| *ms);
            let over = ms + self.grace_ms;
            match is_there {
                true if !believed => told.push((*ms, true)),
                false if next.is_none_or(|next| next >= over) => told.push((over, false)),
                _ => {}
            }
        }
        told
    }
}

/// A channel is occupied before its first member comes and while it has any; nothing is told that is known.
fn replay(log: &Log) -> Result<BTreeSet<Thing>, TestCaseError> {
    let mut believed = BTreeSet::new();
    for (ms, thing, is_there) in log {
        let (place, member) = thing;
        if member.is_some() {
            prop_assert!(
                believed.contains(&(*place, None)),
                "a member of no channel at {ms}: {log:?}"
            );
        } else if !is_there {
            let mut members = believed.range((*place, Some(Arc::from("")))..=(*place, Some(Arc::from("~"))));
            prop_assert_eq!(
                members.next(),
                None,
                "members of a vacated channel at {}: {:?}",
                ms,
                log
            );
        }
        let is_news = if *is_there {
            believed.insert(thing.clone())
        } else {
            believed.remove(thing)
        };
        prop_assert!(is_news, "{thing:?} was told twice at {ms}: {log:?}");
    }
    Ok(believed)
}

fn pauses() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0_u64), 1..1_500_u64, 2_998..=3_002_u64, 3_000..8_000_u64]
}

proptest! {
    #[test]
    fn the_back_end_is_told_each_leave_that_lasted_and_each_return_from_it(
        grace_ms in prop_oneof![Just(0), Just(GRACE)],
        steps in proptest::collection::vec((pauses(), 0..2_u8, 0..3_u8, any::<bool>()), 0..60),
    ) {
        let mut node = Node::new(grace_ms);
        for (pause, place, number, comes) in steps {
            node.pass(pause);
            match comes {
                true => node.join(place, number),
                false => node.leave(place, number),
            }
        }
        node.pass(2 * GRACE);
        prop_assert_eq!(node.grace.len(), 0, "at rest nothing is kept");
        let believed = replay(&node.log)?;
        for (thing, changes) in &node.changes {
            let of_it = node.log.iter().filter(|(_, told, _)| told == thing);
            let told: Vec<_> = of_it.map(|(ms, _, is_there)| (*ms, *is_there)).collect();
            prop_assert_eq!(&told, &node.expected(changes), "{:?}: {:?}", thing, changes);
            let is_there = changes.last().is_some_and(|(_, is_there)| *is_there);
            prop_assert_eq!(believed.contains(thing), is_there);
        }
    }
}

/// What one node says to another: it has a socket of a user in a place or not, or the back end was told. Or it is gone.
#[derive(Clone, Debug)]
enum Word {
    Has(u8, u8, bool),
    Told(Thing, bool),
    Gone,
}

/// One of several nodes: what it knows of the sockets of each.
struct Peer {
    grace: Grace<u8>,
    /// By node, user and place.
    view: BTreeSet<(usize, u8, u8)>,
    is_alive: bool,
    /// Said by each other node, with when it arrives.
    heard: Vec<VecDeque<(u64, Word)>>,
}

struct Cluster {
    ms: u64,
    peers: Vec<Peer>,
    /// How long words are on their way, one after another.
    delays: Vec<u64>,
    sent: usize,
    log: Log,
}

struct Turn<'a> {
    rank: Vec<u64>,
    log: &'a mut Log,
    ms: u64,
    said: Vec<Word>,
}

impl Teller<u8> for Turn<'_> {
    fn turn(&self, place: &u8, untold: &Untold) -> Option<Instant> {
        let rank = self.rank[usize::from(*place)];
        let is_mine = rank == 0 || untold.is_witnessed;
        is_mine.then(|| untold.due + Duration::from_secs(2 * rank))
    }

    fn tell(&mut self, place: &u8, member: Option<&Arc<str>>, is_there: bool) {
        let thing = (*place, member.cloned());
        self.log.push((self.ms, thing.clone(), is_there));
        self.said.push(Word::Told(thing, is_there));
    }
}

impl Cluster {
    fn new(nodes: usize, delays: Vec<u64>) -> Cluster {
        let peer = |_| Peer {
            grace: Grace::new(UNTOLD_MAX),
            view: BTreeSet::new(),
            is_alive: true,
            heard: vec![VecDeque::new(); nodes],
        };
        Cluster {
            ms: 0,
            peers: (0..nodes).map(peer).collect(),
            delays,
            sent: 0,
            log: Log::new(),
        }
    }

    /// For each place, the nodes take their turns from another one on.
    fn turn(&mut self, node: usize) -> (&mut Peer, Turn<'_>) {
        let living: Vec<usize> = (0..self.peers.len())
            .filter(|peer| self.peers[*peer].is_alive)
            .collect();
        let mine = living.iter().position(|peer| *peer == node).unwrap_or(0);
        let rank = |place: usize| ((mine + place) % living.len()) as u64;
        let turn = Turn {
            rank: vec![rank(0), rank(1)],
            log: &mut self.log,
            ms: self.ms,
            said: Vec::new(),
        };
        (&mut self.peers[node], turn)
    }

    fn say(&mut self, from: usize, words: Vec<Word>) {
        for to in (0..self.peers.len()).filter(|to| *to != from) {
            for word in &words {
                let delay = self.delays[self.sent % self.delays.len()];
                self.sent += 1;
                let heard = &mut self.peers[to].heard[from];
                let after = heard.back().map_or(0, |(ms, _)| *ms);
                heard.push_back((after.max(self.ms + delay), word.clone()));
            }
        }
    }

    /// A node's view of what a node has changes.
    fn see(&mut self, node: usize, of: usize, number: u8, place: u8, comes: bool) {
        let now = at(self.ms);
        let grace = Duration::from_millis(GRACE);
        let (peer, mut turn) = self.turn(node);
        let is_member = |peer: &Peer| {
            peer.view
                .iter()
                .any(|(_, who, of)| (*who, *of) == (number, place))
        };
        let is_occupied = |peer: &Peer| peer.view.iter().any(|(.., of)| *of == place);
        let before = (is_member(peer), is_occupied(peer));
        match comes {
            true => peer.view.insert((of, number, place)),
            false => peer.view.remove(&(of, number, place)),
        };
        let after = (is_member(peer), is_occupied(peer));
        let member = user(number);
        if !before.1 && after.1 {
            peer.grace.changed(&place, None, true, grace, now, &mut turn);
        }
        if before.0 != after.0 {
            peer.grace
                .changed(&place, Some(&member), after.0, grace, now, &mut turn);
        }
        if before.1 && !after.1 {
            peer.grace.changed(&place, None, false, grace, now, &mut turn);
        }
        let said = std::mem::take(&mut turn.said);
        self.say(node, said);
    }

    fn hear(&mut self, node: usize, from: usize, word: Word) {
        match word {
            Word::Has(number, place, comes) => self.see(node, from, number, place, comes),
            Word::Gone => {
                let view = &self.peers[node].view;
                let had: Vec<_> = view.iter().filter(|(of, ..)| *of == from).copied().collect();
                for (_, number, place) in had {
                    self.see(node, from, number, place, false);
                }
            }
            Word::Told((place, member), told) => {
                let now = at(self.ms);
                let peer = &mut self.peers[node];
                let is_there = match &member {
                    None => peer.view.iter().any(|(.., of)| *of == place),
                    Some(member) => {
                        let is_it = |(_, who, of): &(usize, u8, u8)| user(*who) == *member && *of == place;
                        peer.view.iter().any(is_it)
                    }
                };
                let grace = Duration::from_millis(GRACE);
                peer.grace
                    .heard(&place, member.as_ref(), told, is_there, grace, now);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ms += 1;
            for node in (0..self.peers.len())
                .filter(|node| self.peers[*node].is_alive)
                .collect::<Vec<_>>()
            {
                for from in 0..self.peers.len() {
                    while self.peers[node].heard[from]
                        .front()
                        .is_some_and(|(ms, _)| *ms <= self.ms)
                    {
                        let (_, word) = self.peers[node].heard[from].pop_front().expect("just seen");
                        self.hear(node, from, word);
                    }
                }
                let now = at(self.ms);
                let (peer, mut turn) = self.turn(node);
                while peer.grace.work(now, &mut turn) {}
                let said = std::mem::take(&mut turn.said);
                self.say(node, said);
            }
        }
    }

    fn step(&mut self, node: usize, number: u8, place: u8, comes: bool) {
        let had = self.peers[node].view.contains(&(node, number, place));
        if had != comes && self.peers[node].is_alive {
            self.see(node, node, number, place, comes);
            self.say(node, vec![Word::Has(number, place, comes)]);
        }
    }

    /// A node stops; the others take out what it had once they have heard all that it said.
    fn die(&mut self, node: usize) {
        self.peers[node].is_alive = false;
        self.say(node, vec![Word::Gone]);
    }

    /// All who are there on nodes that are alive, as the back end is to believe.
    fn truth(&self) -> BTreeSet<Thing> {
        let living = self.peers.iter().enumerate().filter(|(_, peer)| peer.is_alive);
        let own = living.flat_map(|(node, peer)| peer.view.iter().filter(move |(of, ..)| *of == node));
        own.flat_map(|(_, number, place)| [(*place, None), (*place, Some(user(*number)))])
            .collect()
    }
}

fn cluster_steps() -> impl Strategy<Value = Vec<(u64, usize, u8, u8, bool)>> {
    let pause = prop_oneof![3 => 0..30_u64, 2 => 30..2_900_u64, 1 => 3_100..4_000_u64];
    proptest::collection::vec((pause, 0..3_usize, 0..2_u8, 0..2_u8, any::<bool>()), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However late the nodes hear of each other: nothing is told twice or in the wrong order, and the end is right.
    #[test]
    fn several_nodes_tell_as_one(
        delays in proptest::collection::vec(0..60_u64, 1..9),
        steps in cluster_steps(),
    ) {
        let mut cluster = Cluster::new(3, delays);
        for (pause, node, number, place, comes) in steps {
            cluster.pass(pause);
            cluster.step(node, number, place, comes);
        }
        cluster.pass(5 * GRACE);
        prop_assert_eq!(replay(&cluster.log)?, cluster.truth());
        prop_assert!(cluster.peers.iter().all(|peer| peer.grace.len() == 0), "at rest nothing is kept");
    }

    /// Whoever dies while it has something to tell: it may be told twice, but the end is right.
    #[test]
    fn what_a_node_left_untold_is_told_by_another(
        delays in proptest::collection::vec(0..60_u64, 1..9),
        steps in cluster_steps(),
        dies in any::<prop::sample::Index>(),
        which in 0..3_usize,
    ) {
        let mut cluster = Cluster::new(3, delays);
        let dies = dies.index(steps.len() + 1);
        for (number, (pause, node, user, place, comes)) in steps.into_iter().enumerate() {
            if number == dies {
                cluster.die(which);
            }
            cluster.pass(pause);
            cluster.step(node, user, place, comes);
        }
        cluster.pass(5 * GRACE);
        let mut believed = BTreeSet::new();
        for (_, thing, is_there) in &cluster.log {
            match is_there {
                true => believed.insert(thing.clone()),
                false => believed.remove(thing),
            };
        }
        prop_assert_eq!(believed, cluster.truth(), "{:?}", cluster.log);
        let living = cluster.peers.iter().filter(|peer| peer.is_alive);
        prop_assert!(living.map(|peer| peer.grace.len()).all(|len| len == 0), "at rest nothing is kept");
    }
}

fn told(node: &Node) -> Vec<(u64, Option<&str>, bool)> {
    let told = node.log.iter();
    told.map(|(ms, (_, member), is_there)| (*ms, member.as_deref(), *is_there))
        .collect()
}

#[test]
fn who_is_back_within_the_grace_never_went() {
    let mut node = Node::new(GRACE);
    node.join(0, 1);
    node.leave(0, 1);
    node.pass(2_900);
    node.join(0, 1);
    node.pass(10_000);
    assert_eq!(told(&node), [(0, None, true), (0, Some("u1"), true)]);
}

#[test]
fn who_is_back_after_the_grace_went_and_came() {
    let mut node = Node::new(GRACE);
    node.join(0, 1);
    node.leave(0, 1);
    node.pass(3_500);
    node.join(0, 1);
    let went = [(3_000, Some("u1"), false), (3_000, None, false)];
    let came = [(3_500, None, true), (3_500, Some("u1"), true)];
    assert_eq!(told(&node)[2..], [went, came].concat());
}

#[test]
fn another_user_keeps_the_channel_and_not_the_member() {
    let mut node = Node::new(GRACE);
    node.join(0, 1);
    node.leave(0, 1);
    node.pass(1_000);
    node.join(0, 2);
    node.pass(10_000);
    assert_eq!(
        told(&node)[2..],
        [(1_000, Some("u2"), true), (3_000, Some("u1"), false)]
    );
}

#[test]
fn what_finds_no_room_is_told_without_a_grace_and_counted() {
    let mut node = Node::new(GRACE);
    node.grace = Grace::new(2);
    node.join(0, 1);
    node.join(1, 1);
    node.leave(0, 1);
    assert_eq!((node.grace.len(), node.grace.hasty()), (2, 0));
    node.leave(1, 1);
    assert_eq!((node.grace.len(), node.grace.hasty()), (2, 2));
    let last = &node.log[4..];
    assert_eq!(last, [(0, (1, Some(user(1))), false), (0, (1, None), false)]);
}

#[test]
fn what_is_left_when_the_node_ends_is_told_in_order() {
    let mut node = Node::new(GRACE);
    node.join(0, 1);
    node.leave(0, 1);
    let mut alone = Alone {
        ms: 0,
        log: &mut node.log,
    };
    node.grace.finish(&mut alone);
    assert_eq!(told(&node)[2..], [(0, Some("u1"), false), (0, None, false)]);
    assert_eq!(node.grace.len(), 0);
}

/// Whoever had the turn told it, and it is not told again; what does not fit to the view here waits for its owner.
#[test]
fn others_keep_what_is_untold_until_they_hear_that_it_was_told() {
    struct Second(Log);
    impl Teller<u8> for Second {
        fn turn(&self, _: &u8, untold: &Untold) -> Option<Instant> {
            untold.is_witnessed.then(|| untold.due + Duration::from_secs(2))
        }
        fn tell(&mut self, place: &u8, member: Option<&Arc<str>>, is_there: bool) {
            self.0.push((0, (*place, member.cloned()), is_there));
        }
    }
    let mut second = Second(Log::new());
    let grace = Duration::from_millis(GRACE);
    let mut untold = Grace::new(UNTOLD_MAX);
    for place in [1, 2] {
        untold.changed(&place, None, true, grace, at(0), &mut second);
    }
    untold.heard(&1, None, true, true, grace, at(5));
    while untold.work(at(1_999), &mut second) {}
    assert_eq!(second.0, []);
    while untold.work(at(2_999), &mut second) {}
    assert_eq!(second.0, [(0, (2, None), true)], "nobody else told it");
    untold.heard(&1, None, false, true, grace, at(3_000));
    for ms in 3_000..20_000 {
        while untold.work(at(ms), &mut second) {}
    }
    assert_eq!(second.0.len(), 1, "the owner knows better");
}
