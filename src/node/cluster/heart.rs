//! Heartbeats: who is alive, whether this node hears itself, and which numbers each node has come to.
//!
//! A beat goes out each second on a lane of its own and comes back to its sender like everybody else's. So it is also
//! the probe by which a deaf node knows of itself, and the clock by which others are judged: a node is lost when so
//! many of *my* beats were heard without a word of it. While mine do not come back, nobody is judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::announce::Announced;
use super::peers::Work;
use super::{Cluster, now};
use crate::adapter::{Event, Events, LANE_HEART, Message, NodeId, Topic};
use crate::node::Node;
use crate::node::webhooks::turns::Turns;
use crate::relay::parcel::{Beat, Content, Parcel};
use crate::roster::digest::Digest;
use crate::roster::lease::{Leases, Word};

/// Between two beats.
const INTERVAL: Duration = Duration::from_secs(1);
/// Beats that come back closer to each other count as one: as far as the way may shift one that is on time.
const JUDGED_AFTER: Duration = Duration::from_millis(900);
/// A newcomer is answered with a beat at once, but not by all nodes in the same moment.
const ANSWER_MAX: Duration = Duration::from_millis(100);
/// A node that has not heard itself for so long says so.
const DEAF_AFTER: Duration = Duration::from_secs(10);
/// Which hash spreads channels over topics, should there ever be another.
const HASH: u8 = 1;

/// What the heart knows.
#[derive(Debug)]
pub(super) struct Heart {
    state: Mutex<State>,
    /// Asks for a beat before its time.
    early: Notify,
    /// Something was missed: the next beat asks everybody for all heads.
    asks_heads: AtomicBool,
    /// Somebody asked for them: the next beat carries all.
    owes_heads: AtomicBool,
    is_leaving: AtomicBool,
    takes_part: AtomicBool,
    lost: AtomicU64,
}

#[derive(Debug)]
struct State {
    leases: Leases,
    number: u64,
    /// When the last beats were sent.
    sent: Option<(u64, Instant)>,
    heard: Option<Instant>,
    /// When the last of those came back that others are judged by.
    judged: Option<Instant>,
    round_trip: Option<Duration>,
    started: Instant,
    /// When a node was heard that spreads channels over topics in another way.
    mismatched: Option<Instant>,
}

impl Heart {
    pub(super) fn new(lease_s: u32) -> Heart {
        let state = State {
            leases: Leases::new(lease_s),
            number: 0,
            sent: None,
            heard: None,
            judged: None,
            round_trip: None,
            started: now(),
            mismatched: None,
        };
        Heart {
            state: Mutex::new(state),
            early: Notify::new(),
            asks_heads: AtomicBool::new(true),
            owes_heads: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            takes_part: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have been missed: all heads are compared.
    pub(super) fn compare_heads(&self) {
        self.asks_heads.store(true, Ordering::Relaxed);
        self.early.notify_one();
    }

    /// Whether an own beat has come back in the last ten seconds.
    pub(super) fn is_deaf(&self) -> bool {
        let state = self.state();
        let since = state.heard.unwrap_or(state.started);
        now().saturating_duration_since(since) >= DEAF_AFTER
    }

    /// Whether an own beat has ever come back.
    pub(super) fn has_heard_itself(&self) -> bool {
        self.state().heard.is_some()
    }

    /// The other nodes that are alive.
    pub(super) fn alive(&self) -> Vec<NodeId> {
        self.state().leases.alive().collect()
    }

    /// Whether a node is alive.
    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        self.state().leases.is_alive(node)
    }

    /// Nodes lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// From an own beat's sending to its return, and since its return.
    pub(super) fn times(&self) -> (Option<Duration>, Duration) {
        let state = self.state();
        let since = state.heard.unwrap_or(state.started);
        (state.round_trip, now().saturating_duration_since(since))
    }
}

/// Beats and listens until the node leaves, and says so then.
pub(super) async fn beat(node: Arc<Node>, mut events: Events) {
    let Some(cluster) = node.cluster() else { return };
    cluster.adapter.want(Topic::Beats, true, 1);
    let mut luck = cluster.luck();
    let mut beats = interval(INTERVAL);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            event = events.next() => {
                let Some(event) = event else { return };
                node.hear_beat(event);
                while let Some(event) = events.try_next() {
                    node.hear_beat(event);
                }
            }
            _ = beats.tick() => cluster.send_beat(node.announced(), false).await,
            () = cluster.heart.early.notified() => {
                if cluster.heart.is_leaving.load(Ordering::Relaxed) {
                    return cluster.send_beat(node.announced(), true).await;
                }
                let wait = luck.random_range(Duration::ZERO..ANSWER_MAX);
                tokio::time::sleep(wait).await;
                cluster.send_beat(node.announced(), false).await;
            }
        }
    }
}

