//! Which webhook events there are: changes of what all nodes together have become news for the apps' back ends.
//!
//! Called where the merged view changes, under the channel's lock, on every node: each sees each change and keeps it
//! until it was told ([`grace`]), and one of them tells it ([`turns`]) and says so to the others. What concerns one
//! socket is told at once where it happens. Nothing is kept of what no endpoint of the app wants. Knows nothing of how
//! the back ends are reached.
//!
//! Locks: channel → what is untold, or was missed → the queues of the delivery and of the announcements.

mod grace;
mod misses;
mod partitions;
pub(super) mod turns;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Notify;

use self::grace::{Grace, Teller, Untold};
use self::misses::Misses;
use self::turns::Turns;
use super::duties::Duty;
use super::{Node, now};
use crate::app::WebhookKind;
use crate::hub::cache::CachedEvent;
use crate::hub::channel::{Channel, ChannelState, CountTelling};
use crate::hub::namespace::Namespace;
use crate::protocol::channel_name::ChannelName;
use crate::protocol::frame::Frame;
use crate::protocol::socket_id::SocketId;
use crate::roster::delta::Entry;
use crate::wall;
use crate::webhook::WebhookEvent;

/// Changes that wait for their grace, or for another node to tell them, of all apps together. Some 250 bytes each, beside
/// the names.
const UNTOLD_MAX: usize = 1 << 18;
/// Misses of cache channels that are remembered, so as not to be told again, of all apps together. Some 150 bytes each,
/// beside the names.
const MISSES_MAX: usize = 1 << 16;
/// So many changes are looked at before others have their turn.
const WORKED_AT_ONCE: usize = 100;
/// While this node has no turns, it is looked so often whether it has.
const STILL_INTERVAL: Duration = Duration::from_secs(1);

/// A channel of an app.
#[derive(Clone, Debug)]
struct Place {
    namespace: Arc<Namespace>,
    name: ChannelName,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.namespace.app.id() == other.namespace.app.id()
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.namespace.app.id().hash(state);
        self.name.hash(state);
    }
}

/// What was told: of which channel, of which member of it, and whether it is there.
#[cfg(test)]
type Told = (ChannelName, Option<Arc<str>>, bool);

/// What the apps' back ends are yet to be told of channels and members.
#[derive(Debug)]
pub(super) struct BackEnds {
    untold: Mutex<Grace<Place>>,
    misses: Mutex<Misses>,
    earlier: Notify,
    /// All that was told from here, for tests that have no back end.
    #[cfg(test)]
    told: Mutex<Vec<Told>>,
}

impl Default for BackEnds {
    fn default() -> BackEnds {
        BackEnds {
            untold: Mutex::new(Grace::new(UNTOLD_MAX)),
            misses: Mutex::new(Misses::new(MISSES_MAX)),
            earlier: Notify::new(),
            #[cfg(test)]
            told: Mutex::default(),
        }
    }
}

impl BackEnds {
    fn untold(&self) -> MutexGuard<'_, Grace<Place>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn misses(&self) -> MutexGuard<'_, Misses> {
        self.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How this node tells, at one moment.
struct Telling<'a> {
    node: &'a Node,
    turns: Option<arc_swap::Guard<Arc<Turns>>>,
    now: Instant,
}

impl Telling<'_> {
    fn turn_of(&self, app: &str, channel: &str, due: Instant, is_witnessed: bool) -> Option<Instant> {
        match &self.turns {
            // Alone, it is always this node's turn.
            None => Some(due),
            Some(turns) => turns.turn(app, channel, due, is_witnessed, self.now),
        }
    }
}

impl Teller<Place> for Telling<'_> {
    fn turn(&self, place: &Place, untold: &Untold) -> Option<Instant> {
        let app = place.namespace.app.id();
        self.turn_of(app, place.name.as_str(), untold.due, untold.is_witnessed)
    }

    fn tell(&mut self, place: &Place, member: Option<&Arc<str>>, is_there: bool) {
        let channel = place.name.clone();
        #[cfg(test)]
        {
            let mut told = self.node.back_ends.told.lock().expect("nobody panics");
            told.push((channel.clone(), member.cloned(), is_there));
        }
        let event = match (member.cloned(), is_there) {
            (None, true) => WebhookEvent::ChannelOccupied { channel },
            (None, false) => WebhookEvent::ChannelVacated { channel },
            (Some(user_id), true) => WebhookEvent::MemberAdded { channel, user_id },
            (Some(user_id), false) => WebhookEvent::MemberRemoved { channel, user_id },
        };
        self.node.send_webhook(&place.namespace, event);
        if let Some(announcer) = &self.node.announcer {
            announcer.told_back_end(Entry::Told {
                app: place.namespace.app.id().into(),
                channel: place.name.as_str().into(),
                member: member.cloned(),
                is_there,
            });
        }
    }
}

