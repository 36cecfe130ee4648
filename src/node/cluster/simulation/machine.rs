//! One node: its tasks, which can be stopped and made to stand still, and what stands for its shards and sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ear::{Ear, Hall, Published};
use super::{LEASE, MS};
use crate::adapter::config::AdapterConfig;
use crate::adapter::memory::{Bus, Link, Member, Memory};
use crate::adapter::{self, NodeId};
use crate::app::{Admission, App, AppConfig, Apps, WebhookConfig, WebhookUrl};
use crate::hub::inbox::{Entry, Inbox, Inboxes, ShardIndex, SocketKey};
use crate::hub::namespace::Namespace;
use crate::metrics::Metrics;
use crate::node::cluster::{self, Cluster, Life};
use crate::node::{Joiner, Node, Waiter};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::presence;
use crate::protocol::socket_id::SocketId;

const SHARDS: ShardIndex = 2;
/// How wrong the wall clocks of the nodes are.
const WALL_CLOCKS: [fn() -> u64; 4] = [|| wall_us(20), || wall_us(0), || wall_us(35), || wall_us(19)];

fn wall_us(ahead_s: u64) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = Instant::now().saturating_duration_since(*START.get_or_init(Instant::now));
    1_700_000_000_000_000 + ahead_s * 1_000_000 + since.as_micros() as u64
}

/// Whether a process stands still.
#[derive(Default)]
struct Ice {
    is_frozen: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

/// A task of a process that may stand still.
struct Task {
    ice: Arc<Ice>,
    inner: BoxFuture<'static, ()>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.ice.is_frozen.load(Ordering::Relaxed) {
            let mut waiting = self.ice.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        self.inner.as_mut().poll(context)
    }
}

/// What a socket wants that is not admitted yet.
pub(super) enum Want {
    Channel(&'static str, Option<presence::Member>),
    SignIn(Arc<str>),
}

/// A socket: it has one subscription.
pub(super) struct Socket {
    pub(super) id: SocketId,
    key: SocketKey,
    shard: ShardIndex,
    want: Option<Want>,
    pub(super) ear: Option<Ear>,
    /// Counts it among the app's.
    _admission: Option<Admission>,
}

pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) node: Arc<Node>,
    pub(super) app: Arc<App>,
    pub(super) namespace: Arc<Namespace>,
    pub(super) member: Member,
    pub(super) link: Link,
    tasks: JoinSet<()>,
    ice: Arc<Ice>,
    is_alive: bool,
    pub(super) sockets: BTreeMap<u32, Socket>,
    sockets_made: u32,
    place: usize,
    /// When this node alone was last kept from speaking.
    pub(super) trouble: Option<Instant>,
    pub(super) lost_before: u64,
    pub(super) started: Instant,
    /// Since when each topic has subscribers here, and until when.
    interests: BTreeMap<u16, (Instant, Instant)>,
}

impl Machine {
    /// A new life.
    pub(super) fn start(place: usize, bus: &Bus, id: u64) -> Machine {
        let app = AppConfig {
            watchlist: true,
            subscription_count_events: true,
            presence_members_max: 1_000,
            watch_grace_ms: 500,
            webhooks: vec![WebhookConfig {
                url: WebhookUrl::new("http://127.0.0.1/"),
                ..WebhookConfig::default()
            }],
            ..AppConfig::demo()
        };
        let apps = Apps::new([app]).expect("valid");
        let app = apps.all().remove(0);
        let metrics = Arc::new(Metrics::new("pusher_", 6001).expect("well-named"));
        let mut node = Node::new(apps, Inboxes::new(SHARDS.into(), 1 << 20), metrics);
        let config = AdapterConfig {
            topics: 16,
            ring_bytes_max: 4 << 20,
            lease_s: LEASE.as_secs() as u32,
            ..AdapterConfig::default()
        };
        let (sink, events) = adapter::events(config.connections.into(), config.inbox_bytes_max);
        let memory = Memory::join(bus, sink.clone());
        let member = memory.member();
        let link = adapter::Link {
            driver: "memory",
            adapter: Arc::new(memory),
            events,
            sink,
        };
        let life = Life {
            id: NodeId(id),
            wall_us: WALL_CLOCKS[place % WALL_CLOCKS.len()],
        };
        let (joined, incoming) = Cluster::living(life, config, link);
        node.join(joined);
        let node = Arc::new(node);
        let namespace = node.namespace(&app);
        let ice = Arc::new(Ice::default());
        let mut tasks = JoinSet::new();
        let cluster::Tasks { heart, others } = cluster::tasks(&node, incoming);
        let worker = node.clone();
        let duties: BoxFuture<'static, ()> = Box::pin(async move { worker.work_duties().await });
        let worker = node.clone();
        let back_ends: BoxFuture<'static, ()> = Box::pin(async move { worker.tell_back_ends().await });
        let others = others.into_iter().map(|(_, task)| task);
        for inner in others.chain([heart, duties, back_ends]) {
            let ice = ice.clone();
            tasks.spawn(Task { ice, inner });
        }
        Machine {
            id: NodeId(id),
            node,
            app,
            namespace,
            member,
            link: Link::Up,
            tasks,
            ice,
            is_alive: true,
            sockets: BTreeMap::new(),
            sockets_made: 0,
            place,
            trouble: None,
            lost_before: 0,
            started: Instant::now(),
            interests: BTreeMap::new(),
        }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        self.node.cluster().expect("one of several")
    }

