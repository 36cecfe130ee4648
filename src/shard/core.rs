//! What one shard owns, and what its turns and its sockets' tasks do with it. All of it is plain calls on one thread:
//! nothing here waits.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::audience::Seat;
use super::fanout::Fanout;
use super::framing::{FrameError, Message};
use super::pulse::{Beat, PulseLimits};
use super::session::{Reaction, Replies};
use super::sockets::{Socket, Sockets};
use super::subscriptions::Subscription;
use super::wheel::Wheel;
use crate::app::App;
use crate::hub::channel::Channel;
use crate::hub::inbox::{CacheAnswer, Entry, Inbox, Join, ShardIndex, SocketKey};
use crate::metrics::{BatchCounts, CloseReason};
use crate::node::{Joiner, Node, Refused};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::client::ClientMessage;
use crate::protocol::code::{CloseCode, RefusalKind};
use crate::protocol::frame::Frame;
use crate::protocol::presence::Member;
use crate::protocol::server;
use crate::protocol::user::SignedInUser;

/// Why a socket's input is not worked for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// The shards are above their marks, and this socket publishes.
    Publications,
    /// It joins and leaves without end.
    Membership(Duration),
}

/// What became of a socket's input: all of it was worked, or a pause is due, or the connection is over.
pub(super) type Received = ControlFlow<(), Option<Pause>>;

