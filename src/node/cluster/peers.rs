//! The other nodes' shares of the roster: one task for each node, which applies what that node says in its order, and
//! asks for all of it when it is new or something was missed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::settle::{Settled, Settling};
use super::share::Ask;
use super::{Cluster, now};
use crate::adapter::NodeId;
use crate::node::Node;
use crate::roster::delta::{self, Entry};
use crate::roster::digest::Digest;
use crate::roster::snapshot::{Chunk, Staged, Staging};

/// So much of what a node says may wait to be applied. What does not fit is missed, and all is asked for anew.
const WAITING_MAX: usize = 4_096;
/// A node's share may take so much while it is put together. Bytes.
const SHARE_BYTES_MAX: usize = 1 << 30;
/// So many comparisons in a row must show a difference before a node's share counts as wrong.
const DIFFERENCES_MAX: u32 = 3;
/// So long the task of a node that is gone waits for it to come back.
const LOST_KEPT: Duration = Duration::from_secs(600);
/// How often it is looked, at least, whether a share that was asked for makes progress.
const LOOK: Duration = Duration::from_millis(500);

/// What a node's task is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Ask for all of it: the node is new, or back, or something was missed.
    Ask,
    /// An announcement, with its number.
    Announced(u64, Bytes),
    /// A part of its share.
    Chunk(Chunk),
    /// At this announcement, the digest of all that it has is this.
    Compare(u64, Digest),
    /// Look again.
    Look,
}

/// One other node.
#[derive(Debug)]
struct Peer {
    /// Its task ends when this is dropped.
    work: mpsc::Sender<Work>,
    known: Arc<Known>,
    /// Since when it is gone, if it is.
    lost: Option<Instant>,
}

/// How much is known of a node's share.
#[derive(Debug, Default)]
struct Known {
    /// The announcement that the view here stands at.
    number: AtomicU64,
    is_whole: AtomicBool,
    /// Something did not fit into the queue.
    has_missed: AtomicBool,
    /// The node is gone: what it had is to be taken out, whatever waits in the queue.
    is_lost: AtomicBool,
}

/// All other nodes that were ever heard of and not forgotten.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: Mutex<HashMap<NodeId, Peer>>,
    /// Told when a share is whole or an announcement was applied.
    pub(super) applied: Notify,
    /// When that was.
    changed: Mutex<Option<Instant>>,
    asked: AtomicU64,
    has_synced: AtomicBool,
}

impl Peers {
    fn peers(&self) -> MutexGuard<'_, HashMap<NodeId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands work to a node's task. Nothing happens if the node was never met.
    pub(super) fn hand(&self, node: NodeId, work: Work) {
        let peers = self.peers();
        let Some(peer) = peers.get(&node) else { return };
        if peer.work.try_send(work).is_err() {
            peer.known.has_missed.store(true, Ordering::Release);
        }
    }

    /// A node is gone: what it had is to be taken out.
    pub(super) fn lose(&self, node: NodeId, now: Instant) {
        if let Some(peer) = self.peers().get_mut(&node) {
            peer.lost = Some(now);
            peer.known.is_lost.store(true, Ordering::Release);
        }
        // Wakes the task. A queue that is full does so as well.
        self.hand(node, Work::Look);
    }

    /// Forgets nodes that have been gone for long; what they had has been taken out by then.
    pub(super) fn forget_lost(&self, now: Instant) {
        self.peers().retain(|_, peer| {
            let is_over = |lost| now.saturating_duration_since(lost) >= LOST_KEPT;
            !peer.lost.is_some_and(is_over)
        });
    }

    /// Ends the tasks of all nodes.
    pub(super) fn end(&self) {
        self.peers().clear();
    }

    /// Up to which announcement a node's share is known here.
    pub(super) fn number(&self, node: NodeId) -> u64 {
        let peers = self.peers();
        peers
            .get(&node)
            .map_or(0, |peer| peer.known.number.load(Ordering::Acquire))
    }

    /// Whether all is known that this node has.
    pub(super) fn is_whole(&self, node: NodeId) -> bool {
        let peers = self.peers();
        peers
            .get(&node)
            .is_some_and(|peer| peer.known.is_whole.load(Ordering::Acquire))
    }

    /// For how long nothing has changed, or since the first look if nothing ever did.
    pub(super) fn age(&self) -> Duration {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        now().saturating_duration_since(*changed.get_or_insert_with(now))
    }

