//! A node without sockets: joined to a bus or a broker, with subscribers that are only counted.

use std::sync::Arc;
use std::task::Waker;

use anyhow::{Context, Result};
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::memory::{Bus, Member as BusMember, Memory};
use fanwire::adapter::{Adapter, Link, Sink, events};
use fanwire::app::{App, AppConfig, Apps};
use fanwire::hub::channel::Channel;
use fanwire::hub::inbox::{Inboxes, SocketKey};
use fanwire::hub::namespace::Namespace;
use fanwire::metrics::Metrics;
use fanwire::node::{Cluster, Joiner, Node, Waiter, cluster};
use fanwire::protocol::channel_name::ChannelName;
use fanwire::protocol::presence::Member;

/// The one app, and the counters, of a node.
pub(crate) fn apps(watchlist: bool) -> Result<(Apps, Arc<Metrics>)> {
    let config = AppConfig {
        presence_members_max: 100_000,
        subscription_count_events: false,
        watchlist,
        ..AppConfig::demo()
    };
    let apps = Apps::new([config]).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    Ok((apps, Arc::new(Metrics::new("pusher_", 6001)?)))
}

/// What is shown of a member.
pub(crate) fn user_info(number: usize) -> String {
    format!(r#"{{"name":"Member {number:07}","avatar":"{number:x}.png"}}"#)
}

/// A node with one shard that nobody works, and its tasks on the current runtime.
pub(crate) struct Machine {
    pub(crate) node: Arc<Node>,
    pub(crate) app: Arc<App>,
    namespace: Arc<Namespace>,
    next_socket: u32,
}

/// Something that one socket is in.
pub(crate) struct Held {
    channel: Arc<Channel>,
    user_id: Option<Arc<str>>,
}

impl Machine {
    /// Starts a node whose way to the others `open` makes.
    pub(crate) fn start<A: Adapter + 'static>(
        config: &AdapterConfig,
        inbox_bytes_max: usize,
        driver: &'static str,
        open: impl FnOnce(Sink) -> Result<A>,
    ) -> Result<Machine> {
        let (apps, metrics) = apps(false)?;
        let app = apps.all().pop().context("one app")?;
        let mut node = Node::new(apps, Inboxes::new(1, inbox_bytes_max), metrics);
        let (sink, events) = events(usize::from(config.connections), config.inbox_bytes_max);
        let link = Link {
            driver,
            adapter: Arc::new(open(sink.clone())?),
            events,
            sink,
        };
        let (cluster, incoming) = Cluster::new(config.clone(), link);
        node.join(cluster);
        let node = Arc::new(node);
        let cluster::Tasks { heart, others } = cluster::tasks(&node, incoming);
        tokio::spawn(heart);
        for (_, task) in others {
            tokio::spawn(task);
        }
        let namespace = node.namespace(&app);
        Ok(Machine {
            node,
            app,
            namespace,
            next_socket: 0,
        })
    }

    /// One on a bus, and its name there.
    pub(crate) fn on_bus(bus: &Bus, config: &AdapterConfig) -> Result<(Machine, BusMember)> {
        let mut member = 0;
        let machine = Machine::start(config, usize::MAX, "memory", |sink| {
            let memory = Memory::join(bus, sink);
            member = memory.member();
            Ok(memory)
        })?;
        Ok((machine, member))
    }

    fn joiner(&mut self) -> Joiner {
        self.next_socket += 1;
        Joiner {
            shard: 0,
            socket: SocketKey {
                slot: self.next_socket,
                generation: 0,
            },
            place: 0,
            token: 0,
        }
    }

    /// A socket subscribes, as this member if it is a presence channel.
    pub(crate) fn subscribe(&mut self, channel: &str, member: Option<(String, String)>) -> Result<Held> {
        let name = ChannelName::parse(channel, 200)?;
        let member = member.map(|(user_id, user_info)| Member {
            user_id: user_id.into(),
            user_info: user_info.into(),
        });
        let joiner = self.joiner();
        let channel = self
            .node
            .subscribe(&self.namespace, &name, joiner, member.as_ref());
        let channel = channel.map_err(|refused| anyhow::anyhow!("{name:?}: {refused:?}"))?;
        Ok(Held {
            channel,
            user_id: member.map(|member| member.user_id),
        })
    }

    /// A socket signs in.
    pub(crate) fn sign_in(&mut self, user_id: &str) -> Result<Held> {
        let joiner = self.joiner();
        let user = ChannelName::of_user(user_id)?;
        Ok(Held {
            channel: self.node.sign_in(&self.namespace, &user, joiner),
            user_id: None,
        })
    }

    /// A socket leaves.
    pub(crate) fn leave(&self, held: &Held) {
        self.node
            .unsubscribe(&self.namespace, &held.channel, 0, held.user_id.as_deref());
    }

    /// Subscribers of a channel, in the whole cluster as far as is known here.
    pub(crate) fn count(&self, channel: &str) -> Result<usize> {
        let name = ChannelName::parse(channel, 200)?;
        Ok(self.node.channel(&self.app, &name).subscription_count)
    }

    /// Whether it has lost its way to the others.
    pub(crate) fn is_down(&self) -> bool {
        let snapshot = self.node.cluster_snapshot();
        snapshot.is_none_or(|snapshot| snapshot.connected == 0)
    }

    /// Whether the events of a channel are heard from all nodes; asks for them if not.
    pub(crate) fn hears(&self, channel: &str) -> Result<bool> {
        let waiter = Waiter {
            shard: 0,
            socket: SocketKey::unpack(1),
            token: 0,
        };
        let name = ChannelName::parse(channel, 200)?;
        Ok(self.node.is_heard(&self.namespace, &name, waiter))
    }

    /// Does what a shard would do with what its sockets are told: here nobody reads it.
    pub(crate) fn clear_inbox(&self) {
        let mut entries = Vec::new();
        self.node.inboxes().of(0).take(Waker::noop(), &mut entries);
    }
}
