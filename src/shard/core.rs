//! What one shard owns, and what its turns and its sockets' tasks do with it. All of it is plain calls on one thread:
//! nothing here waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::audience::Seat;
use super::fanout::Fanout;
use super::pulse::{Beat, CLOSING_S, PulseLimits};
use super::socket::Socket;
use super::sockets::Sockets;
use super::wheel::Wheel;
use crate::app::App;
use crate::hub::channel::Channel;
use crate::hub::inbox::{CacheAnswer, Entry, Inbox, Join, ShardIndex, SocketKey};
use crate::hub::namespace::Namespace;
use crate::metrics::CloseReason;
use crate::node::Node;
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::protocol::server;

/// Sockets looked at, and perhaps pinged, before others have their turn.
const DUE_PER_TURN: usize = 128;
/// Subscriptions of one socket, or of sockets with many, that the directory is told are over before others have their
/// turn.
const DEPARTURES_PER_TURN: usize = 128;
/// Sockets looked at in one turn for whose app they are of, while one is being closed.
const LOOKED_AT_PER_TURN: usize = 1_024;
/// Messages of all sockets worked before sends have their turn: some milliseconds of signatures at worst.
const MESSAGES_PER_TURN: u64 = 512;

/// A subscription that is over, of which the directory has not yet been told.
struct Departure {
    namespace: Arc<Namespace>,
    channel: Arc<Channel>,
    user_id: Option<Arc<str>>,
}

/// A socket that is to be closed, behind the frames below this number.
struct Leaving {
    after: u64,
    key: SocketKey,
    code: CloseCode,
    reason: CloseReason,
}

/// What becomes of the data that waits for a socket when it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is dropped, but for the frame in progress: the socket reads too slowly, breaks the rules or is gone.
    AtOnce,
    /// It goes out first, as far as the time for closing allows.
    Behind,
}

impl Ending {
    fn of(code: CloseCode) -> Ending {
        match code {
            CloseCode::SlowConsumer
            | CloseCode::NoPong
            | CloseCode::ProtocolError
            | CloseCode::UnsupportedData
            | CloseCode::InvalidText
            | CloseCode::TooBig => Ending::AtOnce,
            _ => Ending::Behind,
        }
    }
}

pub(super) struct Core {
    pub(super) shard: ShardIndex,
    pub(super) node: Arc<Node>,
    pub(super) sockets: Sockets,
    pub(super) fanout: Fanout,
    /// Where every socket's input is read into.
    pub(super) scratch: Box<[u8]>,
    /// What was opened of it, if it was encrypted.
    pub(super) opened: Vec<u8>,
    wheel: Wheel<u64>,
    /// Whose time has come, and who has not yet been looked at.
    due: Vec<u64>,
    /// Who is to be closed.
    leaving: VecDeque<Leaving>,
    /// Apps whose sockets are to be closed, and the slot from which on they are looked for.
    closing: VecDeque<(Arc<App>, usize)>,
    departures: VecDeque<Departure>,
    /// Messages heard in this turn.
    pub(super) heard: u64,
    pub(super) tokens: u32,
    started: Instant,
    live_bytes_max: usize,
}

impl Core {
    pub(super) fn new(
        shard: ShardIndex,
        node: Arc<Node>,
        live: &super::LiveBytes,
        live_bytes_max: usize,
    ) -> Core {
        let inboxes = node.inboxes().clone();
        Core {
            shard,
            sockets: Sockets::new(live.clone(), inboxes, shard),
            fanout: Fanout::new(live.clone()),
            node,
            scratch: Box::default(),
            opened: Vec::new(),
            wheel: Wheel::default(),
            due: Vec::new(),
            leaving: VecDeque::new(),
            closing: VecDeque::new(),
            departures: VecDeque::new(),
            heard: 0,
            tokens: 0,
            started: Instant::now(),
            live_bytes_max,
        }
    }

    fn inbox(&self) -> &Inbox {
        self.node.inboxes().of(self.shard)
    }