impl Cluster {
    /// Lets what was sent go out, then has the heart say goodbye and stop: what this node had is taken out everywhere at
    /// once.
    pub async fn leave(&self) {
        let is_unsent = |lane: &super::Lane| lane.unaccepted.load(Ordering::Relaxed) > 0;
        while self.lanes.iter().any(is_unsent) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.heart.is_leaving.store(true, Ordering::Relaxed);
        self.heart.early.notify_one();
    }

    async fn send_beat(&self, announced: Announced, is_leaving: bool) {
        let heart = &self.heart;
        let has_all_heads = heart.owes_heads.swap(false, Ordering::Relaxed);
        let now = now();
        let heads = self.lanes.iter().flat_map(|lane| match has_all_heads {
            true => lane.ring().all_heads(),
            false => lane.ring().heads(now),
        });
        let mut heads: Vec<_> = heads.filter(|(topic, _)| *topic != Topic::Roster).collect();
        let accepted = self.lane_of(Topic::Roster).ring().head(Topic::Roster);
        // A quiet roster too is compared.
        heads.extend((accepted > 0).then_some((Topic::Roster, accepted)));
        let is_all_accepted = accepted == announced.number;
        let number = {
            let mut state = heart.state();
            state.number += 1;
            state.sent = Some((state.number, now));
            state.number
        };
        let beat = Beat {
            is_starting: !self.has_synced(),
            is_leaving,
            is_ready: self.takes_part(),
            asks_heads: heart.asks_heads.swap(false, Ordering::Relaxed),
            has_all_heads,
            topics: self.config.topics,
            hash: HASH,
            number,
            roster_digest: is_all_accepted.then_some(announced.digest.0),
            heads,
        };
        let asked = beat.asks_heads;
        let parcel = Parcel {
            sender: self.id,
            content: Content::Beat(beat),
        };
        let message = Message {
            topic: Topic::Beats,
            bytes: parcel.encode(),
        };
        // Not longer than until the next one is due: a beat that is late is worth nothing.
        let sent = timeout(INTERVAL, self.adapter.publish(LANE_HEART, vec![message])).await;
        let is_accepted = sent.is_ok_and(|accepted| accepted == [true]);
        if !is_accepted {
            heart.asks_heads.fetch_or(asked, Ordering::Relaxed);
            heart.owes_heads.fetch_or(has_all_heads, Ordering::Relaxed);
        }
    }
}

impl Node {
    fn hear_beat(self: &Arc<Self>, event: Event) {
        let Some(cluster) = &self.cluster else { return };
        let message = match event {
            Event::Heard(message) => message,
            Event::Confirmed(..) => return cluster.heart.early.notify_one(),
            Event::Lost(_) => return,
        };
        let Ok(Parcel {
            sender,
            content: Content::Beat(beat),
        }) = Parcel::decode(message.bytes)
        else {
            return cluster.malformed();
        };
        if sender == cluster.id {
            cluster.hear_of_turns(sender, &beat);
            return self.hear_own_beat(&beat);
        }
        if (beat.topics, beat.hash) != (cluster.config.topics, HASH) {
            return cluster.mismatch(sender, &beat);
        }
        if beat.is_leaving {
            return self.hear_goodbye(sender);
        }
        let word = cluster.heart.state().leases.heard(sender);
        match word {
            Word::Late => return,
            Word::New => {
                tracing::info!(node = %sender, "heard of another node");
                if beat.is_starting {
                    cluster
                        .lanes
                        .iter()
                        .for_each(|lane| lane.positions().sender_is_new(sender));
                }
                self.meet(sender);
                cluster.heart.early.notify_one();
            }
            Word::Known => {}
        }
        cluster.hear_of_turns(sender, &beat);
        if beat.asks_heads {
            cluster.heart.owes_heads.store(true, Ordering::Relaxed);
            cluster.heart.early.notify_one();
        }
        cluster.compare(sender, &beat);
    }
}

