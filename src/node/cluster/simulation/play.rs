//! What sockets and back ends do in the simulation.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::ear::Published;
use super::machine::{Machine, Want, channel_name};
use super::{CHANNELS, Step, World};
use crate::hub::channel::Topic;
use crate::node::Publication;
use crate::protocol::EncodedEvent;
use crate::protocol::channel_name::ChannelName;
use crate::protocol::presence::Member;
use crate::protocol::socket_id::SocketId;
use crate::relay::Origin;

fn user_id(user: u8) -> Arc<str> {
    format!("user-{user}").into()
}

impl World {
    /// Who is in which presence channel, as a matter of fact.
    pub(super) fn present(&self) -> BTreeSet<(&'static str, String)> {
        let living = self.machines.iter().filter(|machine| machine.is_alive());
        living
            .flat_map(Machine::ears)
            .filter_map(|(_, ear)| Some((ear.name, ear.member.as_ref()?.user_id.to_string())))
            .collect()
    }

    pub(super) fn play(&mut self, step: Step) {
        match step {
            Step::Join(node, channel, user, info) => {
                let name = CHANNELS[channel];
                let member = channel_name(name).kind().is_presence().then(|| Member {
                    user_id: user_id(user),
                    user_info: format!("{{\"name\":{info}}}").into(),
                });
                if let Some(machine) = self.working(node) {
                    machine.come(Want::Channel(name, member));
                }
            }
            Step::Leave(node, which) => {
                if let Some(machine) = self.working(node)
                    && let Some(slot) = nth(machine, which)
                {
                    machine.leave(slot);
                }
            }
            Step::SignIn(node, user) => {
                if let Some(machine) = self.working(node) {
                    machine.come(Want::SignIn(user_id(user)));
                }
            }
            Step::Watch(node, user) => {
                if let Some(machine) = self.working(node) {
                    machine.watch(&user_id(user));
                }
            }
            Step::CloseUser(node, user) => {
                if let Some(machine) = self.working(node) {
                    machine.node.terminate_user(&machine.app, &user_id(user));
                }
            }
            Step::Publish(node, channel, count, but_one) => {
                let name = CHANNELS[channel];
                let sockets = self.machines.iter().flat_map(Machine::ears);
                let subscribed = sockets.filter(|(_, ear)| ear.name == name && but_one);
                let except = subscribed.map(|(socket, _)| socket.id).next();
                for _ in 0..count {
                    self.publish(node, &channel_name(name), except);
                }
            }
            Step::PublishToUser(node, user) => {
                let name = ChannelName::of_user(&user_id(user)).expect("legal");
                self.publish(node, &name, None);
            }
            Step::Whisper(node, which) => self.whisper(node, which),
            other => panic!("not played: {other:?}"),
        }
    }

    fn working(&mut self, node: usize) -> Option<&mut Machine> {
        let count = self.machines.len();
        let machine = &mut self.machines[node % count];
        machine.is_working().then_some(machine)
    }

    fn publish(&mut self, node: usize, name: &ChannelName, except: Option<SocketId>) {
        let number = self.published.len();
        let Some(machine) = self.working(node) else {
            return;
        };
        let publication = Publication {
            channels: vec![name.clone()],
            event: "event".into(),
            data: number.to_string(),
            except,
        };
        machine.node.publish(&machine.app, [&publication]);
        let published = Published {
            node: machine.id,
            at: Instant::now(),
            channel: name.as_str().to_owned(),
            except,
            user: None,
            origin: machine.cached(name).map(|(_, origin)| origin),
        };
        self.published.push(published);
    }

    fn whisper(&mut self, node: usize, which: usize) {
        let number = self.published.len();
        let Some(machine) = self.working(node) else {
            return;
        };
        let members = machine.ears().filter(|(_, ear)| ear.member.is_some());
        let members: Vec<_> = members.collect();
        if members.is_empty() {
            return;
        }
        let (socket, ear) = members[which % members.len()];
        let user = ear.member.as_ref().map(|member| member.user_id.clone());
        let name = channel_name(ear.name);
        let event = EncodedEvent::new("client-event", &number.to_string(), user.as_deref());
        machine
            .node
            .publish_client_event(&machine.namespace, &ear.channel, &event.frame(&name), socket.id);
        let published = Published {
            node: machine.id,
            at: Instant::now(),
            channel: name.as_str().to_owned(),
            except: Some(socket.id),
            user,
            origin: None,
        };
        self.published.push(published);
    }
}

/// One of the sockets of a node.
fn nth(machine: &Machine, which: usize) -> Option<u32> {
    let count = machine.sockets.len();
    machine
        .sockets
        .keys()
        .nth(which.checked_rem(count).unwrap_or(0))
        .copied()
}

impl Machine {
    /// The cached event here, with its origin.
    pub(super) fn cached(&self, name: &ChannelName) -> Option<(usize, Origin)> {
        let topic = Topic::Channel(name.clone());
        let look = |_: &_, state: &mut crate::hub::channel::ChannelState| {
            let event = state.cached()?;
            Some((
                super::ear::number(&super::ear::message(&event.frame)),
                event.origin,
            ))
        };
        self.node.hub.visit(&self.namespace, &topic, look).flatten()
    }
}
