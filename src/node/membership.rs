//! Joining and leaving channels. One step under the channel's lock decides what everybody sees: the joiner's view,
//! the news for the others, and the joiner's own entry in its shard's inbox are of one moment.

use std::sync::Arc;
use std::time::Instant;

use super::duties::Duty;
use super::{Node, now, push_to_audience};
use crate::hub::channel::{Channel, ChannelState, CountTelling, Topic};
use crate::hub::inbox::{CacheAnswer, Delivery, Entry, Join, ShardIndex, SocketKey};
use crate::hub::namespace::Namespace;
use crate::hub::presence::{Joined, Left};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::frame::Frame;
use crate::protocol::presence::Member;
use crate::protocol::server;

/// The place that a join is for: a socket, a place in its list of subscriptions, and the token that this place
/// carries as long as the join is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Joiner {
    /// The socket's shard.
    pub shard: ShardIndex,
    /// The socket.
    pub socket: SocketKey,
    /// See [`Join::place`].
    pub place: u32,
    /// See [`Join::token`].
    pub token: u32,
}

impl Joiner {
    pub(super) fn join(self, channel: &Arc<Channel>, silent: bool) -> Join {
        Join {
            socket: self.socket,
            place: self.place,
            token: self.token,
            channel: channel.clone(),
            members: None,
            cache: CacheAnswer::Silent,
            silent,
        }
    }
}

/// Why a correct and authorised subscription is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The presence channel has as many members as the app allows.
    PresenceFull,
}

impl Node {
    /// Subscribes a socket. The acknowledgement goes through its shard's inbox, so that it comes first on the channel
    /// and nothing published later is missed.
    pub fn subscribe(
        &self,
        namespace: &Arc<Namespace>,
        name: &ChannelName,
        joiner: Joiner,
        member: Option<&Member>,
    ) -> Result<Arc<Channel>, Refused> {
        let now = now();
        let members_max = namespace.app.settings().policy(name).presence_members_max;
        let mut delivery = self.inboxes().deliver();
        let joined = self
            .hub
            .enter(namespace, &Topic::Channel(name.clone()), |channel, state| {
                let mut join = joiner.join(channel, false);
                let was_occupied = state.is_occupied();
                let mut new_member = None;
                if let Some(member) = member {
                    let joined = state.presence().join(member, self.origin(), members_max);
                    match joined {
                        Joined::Full => return Err(Refused::PresenceFull),
                        Joined::NewMember => {
                            let news = server::member_added(name, &member.user_id, &member.user_info);
                            push_to_audience(&mut delivery, channel, state, &news, None, now);
                            new_member = Some(&*member.user_id);
                        }
                        Joined::NewHere | Joined::AnotherSocket => {}
                    }
                    if joined != Joined::AnotherSocket {
                        self.announce_member(state, &member.user_id, false);
                    }
                    join.members = Some(state.presence().view());
                }
                if name.kind().is_cache() {
                    join.cache = match state.cached_at(now) {
                        Some(event) => CacheAnswer::Hit(event.frame.clone()),
                        None => CacheAnswer::Miss,
                    };
                }
                if state.add(joiner.shard) {
                    self.occupied(namespace, channel);
                }
                let is_miss = matches!(join.cache, CacheAnswer::Miss);
                delivery.push(joiner.shard, Entry::Join(join));
                self.announce(namespace, channel, state);
                self.report_occupancy(namespace, channel, state, was_occupied, now);
                if let Some(user_id) = new_member {
                    self.report_member(namespace, channel, user_id, true, now);
                }
                if is_miss {
                    self.report_cache_miss(namespace, name, now);
                }
                self.count_changed(namespace, &mut delivery, channel, state, now);
                Ok(channel.clone())
            });
        if joined.is_ok() {
            namespace.metrics.channel_subscriptions_total.inc();
        }
        joined
    }

    /// Acknowledges a subscription that the socket has already, with the members of now. Changes nothing.
    pub fn acknowledge_again(&self, namespace: &Namespace, channel: &Arc<Channel>, joiner: Joiner) {
        let mut delivery = self.inboxes().deliver();
        self.hub.step(namespace, channel, |channel, state| {
            let mut join = joiner.join(channel, false);
            if channel.name().is_some_and(|name| name.kind().is_presence()) {
                join.members = Some(state.presence().view());
            }
            delivery.push(joiner.shard, Entry::Join(join));
        });
    }

    /// Takes back a subscription, acknowledged or not. `user_id` is the member it was made as.
    pub fn unsubscribe(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        shard: ShardIndex,
        user_id: Option<&str>,
    ) {
        let now = now();
        let mut delivery = self.inboxes().deliver();
        self.hub.step(namespace, channel, |channel, state| {
            let was_occupied = state.is_occupied();
            let mut is_gone = false;
            if state.remove(shard) {
                self.vacated(namespace, channel);
            }
            if let (Some(user_id), Some(name)) = (user_id, channel.name()) {
                let left = state.presence().leave(user_id, self.id());
                if left == Left::Gone {
                    let news = server::member_removed(name, user_id);
                    push_to_audience(&mut delivery, channel, state, &news, None, now);
                    is_gone = true;
                }
                if left != Left::Nothing {
                    self.announce_member(state, user_id, true);
                }
            }
            self.announce(namespace, channel, state);
            if let Some(user_id) = user_id.filter(|_| is_gone) {
                self.report_member(namespace, channel, user_id, false, now);
            }
            self.report_occupancy(namespace, channel, state, was_occupied, now);
            self.count_changed(namespace, &mut delivery, channel, state, now);
        });
        if channel.name().is_some_and(|name| !name.kind().is_user()) {
            namespace.metrics.channel_unsubscriptions_total.inc();
        }
    }

    /// The count of a channel has changed, here or elsewhere: its subscribers here are told in good time, and the app's
    /// back end.
    pub(super) fn count_changed(
        &self,
        namespace: &Arc<Namespace>,
        delivery: &mut Delivery<'_>,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
        now: Instant,
    ) {
        let Some(name) = channel.name().filter(|name| is_counted(name)) else {
            return;
        };
        self.report_count(namespace, channel, name, state, now);
        if state.here() == 0 || !namespace.app.settings().policy(name).subscription_count_events {
            return;
        }
        let count = state.subscription_count();
        match state.counts().changed(count, now) {
            CountTelling::Now => tell_count(delivery, channel, state, now),
            CountTelling::At(due) => {
                self.duties
                    .at(due, Duty::TellCount(namespace.clone(), channel.clone()));
            }
            CountTelling::No => {}
        }
    }

    /// The time has come that [`CountTelling::At`] set.
    pub(super) fn count_due(&self, namespace: &Namespace, channel: &Arc<Channel>, now: Instant) {
        let mut delivery = self.inboxes().deliver();
        self.hub.step(namespace, channel, |channel, state| {
            let count = state.subscription_count();
            if state.counts().due(count, now) {
                tell_count(&mut delivery, channel, state, now);
            }
        });
    }
}

/// Presence channels have members instead of counts; those of single users have neither.
fn is_counted(name: &ChannelName) -> bool {
    !name.kind().is_presence() && !name.kind().is_user()
}

fn tell_count(delivery: &mut Delivery<'_>, channel: &Arc<Channel>, state: &ChannelState, now: Instant) {
    let Some(name) = channel.name() else { return };
    let news: Frame = server::subscription_count(name, state.subscription_count());
    push_to_audience(delivery, channel, state, &news, None, now);
}
