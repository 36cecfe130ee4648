//! What the nodes of one process share: who wants what, what is on its way to whom and when it is due, and which
//! faults are ordered. One plain lock, held for no wait.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::adapter::{Event, Lane, LinkHealth, Message, Topic, WishNumber};

/// So much may be on its way to one lane of one node; what is more is lost.
const POST_MAX: usize = 1 << 20;

/// A node on a bus, in the order of joining.
pub type Member = usize;

/// Joins the adapters of several nodes in this process. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    state: Arc<Mutex<State>>,
}

/// What befalls every message.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// How long each takes; the order of one sender in one topic holds all the same.
    pub delay: RangeInclusive<Duration>,
    /// How likely it is, from 0 to 1, that one on its way to one node is lost.
    pub loss: f64,
    /// How likely it is that it comes twice.
    pub repetition: f64,
}

impl Default for Weather {
    /// At once, each once.
    fn default() -> Weather {
        Weather {
            delay: Duration::ZERO..=Duration::ZERO,
            loss: 0.0,
            repetition: 0.0,
        }
    }
}

/// How a node is connected to the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// As it should be.
    #[default]
    Up,
    /// Not at all: it hears nothing, what it publishes is refused, and it knows.
    Down,
    /// The broker takes what it publishes, but no acceptance comes back.
    Unanswered,
}

/// What went over the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    fn add(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.bytes.len() as u64;
    }
}

struct State {
    luck: StdRng,
    weather: Weather,
    members: BTreeMap<Member, Joined>,
    joined: Member,
    /// Counts all that was ever sent: what is due at the same time comes in this order.
    sent: u64,
    /// What was published.
    published: BTreeMap<Topic, Traffic>,
    /// What arrived, at all nodes together.
    heard: BTreeMap<Topic, Traffic>,
}

struct Joined {
    link: Link,
    /// Only those of one side hear each other.
    side: usize,
    reconnects: u64,
    channel_lanes: usize,
    lanes: Vec<Post>,
    wishes: BTreeMap<Topic, Wish>,
    heard: Traffic,
}

#[derive(Default)]
struct Wish {
    wanted: bool,
    number: WishNumber,
    is_heard: bool,
    confirmed: Option<WishNumber>,
}

/// What is on its way to one lane.
#[derive(Default)]
struct Post {
    due: BTreeMap<(Instant, u64), Item>,
    /// When the last message of this sender and topic is due.
    last: HashMap<(Member, Topic), Instant>,
    wake: Arc<Notify>,
}

