//! Signed-in users: their own channel, who watches them, and ending or moving their connections.
//!
//! A user's sockets are the subscribers of `#server-to-user-ID`, joined silently at sign-in, so an event to a user is
//! a publication like any other. Who watches a user is subscribed to a hidden topic of its own.

use std::sync::Arc;
use std::time::Instant;

use super::duties::Duty;
use super::membership::Joiner;
use super::{Node, now, push_to_audience};
use crate::app::App;
use crate::hub::channel::{Channel, ChannelState, Topic};
use crate::hub::inbox::{Delivery, Entry};
use crate::hub::namespace::Namespace;
use crate::protocol::channel_name::ChannelName;
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::protocol::server;

impl Node {
    /// A socket is signed in: from now on it gets the events to this user.
    pub fn sign_in(&self, namespace: &Arc<Namespace>, user: &ChannelName, joiner: Joiner) -> Arc<Channel> {
        let topic = Topic::Channel(user.clone());
        let announce = |channel: &_, state: &mut _| self.announce(namespace, channel, state);
        self.join_silently(namespace, &topic, joiner, announce).0
    }

    /// A socket signed in as this user, or another node has the first such socket: its watchers may hear of it.
    pub fn user_came(&self, namespace: &Namespace, user_id: &Arc<str>) {
        if !namespace.app.settings().config.watchlist {
            return;
        }
        let now = now();
        let mut delivery = self.inboxes().deliver();
        self.hub
            .enter(namespace, &Topic::Watch(user_id.clone()), |channel, state| {
                if state.watched().signed_in() {
                    tell(
                        &mut delivery,
                        channel,
                        state,
                        server::watchlist_events(&[user_id], &[]),
                        now,
                    );
                }
            });
    }

    /// A signed-in socket of this user went, or the last one of another node. Its watchers hear of it after the grace, if no other is left then.
    pub fn user_went(&self, namespace: &Arc<Namespace>, user_id: &Arc<str>) {
        // Asked for also where watching is switched off: it may have been on when the user came.
        let now = now();
        self.hub
            .visit(namespace, &Topic::Watch(user_id.clone()), |channel, state| {
                if let Some(due) = state
                    .watched()
                    .signed_out(now, namespace.app.settings().limits.watch_grace)
                {
                    self.duties
                        .at(due, Duty::TellOffline(namespace.clone(), channel.clone()));
                }
            });
    }

    /// The grace of a user who went may be over.
    pub(super) fn offline_due(&self, namespace: &Namespace, channel: &Arc<Channel>, now: Instant) {
        let Topic::Watch(user_id) = &channel.topic else {
            return;
        };
        let mut delivery = self.inboxes().deliver();
        self.hub.step(namespace, channel, |channel, state| {
            if state.watched().offline_due(now) {
                tell(
                    &mut delivery,
                    channel,
                    state,
                    server::watchlist_events(&[], &[user_id]),
                    now,
                );
            }
        });
    }

    /// Watches a user. The answer is whether the user is online, as of the moment from which on changes are told.
    pub fn watch(&self, namespace: &Namespace, user_id: &Arc<str>, joiner: Joiner) -> (Arc<Channel>, bool) {
        self.join_silently(namespace, &Topic::Watch(user_id.clone()), joiner, |_, state| {
            state.watched().is_online()
        })
    }

    /// Joins without an acknowledgement. The answer has what `look` saw in that step.
    fn join_silently<R>(
        &self,
        namespace: &Namespace,
        topic: &Topic,
        joiner: Joiner,
        look: impl Fn(&Arc<Channel>, &mut ChannelState) -> R,
    ) -> (Arc<Channel>, R) {
        let mut delivery = self.inboxes().deliver();
        self.hub.enter(namespace, topic, |channel, state| {
            if state.add(joiner.shard) {
                self.occupied(namespace, channel);
            }
            delivery.push(joiner.shard, Entry::Join(joiner.join(channel, true)));
            (channel.clone(), look(channel, state))
        })
    }

    /// Closes every socket signed in as this user, for good.
    pub fn terminate_user(&self, app: &Arc<App>, user_id: &str) {
        self.close_user(app, user_id, CloseCode::Terminated);
    }

    /// Closes every socket signed in as this user; their clients come back at once.
    pub fn reconnect_user(&self, app: &Arc<App>, user_id: &str) {
        self.close_user(app, user_id, CloseCode::Reconnect);
    }

    fn close_user(&self, app: &Arc<App>, user_id: &str, code: CloseCode) {
        // An id that cannot name a channel cannot have signed in either.
        let Ok(name) = ChannelName::of_user(user_id) else {
            return;
        };
        let namespace = self.namespace(app);
        let mut delivery = self.inboxes().deliver();
        self.hub
            .visit(&namespace, &Topic::Channel(name.clone()), |channel, state| {
                for shard in state.audience() {
                    delivery.push(shard, Entry::CloseAll(channel.clone(), code));
                }
            });
        if let Some(cluster) = &self.cluster {
            cluster.relay_close(&namespace, &name, code, self.origin().stamp, now());
        }
    }
}

fn tell(
    delivery: &mut Delivery<'_>,
    channel: &Arc<Channel>,
    state: &ChannelState,
    news: Option<Frame>,
    now: Instant,
) {
    if let Some(news) = news {
        push_to_audience(delivery, channel, state, &news, None, now);
    }
}
