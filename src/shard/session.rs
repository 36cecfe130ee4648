//! What one socket may say and what comes of it: (message, now) → a reaction. Pure: it changes nothing but itself,
//! and whoever carries the reaction out knows sockets and the node.

use std::sync::Arc;

use jiff::Timestamp;
use smallvec::{SmallVec, smallvec};

use super::subscriptions::Subscriptions;
use crate::app::{App, Policy};
use crate::hub::channel::Topic;
use crate::hub::namespace::Namespace;
use crate::limit::{Bucket, Rate};
use crate::protocol::EncodedEvent;
use crate::protocol::auth::{self, Credential};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::client::{ClientMessage, Text};
use crate::protocol::code::{CLIENT_EVENT_REFUSED, RefusalKind, UNAUTHORIZED, WATCHLIST_TOO_LONG};
use crate::protocol::frame::Frame;
use crate::protocol::presence::{Member, MemberLimits};
use crate::protocol::server;
use crate::protocol::socket_id::SocketId;
use crate::protocol::user::{SignedInUser, UserLimits};

/// Joining and leaving costs the others something too: a socket that does so without end is read more slowly.
/// A page with hundreds of channels that reconnects stays far below it.
const MEMBERSHIP_CHANGES_PER_S: u32 = 1_000;
/// So many at once are never slowed down.
const MEMBERSHIP_BURST: u32 = 2_000;
/// The same for presence channels, where all members hear of each change.
const NEWS_PER_S: u32 = 20;
/// A page with hundreds of presence channels that reconnects.
const NEWS_BURST: u32 = 500;
/// So much of a text that was signed is told to who signed it wrongly. Bytes.
const TOLD_BYTES_MAX: usize = 1_024;

/// Frames for the socket itself.
pub(super) type Replies = SmallVec<[Frame; 2]>;

/// What a message leads to.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Nothing.
    Nothing,
    /// Only answers.
    Reply(Replies),
    /// Everything about this subscription is in order: ask the directory.
    Subscribe(ChannelName, Option<Member>),
    /// Tell once more that this subscription holds.
    AcknowledgeAgain(u32),
    /// Take this subscription back.
    Unsubscribe(u32),
    /// Take this subscription back, which still waits.
    Forgo(ChannelName),
    /// Send a client event to the other subscribers of the channel at this place.
    Publish(u32, Frame),
    /// The same, as soon as the socket is in this channel.
    PublishLater(ChannelName, Frame),
    /// One client event too many; the frame says so.
    OverLimit(Frame),
    /// The socket is this user from now on; the reply says so.
    SignIn(SignedInUser, Replies),
}

impl Reaction {
    fn reply(frame: Frame) -> Reaction {
        Reaction::Reply(smallvec![frame])
    }
}

/// The protocol state of one socket.
#[derive(Debug)]
pub(super) struct Session {
    /// The socket's public name, which its signatures bind to.
    pub(super) socket_id: SocketId,
    /// The app, and where its channels are.
    pub(super) namespace: Arc<Namespace>,
    /// What the client speaks: 4 to 7.
    pub(super) protocol: u8,
    /// The hosted service's answers where this server is more lenient.
    pub(super) strict: bool,
    /// Whether it has signed in or joined a channel that needs a signature: see `authorized_connections`.
    pub(super) is_authorized: bool,
    /// Who is signed in; the watchlist has been used up.
    pub(super) user: Option<Box<SignedInUser>>,
    client_events: ClientEventBuckets,
    membership: Bucket,
    news: Bucket,
}

/// What is left of a socket's client events: one bucket for the app, and one for each rule that has a rate of its own,
/// once it was used. When the rules change, a bucket may become that of another one: for as long as it takes to fill.
#[derive(Debug, Default)]
struct ClientEventBuckets {
    of_app: Bucket,
    of_rules: Box<[Bucket]>,
}

impl ClientEventBuckets {
    /// Charges one event to a channel with this policy. An error says how long to wait.
    fn take(&mut self, policy: &Policy, now_ns: u64) -> Result<(), std::time::Duration> {
        let bucket = match policy.client_events_bucket {
            0 => &mut self.of_app,
            bucket => {
                if self.of_rules.len() < bucket {
                    let mut grown = std::mem::take(&mut self.of_rules).into_vec();
                    grown.resize(bucket, Bucket::default());
                    self.of_rules = grown.into_boxed_slice();
                }
                &mut self.of_rules[bucket - 1]
            }
        };
        bucket.take(policy.client_events_rate, now_ns)
    }
}

