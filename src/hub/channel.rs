//! One channel: subscribers per shard and on other nodes, members, the last event, and the pacing of its counts.
//!
//! Plain data under the channel's short lock ([`super::Hub`]). Everything answers with what changed; telling anybody
//! is the node's part, in the same locked step, so that all see one order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::cache::CachedEvent;
use super::elsewhere::Elsewhere;
use super::inbox::ShardIndex;
use super::presence::{Presence, UnannouncedMember};
use crate::adapter::NodeId;
use crate::metrics::AppMetrics;
use crate::protocol::channel_name::ChannelName;

/// Tells channels apart by a number; never given twice in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey(u64);

/// What names a channel in the directory. Users and watches are channels too: to sign in is to join one, an event to
/// a user is a publication, and a watcher hears of a user like a subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A channel of the app; `#server-to-user-ID` is the channel of the sockets signed in as ID.
    Channel(ChannelName),
    /// Those whose watchlist names this user.
    Watch(Arc<str>),
}

/// One channel of one app.
#[derive(Debug)]
pub struct Channel {
    /// Its number.
    pub key: ChannelKey,
    /// Its name.
    pub topic: Topic,
    /// Where its traffic is counted.
    pub metrics: Arc<AppMetrics>,
    state: Mutex<ChannelState>,
}

impl Channel {
    pub(crate) fn new(topic: Topic, metrics: Arc<AppMetrics>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Channel {
            key: ChannelKey(NEXT.fetch_add(1, Ordering::Relaxed)),
            topic,
            metrics,
            state: Mutex::default(),
        }
    }

