//! The sockets of one shard, and how they are written to. A socket has one owner, this table; its descriptor is
//! closed in one place, [`Sockets::remove`], after every array entry that names it has been blanked.

use std::collections::HashMap;
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use rustix::net::{Shutdown, shutdown};
use slab::Slab;
use tokio::io::Interest;

use super::apart::{Apart, Why};
use super::audience::Seat;
use super::core::Ending;
use super::cork::Cork;
use super::fanout::Sink;
use super::live::LiveBytes;
use super::outbox::Pushed;
use super::run::Run;
use super::socket::Socket;
use super::wire::{send_gathered, send_plain};
use crate::app::App;
use crate::hub::channel::Channel;
use crate::hub::inbox::{Inboxes, ShardIndex, SocketKey};
use crate::metrics::BatchCounts;
use crate::protocol::frame::Frame;
use crate::protocol::socket_id::SocketId;
use crate::tls::Records;

/// Slices of one write; the kernel takes 1,024, few outboxes hold so many pieces.
pub(super) const SLICES_MAX: usize = 64;

/// All sockets of a shard.
pub(super) struct Sockets {
    slots: Slab<Box<Socket>>,
    generations: Vec<u32>,
    /// Those that nothing may be sent to as it is.
    apart: Apart,
    by_id: HashMap<SocketId, u32, foldhash::fast::RandomState>,
    pub(super) live: LiveBytes,
    inboxes: Inboxes,
    shard: ShardIndex,
    /// Where records are made for one encrypted socket after the other.
    pub(super) records: Records,
    /// Where what makes up one record is put together.
    pub(super) gathered: Vec<u8>,
    /// Sockets that have something waiting and no task that waits for them yet.
    pub(super) to_drain: Vec<SocketKey>,
    /// Where the next sockets to be shed are looked for.
    shed_from: usize,
    /// The answers to the socket whose input is being worked.
    cork: Cork,
    /// Sockets to be closed as slow, as soon as nobody is in the middle of the arrays.
    pub(super) slow: Vec<SocketKey>,
}

impl Sockets {
    pub(super) fn new(live: LiveBytes, inboxes: Inboxes, shard: ShardIndex) -> Self {
        Sockets {
            slots: Slab::new(),
            generations: Vec::new(),
            apart: Apart::default(),
            by_id: HashMap::default(),
            live,
            inboxes,
            shard,
            records: Records::default(),
            gathered: Vec::new(),
            to_drain: Vec::new(),
            shed_from: 0,
            cork: Cork::default(),
            slow: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, socket: Socket) -> SocketKey {
        let id = socket.session.socket_id;
        let (is_sealed, has_all) = (socket.sealed.is_some(), socket.has_all());
        let slot = self.slots.insert(Box::new(socket));
        if slot == self.generations.len() {
            self.generations.push(0);
            self.apart.add_slot();
        }
        self.by_id.insert(id, slot as u32);
        let key = self.key_of(slot as u32);
        if is_sealed {
            self.apart.change(key.slot, |why| why.is_sealed = true);
        }
        if !has_all {
            self.wait_for(key);
        }
        key
    }

    /// Closes the descriptor. Whoever calls has left all channels before.
    pub(super) fn remove(&mut self, key: SocketKey) -> Option<Box<Socket>> {
        self.get(key)?;
        let slot = key.slot as usize;
        self.apart.change(key.slot, |why| *why = Why::default());
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        let socket = self.slots.remove(slot);
        if let Some(writer) = &socket.writer {
            writer.abort();
        }
        debug_assert!(
            socket.subscriptions.places().is_empty(),
            "it left its channels first"
        );
        self.by_id.remove(&socket.session.socket_id);
        if self.slots.capacity() > 1024 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to_fit();
            self.by_id.shrink_to_fit();
        }
        Some(socket)
    }

    pub(super) fn get(&self, key: SocketKey) -> Option<&Socket> {
        let slot = key.slot as usize;
        (*self.generations.get(slot)? == key.generation)
            .then(|| self.slots.get(slot).map(|socket| &**socket))?
    }

    pub(super) fn get_mut(&mut self, key: SocketKey) -> Option<&mut Socket> {
        let slot = key.slot as usize;
        if *self.generations.get(slot)? != key.generation {
            return None;
        }
        self.slots.get_mut(slot).map(|socket| &mut **socket)
    }

    pub(super) fn key_of(&self, slot: u32) -> SocketKey {
        SocketKey {
            slot,
            generation: self.generations[slot as usize],
        }
    }

    /// The socket of this shard with this public name.
    pub(super) fn by_id(&self, id: SocketId) -> Option<SocketKey> {
        self.by_id.get(&id).map(|&slot| self.key_of(slot))
    }