/// A refused subscription: for the channel's handlers in short, for the log of the page in full.
struct Refusal {
    kind: RefusalKind,
    short: String,
    full: String,
}

impl Refusal {
    fn new(kind: RefusalKind, text: impl Into<String>) -> Refusal {
        let full = text.into();
        Refusal {
            kind,
            short: full.clone(),
            full,
        }
    }

    fn frames(&self, channel: &str) -> Replies {
        SmallVec::from(server::subscription_refused(
            channel,
            self.kind,
            &self.short,
            &self.full,
        ))
    }
}

/// The beginning of a text that may be long: an answer must not be as large as whatever was sent.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TOLD_BYTES_MAX)]
}

impl Session {
    /// A socket that has just been accepted.
    pub(super) fn new(socket_id: SocketId, namespace: Arc<Namespace>, protocol: u8, strict: bool) -> Session {
        Session {
            socket_id,
            namespace,
            protocol,
            strict,
            is_authorized: false,
            user: None,
            client_events: ClientEventBuckets::default(),
            membership: Bucket::default(),
            news: Bucket::default(),
        }
    }

    /// The app.
    pub(super) fn app(&self) -> &Arc<App> {
        &self.namespace.app
    }

    /// Charges one join or leave. An error says for how long the socket is not to be read.
    pub(super) fn charge_membership(&mut self, now_ns: u64) -> Result<(), std::time::Duration> {
        self.membership.take(
            Rate::per_second(MEMBERSHIP_CHANGES_PER_S, MEMBERSHIP_BURST),
            now_ns,
        )
    }

    /// Charges a join or leave that all members of a channel hear of.
    pub(super) fn charge_news(&mut self, now_ns: u64) -> Result<(), std::time::Duration> {
        self.news.take(Rate::per_second(NEWS_PER_S, NEWS_BURST), now_ns)
    }

    /// Answers a message.
    pub(super) fn handle(
        &mut self,
        message: ClientMessage<'_>,
        subscriptions: &Subscriptions,
        now_ns: u64,
    ) -> Reaction {
        match message {
            ClientMessage::Ping => Reaction::reply(server::pong()),
            ClientMessage::Pong => Reaction::Nothing,
            ClientMessage::Subscribe {
                channel,
                auth,
                channel_data,
            } => {
                let outcome = self.subscribe(&channel, &auth, &channel_data, subscriptions);
                outcome.unwrap_or_else(|refusal| Reaction::Reply(refusal.frames(&channel)))
            }
            ClientMessage::Unsubscribe { channel } => self.unsubscribe(&channel, subscriptions),
            ClientMessage::SignIn { auth, user_data } => self
                .sign_in(&auth, &user_data)
                .unwrap_or_else(|text| Reaction::reply(server::error(Some(UNAUTHORIZED), &text, None))),
            ClientMessage::ClientEvent { event, channel, data } => {
                let outcome = self.client_event(&event, &channel, &data, subscriptions, now_ns);
                outcome.unwrap_or_else(|(code, text)| {
                    Reaction::reply(server::error(code, &text, Some(&channel)))
                })
            }
        }
    }

