//! Bringing what is known of a node into line with all that it has: after its snapshot, or with nothing when it is lost.
//!
//! It may be a change of very many members at once, and news of them must not overrun the outboxes of a big channel. So
//! it is done channel by channel, by difference, a bounded part at a time; members that are known already cause nothing.
//! What the node announces meanwhile waits until then.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apply::{Hearing, name_of};
use crate::adapter::NodeId;
use crate::hub::channel::{Channel, ChannelState, Topic};
use crate::hub::namespace::{Namespace, STRIPES};
use crate::node::Node;
use crate::protocol::channel_name::ChannelName;
use crate::roster::delta::Entry;
use crate::roster::digest::Digest;
use crate::roster::snapshot::{Share, Whole};

/// News that one channel gets at a time. Bytes.
const SLICE_BYTES: usize = 64 * 1024;
/// Between two slices of one channel.
const SLICE_INTERVAL: Duration = Duration::from_millis(100);
/// So many members change while a channel is locked.
const CHANGES_MAX: usize = 1_000;
/// So many channels are looked at in a step.
const CHANNELS_MAX: usize = 1_000;
/// Announcements that wait meanwhile. Bytes.
const LATER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Go on when others have had their turn.
    Soon,
    /// Go on then.
    At(Instant),
    /// All is in line.
    Done,
}

/// What is left to be done.
#[derive(Debug)]
pub struct Settling {
    peer: NodeId,
    /// What the node has, of channels that were not come to yet.
    apps: HashMap<Arc<str>, HashMap<Arc<str>, Share>>,
    others: Vec<Entry>,
    /// Where it may have had connections.
    namespaces: Vec<Arc<Namespace>>,
    /// Where there may be something of the node that it does not have any more.
    places: Vec<(Arc<Namespace>, usize)>,
    /// The rest of the place that is being looked at.
    place: Option<(Arc<Namespace>, std::vec::IntoIter<Arc<Channel>>)>,
    /// Channels that have had their slice.
    unfinished: VecDeque<(Instant, Arc<Namespace>, ChannelName, Share)>,
    later: Vec<Entry>,
    later_bytes: usize,
    ignored: u64,
    has_begun: bool,
}

/// How far one channel has come.
enum Part {
    Done,
    /// The lock was held long enough.
    Soon,
    /// Its subscribers have heard enough for now.
    Later,
}

impl Settling {
    /// The node has all this, and nothing else.
    pub fn new(node: &Node, peer: NodeId, whole: Whole) -> Settling {
        let namespaces = node.hub.namespaces();
        let stripes = |namespace: Arc<Namespace>| (0..STRIPES).map(move |stripe| (namespace.clone(), stripe));
        let Whole { mut apps, others, .. } = whole;
        let shares = apps.values_mut().flat_map(HashMap::values_mut);
        for (_, since) in shares.flat_map(|share| share.members.values_mut()) {
            // Once and for all: what a stamp far ahead is taken for moves with the clock.
            *since = node.heard(*since);
        }
        Settling {
            peer,
            apps,
            others,
            namespaces: namespaces.clone(),
            places: namespaces.into_iter().flat_map(stripes).collect(),
            place: None,
            unfinished: VecDeque::new(),
            later: Vec::new(),
            later_bytes: 0,
            ignored: 0,
            has_begun: false,
        }
    }

    /// The node is lost.
    pub fn lost(node: &Node, peer: NodeId) -> Settling {
        Settling::new(node, peer, Whole::default())
    }

    /// The node announced something meanwhile, of this size in bytes. False if it is too much to be kept: then its
    /// snapshot is needed once more.
    pub fn announced(&mut self, entries: Vec<Entry>, bytes: usize) -> bool {
        self.later_bytes += bytes;
        let fits = self.later_bytes <= LATER_BYTES_MAX;
        if fits {
            self.later.extend(entries);
        }
        fits
    }

    /// Entries passed over, since they are about nothing that can be here.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Goes a step further. `digest` is that of all that is known of the node.
    pub fn step(&mut self, node: &Node, digest: &mut Digest, now: Instant) -> Settled {
        if !std::mem::replace(&mut self.has_begun, true) && *digest == Digest::default() {
            // Nothing is known of it. A newcomer need not look through all that it has for each node that it meets.
            self.places.clear();
        }
        let mut hearing = node.hear(self.peer, digest, now);
        for namespace in std::mem::take(&mut self.namespaces) {
            // What the node has of it comes with the others.
            hearing.connections(&namespace, 0);
        }
        if !self.others.is_empty() {
            let some = self.others.drain(..self.others.len().min(CHANNELS_MAX));
            self.ignored += some.map(|entry| u64::from(!hearing.entry(&entry))).sum::<u64>();
            return Settled::Soon;
        }
        if self.look_around(&mut hearing, node, now) || self.add_the_rest(&mut hearing, node, now) {
            return Settled::Soon;
        }
        match self.unfinished.front() {
            Some((at, ..)) if *at > now => return Settled::At(*at),
            _ => {}
        }
        if let Some((_, namespace, name, share)) = self.unfinished.pop_front() {
            self.bring(&mut hearing, node, &namespace, name, share, now);
            return Settled::Soon;
        }
        for entry in self.later.drain(..) {
            self.ignored += u64::from(!hearing.entry(&entry));
        }
        Settled::Done
    }