enum Item {
    Heard(Message),
    /// The broker sees what is wanted of this topic.
    Seen(Topic),
    Lost(Topic),
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

impl Bus {
    /// A bus whose delays and losses follow from the seed.
    pub fn new(seed: u64) -> Bus {
        let state = State {
            luck: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            members: BTreeMap::new(),
            joined: 0,
            sent: 0,
            published: BTreeMap::new(),
            heard: BTreeMap::new(),
        };
        Bus {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What befalls messages from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// How one node is connected from now on. What was on its way to one that goes down is lost.
    pub fn set_link(&self, member: Member, link: Link) {
        self.lock().set_link(member, link);
    }

    /// The same for all nodes: an outage of the broker, or its end.
    pub fn set_links(&self, link: Link) {
        let mut state = self.lock();
        let members: Vec<_> = state.members.keys().copied().collect();
        for member in members {
            state.set_link(member, link);
        }
    }

    /// From now on only nodes of one side hear each other. Those that are not named are a side of their own.
    /// Nobody is told, and all that is published counts as accepted. `&[]` heals it.
    pub fn part(&self, sides: &[&[Member]]) {
        for (member, joined) in &mut self.lock().members {
            let side = sides.iter().position(|side| side.contains(member));
            joined.side = side.map_or(0, |side| side + 1);
        }
    }

    /// What was published in each topic.
    pub fn published(&self) -> BTreeMap<Topic, Traffic> {
        self.lock().published.clone()
    }

    /// What arrived in each topic, all nodes together.
    pub fn heard(&self) -> BTreeMap<Topic, Traffic> {
        self.lock().heard.clone()
    }

    /// What arrived at a node, in all topics together.
    pub fn heard_by(&self, member: Member) -> Traffic {
        let state = self.lock();
        state
            .members
            .get(&member)
            .map(|joined| joined.heard)
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, lanes: usize, channel_lanes: usize) -> (Member, Vec<Arc<Notify>>) {
        let mut state = self.lock();
        let lanes: Vec<Post> = (0..lanes).map(|_| Post::default()).collect();
        let wakes = lanes.iter().map(|post| post.wake.clone()).collect();
        let member = state.joined;
        state.joined += 1;
        let joined = Joined {
            link: Link::Up,
            side: 0,
            reconnects: 0,
            channel_lanes,
            lanes,
            wishes: BTreeMap::new(),
            heard: Traffic::default(),
        };
        state.members.insert(member, joined);
        (member, wakes)
    }

    pub(super) fn leave(&self, member: Member) {
        self.lock().members.remove(&member);
    }

    /// Says which messages were accepted, and when that is to be told.
    pub(super) fn publish(&self, from: Member, batch: Vec<Message>) -> (Vec<bool>, Duration) {
        let mut state = self.lock();
        let Some(sender) = state.members.get(&from) else {
            return (vec![false; batch.len()], Duration::ZERO);
        };
        let (link, side) = (sender.link, sender.side);
        if link == Link::Down {
            return (vec![false; batch.len()], Duration::ZERO);
        }
        let accepted = vec![link == Link::Up; batch.len()];
        for message in batch {
            state.published.entry(message.topic).or_default().add(&message);
            let hears = |joined: &&mut Joined| {
                let wish = joined.wishes.get(&message.topic);
                joined.side == side && wish.is_some_and(|wish| wish.is_heard)
            };
            let State {
                members,
                luck,
                weather,
                sent,
                ..
            } = &mut *state;
            for joined in members.values_mut().filter(hears) {
                if luck.random_bool(weather.loss) {
                    continue;
                }
                let due = Instant::now() + luck.random_range(weather.delay.clone());
                let times = 1 + usize::from(luck.random_bool(weather.repetition));
                let post = joined.post(message.topic);
                let last = post.last.entry((from, message.topic)).or_insert(due);
                *last = due.max(*last);
                let due = *last;
                for _ in 0..times {
                    *sent += 1;
                    post.send(due, *sent, Item::Heard(message.clone()));
                }
            }
        }
        let answered = state.delay();
        (accepted, answered)
    }

    pub(super) fn want(&self, member: Member, topic: Topic, wanted: bool, number: WishNumber) {
        let mut state = self.lock();
        let Some(joined) = state.members.get_mut(&member) else {
            return;
        };
        let wish = joined.wishes.entry(topic).or_default();
        if number <= wish.number && wish.number > 0 {
            return;
        }
        wish.number = number;
        wish.wanted = wanted;
        if wanted {
            state.ask(member, topic);
        } else {
            wish.is_heard = false;
            wish.confirmed = None;
        }
    }

    pub(super) fn health(&self, member: Member) -> LinkHealth {
        let state = self.lock();
        let Some(joined) = state.members.get(&member) else {
            return LinkHealth::default();
        };
        let wanted = joined.lanes.len();
        LinkHealth {
            connected: if joined.link == Link::Down { 0 } else { wanted },
            wanted,
            reconnects: joined.reconnects,
        }
    }

    /// When the next of a lane's post is due.
    pub(super) fn next_due(&self, member: Member, lane: Lane) -> Option<Instant> {
        let state = self.lock();
        let post = state.members.get(&member)?.lanes.get(lane)?;
        post.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next of a lane's post, if it is due.
    pub(super) fn take_due(&self, member: Member, lane: Lane) -> Option<Event> {
        let now = Instant::now();
        let mut state = self.lock();
        let State { members, heard, .. } = &mut *state;
        let joined = members.get_mut(&member)?;
        loop {
            let first = joined.lanes.get_mut(lane)?.due.first_entry()?;
            if first.key().0 > now {
                return None;
            }
            match first.remove() {
                Item::Heard(message) => {
                    joined.heard.add(&message);
                    heard.entry(message.topic).or_default().add(&message);
                    return Some(Event::Heard(message));
                }
                Item::Lost(topic) => return Some(Event::Lost(topic)),
                Item::Seen(topic) => {
                    let wish = joined.wishes.entry(topic).or_default();
                    if wish.wanted && joined.link != Link::Down && wish.confirmed != Some(wish.number) {
                        wish.is_heard = true;
                        wish.confirmed = Some(wish.number);
                        return Some(Event::Confirmed(topic, wish.number));
                    }
                }
            }
        }
    }
}

impl State {
    fn delay(&mut self) -> Duration {
        self.luck.random_range(self.weather.delay.clone())
    }

    /// A wish is on its way to the broker.
    fn ask(&mut self, member: Member, topic: Topic) {
        let due = Instant::now() + self.delay();
        self.sent += 1;
        if let Some(joined) = self.members.get_mut(&member) {
            joined.post(topic).send(due, self.sent, Item::Seen(topic));
        }
    }

    fn set_link(&mut self, member: Member, link: Link) {
        let Some(joined) = self.members.get_mut(&member) else {
            return;
        };
        let before = std::mem::replace(&mut joined.link, link);
        let is_up = link != Link::Down;
        if is_up == (before != Link::Down) {
            return;
        }
        let wanted = joined.wishes.iter().filter(|(_, wish)| wish.wanted);
        let wanted: Vec<Topic> = wanted.map(|(topic, _)| *topic).collect();
        if is_up {
            joined.reconnects += joined.lanes.len() as u64;
            for topic in wanted {
                self.ask(member, topic);
            }
            return;
        }
        for post in &mut joined.lanes {
            post.due.retain(|_, item| matches!(item, Item::Lost(_)));
            post.last.clear();
        }
        for topic in wanted {
            let wish = joined.wishes.entry(topic).or_default();
            wish.confirmed = None;
            if std::mem::take(&mut wish.is_heard) {
                self.sent += 1;
                let sent = self.sent;
                joined.post(topic).send(Instant::now(), sent, Item::Lost(topic));
            }
        }
    }
}

impl Joined {
    fn post(&mut self, topic: Topic) -> &mut Post {
        &mut self.lanes[topic.lane(self.channel_lanes)]
    }
}

impl Post {
    fn send(&mut self, due: Instant, number: u64, item: Item) {
        if self.due.len() < POST_MAX || !matches!(item, Item::Heard(_)) {
            self.due.insert((due, number), item);
            self.wake.notify_one();
        }
    }
}
