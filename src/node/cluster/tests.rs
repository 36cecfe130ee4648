//! Several nodes in one process, and a bus between them that delays, repeats and loses: what the subscribers of each
//! node see of the members.

mod asking;
mod news;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::announce::Announcer;
use super::collect::Collecting;
use super::settle::{Settled, Settling};
use crate::adapter::NodeId;
use crate::app::{App, AppConfig, Apps};
use crate::hub::channel::Channel;
use crate::hub::inbox::{Entry, Inboxes, SocketKey};
use crate::metrics::Metrics;
use crate::node::{Joiner, Node};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::presence::Member;
use crate::roster::delta;
use crate::roster::digest::Digest;
use crate::roster::snapshot::{Chunk, Staged, Staging, Whole};

const NODES: usize = 3;
const CHANNELS: [&str; 3] = ["presence-a", "presence-b", "plain"];
const STAGING_BYTES_MAX: usize = 1 << 24;

/// A socket here, as the test plays it: what it has been told of the members.
struct Socket {
    channel: &'static str,
    held: Arc<Channel>,
    user: Option<Arc<str>>,
    /// `None` until it was acknowledged.
    view: Option<BTreeSet<String>>,
}

/// What one node says, on its way to another.
enum Word {
    Delta(u64, Bytes),
    Chunk(Bytes),
    Beat(u64),
}

/// What a node knows of another.
#[derive(Default)]
struct Follower {
    /// The number of the last announcement, from when the node was known.
    position: Option<u64>,
    staging: Option<Staging>,
    settling: Option<Settling>,
    digest: Digest,
}

struct Machine {
    node: Node,
    app: Arc<App>,
    sockets: BTreeMap<u32, Socket>,
    next_socket: u32,
    announced: u64,
    told: Digest,
    followers: BTreeMap<usize, Follower>,
    wanted_by: BTreeSet<usize>,
    collecting: Option<(Collecting, BTreeSet<usize>)>,
}

struct Cluster {
    machines: Vec<Machine>,
    bus: BTreeMap<(usize, usize), VecDeque<Word>>,
    start: Instant,
    ms: u64,
}

fn id(machine: usize) -> NodeId {
    NodeId(machine as u64 + 1)
}

impl Machine {
    fn new(index: usize) -> Machine {
        let config = AppConfig {
            watchlist: true,
            presence_members_max: 1_000,
            subscription_count_events: true,
            ..AppConfig::demo()
        };
        let apps = Apps::new([config]).expect("valid");
        let app = apps.all().remove(0);
        let metrics = Arc::new(Metrics::new("pusher_", 6001).expect("well-named"));
        let node =
            Node::new(apps, Inboxes::new(1, usize::MAX), metrics).announcing(Announcer::new(id(index)));
        Machine {
            node,
            app,
            sockets: BTreeMap::new(),
            next_socket: 0,
            announced: 0,
            told: Digest::default(),
            followers: BTreeMap::new(),
            wanted_by: BTreeSet::new(),
            collecting: None,
        }
    }

    fn join(&mut self, channel: &'static str, user: u8, info: u8) {
        let namespace = self.node.namespace(&self.app);
        let name = ChannelName::parse(channel, 200).expect("legal");
        let member = name.kind().is_presence().then(|| Member {
            user_id: format!("u{user}").into(),
            user_info: format!("{{\"n\":{info}}}").into(),
        });
        let slot = self.next_socket;
        self.next_socket += 1;
        let joiner = Joiner {
            shard: 0,
            socket: SocketKey { slot, generation: 0 },
            place: 0,
            token: 0,
        };
        let held = self
            .node
            .subscribe(&namespace, &name, joiner, member.as_ref())
            .expect("not full");
        let socket = Socket {
            channel,
            held,
            user: member.map(|member| member.user_id),
            view: None,
        };
        self.sockets.insert(slot, socket);
        self.read_inbox();
    }

    fn leave(&mut self, which: usize) {
        let Some((&slot, _)) = self.sockets.iter().nth(which % self.sockets.len().max(1)) else {
            return;
        };
        let socket = self.sockets.remove(&slot).expect("it is there");
        let namespace = self.node.namespace(&self.app);
        self.node
            .unsubscribe(&namespace, &socket.held, 0, socket.user.as_deref());
        self.read_inbox();
    }

