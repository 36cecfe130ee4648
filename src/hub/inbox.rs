//! What may be asked of a shard, and the queue to ask it: the only door into a shard.
//!
//! A push never waits and never fails. What waits is the permission to begin: before a publication starts, outside
//! any lock, the inboxes it will reach must be below their marks ([`Inbox::has_room`], [`Inbox::room`]). A
//! publication counts until its last socket was served, not until it was taken out, so the mark bounds the work in
//! hand as well as the queue. Joins, closes and new connections always go in: the number of sockets bounds them.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use futures_util::task::AtomicWaker;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::channel::Channel;
use super::presence::PresenceView;
use crate::address::{Client, Place};
use crate::app::App;
use crate::metrics::CloseReason;
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::protocol::socket_id::SocketId;
use crate::tls::Sealed;

/// Which shard: its place in the list of inboxes.
pub type ShardIndex = u16;

/// Charged for each entry beside its frame, so that many tiny publications are bounded as well. Bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// A socket's small name inside its shard: slot, and the generation that tells it from earlier owners of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKey {
    /// Place in the shard's slab.
    pub slot: u32,
    /// Counts the owners of the slot.
    pub generation: u32,
}

impl SocketKey {
    /// Both numbers in one, for tables of plain numbers.
    pub fn pack(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.slot)
    }

    /// The opposite of [`SocketKey::pack`].
    pub fn unpack(packed: u64) -> Self {
        SocketKey {
            slot: packed as u32,
            generation: (packed >> 32) as u32,
        }
    }
}

/// One thing asked of a shard. Entries are worked in order; what one publisher pushes for a channel stays in order.
#[derive(Debug)]
pub enum Entry {
    /// A connection was accepted and is this shard's from now on.
    Accept(Arrival),
    /// One frame for every subscriber of a channel on this shard, however many there are.
    Broadcast(Broadcast),
    /// A subscription that the directory has already counted: enter the array, acknowledge.
    Join(Join),
    /// A subscription that waited may be made: its channel is heard from all nodes. Void if it waits no longer.
    Admit(SocketKey, u32),
    /// Close every subscriber of this channel (a signed-in user's own channel), behind what was published to it.
    CloseAll(Arc<Channel>, CloseCode),
    /// Close every socket of this app, for as long as nobody may be connected to it.
    CloseApp(Arc<App>),
    /// Close this many established sockets, in turn: nobody a second time before all others had theirs.
    Shed {
        /// How many at most.
        count: usize,
        /// The code they are closed with.
        code: CloseCode,
        /// What it is counted as.
        reason: CloseReason,
    },
    /// End the thread; what is still open is dropped.
    Stop,
}

/// A connection on its way to its shard, and what is known of it.
#[derive(Debug)]
pub struct Arrival<S = TcpStream> {
    /// Its stream, which does not block. A stream is a descriptor: one of a Unix socket is of this type too, and only
    /// takes no options of TCP.
    pub stream: S,
    /// Who is at its other end.
    pub client: Client,
    /// Its place among the connections of its address, where they are limited.
    pub place: Option<Place>,
    /// What it is encrypted with, once its handshake is over; none if it is plain.
    pub sealed: Option<Box<Sealed>>,
}

impl<S> Arrival<S> {
    /// The same with another stream, or none if there cannot be one.
    ///
    /// # Errors
    /// What `change` says.
    pub fn try_map<T, E>(self, change: impl FnOnce(S) -> Result<T, E>) -> Result<Arrival<T>, E> {
        let Arrival {
            stream,
            client,
            place,
            sealed,
        } = self;
        Ok(Arrival {
            stream: change(stream)?,
            client,
            place,
            sealed,
        })
    }
}

/// One frame on its way to the subscribers of one channel on one shard.
#[derive(Debug)]
pub struct Broadcast {
    /// To whose subscribers.
    pub channel: Arc<Channel>,
    /// What they get.
    pub frame: Frame,
    /// The socket left out, by its public name: only its own shard knows it otherwise.
    pub except: Option<SocketId>,
    /// When it was published, for the latency metric.
    pub published: Instant,
}

/// A join on its way to the joiner's own shard.
#[derive(Debug)]
pub struct Join {
    /// The joiner.
    pub socket: SocketKey,
    /// The subscription's place in the joiner's own list.
    pub place: u32,
    /// Void if the subscription at that place carries another one by now.
    pub token: u32,
    /// What was joined.
    pub channel: Arc<Channel>,
    /// The members at the time of the join, on presence channels.
    pub members: Option<Arc<PresenceView>>,
    /// The cached event at the time of the join, on cache channels.
    pub cache: CacheAnswer,
    /// A join that is not told to the client: a user's own channel, a watch.
    pub silent: bool,
}

/// What a joiner hears about the cache, right behind its acknowledgement.
#[derive(Debug)]
pub enum CacheAnswer {
    /// Not a cache channel, or a repeated subscription: nothing.
    Silent,
    /// The cached event.
    Hit(Frame),
    /// Nothing is cached.
    Miss,
}