pub(super) struct Core {
    pub(super) shard: ShardIndex,
    pub(super) node: Arc<Node>,
    pub(super) sockets: Sockets,
    pub(super) fanout: Fanout,
    /// Where every socket's input is read into.
    pub(super) scratch: Box<[u8]>,
    wheel: Wheel<u64>,
    tokens: u32,
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
            tokens: 0,
            started: Instant::now(),
            live_bytes_max,
        }
    }

    fn inbox(&self) -> &Inbox {
        self.node.inboxes().of(self.shard)
    }

    fn now_s(&self) -> u32 {
        self.started.elapsed().as_secs() as u32
    }

    fn now_ns(&self) -> u64 {
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

    // -- what sockets say --

    /// Works what a socket sent. What it may not say yet is kept in its `unread`.
    pub(super) fn receive(&mut self, key: SocketKey, input: &mut [u8]) -> Received {
        let now_s = self.now_s();
        let Some(socket) = self.sockets.get_mut(key) else {
            return ControlFlow::Break(());
        };
        socket.pulse.hear(now_s);
        let mut counts = BatchCounts {
            messages: 0,
            bytes: input.len() as u64,
        };
        let metrics = socket.session.namespace.metrics.clone();
        let message_bytes_max = socket.session.app().limits.message_bytes_max;
        // Taken out meanwhile: what a message leads to may touch the socket again.
        let mut framing = std::mem::take(&mut socket.framing);
        let mut reader = framing.read(input, message_bytes_max);
        let received = loop {
            match reader.next() {
                Ok(None) => break ControlFlow::Continue(None),
                Ok(Some(Message::Text(text))) => {
                    counts.messages += 1;
                    if let Some(pause) = self.text(key, text) {
                        let rest = reader.rest();
                        if let Some(socket) = self.sockets.get_mut(key).filter(|_| !rest.is_empty()) {
                            socket.unread = Some(rest.into());
                        }
                        break ControlFlow::Continue(Some(pause));
                    }
                }
                Ok(Some(Message::Ping(payload))) => self.sockets.control(key, Frame::pong(payload)),
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Close { code })) => {
                    self.closed_by_peer(key, code);
                    break ControlFlow::Break(());
                }
                Err(error) => {
                    self.close(key, close_code(error), CloseReason::from(close_code(error)));
                    break ControlFlow::Continue(None);
                }
            }
        };
        metrics.received(counts);
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.framing = framing;
        }
        received
    }

    fn closed_by_peer(&mut self, key: SocketKey, code: Option<u16>) {
        let Some(socket) = self.sockets.get(key) else {
            return;
        };
        if socket.outbox.is_closing() {
            return;
        }
        if socket.outbox.is_empty() {
            let echo = code.map_or_else(Frame::close_without_code, |code| Frame::close_with(code, ""));
            self.sockets.control(key, echo);
        }
        self.node.metrics().closed(CloseReason::Client).inc();
    }

    fn text(&mut self, key: SocketKey, text: &str) -> Option<Pause> {
        let (now_s, now_ns) = (self.now_s(), self.now_ns());
        let socket = self
            .sockets
            .get_mut(key)
            .filter(|socket| !socket.outbox.is_closing())?;
        socket.pulse.speak(now_s);
        let reaction = match ClientMessage::parse(text) {
            Ok(message) => socket.session.handle(message, &socket.subscriptions, now_ns),
            Err(error) => {
                let answer = server::error(None, &error.to_string(), error.channel());
                self.sockets.reply(key, answer);
                return None;
            }
        };
        self.react(key, reaction)
    }

    fn react(&mut self, key: SocketKey, reaction: Reaction) -> Option<Pause> {
        match reaction {
            Reaction::Nothing => None,
            Reaction::Reply(replies) => self.reply_all(key, replies),
            Reaction::Subscribe(name, member) => {
                self.subscribe(key, &name, member.as_ref());
                self.charge_membership(key)
            }
            Reaction::AcknowledgeAgain(place) => {
                let socket = self.sockets.get(key)?;
                let held = socket.subscriptions.get(place)?;
                let joiner = Joiner {
                    shard: self.shard,
                    socket: key,
                    place,
                    token: held.token,
                };
                self.node
                    .acknowledge_again(&socket.session.namespace, &held.channel, joiner);
                self.charge_membership(key)
            }
            Reaction::Unsubscribe(place) => {
                self.leave(key, place);
                self.charge_membership(key)
            }
            Reaction::Publish(place, frame) => {
                let socket = self.sockets.get(key)?;
                let held = socket.subscriptions.get(place)?;
                let session = &socket.session;
                self.node
                    .relay_client_event(&session.namespace, &held.channel, &frame, session.socket_id);
                (!self.node.may_publish()).then_some(Pause::Publications)
            }
            Reaction::SignIn(user, replies) => {
                self.reply_all(key, replies);
                self.sign_in(key, user)
            }
        }
    }

    fn reply_all(&mut self, key: SocketKey, replies: Replies) -> Option<Pause> {
        replies
            .into_iter()
            .for_each(|frame| self.sockets.reply(key, frame));
        None
    }

    fn charge_membership(&mut self, key: SocketKey) -> Option<Pause> {
        let now_ns = self.now_ns();
        let socket = self.sockets.get_mut(key)?;
        socket
            .session
            .charge_membership(now_ns)
            .err()
            .map(Pause::Membership)
    }

    /// Reserves the next place in a socket's list for what `join` does, and notes what it joined there.
    fn join_at_next_place<E>(
        &mut self,
        key: SocketKey,
        user_id: Option<Arc<str>>,
        join: impl FnOnce(&Node, &Socket, Joiner) -> Result<Arc<Channel>, E>,
    ) -> Result<(), E> {
        self.tokens = self.tokens.wrapping_add(1);
        let token = self.tokens;
        let Some(socket) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        let joiner = Joiner {
            shard: self.shard,
            socket: key,
            place: socket.subscriptions.next_place(),
            token,
        };
        let channel = join(&self.node, socket, joiner)?;
        socket.subscriptions.insert(Subscription {
            channel,
            token,
            position: None,
            user_id,
        });
        Ok(())
    }

    fn subscribe(&mut self, key: SocketKey, name: &ChannelName, member: Option<&Member>) {
        let user_id = member.map(|member| member.user_id.clone());
        let joined = self.join_at_next_place(key, user_id, |node, socket, joiner| {
            node.subscribe(&socket.session.namespace, name, joiner, member)
        });
        match joined {
            Ok(()) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.session.is_authorized |= name.kind().needs_auth();
                }
            }
            Err(Refused::PresenceFull) => {
                let text = "The presence channel has as many members as it may have";
                let frames =
                    server::subscription_refused(name.as_str(), RefusalKind::PresenceFull, text, text);
                frames
                    .into_iter()
                    .for_each(|frame| self.sockets.reply(key, frame));
            }
        }
    }

    fn sign_in(&mut self, key: SocketKey, mut user: SignedInUser) -> Option<Pause> {
        let watchlist = std::mem::take(&mut user.watchlist);
        let socket = self.sockets.get_mut(key)?;
        let namespace = socket.session.namespace.clone();
        let id = user.id.clone();
        socket.session.is_authorized = true;
        let was_signed_in = socket.session.user.replace(Box::new(user)).is_some();
        let earlier = socket.subscriptions.watches();
        if !was_signed_in {
            // The id was checked with the characters of channel names.
            let name = ChannelName::of_user(&id).ok()?;
            let _ = self.join_at_next_place(key, None, |node, _, joiner| {
                Ok::<_, Refused>(node.sign_in(&namespace, &name, joiner))
            });
            self.node.user_came(&namespace, &id);
        }
        earlier.into_iter().for_each(|place| self.leave(key, place));
        let mut pause = self.charge_membership(key);
        if !namespace.app.config.watchlist {
            return pause;
        }
        let (mut online, mut offline) = (Vec::new(), Vec::new());
        for watched in watchlist {
            let watched: Arc<str> = watched.into();
            let _ = self.join_at_next_place(key, None, |node, _, joiner| {
                let (channel, is_online) = node.watch(&namespace, &watched, joiner);
                if is_online { &mut online } else { &mut offline }.push(watched.clone());
                Ok::<_, Refused>(channel)
            });
            pause = self.charge_membership(key).or(pause);
        }
        if let Some(state) = server::watchlist_events(&online, &offline) {
            self.sockets.reply(key, state);
        }
        pause
    }

    // -- leaving --

    fn leave(&mut self, key: SocketKey, place: u32) {
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
        while self.sockets.live().get() > self.live_bytes_max {
            let Some(fullest) = self.sockets.fullest() else {
                break;
            };
            self.close(fullest, CloseCode::SlowConsumer, CloseReason::Memory);
        }
    }

    /// Looks at the sockets whose time has come; once a second.
    pub(super) fn tick(&mut self) {
        let now_s = self.now_s();
        let mut due = Vec::new();
        self.wheel.advance(u64::from(now_s), &mut due);
        for key in due.into_iter().map(SocketKey::unpack) {
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

fn close_code(error: FrameError) -> CloseCode {
    match error {
        FrameError::Binary => CloseCode::UnsupportedData,
        FrameError::NotUtf8 => CloseCode::InvalidText,
        FrameError::TooBig => CloseCode::TooBig,
        _ => CloseCode::ProtocolError,
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