    /// Does what a shard would do, and asks of each subscriber that what it hears makes sense.
    fn read_inbox(&mut self) {
        let mut entries = Vec::new();
        self.node.inboxes().of(0).take(Waker::noop(), &mut entries);
        for entry in entries {
            match entry {
                Entry::Join(join) => {
                    let members = join.members.iter().flat_map(|view| view.members());
                    let view = members.map(|member| member.user_id.to_string()).collect();
                    if let Some(socket) = self.sockets.get_mut(&join.socket.slot) {
                        socket.view = Some(view);
                    }
                }
                Entry::Broadcast(broadcast) => {
                    let message: Value = serde_json::from_slice(broadcast.frame.payload()).expect("JSON");
                    let data = message["data"].as_str().expect("text");
                    let data: Value = serde_json::from_str(data).expect("JSON");
                    let user = || data["user_id"].as_str().expect("a user").to_owned();
                    let here = self
                        .sockets
                        .values_mut()
                        .filter(|socket| Arc::ptr_eq(&socket.held, &broadcast.channel));
                    for view in here.filter_map(|socket| socket.view.as_mut()) {
                        match message["event"].as_str() {
                            Some("pusher_internal:member_added") => {
                                assert!(view.insert(user()), "{message}: was there already");
                            }
                            Some("pusher_internal:member_removed") => {
                                assert!(view.remove(&user()), "{message}: was not there");
                            }
                            Some("pusher_internal:subscription_count") => {}
                            other => panic!("unexpected: {other:?}"),
                        }
                    }
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Tells the others what has changed. The words that come of it.
    fn flush(&mut self, now: Instant) -> Vec<(u64, Bytes)> {
        let mut pieces = Vec::new();
        let announced = &mut self.announced;
        let told = self.node.flush(now, |piece| {
            *announced += 1;
            pieces.push((*announced, piece));
            *announced
        });
        self.told = told.digest;
        pieces
    }

    /// Hears a word of another node. True if its snapshot is to be asked for.
    fn hear(&mut self, from: usize, word: Word, now: Instant) -> bool {
        let follower = self.followers.entry(from).or_default();
        let (number, piece) = match word {
            Word::Chunk(chunk) => {
                let chunk = Chunk::decode(chunk).expect("well-formed");
                let Some(staging) = &mut follower.staging else {
                    return false;
                };
                let staged = staging.chunk(&chunk, now).expect("well-formed");
                return self.staged(from, staged);
            }
            Word::Beat(number) => {
                let is_missed = follower.position != Some(number) && follower.staging.is_none();
                if is_missed {
                    follower.staging = Some(Staging::new(STAGING_BYTES_MAX, now));
                }
                return is_missed;
            }
            Word::Delta(number, piece) => (number, piece),
        };
        let entries = delta::read(piece.clone()).expect("well-formed");
        let follows = follower.position.is_some_and(|last| last + 1 == number);
        if !follows && follower.staging.is_none() {
            follower.staging = Some(Staging::new(STAGING_BYTES_MAX, now));
            let staging = follower.staging.as_mut().expect("made just now");
            staging.announced(number, entries, piece.len(), now);
            follower.position = Some(number);
            return true;
        }
        follower.position = Some(number);
        if let Some(staging) = &mut follower.staging {
            let staged = staging.announced(number, entries, piece.len(), now);
            return self.staged(from, staged);
        }
        if let Some(settling) = &mut follower.settling {
            assert!(settling.announced(entries, piece.len()));
            return false;
        }
        for _ in 0..2 {
            // A repetition changes nothing.
            assert_eq!(self.node.apply(id(from), &entries, &mut follower.digest, now), 0);
        }
        self.read_inbox();
        false
    }

    fn staged(&mut self, from: usize, staged: Staged) -> bool {
        let follower = self.followers.entry(from).or_default();
        match staged {
            Staged::Waiting => false,
            Staged::Void => true,
            Staged::TooLarge => panic!("not in this test"),
            Staged::Whole(number, whole) => {
                follower.staging = None;
                follower.position = Some(number);
                follower.settling = Some(Settling::new(&self.node, id(from), whole));
                false
            }
        }
    }

    /// A step of bringing another node into line. True if there is more to do.
    fn settle(&mut self, from: usize, now: Instant) -> bool {
        let follower = self.followers.entry(from).or_default();
        let Some(settling) = &mut follower.settling else {
            return false;
        };
        if settling.step(&self.node, &mut follower.digest, now) == Settled::Done {
            assert_eq!(settling.ignored(), 0);
            follower.settling = None;
        }
        self.read_inbox();
        true
    }

    fn lose(&mut self, peer: usize) {
        let Some(follower) = self.followers.get_mut(&peer) else {
            return;
        };
        follower.position = None;
        follower.staging = None;
        follower.settling = Some(Settling::lost(&self.node, id(peer)));
    }
}

/// What happens, to which node.
#[derive(Clone, Debug)]
enum Step {
    Join(usize, usize, u8, u8),
    Leave(usize, usize),
    Flush(usize),
    Deliver(usize, usize),
    /// What is on the way from one to the other is lost.
    Gap(usize, usize),
    Lose(usize, usize),
    Serve(usize),
    Settle(usize, usize),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..NODES;
    let pair = (0..NODES, 1..NODES).prop_map(|(one, other)| (one, (one + other) % NODES));
    let step = prop_oneof![
        6 => (node.clone(), 0..CHANNELS.len(), 0..4_u8, any::<u8>())
            .prop_map(|(node, channel, user, info)| Step::Join(node, channel, user, info)),
        5 => (node.clone(), any::<usize>()).prop_map(|(node, which)| Step::Leave(node, which)),
        5 => node.clone().prop_map(Step::Flush),
        12 => pair.clone().prop_map(|(from, to)| Step::Deliver(from, to)),
        1 => pair.clone().prop_map(|(from, to)| Step::Gap(from, to)),
        1 => pair.clone().prop_map(|(at, peer)| Step::Lose(at, peer)),
        12 => node.prop_map(Step::Serve),
        12 => pair.prop_map(|(at, peer)| Step::Settle(at, peer)),
        2 => (0..200_u16).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..400)
}

impl Cluster {
    fn new() -> Cluster {
        Cluster {
            machines: (0..NODES).map(Machine::new).collect(),
            bus: BTreeMap::new(),
            start: Instant::now(),
            ms: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    fn say(&mut self, from: usize, to: usize, word: Word) {
        self.bus.entry((from, to)).or_default().push_back(word);
    }

    fn flush(&mut self, from: usize) {
        let now = self.now();
        for (number, piece) in self.machines[from].flush(now) {
            for to in (0..NODES).filter(|to| *to != from) {
                self.say(from, to, Word::Delta(number, piece.clone()));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let now = self.now();
        let Some(word) = self.bus.entry((from, to)).or_default().pop_front() else {
            return false;
        };
        if self.machines[to].hear(from, word, now) {
            self.machines[from].wanted_by.insert(to);
        }
        true
    }

    /// A step of answering those who want a snapshot.
    fn serve(&mut self, from: usize) -> bool {
        let now = self.now();
        let machine = &mut self.machines[from];
        let announced = machine.announced;
        if machine.collecting.is_none() {
            if machine.wanted_by.is_empty() {
                return false;
            }
            let wanted_by = std::mem::take(&mut machine.wanted_by);
            let number = self.ms << 8 | from as u64;
            machine.collecting = Some((Collecting::new(&machine.node, number, announced), wanted_by));
            self.ms += 1;
            return true;
        }
        let Some((mut collecting, to)) = machine.collecting.take() else {
            return false;
        };
        let mut chunks = Vec::new();
        let mut is_over = false;
        for _ in 0..16 {
            match collecting.step(&machine.node, |_| true, now) {
                Some(full) => chunks.extend(full),
                None => is_over = true,
            }
        }
        if is_over {
            self.flush(from);
            chunks.extend(collecting.finish(self.machines[from].announced));
        } else {
            self.machines[from].collecting = Some((collecting, to.clone()));
        }
        for chunk in chunks {
            for to in &to {
                self.say(from, *to, Word::Chunk(chunk.encode()));
            }
        }
        true
    }

    fn take(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Join(node, channel, user, info) => self.machines[node].join(CHANNELS[channel], user, info),
            Step::Leave(node, which) => self.machines[node].leave(which),
            Step::Flush(node) => self.flush(node),
            Step::Deliver(from, to) => {
                self.deliver(from, to);
            }
            Step::Gap(from, to) => self.bus.entry((from, to)).or_default().clear(),
            Step::Lose(at, peer) => self.machines[at].lose(peer),
            Step::Serve(node) => {
                self.serve(node);
            }
            Step::Settle(at, peer) => {
                self.machines[at].settle(peer, now);
            }
            Step::Pass(ms) => self.ms += u64::from(ms),
        }
    }

    /// Lets everything come to rest, over a bus that loses nothing any more, with a heartbeat now and then.
    fn come_to_rest(&mut self) {
        let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
        let pairs: Vec<_> = pairs.filter(|(from, to)| from != to).collect();
        for round in 0..2_000 {
            self.ms += 50;
            for node in 0..NODES {
                self.flush(node);
                self.serve(node);
            }
            for &(from, to) in &pairs {
                if round % 20 == 0 {
                    let number = self.machines[from].announced;
                    self.say(from, to, Word::Beat(number));
                }
                while self.deliver(from, to) {}
                let now = self.now();
                let machine = &mut self.machines[to];
                machine.settle(from, now);
                let staging = machine
                    .followers
                    .get_mut(&from)
                    .and_then(|follower| follower.staging.as_mut());
                if staging.is_some_and(|staging| staging.is_stalled(now)) {
                    self.machines[from].wanted_by.insert(to);
                }
            }
            let is_known = |(from, to): &(usize, usize)| {
                let follower = self.machines[*to].followers.get(from);
                follower.is_some_and(|follower| {
                    follower.position == Some(self.machines[*from].announced)
                        && follower.staging.is_none()
                        && follower.settling.is_none()
                })
            };
            if pairs.iter().all(is_known) {
                return;
            }
        }
        panic!("it did not come to rest");
    }

    fn check(&self) {
        for channel in CHANNELS {
            let name = ChannelName::parse(channel, 200).expect("legal");
            let all = self.machines.iter().flat_map(|machine| machine.sockets.values());
            let subscribed: Vec<_> = all.filter(|socket| socket.channel == channel).collect();
            let users: BTreeSet<String> = subscribed
                .iter()
                .filter_map(|socket| Some(socket.user.as_ref()?.to_string()))
                .collect();
            let infos: BTreeSet<_> = self
                .machines
                .iter()
                .map(|machine| {
                    let members = machine.node.members(&machine.app, &name);
                    let ids: BTreeSet<String> =
                        members.iter().map(|member| member.user_id.to_string()).collect();
                    assert_eq!(ids, users, "who is in {channel}");
                    let detail = machine.node.channel(&machine.app, &name);
                    assert_eq!(detail.subscription_count, subscribed.len());
                    let listed = machine.node.channels(&machine.app, channel);
                    assert_eq!(listed.len(), usize::from(!subscribed.is_empty()));
                    members
                        .iter()
                        .map(|member| (member.user_id.to_string(), member.user_info.to_string()))
                        .collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(infos.len(), 1, "all show the same of each: {infos:?}");
            for socket in subscribed {
                assert_eq!(
                    socket.view.as_ref(),
                    Some(&users),
                    "what a subscriber was told of {channel}"
                );
            }
        }
        for (at, machine) in self.machines.iter().enumerate() {
            for (from, follower) in &machine.followers {
                assert_eq!(
                    follower.digest, self.machines[*from].told,
                    "what {at} knows of {from}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// That each subscriber hears of each member once, is asked in [`Machine::read_inbox`].
    #[test]
    fn every_member_comes_once_and_goes_once_and_all_views_come_to_the_truth(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in steps {
            cluster.take(step);
        }
        cluster.come_to_rest();
        cluster.check();
    }
}
