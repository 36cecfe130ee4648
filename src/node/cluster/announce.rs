//! Telling the other nodes who is here: changes are marked under their channels' locks and told together.
//!
//! A channel that changes is remembered once, however often it changes until it is told of; what is told is how it is
//! then. So a burst of ten thousand joins is a handful of announcements, and a single one leaves at once. Knows nothing
//! of how an announcement travels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::adapter::NodeId;
use crate::hub::Hub;
use crate::hub::cache::CachedEvent;
use crate::hub::channel::{Channel, ChannelState, Unannounced};
use crate::hub::namespace::Namespace;
use crate::hub::presence::UnannouncedMember;
use crate::node::Node;
use crate::relay::{Origin, Stamp};
use crate::roster::clock::Clock;
use crate::roster::delta::{Entry, MemberEntry, Pieces};
use crate::roster::digest::Digest;
use crate::wall;

/// Announcements follow each other no closer than this; what changes meanwhile travels together.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(10);

/// What has changed here since the other nodes were told last.
#[derive(Debug)]
pub struct Announcer {
    node: NodeId,
    clock: Clock,
    wall_us: fn() -> u64,
    queue: Mutex<Vec<(Arc<Namespace>, Arc<Channel>)>>,
    /// What back ends were told from here.
    told_back_ends: Mutex<Vec<Entry>>,
    changed: Notify,
    told: Mutex<Told>,
}

/// What the other nodes know when they have heard everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The number of the last announcement.
    pub number: u64,
    /// The digest of all of them.
    pub digest: Digest,
}

/// What was announced, and what is needed to find what has changed since. Locked during a whole flush, before any
/// channel, so that announcements leave in the order in which they were read.
#[derive(Debug, Default)]
struct Told {
    announced: Announced,
    connections: HashMap<Arc<str>, u32>,
}

impl Announcer {
    /// An announcer for this life of this node.
    pub fn new(node: NodeId) -> Announcer {
        Announcer::by_clock(node, wall::unix_us)
    }

    /// One that goes by this wall clock: microseconds since 1970.
    pub fn by_clock(node: NodeId, wall_us: fn() -> u64) -> Announcer {
        Announcer {
            node,
            clock: Clock::default(),
            wall_us,
            queue: Mutex::default(),
            told_back_ends: Mutex::default(),
            changed: Notify::new(),
            told: Mutex::default(),
        }
    }

    /// This life of this node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// A stamp for something that happens here and now.
    pub fn origin(&self) -> Origin {
        Origin {
            stamp: self.clock.stamp((self.wall_us)()),
            node: self.node,
        }
    }

    /// What another node's stamp is to be taken for.
    pub fn heard(&self, stamp: Stamp) -> Stamp {
        self.clock.heard(stamp, (self.wall_us)())
    }

