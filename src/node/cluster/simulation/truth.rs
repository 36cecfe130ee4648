//! What is true when all has come to rest, and whether every node and every subscriber knows it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::ear::{Ear, Published};
use super::machine::{Machine, channel_name};
use super::{AFTERMATH, CHANNELS, LEASE, MS, World};
use crate::adapter::NodeId;

/// An error if a view differs from the truth: which.
macro_rules! must_be_equal {
    ($left:expr, $right:expr, $($what:tt)*) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err(format!("{}: {left:?} instead of {right:?}", format!($($what)*)));
        }
    }};
}

impl World {
    fn living(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.is_alive())
    }

    fn subscribed(&self, name: &str) -> Vec<&Ear> {
        let ears = self.living().flat_map(Machine::ears);
        ears.filter_map(|(_, ear)| (ear.name == name).then_some(ear))
            .collect()
    }

    /// An error if something that is known somewhere is not the truth.
    pub(super) fn truth(&self) -> Result<(), String> {
        for machine in self.living() {
            must_be_equal!(machine.has_waiting(), false, "somebody waits at {}", machine.id);
            must_be_equal!(machine.cluster().is_synced(), true, "{} knows all", machine.id);
        }
        let nodes = self.living().count();
        for machine in self.living() {
            let alive = machine.cluster().heart.alive().len() + 1;
            must_be_equal!(alive, nodes, "nodes that {} takes for alive", machine.id);
        }
        let sockets: usize = self.living().map(|machine| machine.sockets.len()).sum();
        for machine in self.living() {
            let connections = machine.app.connections_everywhere();
            must_be_equal!(connections, sockets, "connections, at {}", machine.id);
        }
        for name in CHANNELS {
            self.truth_of(name)?;
            self.last_event_of(name)?;
        }
        self.watchers_know()
    }

    fn truth_of(&self, channel: &str) -> Result<(), String> {
        let subscribed = self.subscribed(channel);
        let users: BTreeSet<String> = subscribed
            .iter()
            .filter_map(|ear| Some(ear.member.as_ref()?.user_id.to_string()))
            .collect();
        let name = channel_name(channel);
        let mut infos = BTreeSet::new();
        for machine in self.living() {
            let here = machine.id;
            let members = machine.node.members(&machine.app, &name);
            let ids: BTreeSet<String> = members.iter().map(|member| member.user_id.to_string()).collect();
            must_be_equal!(ids, users, "members of {channel} at {here}");
            let detail = machine.node.channel(&machine.app, &name);
            let count = detail.subscription_count;
            must_be_equal!(count, subscribed.len(), "the count of {channel} at {here}");
            if name.kind().is_presence() {
                must_be_equal!(
                    detail.user_count,
                    Some(users.len()),
                    "users of {channel} at {here}"
                );
            }
            let listed = machine.node.channels(&machine.app, channel).len();
            must_be_equal!(
                listed,
                usize::from(!subscribed.is_empty()),
                "{channel} listed at {here}"
            );
            let shown: Vec<_> = members
                .iter()
                .map(|member| (member.user_id.clone(), member.user_info.clone()))
                .collect();
            infos.insert(shown);
            for (socket, ear) in machine.ears().filter(|(_, ear)| ear.name == channel) {
                let at = format!("{} at {here}", socket.id);
                must_be_equal!(ear.acknowledged.is_some(), true, "{at} is in {channel}");
                must_be_equal!(ear.members, users, "members of {channel} for {at}");
                if !name.kind().is_presence() {
                    let count = Some(subscribed.len() as u64);
                    must_be_equal!(ear.count, count, "the count of {channel} for {at}");
                }
            }
        }
        must_be_equal!(infos.len().max(1), 1, "what is shown of {channel}: {infos:?}");
        Ok(())
    }

    /// The last write wins, unless who wrote it is dead: it may have died before anybody else knew.
    fn last_event_of(&self, channel: &str) -> Result<(), String> {
        let name = channel_name(channel);
        if !name.kind().is_cache() {
            return Ok(());
        }
        let living: BTreeSet<NodeId> = self.living().map(|machine| machine.id).collect();
        let events = self.published.iter().filter(|event| event.channel == channel);
        let last = events.filter_map(|event| event.origin.filter(|origin| living.contains(&origin.node)));
        let Some(last) = last.max() else { return Ok(()) };
        for machine in self.living() {
            // Nobody speaks for the last events of a node that is dead and not lost yet: who starts then misses them.
            let is_late =
                |death: &Instant| *death <= machine.started && machine.started < *death + LEASE + AFTERMATH;
            if self.deaths.iter().any(is_late) {
                continue;
            }
            let known = machine.cached(&name).map(|(_, origin)| origin);
            if known.is_none_or(|known| known < last || (living.contains(&known.node) && known != last)) {
                return Err(format!(
                    "the last event of {channel} at {}: {known:?} instead of {last:?}",
                    machine.id
                ));
            }
        }
        Ok(())
    }

    fn watchers_know(&self) -> Result<(), String> {
        let ears = || self.living().flat_map(Machine::ears);
        let online: BTreeSet<Arc<str>> = ears().filter_map(|(_, ear)| ear.signed_in.clone()).collect();
        for machine in self.living() {
            for (socket, ear) in machine.ears() {
                if let Some(user) = &ear.watches {
                    must_be_equal!(
                        ear.is_online,
                        online.contains(user),
                        "{user} online for {} at {}",
                        socket.id,
                        machine.id
                    );
                }
            }
        }
        Ok(())
    }

    /// Who was subscribed when something was published has heard it, unless a gap was counted.
    pub(super) fn nothing_is_missing(&self) {
        let living: BTreeSet<NodeId> = self.living().map(|machine| machine.id).collect();
        let snapshot = |machine: &Machine| machine.node.cluster_snapshot().expect("one of several");
        let unsent: u64 = self.living().map(|machine| snapshot(machine).unsent_gaps).sum();
        for machine in self.living() {
            let mut missing = BTreeSet::new();
            for (socket, ear) in machine.ears() {
                let user = ear
                    .signed_in
                    .as_ref()
                    .map(|user| format!("#server-to-user-{user}"));
                let name = user.unwrap_or_else(|| ear.name.to_owned());
                for (number, event) in self.published.iter().enumerate() {
                    if event.channel == name
                        && event.except != Some(socket.id)
                        && !self.is_excused(machine, event)
                        && ear.acknowledged.is_some_and(|since| since < event.at)
                        && living.contains(&event.node)
                        && !ear.heard.contains(&number)
                        && ear.hit != Some(number)
                    {
                        assert_ne!(
                            event.node, machine.id,
                            "event {number} of {name} is missing where it was published"
                        );
                        missing.insert((&event.channel, number, event.node));
                    }
                }
            }
            let lanes = machine.cluster().lanes.iter();
            let breaks: u64 = lanes.map(|lane| lane.positions().counts().breaks).sum();
            if breaks > 0 {
                continue;
            }
            let counted = snapshot(machine).gaps_total() + unsent;
            assert!(
                missing.len() as u64 <= counted,
                "missing at {}: {missing:?}, but only {counted} were counted",
                machine.id
            );
        }
    }

    /// Who is new to a topic counts from the first number heard. What is lost before that, with nobody told, is lost.
    fn is_excused(&self, machine: &Machine, event: &Published) -> bool {
        let is_lossy = |from: Instant, time| self.losses.range(from..from + time).next().is_some();
        let since = machine.interested_since(&event.channel);
        let is_new = since.is_none_or(|since| event.at < since + MS * 1_500 || is_lossy(since, MS * 1_500));
        let mut senders = self.machines.iter().filter(|machine| machine.id == event.node);
        let is_new = is_new || senders.any(|sender| is_lossy(sender.started, MS * 1_500));
        is_new && is_lossy(event.at, MS * 2_000)
    }

    /// Nothing waits that nobody waits for.
    pub(super) fn nothing_is_left_over(&self) {
        for machine in self.living() {
            let snapshot = machine.node.cluster_snapshot().expect("one of several");
            assert_eq!(snapshot.held_back_bytes, 0, "held back at {}", machine.id);
            assert_eq!(snapshot.unsent_bytes, 0, "unsent at {}", machine.id);
            assert!(snapshot.ring_bytes <= 4 << 20);
        }
    }
}
