//! Publishing: encoded once, then one inbox entry for each shard with subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, RelayedEvent};
use super::{Node, now, push_to_audience};
use crate::app::App;
use crate::hub::cache::CachedEvent;
use crate::hub::channel::{Channel, ChannelState, Topic};
use crate::hub::inbox::{Delivery, Inbox, ShardIndex};
use crate::hub::namespace::Namespace;
use crate::protocol::EncodedEvent;
use crate::protocol::channel_name::ChannelName;
use crate::protocol::frame::Frame;
use crate::protocol::socket_id::SocketId;
use crate::relay::Origin;
use crate::relay::envelope::Author;

/// How long a publisher waits for the shards to come below their marks before it is refused.
const PERMISSION_TIMEOUT: Duration = Duration::from_secs(1);

/// The shards were above their marks for longer than a publisher may wait. Nothing was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is busy: events are published faster than they can be delivered; try again")]
pub struct Busy;

/// An event that is to reach the subscribers of one or more channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Where to. No channel twice.
    pub channels: Vec<ChannelName>,
    /// The event's name.
    pub event: String,
    /// The event's data, as the text that subscribers get.
    pub data: String,
    /// The socket that does not get it.
    pub except: Option<SocketId>,
}

impl Node {
    /// A shard that the channel reaches and that is above its mark: nothing may be published to it now.
    fn crowded_shard(&self, namespace: &Namespace, topic: &Topic) -> Option<ShardIndex> {
        let inboxes = self.inboxes();
        if inboxes.all().iter().all(Inbox::has_room) {
            return None;
        }
        let crowded = |_: &Arc<Channel>, state: &mut ChannelState| {
            state.audience().find(|shard| !inboxes.of(*shard).has_room())
        };
        self.hub.visit(namespace, topic, crowded).flatten()
    }

    /// Whether something may be published to this channel at once.
    pub fn has_room(&self, namespace: &Namespace, topic: &Topic) -> bool {
        self.crowded_shard(namespace, topic).is_none() && self.cluster.as_ref().is_none_or(Cluster::has_room)
    }

    /// Waits until something may be published to this channel. For sockets, which are not read meanwhile.
    pub async fn room(&self, namespace: &Namespace, topic: &Topic) {
        if let Some(cluster) = &self.cluster {
            cluster.room().await;
        }
        while let Some(shard) = self.crowded_shard(namespace, topic) {
            self.inboxes().of(shard).room().await;
        }
    }

    /// Waits until something may be published to these channels, but not for ever. For the HTTP API.
    pub async fn permission_to_publish(
        &self,
        app: &Arc<App>,
        channels: impl Iterator<Item = &ChannelName>,
    ) -> Result<(), Busy> {
        let relay_has_room = || self.cluster.as_ref().is_none_or(Cluster::has_room);
        if self.inboxes().all().iter().all(Inbox::has_room) && relay_has_room() {
            return Ok(());
        }
        self.metrics.inbox_waits_total.inc();
        let namespace = self.namespace(app);
        let room = async {
            for name in channels {
                self.room(&namespace, &Topic::Channel(name.clone())).await;
            }
        };
        tokio::time::timeout(PERMISSION_TIMEOUT, room).await.map_err(|_| {
            self.metrics.publish_refused_total.inc();
            Busy
        })
    }

    /// Publishes each to every channel that it names, in their order, and wakes each shard that they reach once. On
    /// each channel, what was published before this call returns is ahead of what is published after it, for every
    /// subscriber.
    pub fn publish<'a>(&self, app: &Arc<App>, publications: impl IntoIterator<Item = &'a Publication>) {
        let namespace = self.namespace(app);
        let now = now();
        let mut cached = false;
        let mut delivery = self.inboxes().deliver();
        for publication in publications {
            cached |= self.push_publication(&namespace, &mut delivery, publication, now);
        }
        drop(delivery);
        if cached {
            self.hub.trim_cache(&namespace, now);
        }
    }

    /// Encodes an event once and pushes it to every channel named. Whether a cache channel was among them.
    fn push_publication(
        &self,
        namespace: &Arc<Namespace>,
        delivery: &mut Delivery<'_>,
        publication: &Publication,
        now: Instant,
    ) -> bool {
        let event = EncodedEvent::new(&publication.event, &publication.data, None);
        let mut cached = false;
        for name in &publication.channels {
            let frame = event.frame(name);
            let topic = Topic::Channel(name.clone());
            let origin = || self.origin();
            // Asked before the channel's lock is taken: a look through the rules, if the app has any.
            let is_cache = name.kind().is_cache();
            let expires = is_cache.then(|| now + namespace.app.settings().policy(name).cache_ttl);
            let relay = |origin: Origin| self.relay(namespace, name, &frame, publication.except, origin, now);
            let push = |channel: &Arc<Channel>, state: &mut ChannelState| {
                push_to_audience(delivery, channel, state, &frame, publication.except, now);
                let origin = origin();
                if let Some(expires) = expires {
                    let event = CachedEvent::new(frame.clone(), expires, origin);
                    self.store_cached(namespace, channel, state, event);
                    self.announce_cached(namespace, channel, state);
                }
                // In the same step, so that all nodes see one order.
                relay(origin);
            };
            if is_cache {
                cached = true;
                self.hub.enter(namespace, &topic, push);
            } else if self.hub.visit(namespace, &topic, push).is_none() {
                relay(origin());
            }
        }
        cached
    }

    /// Sends an event to the subscribers on other nodes, if there are any nodes.
    fn relay(
        &self,
        namespace: &Namespace,
        name: &ChannelName,
        frame: &Frame,
        except: Option<SocketId>,
        origin: Origin,
        now: Instant,
    ) {
        if let Some(cluster) = &self.cluster {
            let event = RelayedEvent {
                namespace,
                name,
                frame,
                except,
                author: Author::Backend,
                after: 0,
                stamp: origin.stamp,
            };
            cluster.relay_event(&event, now);
        }
    }

    /// Sends a client event on to the other subscribers of a channel that its sender is subscribed to.
    pub fn publish_client_event(
        &self,
        namespace: &Namespace,
        channel: &Arc<Channel>,
        frame: &Frame,
        sender: SocketId,
    ) {
        let now = now();
        let after = match (&self.cluster, channel.name()) {
            // Nobody is to hear of a member before hearing that it is there.
            (Some(_), Some(name)) if name.kind().is_presence() => self.announced_by_now(namespace, channel),
            _ => 0,
        };
        let webhook = self.client_event_webhook(namespace, channel, frame, sender);
        let mut delivery = self.inboxes().deliver();
        self.hub.step(namespace, channel, |channel, state| {
            push_to_audience(&mut delivery, channel, state, frame, Some(sender), now);
            self.report_client_event(namespace, webhook);
            if let (Some(cluster), Some(name)) = (&self.cluster, channel.name()) {
                let event = RelayedEvent {
                    namespace,
                    name,
                    frame,
                    except: Some(sender),
                    author: Author::Client,
                    after,
                    stamp: self.origin().stamp,
                };
                cluster.relay_event(&event, now);
            }
        });
    }
}
