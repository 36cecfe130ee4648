//! What goes to the other nodes: events and the ends of users' connections, called under the channel's lock where the
//! channel is known here, so that its subscribers and all other nodes see one order of what this node sends; and
//! announcements.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use super::{Cluster, Lane};
use crate::adapter::Topic;
use crate::hub::channel::{Channel, ChannelState};
use crate::hub::namespace::Namespace;
use crate::node::Node;
use crate::protocol::channel_name::ChannelName;
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::protocol::socket_id::SocketId;
use crate::relay::Stamp;
use crate::relay::envelope::{Author, Body, Envelope};

/// Above this share of its bound, what the broker has not accepted holds publishers up. Percent.
const MARK_PERCENT: usize = 50;

/// An event for the subscribers of a channel on other nodes.
pub(in crate::node) struct RelayedEvent<'a> {
    pub(in crate::node) namespace: &'a Namespace,
    pub(in crate::node) name: &'a ChannelName,
    pub(in crate::node) frame: &'a Frame,
    pub(in crate::node) except: Option<SocketId>,
    pub(in crate::node) author: Author,
    /// The announcement that other nodes must know first, since it tells of the author; 0: none.
    pub(in crate::node) after: u64,
    pub(in crate::node) stamp: Stamp,
}

impl Cluster {
    /// Sends an event to the nodes that have subscribers of its channel.
    pub(in crate::node) fn relay_event(&self, event: &RelayedEvent<'_>, now: Instant) {
        let app = event.namespace.app.id();
        let envelope = Envelope {
            stamp: event.stamp,
            body: Body::Event {
                app,
                channel: event.name.as_str(),
                except: event.except,
                author: event.author,
                after: event.after,
                frame: event.frame.clone().into_bytes(),
            },
        };
        self.append(self.topic_of(app, event.name), envelope.encode(), now);
    }

    /// Has the sockets of a signed-in user closed on every other node.
    pub(in crate::node) fn relay_close(
        &self,
        namespace: &Namespace,
        user: &ChannelName,
        code: CloseCode,
        stamp: Stamp,
        now: Instant,
    ) {
        let app = namespace.app.id();
        let envelope = Envelope {
            stamp,
            body: Body::Close {
                app,
                channel: user.as_str(),
                code: code.number(),
            },
        };
        self.append(self.topic_of(app, user), envelope.encode(), now);
    }

    fn append(&self, topic: u16, envelope: Bytes, now: Instant) {
        let topic = Topic::Channels(topic);
        self.lane_of(topic).append(topic, envelope, now);
    }

    /// Whether publishers need not wait. They do while the broker is there and takes less than they give; while it is
    /// away they would wait for nothing.
    pub(in crate::node) fn has_room(&self) -> bool {
        let mark = self.config.ring_bytes_max / self.lanes.len() * MARK_PERCENT / 100;
        let is_below = |lane: &Lane| lane.unaccepted.load(Ordering::Relaxed) < mark;
        self.lanes.iter().all(is_below) || !self.is_reachable()
    }

    /// Waits until [`Cluster::has_room`].
    pub(in crate::node) async fn room(&self) {
        while !self.has_room() {
            let notified = self.room.notified();
            tokio::pin!(notified);
            // Registered before the look, so that a settled batch between the two is not missed.
            notified.as_mut().enable();
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// Whether what is published now reaches other nodes later than it should, as of a moment ago.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    pub(super) fn looks_behind(&self) -> bool {
        let now = super::now();
        !self.is_up() || self.lanes.iter().any(|lane| lane.ring().is_behind(now))
    }
}

impl Node {
    /// Announces what has changed here. The answer is the number of the last announcement. Not to be called under a
    /// channel's lock.
    pub(in crate::node) fn announce_now(&self) -> u64 {
        let Some(cluster) = &self.cluster else { return 0 };
        let now = super::now();
        let send = |piece| {
            let envelope: Envelope<&str> = Envelope {
                stamp: self.origin().stamp,
                body: Body::Roster(piece),
            };
            cluster
                .lane_of(Topic::Roster)
                .append(Topic::Roster, envelope.encode(), now)
        };
        self.flush(now, send).number
    }

    /// The number of an announcement in which, or before which, all is that had changed of a channel when this was called.
    pub(in crate::node) fn announced_by_now(&self, namespace: &Namespace, channel: &Arc<Channel>) -> u64 {
        let is_marked = |_: &_, state: &mut ChannelState| state.is_membership_unannounced();
        match self.hub.step(namespace, channel, is_marked) {
            Some(true) => self.announce_now(),
            // Whoever is announcing it just now is waited for.
            _ => self.announced().number,
        }
    }
}
