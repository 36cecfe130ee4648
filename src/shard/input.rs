//! What a socket says, from its bytes to what comes of it: the framing reads messages, the session decides, and here
//! its decisions are carried out on the socket, the fan-out and the node.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Ending};
use super::framing::Message;
use super::session::{Reaction, Replies, Session};
use super::socket::Socket;
use super::subscriptions::{Awaited, Subscription};
use crate::hub::channel::{Channel, Topic};
use crate::hub::inbox::SocketKey;
use crate::hub::namespace::Namespace;
use crate::metrics::{BatchCounts, CloseReason};
use crate::node::{Joiner, Node, Refused, Waiter};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::client::ClientMessage;
use crate::protocol::code::RefusalKind;
use crate::protocol::frame::Frame;
use crate::protocol::presence::Member;
use crate::protocol::server;
use crate::protocol::user::SignedInUser;

/// Messages of one socket worked before others have their turn: each may cost a signature and an answer.
const MESSAGES_PER_READ: u64 = 64;

/// Why a socket's input is not worked for a while.
#[derive(Debug)]
pub(super) enum Pause {
    /// A shard that this channel reaches is above its mark, and this socket has something for it.
    Publications(Arc<Namespace>, Arc<Channel>),
    /// It joins and leaves without end.
    Membership(Duration),
    /// What it said is about a channel that it is not in yet.
    Admission,
}

/// What became of a socket's input.
#[derive(Debug)]
pub(super) enum Worked {
    /// All of it was worked.
    All,
    /// The rest is in its `unread`: others come first.
    Enough,
    /// The rest, if any, is in its `unread`, until the pause is over.
    Pause(Pause),
}

/// What was said and in order, but has to wait.
#[derive(Debug)]
pub(super) enum HeldBack {
    /// A client event that found no room.
    ClientEvent(u32, Frame),
    /// A client event for a channel that the socket is about to be in.
    EarlyClientEvent(ChannelName, Frame),
    /// A sign-in, until the user's own channel is heard from all nodes.
    SignIn(SignedInUser, Replies),
}