/// The queue in front of one shard.
#[derive(Debug)]
pub struct Inbox {
    queue: Mutex<Vec<Entry>>,
    waker: AtomicWaker,
    /// Bytes of publications pushed and not yet served to their last socket.
    charged: AtomicUsize,
    /// Above it, no publication may begin. Bytes.
    mark: usize,
    room: Notify,
    /// Connections on the shard, HTTP included; what the listener balances by.
    connections: AtomicUsize,
    /// Those of them that are sockets.
    sockets: AtomicUsize,
}

impl Inbox {
    /// An empty inbox whose publications may add up to `mark` bytes before new ones must wait.
    pub fn new(mark: usize) -> Self {
        Inbox {
            queue: Mutex::new(Vec::new()),
            waker: AtomicWaker::new(),
            charged: AtomicUsize::new(0),
            mark,
            room: Notify::new(),
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A panic while it was held can only have happened in an allocation: the vector is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a publication of this frame is charged. Bytes.
    pub fn charge(frame: &Frame) -> usize {
        frame.as_bytes().len() + ENTRY_OVERHEAD_BYTES
    }

    fn push(&self, entry: Entry) {
        if let Entry::Broadcast(broadcast) = &entry {
            self.charged
                .fetch_add(Self::charge(&broadcast.frame), Ordering::Relaxed);
        }
        self.queue().push(entry);
    }

    /// Gives back the charge of publications that were served to their last socket.
    pub fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let before = self.charged.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.mark && before - bytes < self.mark {
            self.room.notify_waiters();
        }
    }

    /// Whether a publication may begin as far as this shard is concerned.
    pub fn has_room(&self) -> bool {
        self.charged.load(Ordering::Acquire) < self.mark
    }

    /// Whether what other nodes publish may still come in. They cannot be made to wait: up to twice the mark there is
    /// room for it.
    pub fn bears_more(&self) -> bool {
        self.charged.load(Ordering::Acquire) < self.mark.saturating_mul(2)
    }

    /// Waits until [`Inbox::has_room`].
    pub async fn room(&self) {
        loop {
            let notified = self.room.notified();
            tokio::pin!(notified);
            // Registered before the look, so that a release between the two is not missed.
            notified.as_mut().enable();
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// Bytes of publications in hand.
    pub fn charged_bytes(&self) -> usize {
        self.charged.load(Ordering::Relaxed)
    }

    /// Takes all that waits. To be called in every turn, whatever is left of what was taken before: the waker is
    /// registered first, so an entry pushed after the take wakes the shard, and one pushed before it is in hand.
    pub fn take(&self, waker: &Waker, into: &mut Vec<Entry>) {
        debug_assert!(into.is_empty(), "what was taken before was moved on");
        self.waker.register(waker);
        std::mem::swap(&mut *self.queue(), into);
    }

    /// Lets the shard have a turn.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Connections that the shard owns or has been handed.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// One connection more (handed over by the listener).
    pub fn add_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Sockets that the shard owns.
    pub fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    /// A connection became a socket.
    pub fn add_socket(&self) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
    }

    /// A socket is gone, and its connection with it.
    pub fn remove_socket(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
        self.remove_connection();
    }

    /// One connection less.
    pub fn remove_connection(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The inboxes of all shards. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inboxes(Arc<[Inbox]>);

impl Inboxes {
    /// One inbox for each of `shards`, each with the same mark in bytes.
    pub fn new(shards: usize, mark: usize) -> Self {
        Inboxes((0..shards).map(|_| Inbox::new(mark)).collect())
    }

    /// All of them, in the order of [`ShardIndex`].
    pub fn all(&self) -> &[Inbox] {
        &self.0
    }

    /// The inbox of one shard.
    pub fn of(&self, shard: ShardIndex) -> &Inbox {
        &self.0[usize::from(shard)]
    }

    /// Sockets on all shards.
    pub fn sockets(&self) -> usize {
        self.0.iter().map(Inbox::sockets).sum()
    }

    /// Connections on all shards.
    pub fn connections(&self) -> usize {
        self.0.iter().map(Inbox::connections).sum()
    }

    /// The shard with the fewest connections.
    pub fn least_loaded(&self) -> ShardIndex {
        let least = self
            .0
            .iter()
            .enumerate()
            .min_by_key(|(_, inbox)| inbox.connections());
        least.map_or(0, |(index, _)| index as ShardIndex)
    }

    /// Begins a delivery: entries may be pushed under locks, the shards are woken when it is dropped.
    pub fn deliver(&self) -> Delivery<'_> {
        Delivery {
            inboxes: self,
            pushed_to: SmallVec::new(),
        }
    }
}

/// Entries on their way into inboxes. Wakes each shard it pushed to once, when dropped: declare it **before** the
/// guard of any lock that the pushes happen under, and the wake-ups come after the lock is released.
#[derive(Debug)]
pub struct Delivery<'a> {
    inboxes: &'a Inboxes,
    pushed_to: SmallVec<[ShardIndex; 8]>,
}

impl Delivery<'_> {
    /// Puts an entry into a shard's inbox.
    pub fn push(&mut self, shard: ShardIndex, entry: Entry) {
        self.inboxes.of(shard).push(entry);
        if !self.pushed_to.contains(&shard) {
            self.pushed_to.push(shard);
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        for &shard in &self.pushed_to {
            self.inboxes.of(shard).wake();
        }
    }
}