    /// Something was applied.
    fn tell(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
        self.applied.notify_waiters();
    }

    /// Shares that were asked for.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Node {
    /// Another node is new or back: all that it has is asked for. To be called on a runtime, which its task lives on.
    pub(super) fn meet(self: &Arc<Self>, peer: NodeId) {
        let Some(cluster) = &self.cluster else { return };
        let mut peers = cluster.peers.peers();
        let met = peers.entry(peer).or_insert_with(|| {
            let (work, queue) = mpsc::channel(WAITING_MAX);
            let known = Arc::new(Known::default());
            cluster
                .runtime
                .spawn(follow(self.clone(), peer, queue, known.clone()));
            Peer {
                work,
                known,
                lost: None,
            }
        });
        met.lost = None;
        if met.work.try_send(Work::Ask).is_err() {
            met.known.has_missed.store(true, Ordering::Release);
        }
    }
}

/// Applies what a node says, for ever.
async fn follow(node: Arc<Node>, peer: NodeId, mut queue: mpsc::Receiver<Work>, known: Arc<Known>) {
    let Some(cluster) = node.cluster() else { return };
    let mut follower = Follower {
        cluster,
        node: &node,
        peer,
        known: &known,
        staging: None,
        settling: None,
        digest: Digest::default(),
        differences: 0,
        has_ignored: false,
    };
    loop {
        let look_at = follower.step().unwrap_or_else(|| now() + LOOK);
        if look_at <= now() {
            // Without a timer, which would make each step take a millisecond.
            if let Ok(work) = queue.try_recv() {
                follower.work(work);
            }
        } else {
            match tokio::time::timeout_at(look_at.into(), queue.recv()).await {
                Ok(Some(work)) => follower.work(work),
                Ok(None) => return,
                Err(_) => {}
            }
        }
        // However much the node announces: what was lost of its share does not come by itself.
        follower.look();
        if known.is_lost.swap(false, Ordering::AcqRel) {
            follower.lose();
        }
        if known.has_missed.swap(false, Ordering::AcqRel) && cluster.heart.is_alive(peer) {
            follower.ask();
        }
        tokio::task::yield_now().await;
    }
}

/// What a node's task has in hand.
struct Follower<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    peer: NodeId,
    known: &'a Known,
    /// Its share is being put together.
    staging: Option<Staging>,
    /// Its share is being brought in, up to the announcement with this number; none if the node is lost.
    settling: Option<(Settling, Option<u64>)>,
    digest: Digest,
    /// Comparisons in a row that showed a difference.
    differences: u32,
    /// Something of it is about nothing that can be here, so digests cannot be compared.
    has_ignored: bool,
}