    fn subscribe(
        &self,
        channel: &str,
        auth: &Text<'_>,
        channel_data: &Text<'_>,
        subscriptions: &Subscriptions,
    ) -> Result<Reaction, Refusal> {
        let name = ChannelName::parse(channel, self.app().settings().limits.channel_name_length_max)
            .map_err(|error| Refusal::new(error.kind(), error.to_string()))?;
        if let Some(user_id) = name.user_id() {
            return self.subscribe_to_user(&name, user_id);
        }
        let held = subscriptions.find(&Topic::Channel(name.clone()));
        let limit = self.app().settings().limits.channels_per_connection_max;
        if held.is_none() && limit < usize::MAX && subscriptions.count() >= limit {
            let text = format!("This connection may not subscribe to more than {limit} channels");
            return Err(Refusal::new(RefusalKind::TooManyChannels, text));
        }
        let mut member = None;
        if name.kind().needs_auth() {
            let channel_data = match channel_data {
                Text::NotText => {
                    return Err(Refusal::new(RefusalKind::Auth, "channel_data must be a string"));
                }
                data => data.as_str().filter(|data| !data.is_empty()),
            };
            let signed = auth::channel_string(self.socket_id, channel, channel_data);
            self.verify(auth, &signed)?;
            if name.kind().is_presence() {
                member = Some(self.member(channel_data)?);
            }
        }
        match held {
            // The answer that is on its way is the answer to this one too.
            None if subscriptions.awaited(&name).is_some() => Ok(Reaction::Nothing),
            None => Ok(Reaction::Subscribe(name, member)),
            Some(_) if self.strict => {
                let text = format!("Existing subscription to channel {channel}");
                Ok(Reaction::reply(server::error(None, &text, Some(channel))))
            }
            Some(place) => Ok(Reaction::AcknowledgeAgain(place)),
        }
    }

    /// The channel of a user is joined by signing in; a subscription to it is only acknowledged.
    fn subscribe_to_user(&self, name: &ChannelName, user_id: &str) -> Result<Reaction, Refusal> {
        if self.user.as_ref().is_some_and(|user| *user.id == *user_id) {
            return Ok(Reaction::reply(server::subscription_succeeded(name)));
        }
        Err(Refusal::new(
            RefusalKind::Auth,
            format!("Sign in as user {user_id} before subscribing to {name}"),
        ))
    }

    fn member(&self, channel_data: Option<&str>) -> Result<Member, Refusal> {
        let settings = self.app().settings();
        let limits = MemberLimits {
            user_id_length_max: settings.limits.presence_user_id_length_max,
            user_info_bytes_max: settings.limits.presence_user_info_bytes_max,
        };
        let member = match (channel_data, &self.user) {
            (Some(channel_data), _) => Member::parse(channel_data, limits),
            (None, Some(user)) => Member::of_user(user, limits),
            (None, None) => {
                let text = "A presence channel needs channel_data, or a connection that is signed in";
                return Err(Refusal::new(RefusalKind::Auth, text));
            }
        };
        member.map_err(|error| Refusal::new(error.kind(), error.to_string()))
    }

    /// Checks `KEY:HEX` over a text. The text may be told, it holds no secret; the expected digest never.
    fn verify(&self, auth: &Text<'_>, signed: &str) -> Result<(), Refusal> {
        let auth = match auth {
            Text::Given(auth) if !auth.is_empty() => auth,
            Text::NotText => {
                return Err(Refusal::new(
                    RefusalKind::Auth,
                    "auth must be a string of the form KEY:SIGNATURE",
                ));
            }
            _ => {
                return Err(Refusal::new(
                    RefusalKind::Auth,
                    "Missing auth: this channel needs a signature",
                ));
            }
        };
        let Some(Credential { key, signature }) = Credential::parse(auth) else {
            return Err(Refusal::new(
                RefusalKind::Auth,
                "auth must be of the form KEY:SIGNATURE",
            ));
        };
        let settings = self.app().settings();
        let Some(active) = settings.key(key, Timestamp::now) else {
            let key: String = key.chars().take(64).collect();
            return Err(Refusal::new(
                RefusalKind::Auth,
                format!("Invalid key in subscription auth data: '{key}'"),
            ));
        };
        if auth::verify(active.secret.expose(), signed, signature) {
            return Ok(());
        }
        Err(Refusal {
            kind: RefusalKind::Auth,
            short: "Invalid signature".to_owned(),
            full: format!(
                "Invalid signature: expected HMAC SHA256 hex digest of {}",
                cut(signed)
            ),
        })
    }

    fn unsubscribe(&self, channel: &str, subscriptions: &Subscriptions) -> Reaction {
        let name = ChannelName::parse(channel, usize::MAX)
            .ok()
            .filter(|name| !name.kind().is_user());
        if let Some(awaited) = name.as_ref().and_then(|name| subscriptions.awaited(name)) {
            return Reaction::Forgo(awaited.name.clone());
        }
        match name.and_then(|name| subscriptions.find(&Topic::Channel(name))) {
            Some(place) => Reaction::Unsubscribe(place),
            None if self.strict => {
                let text =
                    format!("No current subscription to channel {channel}, or subscription in progress");
                Reaction::reply(server::error(None, &text, Some(channel)))
            }
            None => Reaction::Nothing,
        }
    }

