//! What the HTTP API may ask: channels, one channel, its members. The answers are of the whole cluster, from what this
//! node knows of it: no question waits for another node.

use std::sync::Arc;

use super::{Node, now};
use crate::app::App;
use crate::hub::channel::{Channel, ChannelState, Topic};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::presence::Member;

/// An occupied channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Which.
    pub name: ChannelName,
    /// Sockets subscribed.
    pub subscription_count: usize,
    /// Distinct members, on presence channels.
    pub user_count: Option<usize>,
}

/// One channel, occupied or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelDetail {
    /// Sockets subscribed; the channel is occupied if there is one.
    pub subscription_count: usize,
    /// Distinct members, on presence channels.
    pub user_count: Option<usize>,
    /// The cached event, if any.
    pub cache: Option<CachedEvent>,
}

/// The last event of a cache channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedEvent {
    /// Its data.
    pub data: String,
    /// Whole seconds until it is forgotten.
    pub ttl_s: u64,
}

fn user_count(name: &ChannelName, state: &ChannelState) -> Option<usize> {
    name.kind().is_presence().then(|| state.user_count())
}

impl Node {
    /// The occupied channels whose names begin with `prefix`, in no order. Walks the whole directory of the app, one
    /// short lock at a time: not for a shard's thread when the app may have many channels.
    pub fn channels(&self, app: &Arc<App>, prefix: &str) -> Vec<ChannelSummary> {
        self.hub.survey(&self.namespace(app), |channel, state| {
            let name = channel.name()?;
            let subscription_count = state.subscription_count();
            let listed =
                subscription_count > 0 && !name.kind().is_user() && name.as_str().starts_with(prefix);
            listed.then(|| ChannelSummary {
                name: name.clone(),
                subscription_count,
                user_count: user_count(name, state),
            })
        })
    }

    /// How many channels of this app have subscribers on this node: what a scrape sums over the nodes would count a
    /// channel twice otherwise.
    pub fn occupied_channels(&self, app: &Arc<App>) -> usize {
        let occupied = |channel: &Channel, state: &mut ChannelState| {
            let is_listed = channel.name().is_some_and(|name| !name.kind().is_user());
            (is_listed && state.here() > 0).then_some(())
        };
        self.hub.survey(&self.namespace(app), occupied).len()
    }

    /// Bytes of the last events of all cache channels.
    pub fn cached_bytes(&self) -> usize {
        let namespaces = self.hub.namespaces();
        namespaces.iter().map(|namespace| namespace.cached_bytes()).sum()
    }

    /// One channel.
    pub fn channel(&self, app: &Arc<App>, name: &ChannelName) -> ChannelDetail {
        let now = now();
        let found = self
            .hub
            .visit(&self.namespace(app), &Topic::Channel(name.clone()), |_, state| {
                (
                    state.subscription_count(),
                    user_count(name, state),
                    state.cached_at(now).cloned(),
                )
            });
        let (subscription_count, users, cached) = found.unwrap_or((0, None, None));
        let cache = cached.and_then(|event| {
            let ttl_s = event.expires.saturating_duration_since(now).as_secs();
            Some(CachedEvent {
                data: event.frame.event_data()?,
                ttl_s,
            })
        });
        let user_count = name.kind().is_presence().then_some(users.unwrap_or(0));
        ChannelDetail {
            subscription_count,
            user_count,
            cache,
        }
    }

    /// The members of a presence channel, ordered by id.
    pub fn members(&self, app: &Arc<App>, name: &ChannelName) -> Vec<Member> {
        let topic = Topic::Channel(name.clone());
        let view = self
            .hub
            .visit(&self.namespace(app), &topic, |_, state| {
                state.members()?;
                Some(state.presence().view())
            })
            .flatten();
        view.map(|view| view.members().collect()).unwrap_or_default()
    }
}
