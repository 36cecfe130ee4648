//! What other nodes say of their sockets becomes changes of the hub, and news for the subscribers here.
//!
//! All that is derived, is derived under the channel's own lock: a member is added when nobody claimed the user before,
//! and removed when nobody does any more. Hearing something twice changes nothing. What is said of an app that is not
//! served here is kept like all else: it may be served a moment later. Knows nothing of how it was heard.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::adapter::NodeId;
use crate::hub::cache::CachedEvent;
use crate::hub::channel::{Channel, ChannelState, Topic};
use crate::hub::inbox::Delivery;
use crate::hub::namespace::Namespace;
use crate::node::duties::Duty;
use crate::node::{Node, push_to_audience};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::frame::Frame;
use crate::protocol::server;
use crate::relay::{Origin, Stamp};
use crate::roster::delta::{Entry, MemberEntry};
use crate::roster::digest::Digest;

/// A cached event that comes over the relay as well is to come that way first.
const RELAY_FIRST: Duration = Duration::from_millis(500);

/// What one node says, while it is being carried out. The shards are woken when it is dropped: not before a lock that
/// was taken on the way.
pub(super) struct Hearing<'a> {
    node: &'a Node,
    peer: NodeId,
    digest: &'a mut Digest,
    delivery: Delivery<'a>,
    /// This node has just started, and the peer has not: who is there was there already, and back ends were told.
    is_old_news: bool,
    now: Instant,
}

impl Node {
    /// Carries out what `peer` announced, and keeps the digest of all that is known of it. The answer is how many
    /// entries concern channels that cannot be: they were passed over, and a digest cannot be compared any more.
    pub fn apply(&self, peer: NodeId, entries: &[Entry], digest: &mut Digest, now: Instant) -> u64 {
        let mut hearing = self.hear(peer, digest, now);
        let mut ignored = 0;
        for entry in entries {
            ignored += u64::from(!hearing.entry(entry));
        }
        ignored
    }

    pub(super) fn hear<'a>(&'a self, peer: NodeId, digest: &'a mut Digest, now: Instant) -> Hearing<'a> {
        Hearing {
            node: self,
            peer,
            digest,
            delivery: self.inboxes().deliver(),
            is_old_news: self
                .cluster
                .as_ref()
                .is_some_and(|cluster| cluster.is_newer_than(peer)),
            now,
        }
    }

    /// An app by what other nodes call it, served here or not: what is heard of it counts as soon as it is.
    pub(super) fn namespace_of(&self, app: &str) -> Arc<Namespace> {
        self.namespace(&self.apps.served_or_not(app))
    }
}

/// A channel by what other nodes call it. How long a name may be was asked where somebody subscribed.
pub(super) fn name_of(channel: &str) -> Option<ChannelName> {
    ChannelName::parse(channel, usize::MAX).ok()
}