impl Follower<'_> {
    /// Asks for all that the node has.
    fn ask(&mut self) {
        self.cluster.peers.asked.fetch_add(1, Ordering::Relaxed);
        self.staging = Some(Staging::new(SHARE_BYTES_MAX, now()));
        self.cluster.say(self.peer, &Ask::All);
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Ask => self.ask(),
            Work::Look => {}
            Work::Announced(number, piece) => {
                let bytes = piece.len();
                match delta::read(piece) {
                    Ok(entries) => self.announced(number, entries, bytes),
                    Err(_) => {
                        // All of it would not be understood either: whoever says it runs another version.
                        self.cluster.malformed();
                        self.has_ignored = true;
                        self.announced(number, Vec::new(), bytes);
                    }
                }
            }
            Work::Compare(number, digest) => self.compare(number, digest),
            Work::Chunk(chunk) => {
                let staged = self.staging.as_mut().map(|staging| staging.chunk(&chunk, now()));
                match staged {
                    None => {}
                    Some(Ok(staged)) => self.staged(staged),
                    Some(Err(_)) => {
                        // The next one would be the same: whoever sends it runs another version.
                        self.cluster.malformed();
                        self.staging = None;
                    }
                }
            }
        }
    }

    /// Takes out all that the node had.
    fn lose(&mut self) {
        self.staging = None;
        self.known.is_whole.store(false, Ordering::Release);
        self.known.number.store(0, Ordering::Release);
        self.settling = Some((Settling::lost(self.node, self.peer), None));
    }

    /// Whether an announcement is the next one where the view stands at `stands_at`. What a share came ahead of is in it
    /// already; if one is missing, all is asked for.
    fn is_next(&mut self, number: u64, stands_at: u64) -> bool {
        if number > stands_at + 1 {
            self.ask();
        }
        number == stands_at + 1
    }

    fn announced(&mut self, number: u64, entries: Vec<Entry>, bytes: usize) {
        if let Some(staging) = &mut self.staging {
            let staged = staging.announced(number, entries, bytes, now());
            return self.staged(staged);
        }
        match &mut self.settling {
            // What a lost node said before it was lost.
            Some((_, None)) => {}
            Some((_, Some(stands_for))) => {
                let stands_for = *stands_for;
                if !self.is_next(number, stands_for) {
                    return;
                }
                if let Some((settling, stands_for)) = &mut self.settling {
                    *stands_for = Some(number);
                    if !settling.announced(entries, bytes) {
                        self.ask();
                    }
                }
            }
            None if self.known.is_whole.load(Ordering::Acquire) => {
                if !self.is_next(number, self.known.number.load(Ordering::Acquire)) {
                    return;
                }
                let ignored = self.node.apply(self.peer, &entries, &mut self.digest, now());
                self.has_ignored |= ignored > 0;
                self.stand_at(number);
            }
            None => {}
        }
    }

    fn staged(&mut self, staged: Staged) {
        match staged {
            Staged::Waiting => {}
            Staged::Whole(number, whole) => {
                self.staging = None;
                self.settling = Some((Settling::new(self.node, self.peer, whole), Some(number)));
            }
            Staged::Void => self.ask(),
            Staged::TooLarge => {
                tracing::error!(node = %self.peer, bytes_max = SHARE_BYTES_MAX, "another node has more than can be kept here");
                self.staging = None;
            }
        }
    }

    /// Goes a step further in bringing in what the node has. The answer is when to go on, if there is more to do.
    fn step(&mut self) -> Option<Instant> {
        let (settling, _) = self.settling.as_mut()?;
        match settling.step(self.node, &mut self.digest, now()) {
            Settled::Soon => Some(now()),
            Settled::At(at) => Some(at),
            Settled::Done => {
                match self.settling.take() {
                    Some((settling, Some(number))) => {
                        self.has_ignored = settling.ignored() > 0;
                        self.known.is_whole.store(true, Ordering::Release);
                        self.stand_at(number);
                    }
                    _ => tracing::info!(node = %self.peer, "took out what another node had"),
                }
                None
            }
        }
    }

    fn stand_at(&self, number: u64) {
        self.known.number.store(number, Ordering::Release);
        self.cluster.peers.tell();
    }

    /// What is known of the node is held against what it says of itself. A net under the numbers, which should have
    /// told already.
    fn compare(&mut self, number: u64, digest: Digest) {
        let is_idle = self.staging.is_none() && self.settling.is_none() && !self.has_ignored;
        let is_known = self.known.is_whole.load(Ordering::Acquire);
        if !is_idle || !is_known || self.known.number.load(Ordering::Acquire) != number {
            return;
        }
        self.differences = if self.digest == digest {
            0
        } else {
            self.differences + 1
        };
        if self.differences >= DIFFERENCES_MAX {
            tracing::warn!(node = %self.peer, number, "what is known of another node is wrong; asking for all of it");
            self.differences = 0;
            self.ask();
        }
    }

    /// Asks anew for a share that does not come.
    fn look(&mut self) {
        let is_stalled = self
            .staging
            .as_mut()
            .is_some_and(|staging| staging.is_stalled(now()));
        if is_stalled && self.cluster.heart.is_alive(self.peer) {
            self.ask();
        }
    }
}

impl Cluster {
    /// Whether all is known that the nodes have which are heard.
    pub fn is_synced(&self) -> bool {
        let alive = self.heart.alive();
        let is_synced =
            self.heart.has_heard_itself() && alive.into_iter().all(|peer| self.peers.is_whole(peer));
        self.peers.has_synced.fetch_or(is_synced, Ordering::Relaxed);
        is_synced
    }

    /// Whether that was ever so: this node is not one that has just started.
    pub(super) fn has_synced(&self) -> bool {
        self.peers.has_synced.load(Ordering::Relaxed)
    }

    /// Ends what the tasks have begun beside themselves.
    pub fn end(&self) {
        self.peers.end();
    }
}