impl Node {
    fn telling(&self, now: Instant) -> Telling<'_> {
        Telling {
            node: self,
            turns: self.cluster.as_ref().map(|cluster| cluster.turns()),
            now,
        }
    }

    /// What becomes of it is counted by the delivery.
    fn send_webhook(&self, namespace: &Namespace, event: WebhookEvent) {
        let wall_us = match &self.cluster {
            Some(cluster) => cluster.wall_us()(),
            None => wall::unix_us(),
        };
        let _ = self.webhooks.send(&namespace.app, event, wall_us / 1_000);
    }

    /// A channel whose back end wants to hear of this, or of its opposite. Users' own channels are nobody's business.
    fn place(&self, namespace: &Arc<Namespace>, channel: &Channel, kinds: [WebhookKind; 2]) -> Option<Place> {
        let name = channel.name().filter(|name| !name.kind().is_user())?;
        let is_wanted = |kind| self.webhooks.wants(&namespace.app, kind, name);
        kinds.into_iter().any(is_wanted).then(|| Place {
            namespace: namespace.clone(),
            name: name.clone(),
        })
    }

    fn place_of(&self, namespace: &Arc<Namespace>, channel: &Channel, member: Option<&str>) -> Option<Place> {
        let kinds = match member {
            None => [WebhookKind::ChannelOccupied, WebhookKind::ChannelVacated],
            Some(_) => [WebhookKind::MemberAdded, WebhookKind::MemberRemoved],
        };
        self.place(namespace, channel, kinds)
    }

    /// A channel had somebody on one of the nodes or not; called under its lock, when that may have changed. Who comes is
    /// reported after this, and who goes before.
    pub(super) fn report_occupancy(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Channel,
        state: &ChannelState,
        was_occupied: bool,
        now: Instant,
    ) {
        let is_occupied = state.is_occupied();
        if is_occupied != was_occupied {
            self.report(namespace, channel, None, is_occupied, now);
        }
    }

    /// A user has become a member of a channel, or is none any more; called under its lock.
    pub(super) fn report_member(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Channel,
        user_id: &str,
        is_there: bool,
        now: Instant,
    ) {
        self.report(namespace, channel, Some(user_id), is_there, now);
    }

    fn report(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Channel,
        member: Option<&str>,
        is_there: bool,
        now: Instant,
    ) {
        let Some(place) = self.place_of(namespace, channel, member) else {
            return;
        };
        let grace = namespace.app.settings().limits.webhook_grace;
        let member: Option<Arc<str>> = member.map(Arc::from);
        self.look_at_untold(|untold| {
            let hasty = untold.hasty();
            untold.changed(
                &place,
                member.as_ref(),
                is_there,
                grace,
                now,
                &mut self.telling(now),
            );
            let hasty = untold.hasty() - hasty;
            self.metrics.webhook_hasty_total.inc_by(hasty);
        });
    }

    fn look_at_untold(&self, look: impl FnOnce(&mut Grace<Place>)) {
        let mut untold = self.back_ends.untold();
        let before = untold.next();
        look(&mut untold);
        let after = untold.next();
        drop(untold);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.back_ends.earlier.notify_one();
        }
    }

    /// Another node told the back end; called under the channel's lock.
    pub(super) fn heard_told(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Channel,
        state: &ChannelState,
        member: Option<&Arc<str>>,
        told: bool,
        now: Instant,
    ) {
        let Some(place) = self.place_of(namespace, channel, member.map(|user_id| &**user_id)) else {
            return;
        };
        let is_there = match member {
            None => state.is_occupied(),
            Some(user_id) => state.members().is_some_and(|members| members.has(user_id)),
        };
        let grace = namespace.app.settings().limits.webhook_grace;
        self.look_at_untold(|untold| untold.heard(&place, member, told, is_there, grace, now));
    }

    /// The count of a channel has changed, here or elsewhere: the back end is told in good time; called under its lock.
    pub(super) fn report_count(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        name: &ChannelName,
        state: &mut ChannelState,
        now: Instant,
    ) {
        if !self
            .webhooks
            .wants(&namespace.app, WebhookKind::SubscriptionCount, name)
        {
            return;
        }
        let count = state.subscription_count();
        let due = match state.counts_reported().changed(count, now) {
            CountTelling::Now => return self.tell_count_reported(namespace, channel, name, state, now),
            CountTelling::At(due) => due,
            CountTelling::No => return,
        };
        self.duties
            .at(due, Duty::ReportCount(namespace.clone(), channel.clone()));
    }

    /// The time has come that was set for a count.
    pub(super) fn report_count_due(&self, namespace: &Arc<Namespace>, channel: &Arc<Channel>, now: Instant) {
        self.hub.step(namespace, channel, |channel, state| {
            let Some(name) = channel.name() else { return };
            let count = state.subscription_count();
            if state.counts_reported().due(count, now) {
                self.tell_count_reported(namespace, channel, name, state, now);
            }
        });
    }

    fn tell_count_reported(
        &self,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        name: &ChannelName,
        state: &mut ChannelState,
        now: Instant,
    ) {
        let telling = self.telling(now);
        match telling.turn_of(namespace.app.id(), name.as_str(), now, true) {
            Some(at) if at <= now => {}
            // Other nodes know the count as well, and tell it.
            Some(_) => return,
            None => {
                // Whose turn it will be is not known yet.
                if state.counts_reported().put_off() {
                    let due = now + STILL_INTERVAL;
                    self.duties
                        .at(due, Duty::ReportCount(namespace.clone(), channel.clone()));
                }
                return;
            }
        }
        let event = WebhookEvent::SubscriptionCount {
            channel: name.clone(),
            subscription_count: state.subscription_count() as u64,
        };
        self.send_webhook(namespace, event);
    }

    /// A cache channel was joined that keeps no event; called under its lock. Each node tells it by itself, and not again
    /// for three seconds.
    pub(super) fn report_cache_miss(&self, namespace: &Namespace, name: &ChannelName, now: Instant) {
        if self.webhooks.wants(&namespace.app, WebhookKind::CacheMiss, name)
            && self.back_ends.misses().is_news(namespace.app.id(), name, now)
        {
            let channel = name.clone();
            self.send_webhook(namespace, WebhookEvent::CacheMiss { channel });
        }
    }

    /// Keeps the last event of a cache channel; called under its lock.
    pub(super) fn store_cached(
        &self,
        namespace: &Namespace,
        channel: &Arc<Channel>,
        state: &mut ChannelState,
        event: CachedEvent,
    ) {
        self.hub.store_cached(namespace, channel, state, event);
        if let Some(name) = channel.name()
            && self.webhooks.wants(&namespace.app, WebhookKind::CacheMiss, name)
        {
            self.back_ends.misses().filled(namespace.app.id(), name);
        }
    }

    /// What the back end is to be told of a client event, if it wants that: what the subscribers get.
    pub(super) fn client_event_webhook(
        &self,
        namespace: &Namespace,
        channel: &Channel,
        frame: &Frame,
        sender: SocketId,
    ) -> Option<WebhookEvent> {
        #[derive(Deserialize)]
        struct Sent<'a> {
            event: Arc<str>,
            #[serde(borrow)]
            data: std::borrow::Cow<'a, str>,
            user_id: Option<Arc<str>>,
        }
        let name = channel.name()?;
        if !self
            .webhooks
            .wants(&namespace.app, WebhookKind::ClientEvent, name)
        {
            return None;
        }
        let sent: Sent<'_> = serde_json::from_slice(frame.payload()).ok()?;
        Some(WebhookEvent::ClientEvent {
            channel: name.clone(),
            event: sent.event,
            data: sent.data.into(),
            socket_id: sender,
            user_id: sent.user_id,
        })
    }

    /// Sends what [`Node::client_event_webhook`] made; called under the channel's lock.
    pub(super) fn report_client_event(&self, namespace: &Namespace, event: Option<WebhookEvent>) {
        if let Some(event) = event {
            self.send_webhook(namespace, event);
        }
    }

    /// Tells the back ends what is due, for ever. Runs on the control runtime.
    pub async fn tell_back_ends(&self) {
        loop {
            let now = now();
            let mut telling = self.telling(now);
            let stands_still = telling
                .turns
                .as_ref()
                .is_some_and(|turns| turns.stands_still(now));
            let next = if stands_still {
                Some(now + STILL_INTERVAL)
            } else {
                let has_worked = |_: &usize| self.back_ends.untold().work(now, &mut telling);
                let _ = (0..WORKED_AT_ONCE).take_while(has_worked).count();
                self.back_ends.untold().next()
            };
            drop(telling);
            let earlier = self.back_ends.earlier.notified();
            match next {
                Some(at) if at <= now => tokio::task::yield_now().await,
                Some(at) => drop(tokio::time::timeout_at(at.into(), earlier).await),
                None => earlier.await,
            }
        }
    }

    /// Changes of channels and members that wait for their grace, or for another node to tell them.
    pub fn untold(&self) -> usize {
        self.back_ends.untold().len()
    }

    /// All that was told from here since this was asked last: the channel, the member if it is about one, and whether it
    /// is there.
    #[cfg(test)]
    pub(super) fn take_told(&self) -> Vec<(ChannelName, Option<Arc<str>>, bool)> {
        std::mem::take(&mut *self.back_ends.told.lock().expect("nobody panics"))
    }

    /// This node ends. What is untold is told at once if there is nobody else to do it. If there is, they are to know
    /// what was told before this node says goodbye.
    pub fn finish_telling_back_ends(&self) {
        let is_last = self.cluster.as_ref().is_none_or(|cluster| cluster.is_last());
        if is_last {
            self.back_ends.untold().finish(&mut self.telling(now()));
        }
        self.announce_now();
    }
}