impl Hearing<'_> {
    /// Carries out one entry. False if it is about nothing that can be here.
    pub(super) fn entry(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Channel {
                app,
                channel,
                count,
                members,
            } => {
                let Some(name) = name_of(channel) else {
                    return false;
                };
                let namespace = self.node.namespace_of(app);
                self.channel(&namespace, &name, *count, members);
            }
            Entry::Cached {
                app,
                channel,
                frame,
                origin,
                left_ms,
            } => {
                let Some(name) = name_of(channel) else {
                    return false;
                };
                let namespace = self.node.namespace_of(app);
                self.cached(&namespace, &name, frame, *origin, Duration::from_millis(*left_ms));
            }
            Entry::Connections { app, count } => {
                let namespace = self.node.namespace_of(app);
                self.connections(&namespace, *count);
            }
            Entry::Told {
                app,
                channel,
                member,
                is_there,
            } => {
                // Of no account for digests.
                if let Some(name) = name_of(channel) {
                    let namespace = self.node.namespace_of(app);
                    self.told(&namespace, name, member.as_ref(), *is_there);
                }
            }
        }
        true
    }

    /// The peer has so many sockets of an app.
    pub(super) fn connections(&mut self, namespace: &Namespace, count: u32) {
        let before = namespace.set_connections_elsewhere(self.peer, count);
        self.digest.connections(namespace.app.id(), before, count);
    }

    fn channel(
        &mut self,
        namespace: &Arc<Namespace>,
        name: &ChannelName,
        count: u32,
        members: &[MemberEntry],
    ) {
        let topic = Topic::Channel(name.clone());
        let node = self.node;
        let is_somebody = count > 0 || members.iter().any(|member| member.claim.is_some());
        let step = |channel: &Arc<Channel>, state: &mut ChannelState| {
            for member in members {
                match &member.claim {
                    Some((user_info, since)) => {
                        self.claim(namespace, channel, state, &member.user_id, user_info, *since)
                    }
                    None => self.unclaim(namespace, channel, state, &member.user_id),
                };
            }
            self.count(namespace, channel, state, count)
        };
        let before = if is_somebody {
            node.hub.enter(namespace, &topic, step)
        } else {
            node.hub.visit(namespace, &topic, step).unwrap_or(0)
        };
        self.told_watchers(namespace, name, before, count);
    }

    /// The peer has so many subscribers; called under the channel's lock. The answer is how many it had before.
    pub(super) fn count(
        &mut self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
        count: u32,
    ) -> u32 {
        let was_occupied = state.is_occupied();
        let before = state.set_elsewhere(self.peer, count);
        if (before == 0) != (count == 0) {
            let shares = &self.node.shares;
            match count {
                0 => shares.fetch_sub(1, Ordering::Relaxed),
                _ => shares.fetch_add(1, Ordering::Relaxed),
            };
        }
        if before != count {
            if let Some(name) = channel.name() {
                self.digest
                    .count(namespace.app.id(), name.as_str(), before, count);
            }
            self.report_occupancy(namespace, channel, state, was_occupied);
            self.node
                .count_changed(namespace, &mut self.delivery, channel, state, self.now);
        }
        before
    }

    /// Whether a channel is occupied may have changed by what the peer says; called under its lock.
    fn report_occupancy(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &ChannelState,
        was_occupied: bool,
    ) {
        if self.is_old_news && state.is_occupied() {
            self.node
                .heard_told(namespace, channel, state, None, true, self.now);
        } else {
            self.node
                .report_occupancy(namespace, channel, state, was_occupied, self.now);
        }
    }

    /// The peer told a back end.
    fn told(&self, namespace: &Arc<Namespace>, name: ChannelName, member: Option<&Arc<str>>, is_there: bool) {
        // Whether somebody is there is asked under the lock, even if there is nobody.
        self.node
            .hub
            .enter(namespace, &Topic::Channel(name), |channel, state| {
                self.node
                    .heard_told(namespace, channel, state, member, is_there, self.now);
            });
    }

    /// The peer has this user; called under the channel's lock. The answer is the bytes of news that came of it.
    pub(super) fn claim(
        &mut self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
        user_id: &Arc<str>,
        user_info: &Arc<str>,
        since: Stamp,
    ) -> usize {
        let Some(name) = channel.name().filter(|name| name.kind().is_presence()) else {
            return 0;
        };
        let was_claimed = state
            .members()
            .is_some_and(|members| members.claimed_since(user_id, self.peer).is_some());
        self.digest
            .member(namespace.app.id(), name.as_str(), user_id, was_claimed, true);
        let origin = Origin {
            stamp: self.node.heard(since),
            node: self.peer,
        };
        let was_occupied = state.is_occupied();
        let is_new = state.presence().claim(user_id, user_info, origin);
        self.report_occupancy(namespace, channel, state, was_occupied);
        if self.is_old_news {
            self.node
                .heard_told(namespace, channel, state, Some(user_id), true, self.now);
        } else if is_new {
            self.node
                .report_member(namespace, channel, user_id, true, self.now);
        }
        if !is_new || state.here() == 0 {
            return 0;
        }
        let news = server::member_added(name, user_id, user_info);
        self.push(channel, state, &news)
    }

    /// The peer does not have this user, or not any more; called under the channel's lock. The answer is the bytes of
    /// news that came of it.
    pub(super) fn unclaim(
        &mut self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
        user_id: &str,
    ) -> usize {
        let was_claimed = state
            .members()
            .is_some_and(|members| members.claimed_since(user_id, self.peer).is_some());
        let Some(name) = channel.name().filter(|_| was_claimed) else {
            return 0;
        };
        self.digest
            .member(namespace.app.id(), name.as_str(), user_id, true, false);
        let is_gone = state.presence().unclaim(user_id, self.peer);
        if is_gone {
            self.node
                .report_member(namespace, channel, user_id, false, self.now);
            self.report_occupancy(namespace, channel, state, true);
        }
        if !is_gone || state.here() == 0 {
            return 0;
        }
        let news = server::member_removed(name, user_id);
        self.push(channel, state, &news)
    }

    fn push(&mut self, channel: &Arc<Channel>, state: &ChannelState, news: &Frame) -> usize {
        push_to_audience(&mut self.delivery, channel, state, news, None, self.now);
        news.as_bytes().len()
    }

    /// The peer's subscribers to a channel were `before` and are `after`. If it is a user's own, who watches the user
    /// may hear of it. Called with no lock held.
    pub(super) fn told_watchers(
        &self,
        namespace: &Arc<Namespace>,
        name: &ChannelName,
        before: u32,
        after: u32,
    ) {
        let Some(user_id) = name.user_id() else { return };
        match (before, after) {
            (0, 1..) => self.node.user_came(namespace, &user_id.into()),
            (1.., 0) => self.node.user_went(namespace, &user_id.into()),
            _ => {}
        }
    }

    fn cached(
        &mut self,
        namespace: &Arc<Namespace>,
        name: &ChannelName,
        frame: &Bytes,
        origin: Origin,
        left: Duration,
    ) {
        let left = left.min(namespace.app.settings().policy(name).cache_ttl);
        // A copy: what it came in may be much larger, and would be kept with it.
        let Some(frame) = Frame::from_bytes(Bytes::copy_from_slice(frame)).filter(|_| !left.is_zero()) else {
            return;
        };
        let origin = Origin {
            stamp: self.node.heard(origin.stamp),
            node: origin.node,
        };
        if !name.kind().is_cache() {
            return;
        }
        let event = CachedEvent::new(frame, self.now + left, origin);
        if let Some(event) = self.node.remember(namespace, name, event, true, self.now) {
            let duty = Duty::Remember(namespace.clone(), name.clone(), event);
            self.node.duties.at(self.now + RELAY_FIRST, duty);
        }
    }
}

impl Node {
    /// What another node's stamp is to be taken for.
    pub(super) fn heard(&self, stamp: Stamp) -> Stamp {
        let announcer = self.announcer.as_ref();
        announcer.map_or(stamp, |announcer| announcer.heard(stamp))
    }

    /// Another node published a cache channel's last event, of which this one may have heard before. Where somebody is
    /// subscribed it comes over the relay as well, in its order, and who joined before that would get it twice: the
    /// answer is the event, if it is to wait for that.
    pub(in crate::node) fn remember(
        &self,
        namespace: &Arc<Namespace>,
        name: &ChannelName,
        mut event: CachedEvent,
        waits: bool,
        now: Instant,
    ) -> Option<CachedEvent> {
        let topic = Topic::Channel(name.clone());
        let waiting = self.hub.enter(namespace, &topic, |channel, state| {
            let is_news =
                state.cached().is_none_or(|known| known.origin < event.origin) && event.expires > now;
            if !is_news {
                return None;
            }
            event.is_known_to_all = state.here() == 0;
            if waits && !event.is_known_to_all {
                return Some(event.clone());
            }
            self.store_cached(namespace, channel, state, event.clone());
            None
        });
        self.hub.trim_cache(namespace, now);
        waiting
    }
}
