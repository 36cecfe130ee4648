//! The app's back end: what the nodes told it, all together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::machine::Machine;
use super::{CHANNELS, MS, World};
use crate::adapter::NodeId;

/// A channel, or a member of it.
type Thing = (String, Option<String>);

/// What a node told before it died may not be known to any other, if it was so little before.
const BEFORE_DEATH: Duration = Duration::from_secs(1);

/// A node that has started so long ago takes its part.
const STARTING: Duration = Duration::from_secs(3);

/// One webhook.
#[derive(Debug)]
struct Told {
    at: Instant,
    node: NodeId,
    thing: Thing,
    is_there: bool,
    /// Whether all was well when it was told.
    is_calm: bool,
}

/// All webhooks.
#[derive(Debug, Default)]
pub(super) struct BackEnd(Vec<Told>);

impl BackEnd {
    /// Takes in what a node has told since it was asked last.
    pub(super) fn hear(&mut self, machine: &Machine, is_calm: bool) {
        let at = Instant::now();
        for (channel, member, is_there) in machine.node.take_told() {
            self.0.push(Told {
                at,
                node: machine.id,
                thing: (
                    channel.as_str().to_owned(),
                    member.map(|member| member.to_string()),
                ),
                is_there,
                is_calm,
            });
        }
    }

    /// What it believes to be there.
    fn believes(&self) -> BTreeSet<&Thing> {
        let last: BTreeMap<&Thing, bool> = self.0.iter().map(|told| (&told.thing, told.is_there)).collect();
        last.into_iter()
            .filter_map(|(thing, is_there)| is_there.then_some(thing))
            .collect()
    }

    /// Each webhook is news, and those of a channel and of its members are in order.
    fn is_in_order(&self) -> Result<(), String> {
        let mut believed = BTreeSet::new();
        for Told {
            at, thing, is_there, ..
        } in &self.0
        {
            let is_news = match is_there {
                true => believed.insert(thing.clone()),
                false => believed.remove(thing),
            };
            let (channel, member) = thing;
            let is_occupied = believed.contains(&(channel.clone(), None));
            let has_members = believed
                .iter()
                .any(|(of, member)| of == channel && member.is_some());
            let fits = match member {
                Some(_) => is_occupied,
                None => *is_there || !has_members,
            };
            if !is_news || !fits {
                return Err(format!(
                    "{thing:?} {is_there} at {at:?} does not fit: {:#?}",
                    self.0
                ));
            }
        }
        Ok(())
    }
}

impl World {
    /// Whether a node has something that its back end was not told of.
    fn is_untold(&self) -> bool {
        let mut living = self.machines.iter().filter(|machine| machine.is_alive());
        living.any(|machine| machine.node.untold() > 0)
    }

    /// All is told, and the back end believes what is so. It may not know it if who told it last is dead, and told it
    /// while not all was well, or had no time to say so.
    pub(super) async fn back_end_knows(&mut self) {
        let began = Instant::now();
        while self.is_untold() {
            let untold = self.machines.iter().map(|machine| machine.node.untold());
            assert!(
                began.elapsed() < Duration::from_secs(150),
                "untold: {:?}",
                untold.collect::<Vec<_>>()
            );
            self.pass(MS * 500).await;
        }
        let mut truth = BTreeSet::new();
        for machine in self.machines.iter().filter(|machine| machine.is_alive()) {
            for (_, ear) in machine.ears().filter(|(_, ear)| CHANNELS.contains(&ear.name)) {
                truth.insert((ear.name.to_owned(), None));
                let member = ear.member.as_ref().map(|member| member.user_id.to_string());
                truth.insert((ear.name.to_owned(), member));
            }
        }
        let living: BTreeSet<NodeId> = self
            .machines
            .iter()
            .filter(|machine| machine.is_alive())
            .map(|machine| machine.id)
            .collect();
        let is_doubtful = |told: &&Told| {
            let died_after = |death: &Instant| *death >= told.at && *death - told.at < BEFORE_DEATH;
            !living.contains(&told.node) && (!told.is_calm || self.deaths.iter().any(died_after))
        };
        let doubtful: BTreeSet<&Thing> = self
            .back_end
            .0
            .iter()
            .filter(is_doubtful)
            .map(|told| &told.thing)
            .collect();
        // Or all are gone who knew what was told.
        let knew = |told: &Told| {
            let mut living = self.machines.iter().filter(|machine| machine.is_alive());
            living.any(|machine| machine.id == told.node || machine.started + STARTING <= told.at)
        };
        let last: BTreeMap<&Thing, bool> = self
            .back_end
            .0
            .iter()
            .map(|told| (&told.thing, knew(told)))
            .collect();
        let forgotten = last
            .into_iter()
            .filter_map(|(thing, is_known)| (!is_known).then_some(thing));
        let doubtful: BTreeSet<&Thing> = doubtful.into_iter().chain(forgotten).collect();
        let believes = self.back_end.believes();
        let truth = truth.iter().collect();
        let wrong = believes.symmetric_difference(&truth);
        let wrong: Vec<_> = wrong.filter(|thing| !doubtful.contains(**thing)).collect();
        assert!(
            wrong.is_empty(),
            "the back end is wrong of {wrong:?}: {:#?}",
            self.back_end.0
        );
        if self.fault.is_none() && self.ended.is_none() {
            self.back_end
                .is_in_order()
                .unwrap_or_else(|fault| panic!("{fault}"));
        }
    }
}
