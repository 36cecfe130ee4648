//! What one subscriber hears, and what is asked of it at once: that it makes sense.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use crate::adapter::NodeId;
use crate::hub::channel::Channel;
use crate::hub::inbox::{Broadcast, CacheAnswer, Join};
use crate::protocol::frame::Frame;
use crate::protocol::presence::Member;
use crate::protocol::socket_id::SocketId;
use crate::relay::Origin;

/// An event: its place in the list of all is its number.
pub(super) struct Published {
    /// Where.
    pub(super) node: NodeId,
    pub(super) at: Instant,
    pub(super) channel: String,
    pub(super) except: Option<SocketId>,
    /// Who, of a client event.
    pub(super) user: Option<Arc<str>>,
    /// On a cache channel.
    pub(super) origin: Option<Origin>,
}

/// What is true while something is heard.
pub(super) struct Hall<'a> {
    pub(super) here: NodeId,
    pub(super) published: &'a [Published],
    /// Who is in which channel.
    pub(super) present: &'a BTreeSet<(&'static str, String)>,
    /// Whether nothing has been wrong for a while.
    pub(super) is_calm: bool,
}

/// One subscription.
pub(super) struct Ear {
    pub(super) channel: Arc<Channel>,
    pub(super) name: &'static str,
    pub(super) member: Option<Member>,
    pub(super) signed_in: Option<Arc<str>>,
    pub(super) watches: Option<Arc<str>>,
    pub(super) is_online: bool,
    /// Nothing is heard before that.
    pub(super) acknowledged: Option<Instant>,
    pub(super) members: BTreeSet<String>,
    /// Who was ever there.
    met: BTreeSet<String>,
    pub(super) count: Option<u64>,
    pub(super) heard: BTreeSet<usize>,
    /// The cached event that it began with. It may come once more, if the roster told of it before the relay did.
    pub(super) hit: Option<usize>,
    /// The last event of each node.
    last: BTreeMap<NodeId, usize>,
}

impl Ear {
    pub(super) fn new(channel: Arc<Channel>, name: &'static str, member: Option<Member>) -> Ear {
        Ear {
            channel,
            name,
            member,
            signed_in: None,
            watches: None,
            is_online: false,
            acknowledged: None,
            members: BTreeSet::new(),
            met: BTreeSet::new(),
            count: None,
            heard: BTreeSet::new(),
            hit: None,
            last: BTreeMap::new(),
        }
    }

    pub(super) fn signed_in(channel: Arc<Channel>, user: Arc<str>) -> Ear {
        let mut ear = Ear::new(channel, "", None);
        ear.signed_in = Some(user);
        ear
    }

    pub(super) fn watching(channel: Arc<Channel>, user: Arc<str>, is_online: bool) -> Ear {
        let mut ear = Ear::new(channel, "", None);
        ear.watches = Some(user);
        ear.is_online = is_online;
        ear
    }

    pub(super) fn acknowledge(&mut self, join: &Join) {
        assert!(Arc::ptr_eq(&self.channel, &join.channel));
        assert!(self.acknowledged.replace(Instant::now()).is_none());
        let members = join.members.iter().flat_map(|view| view.members());
        self.members = members.map(|member| member.user_id.to_string()).collect();
        self.met = self.members.clone();
        if let Some(member) = &self.member {
            assert!(
                self.members.contains(&*member.user_id),
                "a member is among the members"
            );
        }
        if let CacheAnswer::Hit(frame) = &join.cache {
            self.hit = Some(number(&message(frame)));
        }
    }

    pub(super) fn hear(&mut self, broadcast: &Broadcast, hall: &Hall<'_>, is_whole: impl Fn(NodeId) -> bool) {
        if !Arc::ptr_eq(&self.channel, &broadcast.channel) || self.acknowledged.is_none() {
            return;
        }
        let message = message(&broadcast.frame);
        let data = message["data"].as_str().expect("text");
        let data: Value = serde_json::from_str(data).expect("JSON");
        let user = || data["user_id"].as_str().expect("a user").to_owned();
        match message["event"].as_str().expect("a name") {
            "pusher_internal:member_added" => {
                assert!(
                    self.members.insert(user()),
                    "{}: {message}: was there already",
                    self.name
                );
                self.met.insert(user());
            }
            "pusher_internal:member_removed" => {
                assert!(
                    self.members.remove(&user()),
                    "{}: {message}: was not there",
                    self.name
                );
            }
            "pusher_internal:subscription_count" => self.count = data["subscription_count"].as_u64(),
            "pusher_internal:watchlist_events" => {
                for change in data["events"].as_array().expect("a list") {
                    let is_online = change["name"] == "online";
                    assert_ne!(self.is_online, is_online, "{message}: is known already");
                    self.is_online = is_online;
                }
            }
            "event" => self.hear_event(number(&message), hall),
            "client-event" => {
                let number = number(&message);
                self.hear_event(number, hall);
                let published = &hall.published[number];
                let user = published.user.as_ref().expect("of a client event");
                let is_told = self.met.contains(&**user);
                let is_there = hall.present.contains(&(self.name, user.to_string()));
                let may_be_early = !is_there || !is_whole(published.node) || !hall.is_calm;
                assert!(is_told || may_be_early, "{user} whispers before he is there");
            }
            other => panic!("unexpected: {other}"),
        }
    }

    fn hear_event(&mut self, number: usize, hall: &Hall<'_>) {
        let published = &hall.published[number];
        let (here, name) = (hall.here, &published.channel);
        assert!(
            self.heard.insert(number),
            "event {number} of {name} twice at {here}"
        );
        let before = self.last.insert(published.node, number);
        assert!(
            before.is_none_or(|before| before < number),
            "event {number} of {name} after {before:?} at {here}"
        );
    }
}

pub(super) fn message(frame: &Frame) -> Value {
    serde_json::from_slice(frame.payload()).expect("JSON")
}

/// The number of an event.
pub(super) fn number(message: &Value) -> usize {
    let number = message["data"].as_str().and_then(|data| data.parse().ok());
    number.expect("a number")
}