impl Node {
    /// An own beat came back: this node hears, and others have had time to be heard.
    fn hear_own_beat(self: &Arc<Self>, beat: &Beat) {
        let Some(cluster) = &self.cluster else { return };
        let lost = {
            let mut state = cluster.heart.state();
            let now = now();
            state.heard = Some(now);
            if let Some((number, sent)) = state.sent
                && number == beat.number
            {
                state.round_trip = Some(now.saturating_duration_since(sent));
            }
            // Beats before their time do not make a lease shorter.
            let is_due = |at: Instant| now.saturating_duration_since(at) >= JUDGED_AFTER;
            if state.judged.is_none_or(is_due) {
                state.judged = Some(now);
                state.leases.own_beat()
            } else {
                Vec::new()
            }
        };
        for peer in lost {
            tracing::warn!(node = %peer, lease_s = cluster.config.lease_s, "lost another node");
            cluster.heart.lost.fetch_add(1, Ordering::Relaxed);
            cluster.part(peer);
        }
    }

    fn hear_goodbye(&self, peer: NodeId) {
        let Some(cluster) = &self.cluster else { return };
        if cluster.heart.state().leases.goodbye(peer) {
            tracing::info!(node = %peer, "another node said goodbye");
            cluster.part(peer);
        }
    }
}

impl Cluster {
    /// Whether a node takes part in duties that need one doer and this one does not yet.
    pub(super) fn is_newer_than(&self, peer: NodeId) -> bool {
        !self.heart.takes_part.load(Ordering::Relaxed) && self.turns().has(peer)
    }

    /// Whether this node takes part in duties that need one doer, and the others have heard so.
    pub fn has_turns(&self) -> bool {
        self.turns().has(self.id)
    }

    /// Whether this node takes part: since it knew for the first time what there is, and others had had time to be heard.
    fn takes_part(&self) -> bool {
        let begins = || self.is_synced() && self.turns().is_heard_for(JUDGED_AFTER, now());
        let takes_part = self.heart.takes_part.load(Ordering::Relaxed) || begins();
        self.heart.takes_part.store(takes_part, Ordering::Relaxed);
        takes_part
    }

    /// A node is alive, and takes its turns if it takes part.
    fn hear_of_turns(&self, node: NodeId, beat: &Beat) {
        let mut turns = Turns::clone(&self.turns());
        if turns.beat(node, beat.is_ready, now()) {
            self.turns.store(Arc::new(turns));
        }
    }

    /// A node is gone: what it had is taken out.
    fn part(&self, peer: NodeId) {
        let now = now();
        let mut turns = Turns::clone(&self.turns());
        if turns.gone(peer) {
            self.turns.store(Arc::new(turns));
        }
        self.peers.lose(peer, now);
        self.lanes
            .iter()
            .for_each(|lane| lane.positions().sender_lost(peer, now));
    }

    /// Looks at which numbers another node has come to, on the topics that are heard here.
    fn compare(&self, peer: NodeId, beat: &Beat) {
        let now = now();
        for (topic, number) in &beat.heads {
            if matches!(topic, Topic::Channels(_) | Topic::Roster) {
                self.lane_of(*topic).positions().head(peer, *topic, *number, now);
            }
            if let (Topic::Roster, Some(digest)) = (topic, beat.roster_digest) {
                self.peers.hand(peer, Work::Compare(*number, Digest(digest)));
            }
        }
        for lane in &self.lanes {
            let mut positions = lane.positions();
            if beat.has_all_heads {
                positions.told_all_heads(peer);
            }
            positions.told_heads(peer);
        }
    }

    /// Another node spreads channels over topics in another way: what it publishes would not be heard here.
    fn mismatch(&self, peer: NodeId, beat: &Beat) {
        let before = self.heart.state().mismatched.replace(now());
        if beat.is_starting {
            // It is to know before it is ready.
            self.heart.early.notify_one();
        }
        if before.is_none() {
            tracing::error!(
                node = %peer,
                its_topics = beat.topics,
                our_topics = self.config.topics,
                "adapter.topics differs from another node's: neither hears all that the other publishes; give all nodes of a cluster the same"
            );
        }
    }

    /// Whether a node was heard lately that spreads channels over topics in another way.
    pub fn is_mismatched(&self) -> bool {
        let mismatched = self.heart.state().mismatched;
        mismatched.is_some_and(|at| now().saturating_duration_since(at) < DEAF_AFTER)
    }
}