    fn sign_in(&self, auth: &Text<'_>, user_data: &Text<'_>) -> Result<Reaction, String> {
        let user_data = match user_data {
            Text::Given(data) => data,
            _ => return Err("user_data must be a string of JSON".to_owned()),
        };
        self.verify(auth, &auth::user_string(self.socket_id, user_data))
            .map_err(|refusal| refusal.full)?;
        let settings = self.app().settings();
        let limits = UserLimits {
            id_length_max: settings.limits.user_id_length_max,
            watchlist_max: settings.limits.watchlist_length_max,
        };
        let user = SignedInUser::parse(user_data, limits).map_err(|error| error.to_string())?;
        if let Some(now) = self.user.as_ref().filter(|now| now.id != user.id) {
            return Err(format!("Already signed in as user {}", now.id));
        }
        let mut replies: Replies = smallvec![server::signin_success(user_data)];
        if user.watchlist_cut && settings.config.watchlist {
            let max = limits.watchlist_max;
            let text = format!("Watchlist limit exceeded. Only the first {max} user IDs are accepted.");
            replies.push(server::error(Some(WATCHLIST_TOO_LONG), &text, None));
        }
        Ok(Reaction::SignIn(user, replies))
    }

    fn client_event(
        &mut self,
        event: &str,
        channel: &str,
        data: &str,
        subscriptions: &Subscriptions,
        now_ns: u64,
    ) -> Result<Reaction, (Option<u16>, String)> {
        let refused = |text: String| Err((Some(CLIENT_EVENT_REFUSED), text));
        let settings = self.app().settings();
        let name = ChannelName::parse(channel, usize::MAX);
        // What is no name falls to no rule, and is refused below; nor is one looked for by a name of any length.
        let length_max = settings.limits.channel_name_length_max;
        let policy = match &name {
            Ok(name) if name.as_str().len() <= length_max => settings.policy(name),
            _ => settings.policy_of_app(),
        };
        if !policy.client_events {
            let whom = if settings.config.channels.is_empty() {
                "app"
            } else {
                "channel"
            };
            return refused(format!(
                "Client event rejected: client events are not enabled for this {whom}"
            ));
        }
        let length_max = settings.limits.event_name_length_max;
        if event.chars().count() > length_max {
            return refused(format!(
                "Client event rejected: its name is over {length_max} characters"
            ));
        }
        let bytes_max = policy.event_data_bytes_max;
        if data.len() > bytes_max {
            return refused(format!(
                "Client event rejected: its data is over {bytes_max} bytes"
            ));
        }
        let name = name.map_err(|error| (None, format!("Client event rejected: {error}")))?;
        if !name.kind().needs_auth() {
            let text = "Client event rejected: only private and presence channels take client events";
            return Err((None, text.to_owned()));
        }
        let held = subscriptions
            .find(&Topic::Channel(name.clone()))
            .and_then(|place| Some((place, subscriptions.get(place)?.user_id.as_deref())));
        let awaited = subscriptions.awaited(&name);
        let awaited = awaited.map(|awaited| awaited.member.as_ref().map(|member| &*member.user_id));
        let Some(user_id) = held.map(|(_, user_id)| user_id).or(awaited) else {
            return Err((
                None,
                format!("Client event rejected: not subscribed to {channel}"),
            ));
        };
        if self.client_events.take(policy, now_ns).is_err() {
            let per_s = policy.client_events_per_s;
            let text = format!("Client event rejected: over {per_s} messages per second");
            return Ok(Reaction::OverLimit(server::error(
                Some(CLIENT_EVENT_REFUSED),
                &text,
                Some(channel),
            )));
        }
        let frame = EncodedEvent::new(event, data, user_id).frame(&name);
        Ok(match held {
            Some((place, _)) => Reaction::Publish(place, frame),
            None => Reaction::PublishLater(name, frame),
        })
    }
}

#[cfg(test)]
mod tests;
