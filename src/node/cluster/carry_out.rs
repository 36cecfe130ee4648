//! What other nodes' events do here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Waiter;
use crate::adapter::NodeId;
use crate::hub::cache::CachedEvent;
use crate::hub::channel::{Channel, ChannelState, Topic};
use crate::hub::inbox::{Delivery, Entry};
use crate::node::{Node, push_to_shard};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::relay::Origin;
use crate::relay::envelope::{Author, Body, Envelope};

impl Node {
    /// Delivers an event of another node to the subscribers here, or closes a user's sockets.
    pub(super) fn carry_out(&self, sender: NodeId, envelope: Envelope, delivery: &mut Delivery<'_>) {
        let Some(cluster) = &self.cluster else { return };
        let (app, channel) = match &envelope.body {
            Body::Event { app, channel, .. } | Body::Close { app, channel, .. } => (app, channel),
            Body::Roster(_) => return cluster.malformed(),
        };
        let Some(app) = self.apps.held(app) else { return };
        let Ok(name) = ChannelName::parse(channel, usize::MAX) else {
            return cluster.malformed();
        };
        let namespace = self.namespace(&app);
        let is_cache = name.kind().is_cache();
        let now = super::now();
        let cache_ttl = is_cache.then(|| app.settings().policy(&name).cache_ttl);
        let topic = Topic::Channel(name);
        let origin = Origin {
            stamp: self.heard(envelope.stamp),
            node: sender,
        };
        match envelope.body {
            Body::Event {
                frame,
                except,
                author,
                ..
            } => {
                let Some(frame) = Frame::from_bytes(frame) else {
                    return cluster.malformed();
                };
                // A copy: what it came in may be much larger, and would be kept with it.
                let is_kept = is_cache && author == Author::Backend;
                let copy = || Frame::from_bytes(Bytes::copy_from_slice(frame.as_bytes()));
                let kept = is_kept.then(copy).flatten();
                let inboxes = self.inboxes();
                let step = |channel: &Arc<Channel>, state: &mut ChannelState| {
                    if is_kept && has_been_told(state, origin) {
                        return;
                    }
                    if let (Some(frame), Some(ttl)) = (&kept, cache_ttl) {
                        let event = CachedEvent::new(frame.clone(), now + ttl, origin);
                        self.store_cached(&namespace, channel, state, event);
                    }
                    for shard in state.audience() {
                        if inboxes.of(shard).bears_more() {
                            push_to_shard(delivery, shard, channel, &frame, except, now);
                        } else {
                            cluster.dropped_busy.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                };
                self.hub.visit(&namespace, &topic, step);
                if kept.is_some() {
                    self.hub.trim_cache(&namespace, now);
                }
            }
            Body::Close { code, .. } => {
                let both = [CloseCode::Terminated, CloseCode::Reconnect];
                let Some(code) = both.into_iter().find(|both| both.number() == code) else {
                    return cluster.malformed();
                };
                self.hub.visit(&namespace, &topic, |channel, state| {
                    for shard in state.audience() {
                        delivery.push(shard, Entry::CloseAll(channel.clone(), code));
                    }
                });
            }
            Body::Roster(_) => {}
        }
    }

    /// Lets those in who waited until a topic is heard.
    pub(super) fn admit(&self, waiting: Vec<Waiter>) {
        let mut delivery = self.inboxes().deliver();
        for Waiter { shard, socket, token } in waiting {
            delivery.push(shard, Entry::Admit(socket, token));
        }
    }
}

/// Whether every subscriber got this event, or a later one of the same node, as the cached one when joining: an
/// announcement may overtake the relay.
fn has_been_told(state: &ChannelState, origin: Origin) -> bool {
    state.cached().is_some_and(|known| {
        known.is_known_to_all && known.origin.node == origin.node && known.origin >= origin
    })
}