    /// Open sockets that are to go, at most so many, none of them twice.
    pub(super) fn some_to_shed(&mut self, count: usize) -> Vec<SocketKey> {
        let mut chosen = Vec::new();
        for _ in 0..self.generations.len() {
            if chosen.len() == count {
                break;
            }
            let slot = self.shed_from % self.generations.len();
            self.shed_from = slot + 1;
            let open = self
                .slots
                .get_mut(slot)
                .filter(|socket| !socket.is_shed && !socket.outbox.is_closing());
            if let Some(socket) = open {
                socket.is_shed = true;
                chosen.push(self.key_of(slot as u32));
            }
        }
        chosen
    }

    /// The open sockets of an app among so many slots from one on. Beside them the slot to go on from, if there is one.
    pub(super) fn of_app(
        &self,
        app: &Arc<App>,
        from: usize,
        slots: usize,
    ) -> (Vec<SocketKey>, Option<usize>) {
        let end = from.saturating_add(slots).min(self.generations.len());
        let is_of_app = |slot: &usize| {
            let socket = self.slots.get(*slot);
            socket.is_some_and(|socket| Arc::ptr_eq(socket.session.app(), app) && !socket.outbox.is_closing())
        };
        let keys = (from..end).filter(is_of_app).map(|slot| self.key_of(slot as u32));
        (keys.collect(), (end < self.generations.len()).then_some(end))
    }

    /// Open sockets with something in their outbox, the fullest first.
    pub(super) fn by_fullness(&self) -> Vec<SocketKey> {
        let open = self
            .slots
            .iter()
            .filter(|(_, socket)| !socket.outbox.is_closing());
        let waiting = open.map(|(slot, socket)| (socket.outbox.bytes() + socket.sealed_bytes(), slot as u32));
        let mut waiting: Vec<_> = waiting.filter(|(bytes, _)| *bytes > 0).collect();
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        waiting.into_iter().map(|(_, slot)| self.key_of(slot)).collect()
    }

    pub(super) fn live(&self) -> &LiveBytes {
        &self.live
    }

    /// Whether something waits for this socket, which goes before all else.
    pub(super) fn is_blocked(&self, slot: u32) -> bool {
        self.apart.of(slot).is_blocked
    }

    /// Something waits for this socket: somebody must wait until it takes more.
    pub(super) fn wait_for(&mut self, key: SocketKey) {
        self.apart.change(key.slot, |why| why.is_blocked = true);
        if let Some(socket) = self.get_mut(key)
            && !std::mem::replace(&mut socket.has_writer, true)
        {
            self.to_drain.push(key);
        }
    }

    /// From now on the answers to this socket are gathered.
    pub(super) fn cork(&mut self, key: SocketKey) {
        self.cork.begin(key);
    }

    /// The answers gathered leave, in one write.
    pub(super) fn uncork(&mut self) {
        if let Some(gathered) = self.cork.end() {
            self.send_whole(gathered.socket, gathered.frames, gathered.messages);
        }
    }

    fn seat(&self, key: SocketKey) -> Option<Seat> {
        Some(Seat {
            fd: self.get(key)?.fd(),
            slot: key.slot,
            place: 0,
        })
    }

    /// Sends the answer to a handshake and the first message in one packet. Room for both is in the buffer of every
    /// new connection; who has filled it with answers that nobody read is cut.
    pub(super) fn greet(&mut self, key: SocketKey, mut answer: Vec<u8>, hello: &Frame) {
        answer.extend_from_slice(hello.as_bytes());
        let sent = self.seat(key).map_or(0, |seat| self.send(seat, &answer));
        if sent < answer.len() {
            self.cut(key);
        } else if let Some(socket) = self.get(key) {
            let counts = BatchCounts {
                messages: 1,
                bytes: hello.as_bytes().len() as u64,
            };
            socket.session.namespace.metrics.sent(counts);
        }
    }

    /// Sends an answer to one socket, behind what waits for it.
    pub(super) fn reply(&mut self, key: SocketKey, frame: Frame) {
        if self.cork.is_of(key) {
            self.cork.push(&frame, 1);
        } else {
            self.send_whole(key, frame.into_bytes(), 1);
        }
    }

    fn send_whole(&mut self, key: SocketKey, frames: Bytes, messages: u64) {
        let Some(seat) = self.seat(key) else { return };
        let bytes = frames.len();
        let sent = self.send(seat, &frames);
        let is_taken = sent == bytes || {
            let frames = self.live.track(frames);
            self.park(seat, frames, sent)
        };
        if let Some(socket) = self.get(key).filter(|_| is_taken) {
            let counts = BatchCounts {
                messages,
                bytes: bytes as u64,
            };
            socket.session.namespace.metrics.sent(counts);
        }
    }

    /// Sends a ping or pong, ahead of data that waits.
    pub(super) fn control(&mut self, key: SocketKey, frame: Frame) {
        let Some(socket) = self.get_mut(key) else { return };
        if !socket.outbox.is_empty() {
            socket.outbox.push_control(frame);
            self.wait_for(key);
        } else if self.cork.is_of(key) {
            self.cork.push(&frame, 0);
        } else if let Some(seat) = self.seat(key) {
            let sent = self.send(seat, frame.as_bytes());
            if sent < frame.as_bytes().len() {
                // A control frame half sent is like data half sent: the rest must come next.
                self.park(seat, frame.into_bytes(), sent);
            }
        }
    }