    pub(super) fn now_s(&self) -> u32 {
        self.started.elapsed().as_secs() as u32
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Takes in a socket, which gets the answer to its handshake and its greeting.
    pub(super) fn insert(&mut self, answer: Vec<u8>, make: impl FnOnce(u32) -> Socket) -> SocketKey {
        let socket = make(self.now_s());
        socket.session.namespace.metrics.new_connections_total.inc();
        let first = socket.pulse.first(pulse_limits(socket.session.app()));
        let hello = server::connection_established(
            socket.session.socket_id,
            socket.session.app().settings().limits.activity_timeout.as_secs(),
        );
        let key = self.sockets.insert(socket);
        self.inbox().add_socket();
        self.wheel.insert(key.pack(), u64::from(first));
        self.sockets.greet(key, answer, &hello);
        self.close_if_too_late(key);
        key
    }

    /// Closes a socket that was let in before its app was closed: who looks for those to close may have passed it.
    fn close_if_too_late(&mut self, key: SocketKey) {
        let closed = self
            .sockets
            .get(key)
            .and_then(|socket| socket.session.app().closed());
        if let Some(code) = closed {
            self.close(key, code, CloseReason::from(code));
        }
    }

    /// Leaves everything and closes the descriptor.
    pub(super) fn remove(&mut self, key: SocketKey) {
        self.leave_all(key);
        if let Some(socket) = self.sockets.remove(key) {
            socket.session.namespace.metrics.new_disconnections_total.inc();
            self.inbox().remove_socket();
        }
    }

    // -- entries of the inbox --

    /// Works one entry. A connection comes in through the door, and a stop is for the loop.
    pub(super) fn work(&mut self, entry: Entry) {
        match entry {
            Entry::Accept(_) | Entry::Stop => {}
            Entry::Broadcast(broadcast) => {
                let charge = Inbox::charge(&broadcast.frame);
                let except = broadcast.except.and_then(|id| {
                    let socket = self.sockets.get(self.sockets.by_id(id)?)?;
                    let place = socket.subscriptions.find(&broadcast.channel.topic)?;
                    let held = socket.subscriptions.get(place)?;
                    // Another app may have a channel of this name.
                    held.position
                        .filter(|_| held.channel.key == broadcast.channel.key)
                });
                let bytes = broadcast.frame.into_bytes();
                if !self
                    .fanout
                    .broadcast(&broadcast.channel, bytes, except, charge, broadcast.published)
                {
                    self.inbox().release(charge);
                }
            }
            Entry::Join(join) => self.join(join),
            Entry::Admit(key, token) => self.admit(key, token),
            Entry::CloseAll(channel, code) => {
                let seats = self.fanout.seats(&channel).iter().filter(|seat| !seat.is_blank());
                let keys: Vec<_> = seats.map(|seat| self.sockets.key_of(seat.slot)).collect();
                self.close_soon(keys, code, CloseReason::from(code));
            }
            Entry::CloseApp(app) => {
                // Once more from the beginning, if it was looked for already.
                self.closing.retain(|(other, _)| !Arc::ptr_eq(other, &app));
                self.closing.push_back((app, 0));
            }
            Entry::Shed { count, code, reason } => {
                let keys = self.sockets.some_to_shed(count);
                self.close_soon(keys, code, reason);
            }
        }
    }

    /// Lines sockets up to be closed, behind what has been published by now.
    fn close_soon(&mut self, keys: Vec<SocketKey>, code: CloseCode, reason: CloseReason) {
        let after = self.fanout.next_number();
        self.leaving.extend(keys.into_iter().map(|key| Leaving {
            after,
            key,
            code,
            reason,
        }));
    }

    fn join(&mut self, join: Join) {
        let Some(socket) = self.sockets.get_mut(join.socket) else {
            return;
        };
        let fd = socket.fd();
        let held = socket
            .subscriptions
            .get_mut(join.place)
            .filter(|held| held.token == join.token);
        let Some(held) = held else { return };
        if held.position.is_none() {
            let seat = Seat {
                fd,
                slot: join.socket.slot,
                place: join.place,
            };
            held.position = Some(self.fanout.join(&join.channel, seat));
        }
        if join.silent {
            return;
        }
        let Some(name) = join.channel.name() else { return };
        let acknowledgement = match &join.members {
            Some(members) => members.acknowledgement(name),
            None => server::subscription_succeeded(name),
        };
        self.sockets.reply(join.socket, acknowledgement);
        match join.cache {
            CacheAnswer::Silent => {}
            CacheAnswer::Hit(frame) => self.sockets.reply(join.socket, frame),
            CacheAnswer::Miss => self.sockets.reply(join.socket, server::cache_miss(name)),
        }
    }

    // -- leaving --

    /// Ends one subscription.
    pub(super) fn leave(&mut self, key: SocketKey, place: u32) {
        self.vacate(key, place);
        self.tell_departures(1);
    }

    /// Gives a seat back at once; the directory is told later.
    fn vacate(&mut self, key: SocketKey, place: u32) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let Some(held) = socket.subscriptions.remove(place) else {
            return;
        };
        let namespace = socket.session.namespace.clone();
        if let Some(position) = held.position {
            self.fanout.leave(&held.channel, position, &mut self.sockets);
        }
        let departure = Departure {
            namespace,
            channel: held.channel,
            user_id: held.user_id,
        };
        // The latest is told first: a single leave is not to wait for the many of somebody else.
        self.departures.push_front(departure);
    }