    /// Channels that are in the directory. True if there were some.
    fn look_around(&mut self, hearing: &mut Hearing<'_>, node: &Node, now: Instant) -> bool {
        let next = || {
            let (namespace, stripe) = self.places.pop()?;
            let channels = namespace.channels_of(stripe);
            Some((namespace, channels.into_iter()))
        };
        let Some((namespace, mut channels)) = self.place.take().or_else(next) else {
            return false;
        };
        for channel in channels.by_ref().take(CHANNELS_MAX) {
            self.look_at(hearing, node, &namespace, &channel, now);
        }
        self.place = Some((namespace, channels)).filter(|(_, channels)| channels.len() > 0);
        true
    }

    /// A channel that is in the directory: if it holds something of the node, that is to be what the node has.
    fn look_at(
        &mut self,
        hearing: &mut Hearing<'_>,
        node: &Node,
        namespace: &Arc<Namespace>,
        channel: &Arc<Channel>,
        now: Instant,
    ) {
        let Some(name) = channel.name() else { return };
        let holds = |_: &_, state: &mut ChannelState| state.holds_of(self.peer);
        if node.hub.step(namespace, channel, holds) != Some(true) {
            return;
        }
        let of_app = self.apps.get_mut(namespace.app.id());
        let share = of_app.and_then(|channels| channels.remove(name.as_str()));
        self.bring(
            hearing,
            node,
            namespace,
            name.clone(),
            share.unwrap_or_default(),
            now,
        );
    }

    /// Channels of which nothing was known. True if there were some.
    fn add_the_rest(&mut self, hearing: &mut Hearing<'_>, node: &Node, now: Instant) -> bool {
        let Some((app, channels)) = self.apps.iter_mut().next() else {
            return false;
        };
        let app = app.clone();
        let some: Vec<_> = channels.keys().take(CHANNELS_MAX).cloned().collect();
        let some: Vec<_> = some
            .into_iter()
            .filter_map(|channel| Some((channels.remove(&channel)?, channel)))
            .collect();
        if channels.is_empty() {
            self.apps.remove(&app);
        }
        let namespace = node.namespace_of(&app);
        for (share, channel) in some {
            match name_of(&channel) {
                Some(name) => self.bring(hearing, node, &namespace, name, share, now),
                None => self.ignored += 1,
            }
        }
        true
    }

    fn bring(
        &mut self,
        hearing: &mut Hearing<'_>,
        node: &Node,
        namespace: &Arc<Namespace>,
        name: ChannelName,
        share: Share,
        now: Instant,
    ) {
        let topic = Topic::Channel(name.clone());
        let (part, before) = node.hub.enter(namespace, &topic, |channel, state| {
            let before = hearing.count(namespace, channel, state, share.count);
            let part = bring_members(hearing, namespace, channel, state, self.peer, &share);
            (part, before)
        });
        hearing.told_watchers(namespace, &name, before, share.count);
        let namespace = namespace.clone();
        match part {
            Part::Done => {}
            Part::Soon => self.unfinished.push_front((now, namespace, name, share)),
            Part::Later => self
                .unfinished
                .push_back((now + SLICE_INTERVAL, namespace, name, share)),
        }
    }
}

/// Brings the members that the node claims into line, or a bounded part of them; called under the channel's lock. What
/// is left shows in the difference, the next time.
fn bring_members(
    hearing: &mut Hearing<'_>,
    namespace: &Arc<Namespace>,
    channel: &Arc<Channel>,
    state: &mut ChannelState,
    peer: NodeId,
    share: &Share,
) -> Part {
    if !channel.name().is_some_and(|name| name.kind().is_presence()) {
        return Part::Done;
    }
    let members = state.members();
    let gone = |members: &crate::hub::presence::Presence| -> Vec<Arc<str>> {
        let claimed = members.claimed_by(peer).map(|(user_id, ..)| user_id);
        let gone = claimed.filter(|user_id| !share.members.contains_key(*user_id));
        gone.take(CHANGES_MAX).cloned().collect()
    };
    let gone = members.map(gone).unwrap_or_default();
    let (mut changes, mut news_bytes) = (0, 0);
    for user_id in gone {
        news_bytes += hearing.unclaim(namespace, channel, state, &user_id);
        changes += 1;
        if news_bytes >= SLICE_BYTES {
            return Part::Later;
        }
    }
    for (user_id, (user_info, since)) in &share.members {
        let known = state
            .members()
            .and_then(|members| members.claimed_since(user_id, peer));
        if known == Some(*since) {
            continue;
        }
        if changes >= CHANGES_MAX {
            return Part::Soon;
        }
        news_bytes += hearing.claim(namespace, channel, state, user_id, user_info, *since);
        changes += 1;
        if news_bytes >= SLICE_BYTES {
            return Part::Later;
        }
    }
    if changes >= CHANGES_MAX {
        return Part::Soon;
    }
    Part::Done
}