    /// Sends the last words, the close frame at their end, and nothing after them.
    pub(super) fn close(&mut self, key: SocketKey, last_words: Bytes, ending: Ending, now_s: u32) {
        if self.cork.is_of(key) {
            self.uncork();
        }
        let Some(socket) = self.get_mut(key) else { return };
        socket.pulse.close(now_s);
        socket.unread = None;
        socket.held_back = None;
        match ending {
            Ending::AtOnce => socket.outbox.close(last_words),
            Ending::Behind => socket.outbox.close_behind(last_words),
        }
        self.wait_for(key);
    }

    /// Writes what waits, as far as the socket takes it. Pending: it takes no more now, and the task is woken when it
    /// does. Ready: nothing waits any more, or nobody is there.
    pub(super) fn poll_drain(&mut self, key: SocketKey, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = self.get_mut(key) else {
            return Poll::Ready(());
        };
        if socket.sealed.is_some() {
            if ready!(self.poll_drain_sealed(key, cx)) {
                self.all_taken(key);
            }
            return Poll::Ready(());
        }
        while !socket.outbox.is_empty() {
            ready!(socket.stream.poll_write_ready(cx)).unwrap_or_default();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = socket.outbox.chunks(&mut slices);
            // Only a `try_io` that fails clears what tokio remembers of the socket's readiness: after a plain send
            // that would have blocked it still says "writable".
            let write = || Ok(send_gathered(socket.fd(), &slices[..filled])?);
            match socket.stream.try_io(Interest::WRITABLE, write) {
                Ok(sent) => socket.outbox.advance(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.cut(key);
                    return Poll::Ready(());
                }
            }
        }
        self.all_taken(key);
        Poll::Ready(())
    }

    /// Nothing waits for this socket any more, and nobody for it.
    fn all_taken(&mut self, key: SocketKey) {
        let Some(socket) = self.get_mut(key) else { return };
        socket.has_writer = false;
        socket.writer = None;
        if socket.outbox.is_closing() {
            // The peer answers the close frame and ends its side, or the pulse drops it.
            let _ = shutdown(&socket.stream, Shutdown::Write);
        }
        self.apart.change(key.slot, |why| why.is_blocked = false);
    }

    /// A send to a socket that stands apart.
    #[inline(never)]
    fn send_apart(&mut self, seat: Seat, pieces: &[IoSlice<'_>]) -> usize {
        if self.is_blocked(seat.slot) {
            return 0;
        }
        self.send_sealed(self.key_of(seat.slot), pieces)
    }

    /// Ends the connection: its reader goes, even if it pauses, and takes it away.
    pub(super) fn cut(&self, key: SocketKey) {
        if let Some(socket) = self.get(key) {
            let _ = shutdown(&socket.stream, Shutdown::Both);
            if let Some(reader) = &socket.reader {
                reader.abort();
            }
        }
    }
}

impl Sink for Sockets {
    fn send(&mut self, seat: Seat, bytes: &[u8]) -> usize {
        if self.apart.holds(seat.slot) {
            return self.send_apart(seat, &[IoSlice::new(bytes)]);
        }
        send_plain(seat.fd, bytes)
    }

    fn send_all(&mut self, seat: Seat, pieces: &[IoSlice<'_>]) -> usize {
        if self.apart.holds(seat.slot) {
            return self.send_apart(seat, pieces);
        }
        send_gathered(seat.fd, pieces).unwrap_or(0)
    }

    fn park(&mut self, seat: Seat, frames: Bytes, sent: usize) -> bool {
        let key = self.key_of(seat.slot);
        let Some(socket) = self.get_mut(key) else {
            return false;
        };
        let bytes_max = socket.session.app().settings().limits.outbox_bytes_max;
        match socket.outbox.push(frames, sent, bytes_max) {
            Pushed::Queued => {
                self.wait_for(key);
                return true;
            }
            Pushed::Slow => self.slow.push(key),
            Pushed::Closing => {}
        }
        false
    }

    fn moved(&mut self, seat: Seat, position: u32) {
        let key = self.key_of(seat.slot);
        if let Some(held) = self
            .get_mut(key)
            .and_then(|socket| socket.subscriptions.get_mut(seat.place))
        {
            held.position = Some(position);
        }
    }

    fn served(&mut self, channel: &Channel, run: &Run) -> Instant {
        let now = Instant::now();
        channel.metrics.sent(run.sent);
        for published in &run.published {
            let took = now.saturating_duration_since(*published);
            channel
                .metrics
                .broadcast_latency_ms
                .observe(took.as_secs_f64() * 1e3);
        }
        self.inboxes.of(self.shard).release(run.charge);
        now
    }
}