impl Core {
    /// Works what a socket sent; `Break` ends the connection. What is not worked yet is kept in its `unread`.
    pub(super) fn receive(&mut self, key: SocketKey, input: &mut [u8]) -> ControlFlow<(), Worked> {
        let now_s = self.now_s();
        let Some(socket) = self.sockets.get_mut(key) else {
            return ControlFlow::Break(());
        };
        socket.pulse.hear(now_s);
        let metrics = socket.session.namespace.metrics.clone();
        let message_bytes_max = socket.session.app().settings().limits.message_bytes_max;
        // Taken out meanwhile: what a message leads to may touch the socket again.
        let mut framing = std::mem::take(&mut socket.framing);
        let mut counts = BatchCounts {
            messages: 0,
            bytes: 0,
        };
        let before = input.len();
        self.sockets.cork(key);
        let mut reader = framing.read(input, message_bytes_max);
        let mut messages = 0;
        let worked = loop {
            if messages >= MESSAGES_PER_READ {
                break ControlFlow::Continue(Worked::Enough);
            }
            messages += 1;
            match reader.next() {
                Ok(None) => break ControlFlow::Continue(Worked::All),
                Ok(Some(Message::Text(text))) => {
                    counts.messages += 1;
                    if let Some(pause) = self.text(key, text) {
                        break ControlFlow::Continue(Worked::Pause(pause));
                    }
                }
                Ok(Some(Message::Ping(payload))) => self.sockets.control(key, Frame::pong(payload)),
                Ok(Some(Message::Pong(_))) => {}
                Ok(Some(Message::Close { code })) => break self.closed_by_peer(key, code),
                Err(error) => {
                    let code = error.code();
                    self.close(key, code, CloseReason::from(code));
                    break ControlFlow::Continue(Worked::All);
                }
            }
        };
        let rest = reader.rest();
        counts.bytes = (before - rest.len()) as u64;
        let rest: Option<Box<[u8]>> = (!rest.is_empty()).then(|| rest.into());
        metrics.received(counts);
        self.heard += messages;
        self.sockets.uncork();
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.framing = framing;
            socket.is_paused = matches!(worked, ControlFlow::Continue(Worked::Pause(_)));
            socket.unread = rest;
        }
        worked
    }

    /// The pause of a socket, if there was one, is over: what it held back goes out, or waits on.
    pub(super) fn resume(&mut self, key: SocketKey) -> Option<Pause> {
        let now_s = self.now_s();
        let socket = self.sockets.get_mut(key).filter(|socket| socket.is_paused)?;
        socket.is_paused = false;
        socket.pulse.hear(now_s);
        let pause = match *socket.held_back.take()? {
            HeldBack::ClientEvent(place, frame) => self.publish(key, place, frame),
            HeldBack::EarlyClientEvent(name, frame) => self.publish_when_joined(key, name, frame),
            HeldBack::SignIn(user, replies) => self.sign_in_when_admitted(key, user, replies),
        }?;
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.is_paused = true;
        }
        Some(pause)
    }

    /// The peer's goodbye is answered. `Break`: nothing waits, the connection is over.
    fn closed_by_peer(&mut self, key: SocketKey, code: Option<u16>) -> ControlFlow<(), Worked> {
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.outbox.is_closing()) else {
            return ControlFlow::Break(());
        };
        let echo = code.map_or_else(Frame::close_without_code, |code| Frame::close_with(code, ""));
        // TLS has a goodbye of its own, which goes out behind all else.
        let nothing_waits = socket.outbox.is_empty() && socket.sealed.is_none();
        self.node.metrics().closed(CloseReason::Client).inc();
        if nothing_waits {
            self.sockets.control(key, echo);
            return ControlFlow::Break(());
        }
        // In the middle of a frame, maybe: that one ends first.
        self.leave_all(key);
        self.close_with(key, echo.into_bytes(), Ending::AtOnce);
        ControlFlow::Continue(Worked::All)
    }

    /// The connection ended. Unless we are closing it, that is the first we hear of its end.
    pub(super) fn lost(&mut self, key: SocketKey) {
        if self
            .sockets
            .get(key)
            .is_some_and(|socket| !socket.outbox.is_closing())
        {
            self.node.metrics().closed(CloseReason::Lost).inc();
        }
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
            Reaction::Reply(replies) => {
                self.reply_all(key, replies);
                None
            }
            Reaction::Subscribe(name, member) => self.subscribe_when_heard(key, name, member),
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
                let channel = self.sockets.get(key)?.subscriptions.get(place)?.channel.clone();
                self.leave(key, place);
                self.charge_change(key, &channel)
            }
            Reaction::Forgo(name) => {
                self.sockets.get_mut(key)?.subscriptions.forgo(&name);
                self.charge_membership(key)
            }
            Reaction::Publish(place, frame) => {
                let channel = self.sockets.get(key)?.subscriptions.get(place)?.channel.clone();
                self.charge_client_event(key, channel.name()?)?;
                self.publish(key, place, frame)
            }
            Reaction::PublishLater(name, frame) => {
                self.charge_client_event(key, &name)?;
                self.publish_when_joined(key, name, frame)
            }
            Reaction::OverLimit(refusal) => {
                self.count_limit(key, true);
                self.sockets.reply(key, refusal);
                None
            }
            Reaction::SignIn(user, replies) => self.sign_in_when_heard(key, user, replies),
        }
    }

    /// Sends a client event on, or holds it back until there is room.
    fn publish(&mut self, key: SocketKey, place: u32, frame: Frame) -> Option<Pause> {
        let socket = self.sockets.get_mut(key)?;
        let channel = &socket.subscriptions.get(place)?.channel;
        let Session {
            namespace, socket_id, ..
        } = &socket.session;
        if self.node.has_room(namespace, &channel.topic) {
            self.node
                .publish_client_event(namespace, channel, &frame, *socket_id);
            return None;
        }
        let pause = Pause::Publications(namespace.clone(), channel.clone());
        socket.held_back = Some(Box::new(HeldBack::ClientEvent(place, frame)));
        Some(pause)
    }

    /// Sends a client event on as soon as its sender is in the channel. One whose sender was not let in is dropped: the
    /// refusal has been told.
    fn publish_when_joined(&mut self, key: SocketKey, name: ChannelName, frame: Frame) -> Option<Pause> {
        let socket = self.sockets.get_mut(key)?;
        if socket.subscriptions.awaited(&name).is_some() {
            socket.held_back = Some(Box::new(HeldBack::EarlyClientEvent(name, frame)));
            return Some(Pause::Admission);
        }
        let place = socket.subscriptions.find(&Topic::Channel(name))?;
        self.publish(key, place, frame)
    }

    /// Whether a channel is heard from all nodes. If not, the socket awaits it, and [`Core::admit`] goes on.
    fn is_heard(&mut self, key: SocketKey, name: &ChannelName, member: Option<Member>) -> Option<bool> {
        self.tokens = self.tokens.wrapping_add(1);
        let token = self.tokens;
        let socket = self.sockets.get_mut(key)?;
        let waiter = Waiter {
            shard: self.shard,
            socket: key,
            token,
        };
        let is_heard = self.node.is_heard(&socket.session.namespace, name, waiter);
        if !is_heard {
            let name = name.clone();
            socket.subscriptions.await_it(Awaited { token, name, member });
        }
        Some(is_heard)
    }

    fn subscribe_when_heard(
        &mut self,
        key: SocketKey,
        name: ChannelName,
        member: Option<Member>,
    ) -> Option<Pause> {
        if !self.is_heard(key, &name, member.clone())? {
            return match name.kind().is_presence() {
                // Others will hear of it when the wait is over.
                true => self.charge_news(key),
                false => self.charge_membership(key),
            };
        }
        let channel = self.subscribe(key, &name, member.as_ref())?;
        self.charge_change(key, &channel)
    }

    /// What a socket awaited is heard from all nodes now.
    pub(super) fn admit(&mut self, key: SocketKey, token: u32) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let Some(awaited) = socket.subscriptions.answered(token) else {
            return;
        };
        if !awaited.name.kind().is_user() {
            self.subscribe(key, &awaited.name, awaited.member.as_ref());
        }
    }

    fn sign_in_when_heard(&mut self, key: SocketKey, user: SignedInUser, replies: Replies) -> Option<Pause> {
        // The id was checked with the characters of channel names.
        let name = ChannelName::of_user(&user.id).ok()?;
        let is_signed_in = self.sockets.get(key)?.session.user.is_some();
        if is_signed_in || self.is_heard(key, &name, None)? {
            return self.sign_in(key, user, replies);
        }
        self.sign_in_when_admitted(key, user, replies)
    }

    fn sign_in_when_admitted(
        &mut self,
        key: SocketKey,
        user: SignedInUser,
        replies: Replies,
    ) -> Option<Pause> {
        let name = ChannelName::of_user(&user.id).ok()?;
        let socket = self.sockets.get_mut(key)?;
        if socket.subscriptions.awaited(&name).is_none() {
            return self.sign_in(key, user, replies);
        }
        socket.held_back = Some(Box::new(HeldBack::SignIn(user, replies)));
        Some(Pause::Admission)
    }

    fn reply_all(&mut self, key: SocketKey, replies: impl IntoIterator<Item = Frame>) {
        replies
            .into_iter()
            .for_each(|frame| self.sockets.reply(key, frame));
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

    fn charge_news(&mut self, key: SocketKey) -> Option<Pause> {
        let now_ns = self.now_ns();
        let session = &mut self.sockets.get_mut(key)?.session;
        session.charge_news(now_ns).err().map(Pause::Membership)
    }

    /// Charges a join or leave that others may hear of: news of members are publications, and wait for room as these do.
    fn charge_change(&mut self, key: SocketKey, channel: &Arc<Channel>) -> Option<Pause> {
        let is_news = channel.name().is_some_and(|name| name.kind().is_presence());
        let pause = match is_news {
            true => self.charge_news(key),
            false => self.charge_membership(key),
        };
        if pause.is_some() {
            return pause;
        }
        let namespace = self.sockets.get(key)?.session.namespace.clone();
        let has_room = self.node.has_room(&namespace, &channel.topic);
        (!has_room).then(|| Pause::Publications(namespace, channel.clone()))
    }

    /// Reserves the next place in a socket's list for what `join` does, and notes what it joined there.
    fn join_at_next_place<E>(
        &mut self,
        key: SocketKey,
        user_id: Option<Arc<str>>,
        join: impl FnOnce(&Node, &Socket, Joiner) -> Result<Arc<Channel>, E>,
    ) -> Option<Result<Arc<Channel>, E>> {
        self.tokens = self.tokens.wrapping_add(1);
        let token = self.tokens;
        let socket = self.sockets.get_mut(key)?;
        let place = socket.subscriptions.next_place();
        let joiner = Joiner {
            shard: self.shard,
            socket: key,
            place,
            token,
        };
        let joined = join(&self.node, socket, joiner);
        if let Ok(channel) = &joined {
            let channel = channel.clone();
            socket.subscriptions.insert(Subscription {
                channel,
                token,
                position: None,
                user_id,
            });
        }
        Some(joined)
    }

    /// Joins a channel; what was joined, unless it was refused.
    fn subscribe(
        &mut self,
        key: SocketKey,
        name: &ChannelName,
        member: Option<&Member>,
    ) -> Option<Arc<Channel>> {
        let user_id = member.map(|member| member.user_id.clone());
        let joined = self.join_at_next_place(key, user_id, |node, socket, joiner| {
            node.subscribe(&socket.session.namespace, name, joiner, member)
        })?;
        match joined {
            Ok(channel) => {
                let socket = self.sockets.get_mut(key)?;
                socket.session.is_authorized |= name.kind().needs_auth();
                Some(channel)
            }
            Err(Refused::PresenceFull) => {
                let text = "The presence channel has as many members as it may have";
                let kind = RefusalKind::PresenceFull;
                self.reply_all(key, server::subscription_refused(name.as_str(), kind, text, text));
                None
            }
        }
    }

    fn sign_in(&mut self, key: SocketKey, mut user: SignedInUser, replies: Replies) -> Option<Pause> {
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
        // Not before it is true: who reads it may ask at once, elsewhere, that the user's sockets be closed.
        self.reply_all(key, replies);
        earlier.into_iter().for_each(|place| self.leave(key, place));
        let mut pause = self.charge_membership(key);
        if !namespace.app.settings().config.watchlist {
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
}