    pub(super) fn is_alive(&self) -> bool {
        self.is_alive
    }

    /// Whether its sockets can say something.
    pub(super) fn is_working(&self) -> bool {
        self.is_alive && !self.ice.is_frozen.load(Ordering::Relaxed)
    }

    /// Whether it is kept from speaking.
    pub(super) fn is_troubled(&self) -> bool {
        !self.is_working() || self.link == Link::Down
    }

    /// How many nodes it has ever lost.
    pub(super) fn lost(&self) -> u64 {
        self.cluster().heart.lost()
    }

    /// Stops without a word.
    pub(super) fn die(&mut self) {
        self.tasks.abort_all();
        self.is_alive = false;
        self.trouble = Some(Instant::now());
        self.sockets.clear();
    }

    /// Says goodbye.
    pub(super) async fn retire(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.cluster().leave()).await;
        tokio::time::sleep(MS * 300).await;
    }

    pub(super) fn freeze(&mut self) {
        self.ice.is_frozen.store(true, Ordering::Relaxed);
    }

    pub(super) fn thaw(&mut self) {
        self.ice.is_frozen.store(false, Ordering::Relaxed);
        let mut waiting = self.ice.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.drain(..).for_each(Waker::wake);
    }

    fn joiner(&self, slot: u32) -> Joiner {
        let socket = &self.sockets[&slot];
        Joiner {
            shard: socket.shard,
            socket: socket.key,
            place: 0,
            token: slot,
        }
    }

    /// A new socket.
    fn connect(&mut self) -> u32 {
        self.sockets_made += 1;
        let slot = self.sockets_made;
        let socket = Socket {
            id: SocketId::from_parts(self.id.0 % 1_000_000_000 + 1, slot.into()),
            key: SocketKey { slot, generation: 0 },
            shard: (slot % u32::from(SHARDS)) as ShardIndex,
            want: None,
            ear: None,
            _admission: self.app.admit(),
        };
        self.sockets.insert(slot, socket);
        slot
    }

    /// A socket comes and wants something, which it gets when its topic is heard from all nodes.
    pub(super) fn come(&mut self, want: Want) {
        let slot = self.connect();
        let name = match &want {
            Want::Channel(name, _) => channel_name(name),
            Want::SignIn(user) => ChannelName::of_user(user).expect("legal"),
        };
        let joiner = self.joiner(slot);
        let waiter = Waiter {
            shard: joiner.shard,
            socket: joiner.socket,
            token: slot,
        };
        let is_heard = self.node.is_heard(&self.namespace, &name, waiter);
        let socket = self.sockets.get_mut(&slot).expect("it came");
        socket.want = Some(want);
        if is_heard {
            self.admit(slot);
        }
    }

    fn admit(&mut self, slot: u32) {
        let joiner = self.sockets.contains_key(&slot).then(|| self.joiner(slot));
        let (Some(joiner), Some(socket)) = (joiner, self.sockets.get_mut(&slot)) else {
            return;
        };
        let Some(want) = socket.want.take() else { return };
        socket.ear = Some(match want {
            Want::Channel(name, member) => {
                let subscribed =
                    self.node
                        .subscribe(&self.namespace, &channel_name(name), joiner, member.as_ref());
                Ear::new(subscribed.expect("there is room"), name, member)
            }
            Want::SignIn(user) => {
                let name = ChannelName::of_user(&user).expect("legal");
                let channel = self.node.sign_in(&self.namespace, &name, joiner);
                self.node.user_came(&self.namespace, &user);
                Ear::signed_in(channel, user)
            }
        });
    }

    pub(super) fn watch(&mut self, user: &Arc<str>) {
        let slot = self.connect();
        let joiner = self.joiner(slot);
        let (channel, is_online) = self.node.watch(&self.namespace, user, joiner);
        let socket = self.sockets.get_mut(&slot).expect("it came");
        socket.ear = Some(Ear::watching(channel, user.clone(), is_online));
    }

    /// A socket goes.
    pub(super) fn leave(&mut self, slot: u32) {
        let Some(socket) = self.sockets.remove(&slot) else {
            return;
        };
        if let Some(ear) = socket.ear {
            let user_id = ear.member.as_ref().map(|member| &*member.user_id);
            self.node
                .unsubscribe(&self.namespace, &ear.channel, socket.shard, user_id);
            if let Some(user) = &ear.signed_in {
                self.node.user_went(&self.namespace, user);
            }
        }
    }

    /// What the shards do in their turns.
    pub(super) fn work_inboxes(
        &mut self,
        published: &[Published],
        present: &BTreeSet<(&'static str, String)>,
        is_calm: bool,
    ) {
        if !self.is_alive {
            return;
        }
        assert!(
            self.tasks.try_join_next().is_none(),
            "a task of node {} has ended",
            self.place
        );
        if !self.is_working() {
            return;
        }
        let hall = Hall {
            here: self.id,
            published,
            present,
            is_calm,
        };
        let mut entries = Vec::new();
        for shard in (0..SHARDS).cycle().take(usize::from(SHARDS) * 2) {
            self.node.inboxes().of(shard).take(Waker::noop(), &mut entries);
            for entry in entries.drain(..) {
                self.work(shard, entry, &hall);
            }
        }
        self.note_interests();
    }

    fn note_interests(&mut self) {
        let now = Instant::now();
        let named = self.ears().filter_map(|(_, ear)| ear.channel.name());
        let topics: Vec<u16> = named.map(|name| self.topic_of(name)).collect();
        for topic in topics {
            self.interests.entry(topic).or_insert((now, now)).1 = now;
        }
        // The topic is wanted a little longer than half a minute at most.
        self.interests
            .retain(|_, (_, until)| now - *until < Duration::from_secs(29));
    }

    fn topic_of(&self, name: &ChannelName) -> u16 {
        self.cluster().topic_of(self.namespace.app.id(), name)
    }

    /// Since when the topic of this channel has subscribers here.
    pub(super) fn interested_since(&self, name: &str) -> Option<Instant> {
        let name = ChannelName::parse(name, usize::MAX).expect("legal");
        let interest = self.interests.get(&self.topic_of(&name));
        interest.map(|(since, _)| *since)
    }

    fn work(&mut self, shard: ShardIndex, entry: Entry, hall: &Hall<'_>) {
        match entry {
            Entry::Admit(_, slot) => self.admit(slot),
            Entry::Join(join) => {
                if let Some(ear) = self
                    .sockets
                    .get_mut(&join.token)
                    .and_then(|socket| socket.ear.as_mut())
                {
                    ear.acknowledge(&join);
                }
            }
            Entry::Broadcast(broadcast) => {
                let charge = Inbox::charge(&broadcast.frame);
                self.node.inboxes().of(shard).release(charge);
                let node = self.node.clone();
                let is_whole = |sender| node.cluster().is_some_and(|here| here.peers.is_whole(sender));
                for socket in self.sockets.values_mut() {
                    if socket.shard == shard
                        && broadcast.except != Some(socket.id)
                        && let Some(ear) = &mut socket.ear
                    {
                        ear.hear(&broadcast, hall, is_whole);
                    }
                }
            }
            Entry::CloseAll(channel, _) => {
                let is_meant = |socket: &&Socket| {
                    let ear = socket.ear.as_ref();
                    socket.shard == shard && ear.is_some_and(|ear| Arc::ptr_eq(&ear.channel, &channel))
                };
                let meant = self.sockets.values().filter(is_meant);
                let meant: Vec<u32> = meant.map(|socket| socket.key.slot).collect();
                meant.into_iter().for_each(|slot| self.leave(slot));
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Whether a socket still waits to be admitted.
    pub(super) fn has_waiting(&self) -> bool {
        self.sockets.values().any(|socket| socket.want.is_some())
    }

    pub(super) fn ears(&self) -> impl Iterator<Item = (&Socket, &Ear)> {
        let ears = self.sockets.values();
        ears.filter_map(|socket| Some((socket, socket.ear.as_ref()?)))
    }
}

pub(super) fn channel_name(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).expect("legal")
}