    fn tell_departures(&mut self, count: usize) {
        for _ in 0..count {
            let Some(Departure {
                namespace,
                channel,
                user_id,
            }) = self.departures.pop_front()
            else {
                return;
            };
            self.node
                .unsubscribe(&namespace, &channel, self.shard, user_id.as_deref());
        }
    }

    /// Leaves everything. No seat is left behind; of very many subscriptions the directory is told over some turns.
    pub(super) fn leave_all(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let user = socket.session.user.take();
        let namespace = socket.session.namespace.clone();
        socket.subscriptions.forgo_all();
        let places = socket.subscriptions.places();
        places.iter().for_each(|place| self.vacate(key, *place));
        self.tell_departures(places.len().min(DEPARTURES_PER_TURN));
        if let Some(user) = user {
            self.node.user_went(&namespace, &user.id);
        }
        if !self.departures.is_empty() {
            self.inbox().wake();
        }
    }

    /// Closes a socket: it leaves everything at once, and gets a close frame and time to answer it.
    pub(super) fn close(&mut self, key: SocketKey, code: CloseCode, reason: CloseReason) {
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.outbox.is_closing()) else {
            return;
        };
        let mut last_words = Vec::new();
        if code.is_told_first(socket.session.protocol, true) {
            last_words.extend_from_slice(server::closing_error(code).as_bytes());
        }
        last_words.extend_from_slice(Frame::close(code).as_bytes());
        self.node.metrics().closed(reason).inc();
        self.leave_all(key);
        self.close_with(key, last_words.into(), Ending::of(code));
    }

    /// Sends the last words of a socket that has left everything.
    pub(super) fn close_with(&mut self, key: SocketKey, last_words: Bytes, ending: Ending) {
        let now_s = self.now_s();
        self.sockets.close(key, last_words, ending, now_s);
        self.wheel.insert(key.pack(), u64::from(now_s + CLOSING_S));
    }

    // -- what is due --

    /// Closes whom the last sends found too slow.
    pub(super) fn close_slow(&mut self) {
        for key in std::mem::take(&mut self.sockets.slow) {
            self.close(key, CloseCode::SlowConsumer, CloseReason::Slow);
        }
    }

    /// Closes the fullest of this shard while all outboxes of the process together hold too much.
    fn close_fullest(&mut self) {
        if self.sockets.live().get() <= self.live_bytes_max {
            return;
        }
        for fullest in self.sockets.by_fullness() {
            self.close(fullest, CloseCode::SlowConsumer, CloseReason::Memory);
            if self.sockets.live().get() <= self.live_bytes_max {
                return;
            }
        }
    }

    /// Finds out whose time has come; once a second.
    pub(super) fn tick(&mut self) {
        self.wheel.advance(u64::from(self.now_s()), &mut self.due);
    }

    /// Whether there is something to do in the next turn, whatever comes in until then.
    pub(super) fn is_busy(&self) -> bool {
        // Who leaves behind frames that rest has nothing to do until their rest is over.
        let may_leave = |next: &Leaving| next.after <= self.fanout.oldest();
        let has_more = !self.due.is_empty() || !self.departures.is_empty();
        let has_more = has_more || !self.closing.is_empty();
        self.fanout.is_busy() || has_more || self.leaving.front().is_some_and(may_leave)
    }

    /// Whether sockets may still be heard in this turn.
    pub(super) fn may_hear(&self) -> bool {
        self.heard < MESSAGES_PER_TURN
    }

    /// What a turn does beside working entries: a batch of sends, and some of whoever's time has come.
    pub(super) fn turn(&mut self, now: Instant) {
        self.heard = 0;
        self.fanout.start(now);
        self.fanout.work(&mut self.sockets);
        self.look_at_due();
        self.look_for_closed();
        self.close_leaving();
        self.tell_departures(DEPARTURES_PER_TURN);
        self.close_slow();
        self.close_fullest();
    }

    /// Looks at some sockets, whether they are of an app that was closed.
    fn look_for_closed(&mut self) {
        let Some((app, from)) = self.closing.pop_front() else {
            return;
        };
        // It may be open again by now.
        let Some(code) = app.closed() else { return };
        let (keys, next) = self.sockets.of_app(&app, from, LOOKED_AT_PER_TURN);
        self.close_soon(keys, code, CloseReason::from(code));
        if let Some(next) = next {
            self.closing.push_back((app, next));
        }
    }

    /// Closes some of those who are to go, once they have got what was published before.
    fn close_leaving(&mut self) {
        if self.leaving.is_empty() {
            // As a rule; and to find the oldest frame is a look at every channel at work.
            return;
        }
        let oldest = self.fanout.oldest();
        for _ in 0..DUE_PER_TURN {
            let Some(Leaving {
                key, code, reason, ..
            }) = self.leaving.pop_front_if(|next| next.after <= oldest)
            else {
                return;
            };
            self.close(key, code, reason);
        }
    }

    /// Looks at some of the sockets whose time has come: those that came together would be asked together.
    fn look_at_due(&mut self) {
        let now_s = self.now_s();
        let rest = self.due.len().saturating_sub(DUE_PER_TURN);
        let looked_at = match rest {
            0 => std::mem::take(&mut self.due),
            _ => self.due.split_off(rest),
        };
        for key in looked_at.into_iter().map(SocketKey::unpack) {
            let Some(socket) = self.sockets.get_mut(key) else {
                continue;
            };
            if socket.is_paused {
                // It is not being read, so its silence proves nothing.
                socket.pulse.hear(now_s);
            }
            let limits = pulse_limits(socket.session.app());
            let session = &socket.session;
            match socket
                .pulse
                .beat(now_s, limits, session.is_authorized, session.protocol)
            {
                Beat::Wait(next) => self.wheel.insert(key.pack(), u64::from(next)),
                Beat::Ping(next) => {
                    let as_event = limits.ping_mode == crate::app::PingMode::Event && session.protocol >= 5;
                    self.wheel.insert(key.pack(), u64::from(next));
                    if as_event {
                        self.sockets.reply(key, server::ping());
                    } else {
                        self.sockets.control(key, Frame::ping());
                    }
                }
                Beat::Close(code) => self.close(key, code, CloseReason::from(code)),
                Beat::Drop => self.sockets.cut(key),
            }
        }
    }
}

fn pulse_limits(app: &App) -> PulseLimits {
    let seconds = |duration: Duration| duration.as_secs() as u32;
    let settings = app.settings();
    PulseLimits {
        activity_timeout_s: seconds(settings.limits.activity_timeout),
        pong_wait_s: seconds(settings.limits.pong_wait),
        auth_timeout_s: settings
            .config
            .authorized_connections
            .then(|| seconds(settings.limits.auth_timeout)),
        ping_mode: settings.config.ping_mode,
    }
}