    /// The name that clients know, unless it is hidden from them.
    pub fn name(&self) -> Option<&ChannelName> {
        match &self.topic {
            Topic::Channel(name) => Some(name),
            Topic::Watch(_) => None,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ChannelState> {
        // A panicking holder leaves plain counters behind; a channel that nobody can lock again would be worse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What changes under the channel's lock. Small where a channel has subscribers only elsewhere: there may be millions of
/// them.
#[derive(Debug, Default)]
pub struct ChannelState {
    /// Removed from the directory: whoever still holds it must look again.
    pub(super) dead: bool,
    /// Whether the other nodes are to be told of something, and of what.
    is_unannounced: bool,
    is_membership_unannounced: bool,
    is_cache_unannounced: bool,
    /// What the other nodes were told last.
    announced: u32,
    /// By shard, as far as there were any.
    subscribers: SmallVec<[u32; 4]>,
    elsewhere: Elsewhere,
    extras: Option<Box<Extras>>,
}

/// What only some channels have.
#[derive(Debug, Default)]
struct Extras {
    presence: Option<Box<Presence>>,
    cached: Option<CachedEvent>,
    counts: CountPacing,
    counts_reported: CountPacing,
    watched: Watched,
}

/// What has changed on this node since the others were told last.
#[derive(Debug)]
pub struct Unannounced {
    /// Whether subscribers have come or gone meanwhile; there may be as many as before.
    pub is_membership: bool,
    /// Sockets subscribed here when they were told.
    pub count_before: u32,
    /// Sockets subscribed here now.
    pub count: u32,
    /// The members that have come or gone here meanwhile.
    pub members: Vec<UnannouncedMember>,
    /// The last event, if it was published here and is news.
    pub cached: Option<CachedEvent>,
}

impl ChannelState {
    /// Sockets subscribed, on this node and on all others.
    pub fn subscription_count(&self) -> usize {
        self.here() + self.elsewhere.total()
    }

    /// Sockets subscribed on this node.
    pub fn here(&self) -> usize {
        self.subscribers.iter().map(|count| *count as usize).sum()
    }

    /// Whether anybody is there, on this node or another: what is known of a node's members may come and go after
    /// what is known of its subscribers.
    pub fn is_occupied(&self) -> bool {
        self.subscribers.iter().any(|count| *count > 0) || !self.elsewhere.is_empty() || self.user_count() > 0
    }

    /// One subscriber more. True if it is the first on this node.
    pub fn add(&mut self, shard: ShardIndex) -> bool {
        let shard = usize::from(shard);
        let is_first = self.here() == 0;
        if self.subscribers.len() <= shard {
            self.subscribers.resize(shard + 1, 0);
        }
        self.subscribers[shard] += 1;
        is_first
    }

    /// One subscriber less. True if it was the last on this node.
    pub fn remove(&mut self, shard: ShardIndex) -> bool {
        self.subscribers[usize::from(shard)] -= 1;
        self.here() == 0
    }

    /// The shards with subscribers.
    pub fn audience(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        let counted = self.subscribers.iter().enumerate();
        counted
            .filter(|(_, subscribers)| **subscribers > 0)
            .map(|(shard, _)| shard as ShardIndex)
    }

    /// Another node has so many subscribers now. The answer is how many it had before.
    pub fn set_elsewhere(&mut self, node: NodeId, count: u32) -> u32 {
        self.elsewhere.set(node, count)
    }

    /// Whether anything is known of another node that is to be forgotten when that node is.
    pub fn holds_of(&self, node: NodeId) -> bool {
        self.elsewhere.of(node) > 0
            || self
                .members()
                .is_some_and(|presence| presence.claimed_by(node).next().is_some())
    }

    fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Members, on presence channels.
    pub fn presence(&mut self) -> &mut Presence {
        self.extras().presence.get_or_insert_default()
    }

    /// The members, if there have been any.
    pub fn members(&self) -> Option<&Presence> {
        self.extras.as_ref()?.presence.as_deref()
    }

    /// Distinct members, on this node and on all others.
    pub fn user_count(&self) -> usize {
        self.members().map_or(0, Presence::user_count)
    }

    /// When counts are told.
    pub fn counts(&mut self) -> &mut CountPacing {
        &mut self.extras().counts
    }

    /// When counts are told to the app's back end.
    pub fn counts_reported(&mut self) -> &mut CountPacing {
        &mut self.extras().counts_reported
    }

    /// On a watch: the user that is watched.
    pub fn watched(&mut self) -> &mut Watched {
        &mut self.extras().watched
    }

    /// The last event, on cache channels, even if it has expired.
    pub fn cached(&self) -> Option<&CachedEvent> {
        self.extras.as_ref()?.cached.as_ref()
    }

    /// The cached event, unless it has expired.
    pub fn cached_at(&self, now: Instant) -> Option<&CachedEvent> {
        self.cached().filter(|event| event.expires > now)
    }

    pub(super) fn set_cached(&mut self, event: Option<CachedEvent>) {
        self.extras().cached = event;
    }

    /// Whether the other nodes have yet to be told of subscribers or members.
    pub fn is_membership_unannounced(&self) -> bool {
        self.is_membership_unannounced
    }

    /// The other nodes are to be told that subscribers or members have changed. True if it is the first news since they
    /// were told last: only then does anybody have to remember the channel. It stays in the directory until they were.
    pub fn mark_membership(&mut self) -> bool {
        self.is_membership_unannounced = true;
        !std::mem::replace(&mut self.is_unannounced, true)
    }

    /// As [`ChannelState::mark_membership`], where the cached event is news.
    pub fn mark_cached(&mut self) -> bool {
        self.is_cache_unannounced = true;
        !std::mem::replace(&mut self.is_unannounced, true)
    }

    /// What `here`, this node, is to tell the others. From now on it counts as told.
    pub fn take_unannounced(&mut self, here: NodeId) -> Unannounced {
        self.is_unannounced = false;
        let count = u32::try_from(self.here()).unwrap_or(u32::MAX);
        let is_cache_news = std::mem::take(&mut self.is_cache_unannounced);
        let presence = self.extras.as_mut().and_then(|extras| extras.presence.as_mut());
        Unannounced {
            is_membership: std::mem::take(&mut self.is_membership_unannounced),
            count_before: std::mem::replace(&mut self.announced, count),
            count,
            members: presence.map_or_else(Vec::new, |presence| presence.take_unannounced(here)),
            cached: self.cached().filter(|_| is_cache_news).cloned(),
        }
    }

    /// Whether nothing is left that would make it worth keeping.
    pub(super) fn is_empty(&self) -> bool {
        let is_forgotten = |extras: &Extras| extras.cached.is_none() && extras.watched.is_forgotten();
        self.here() == 0
            && self.elsewhere.is_empty()
            && self.user_count() == 0
            && !self.is_unannounced
            && self.extras.as_deref().is_none_or(is_forgotten)
    }
}

/// Above this many subscribers a channel's count is told at most once per [`COUNT_INTERVAL`].
const COUNT_PACED_ABOVE: usize = 100;
/// See [`COUNT_PACED_ABOVE`].
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// When a change of the subscription count is told: each one on a small channel, on a big one at most one in five
/// seconds with the final value always told.
#[derive(Debug, Default)]
pub struct CountPacing {
    told: Option<(Instant, usize)>,
    waiting: bool,
}

/// What to do about a changed count.
#[derive(Debug, PartialEq, Eq)]
pub enum CountTelling {
    /// Tell it now.
    Now,
    /// Ask again ([`CountPacing::due`]) then; nobody else has been told to.
    At(Instant),
    /// It is not to be told, or will be at a time already set.
    No,
}

impl CountPacing {
    /// The count changed to `count`.
    pub fn changed(&mut self, count: usize, now: Instant) -> CountTelling {
        let next = self
            .told
            .map(|(at, _)| at + COUNT_INTERVAL)
            .filter(|next| now < *next);
        match next {
            Some(_) if count > COUNT_PACED_ABOVE && self.waiting => CountTelling::No,
            Some(next) if count > COUNT_PACED_ABOVE => {
                self.waiting = true;
                CountTelling::At(next)
            }
            _ => {
                self.told = Some((now, count));
                CountTelling::Now
            }
        }
    }

    /// A count that was to be told was not. True if it is to be asked for again ([`CountPacing::due`]) at a time that
    /// the caller sets; if not, it will be anyhow.
    pub fn put_off(&mut self) -> bool {
        self.told = None;
        !std::mem::replace(&mut self.waiting, true)
    }

    /// The time set by [`CountTelling::At`] has come. True if `count` is to be told.
    pub fn due(&mut self, count: usize, now: Instant) -> bool {
        self.waiting = false;
        let news = self.told.is_none_or(|(_, told)| told != count);
        if news {
            self.told = Some((now, count));
        }
        news
    }
}

/// A user as the watchers see it: online with the first signed-in socket, offline a grace after the last one went, so
/// that a page reload is silent. Its sources are the sockets signed in here, and the nodes with such sockets.
#[derive(Debug, Default)]
pub struct Watched {
    sources: u32,
    shown_online: bool,
    offline_at: Option<Instant>,
}

impl Watched {
    /// What the watchers have been told last.
    pub fn is_online(&self) -> bool {
        self.shown_online
    }

    /// A source came: a socket signed in, or another node has the first such socket. True if the watchers are to hear that the user is online.
    pub fn signed_in(&mut self) -> bool {
        self.sources += 1;
        self.offline_at = None;
        !std::mem::replace(&mut self.shown_online, true)
    }

    /// A source went. The answer is when to ask [`Watched::offline_due`], if at all.
    pub fn signed_out(&mut self, now: Instant, grace: Duration) -> Option<Instant> {
        self.sources = self.sources.saturating_sub(1);
        if self.sources == 0 {
            self.offline_at = Some(now + grace);
        }
        self.offline_at
    }

    /// The grace may be over. True if the watchers are to hear that the user is offline.
    pub fn offline_due(&mut self, now: Instant) -> bool {
        if self.offline_at.is_none_or(|at| now < at) {
            return false;
        }
        self.offline_at = None;
        std::mem::replace(&mut self.shown_online, false)
    }

    fn is_forgotten(&self) -> bool {
        self.sources == 0 && !self.shown_online
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(ms)
    }

    #[test]
    fn a_small_channel_tells_every_change_of_its_count() {
        let mut counts = CountPacing::default();
        for count in [1, 2, 3, 2, 100] {
            assert_eq!(counts.changed(count, at(0)), CountTelling::Now);
        }
    }

    #[test]
    fn a_big_channel_tells_its_count_once_in_five_seconds_and_the_last_one_always() {
        let mut counts = CountPacing::default();
        assert_eq!(counts.changed(101, at(0)), CountTelling::Now);
        assert_eq!(counts.changed(102, at(10)), CountTelling::At(at(5_000)));
        assert_eq!(
            counts.changed(103, at(20)),
            CountTelling::No,
            "it will be told already"
        );
        assert!(counts.due(103, at(5_000)));
        assert_eq!(counts.changed(104, at(5_001)), CountTelling::At(at(10_000)));
        assert_eq!(counts.changed(103, at(5_002)), CountTelling::No);
        assert!(!counts.due(103, at(10_000)), "nothing new");
    }

    #[test]
    fn a_channel_that_became_small_tells_at_once_again() {
        let mut counts = CountPacing::default();
        assert_eq!(counts.changed(101, at(0)), CountTelling::Now);
        assert_eq!(counts.changed(102, at(10)), CountTelling::At(at(5_000)));
        assert_eq!(counts.changed(100, at(20)), CountTelling::Now);
        assert!(!counts.due(100, at(5_000)));
    }

    #[test]
    fn a_page_reload_is_silent_to_watchers() {
        let grace = Duration::from_secs(3);
        let mut watched = Watched::default();
        assert!(watched.signed_in());
        assert!(!watched.signed_in(), "a second socket is no news");
        assert_eq!(watched.signed_out(at(0), grace), None, "one is left");
        assert_eq!(watched.signed_out(at(0), grace), Some(at(3_000)));
        assert!(!watched.signed_in(), "back within the grace");
        assert!(!watched.offline_due(at(3_000)));
        assert_eq!(watched.signed_out(at(4_000), grace), Some(at(7_000)));
        assert!(!watched.offline_due(at(6_999)));
        assert!(watched.offline_due(at(7_000)));
        assert!(watched.signed_in(), "online again is news again");
    }
}