    fn queue(&self) -> MutexGuard<'_, Vec<(Arc<Namespace>, Arc<Channel>)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a channel that was marked just now; called under its lock.
    fn remember(&self, namespace: &Arc<Namespace>, channel: &Arc<Channel>) {
        let mut queue = self.queue();
        queue.push((namespace.clone(), channel.clone()));
        if queue.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// The count of a channel has changed here, or its members.
    pub(in crate::node) fn mark(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
    ) {
        if state.mark_membership() {
            self.remember(namespace, channel);
        }
    }

    /// A channel's last event was published here.
    pub(in crate::node) fn mark_cached(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
    ) {
        if state.mark_cached() {
            self.remember(namespace, channel);
        }
    }

    /// A back end was told from here; called under the channel's lock, after it was marked if it has changed.
    pub(in crate::node) fn told_back_end(&self, told: Entry) {
        let mut all = self.told_back_ends();
        all.push(told);
        if all.len() == 1 {
            self.changed.notify_one();
        }
    }

    fn told_back_ends(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.told_back_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is something to tell, connections aside.
    pub fn has_news(&self) -> bool {
        !self.queue().is_empty() || !self.told_back_ends().is_empty()
    }

    /// Waits until there is something to tell.
    pub async fn news(&self) {
        while !self.has_news() {
            self.changed.notified().await;
        }
    }

    /// What was announced last. Waits for who is announcing just now.
    pub fn announced(&self) -> Announced {
        self.told().announced
    }

    /// Reads how everything that has changed is now, and hands it over in finished pieces, in their order; `send` gives
    /// each its number. The answer is what was ever announced. Nobody else flushes meanwhile, so `send` must not wait.
    pub fn flush(&self, hub: &Hub, now: Instant, mut send: impl FnMut(Bytes) -> u64) -> Announced {
        let mut told = self.told();
        let Told {
            announced,
            connections,
        } = &mut *told;
        let Announced { number, digest } = announced;
        let mut send = |piece| *number = send(piece);
        let mut pieces = Pieces::default();
        // Before the others, so that what led to it is announced before it.
        let told_back_ends = std::mem::take(&mut *self.told_back_ends());
        let changed = std::mem::take(&mut *self.queue());
        for (namespace, channel) in changed {
            let read = |_: &_, state: &mut ChannelState| state.take_unannounced(self.node);
            // A marked channel stays in the directory until it was read.
            let Some(unannounced) = hub.step(&namespace, &channel, read) else {
                continue;
            };
            self.tell(&namespace, &channel, unannounced, now, digest, &mut pieces);
            pieces.take_full().into_iter().for_each(&mut send);
        }
        tell_connections(hub, connections, digest, &mut pieces);
        pieces.finish().into_iter().for_each(&mut send);
        // In pieces of their own: a version before this one understands no piece that has them.
        let mut pieces = Pieces::default();
        told_back_ends.iter().for_each(|told| pieces.push(told));
        pieces.finish().into_iter().for_each(send);
        *announced
    }

    fn tell(
        &self,
        namespace: &Namespace,
        channel: &Channel,
        unannounced: Unannounced,
        now: Instant,
        digest: &mut Digest,
        pieces: &mut Pieces,
    ) {
        let Some(name) = channel.name() else { return };
        let (app, channel): (Arc<str>, Arc<str>) = (namespace.app.id().into(), name.as_str().into());
        let Unannounced {
            is_membership,
            count_before,
            count,
            members,
            cached,
        } = unannounced;
        digest.count(&app, &channel, count_before, count);
        for UnannouncedMember {
            user_id,
            was_here,
            claim,
        } in &members
        {
            digest.member(&app, &channel, user_id, *was_here, claim.is_some());
        }
        if is_membership {
            let member = |member: UnannouncedMember| MemberEntry {
                user_id: member.user_id,
                claim: member.claim,
            };
            // Also who came and went meanwhile: a snapshot that is under way may have seen them.
            pieces.push(&Entry::Channel {
                app: app.clone(),
                channel: channel.clone(),
                count,
                members: members.into_iter().map(member).collect(),
            });
        }
        if let Some(event) = cached.filter(|event| event.expires > now) {
            pieces.push(&cached_entry(app, channel, event, now));
        }
    }
}

/// What is said of a cached event at this moment.
pub(super) fn cached_entry(app: Arc<str>, channel: Arc<str>, event: CachedEvent, now: Instant) -> Entry {
    let left = event.expires.saturating_duration_since(now);
    Entry::Cached {
        app,
        channel,
        origin: event.origin,
        left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        frame: event.frame.into_bytes(),
    }
}

/// Sockets are counted where they are admitted, so what has changed is found by a look at each app. `told` is what was
/// told of each.
fn tell_connections(hub: &Hub, told: &mut HashMap<Arc<str>, u32>, digest: &mut Digest, pieces: &mut Pieces) {
    for namespace in hub.namespaces() {
        let count = u32::try_from(namespace.app.connections()).unwrap_or(u32::MAX);
        let id = namespace.app.id();
        let before = told.get(id).copied().unwrap_or(0);
        if before != count {
            let app: Arc<str> = id.into();
            digest.connections(id, before, count);
            told.insert(app.clone(), count);
            pieces.push(&Entry::Connections { app, count });
        }
    }
}

/// When the next announcement leaves: at once after a rest, else not before the interval is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pacing {
    last: Option<Instant>,
}

impl Pacing {
    /// When news of `now` may be told. To be told the time when they were: [`Pacing::told`].
    pub fn due(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + ANNOUNCE_INTERVAL))
    }

    /// News were told.
    pub fn told(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

impl Node {
    /// A stamp for something that happens here and now. Alone, a node needs none: what comes later is later.
    pub(in crate::node) fn origin(&self) -> Origin {
        self.announcer.as_ref().map_or(
            Origin {
                stamp: Stamp(0),
                node: NodeId(0),
            },
            Announcer::origin,
        )
    }

    /// This life of this node, as far as anybody else has to tell it from others.
    pub(in crate::node) fn id(&self) -> NodeId {
        self.announcer.as_ref().map_or(NodeId(0), Announcer::node)
    }

    /// The other nodes are to hear that subscribers or members of a channel have changed; called under its lock.
    pub(in crate::node) fn announce(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
    ) {
        if let Some(announcer) = &self.announcer {
            announcer.mark(namespace, channel, state);
        }
    }

    /// The other nodes are to hear that a user came, or went whom they may know to be here; called under the channel's
    /// lock, before [`Node::announce`].
    pub(in crate::node) fn announce_member(&self, state: &mut ChannelState, user_id: &str, was_here: bool) {
        if self.announcer.is_some() {
            state.presence().mark_unannounced(&user_id.into(), was_here);
        }
    }

    /// The other nodes are to hear of a channel's last event; called under its lock.
    pub(in crate::node) fn announce_cached(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
    ) {
        if let Some(announcer) = &self.announcer {
            announcer.mark_cached(namespace, channel, state);
        }
    }

    /// Tells the other nodes what has changed: see [`Announcer::flush`]. Alone, there is nobody to tell.
    pub fn flush(&self, now: Instant, send: impl FnMut(Bytes) -> u64) -> Announced {
        let announcer = self.announcer.as_ref();
        announcer.map_or_else(Announced::default, |announcer| {
            announcer.flush(&self.hub, now, send)
        })
    }

    /// What was announced last: see [`Announcer::announced`].
    pub(super) fn announced(&self) -> Announced {
        let announcer = self.announcer.as_ref();
        announcer.map_or_else(Announced::default, Announcer::announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_news_after_a_rest_leave_at_once_and_the_next_ten_milliseconds_later() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pacing = Pacing::default();
        assert_eq!(pacing.due(at(0)), at(0));
        pacing.told(at(0));
        assert_eq!(pacing.due(at(3)), at(10));
        pacing.told(at(10));
        assert_eq!(pacing.due(at(50)), at(50));
    }
}
