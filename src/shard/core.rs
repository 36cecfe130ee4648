//! What one shard owns, and what its turns and its sockets' tasks do with it. All of it is plain calls on one thread:
//! nothing here waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::audience::Seat;
use super::fanout::Fanout;
use super::pulse::{Beat, PulseLimits};
use super::sockets::{Socket, Sockets};
use super::wheel::Wheel;
use crate::app::App;
use crate::hub::inbox::{CacheAnswer, Entry, Inbox, Join, ShardIndex, SocketKey};
use crate::metrics::CloseReason;
use crate::node::Node;
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::protocol::server;

/// Sockets looked at, and perhaps pinged, before others have their turn.
const DUE_PER_TURN: usize = 128;

pub(super) struct Core {
    pub(super) shard: ShardIndex,
    pub(super) node: Arc<Node>,
    pub(super) sockets: Sockets,
    pub(super) fanout: Fanout,
    /// Where every socket's input is read into.
    pub(super) scratch: Box<[u8]>,
    wheel: Wheel<u64>,
    /// Whose time has come, and who has not yet been looked at.
    due: Vec<u64>,
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
            wheel: Wheel::default(),
            due: Vec::new(),
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

    /// Takes in a socket whose handshake is done.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32) -> Socket) -> SocketKey {
        let socket = make(self.now_s());
        socket.session.namespace.metrics.new_connections_total.inc();
        let first = socket.pulse.first(pulse_limits(socket.session.app()));
        let hello = server::connection_established(
            socket.session.socket_id,
            socket.session.app().limits.activity_timeout.as_secs(),
        );
        let key = self.sockets.insert(socket);
        self.wheel.insert(key.pack(), u64::from(first));
        self.sockets.reply(key, hello);
        key
    }

    /// Leaves everything and closes the descriptor.
    pub(super) fn remove(&mut self, key: SocketKey) {
        self.leave_all(key);
        if let Some(socket) = self.sockets.remove(key) {
            socket.session.namespace.metrics.new_disconnections_total.inc();
            self.inbox().remove_connection();
        }
    }

    // -- entries of the inbox --

    /// Works one entry. Connections are for the caller, who knows what comes before a socket.
    pub(super) fn work(&mut self, entry: Entry) -> Option<Entry> {
        match entry {
            Entry::Accept(_) | Entry::Stop => return Some(entry),
            Entry::Broadcast(broadcast) => {
                let charge = Inbox::charge(&broadcast.frame);
                let except = broadcast.except.and_then(|id| {
                    let socket = self.sockets.get(self.sockets.by_id(id)?)?;
                    let place = socket.subscriptions.find(&broadcast.channel.topic)?;
                    socket.subscriptions.get(place)?.position
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
            Entry::Send(key, frame) => self.sockets.reply(key, frame),
            Entry::CloseAll(channel, code) => {
                let slots: Vec<u32> = self
                    .fanout
                    .seats(&channel)
                    .iter()
                    .filter(|seat| !seat.is_blank())
                    .map(|seat| seat.slot)
                    .collect();
                for slot in slots {
                    self.close(self.sockets.key_of(slot), code, CloseReason::from(code));
                }
            }
            Entry::Shed { count, code } => {
                for key in self.sockets.open_keys(count) {
                    self.close(key, code, CloseReason::Drain);
                }
            }
        }
        None
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

    pub(super) fn leave(&mut self, key: SocketKey, place: u32) {
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
        self.node
            .unsubscribe(&namespace, &held.channel, self.shard, held.user_id.as_deref());
    }

    fn leave_all(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let user = socket.session.user.take();
        let namespace = socket.session.namespace.clone();
        for place in socket.subscriptions.places() {
            self.leave(key, place);
        }
        if let Some(user) = user {
            self.node.user_went(&namespace, &user.id);
        }
    }

    /// Closes a socket: it leaves everything at once, and gets a close frame and time to answer it.
    pub(super) fn close(&mut self, key: SocketKey, code: CloseCode, reason: CloseReason) {
        let now_s = self.now_s();
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.outbox.is_closing()) else {
            return;
        };
        let told_first = code.is_told_first(socket.session.protocol, true);
        self.node.metrics().closed(reason).inc();
        self.leave_all(key);
        if told_first {
            self.sockets.reply(key, server::closing_error(code));
        }
        self.sockets.close(key, Frame::close(code), now_s);
        self.wheel
            .insert(key.pack(), u64::from(now_s + super::pulse::CLOSING_S));
    }

    // -- what is due --

    /// Closes whom the last sends found too slow, and the fullest while all outboxes together hold too much.
    pub(super) fn close_slow(&mut self) {
        for key in std::mem::take(&mut self.sockets.slow) {
            self.close(key, CloseCode::SlowConsumer, CloseReason::Slow);
        }
        if self.sockets.live().get() > self.live_bytes_max {
            for fullest in self.sockets.by_fullness() {
                if self.sockets.live().get() <= self.live_bytes_max {
                    break;
                }
                self.close(fullest, CloseCode::SlowConsumer, CloseReason::Memory);
            }
        }
    }

    /// Finds out whose time has come; once a second.
    pub(super) fn tick(&mut self) {
        self.wheel.advance(u64::from(self.now_s()), &mut self.due);
    }

    /// Whether somebody's time has come.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Looks at some of the sockets whose time has come: those that came together would be asked together.
    pub(super) fn look_at_due(&mut self) {
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
            if socket.unread.is_some() {
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
    PulseLimits {
        activity_timeout_s: seconds(app.limits.activity_timeout),
        pong_wait_s: seconds(app.limits.pong_wait),
        auth_timeout_s: app
            .config
            .authorized_connections
            .then(|| seconds(app.limits.auth_timeout)),
        ping_mode: app.config.ping_mode,
    }
}
