//! The members of one presence channel: users, however many sockets each has, on however many nodes.
//!
//! A user is held by claims, one of each node with a socket of the user; this node's own claim is one among them. The
//! first claim makes a member, the last one to go takes it away, and the `user_info` of the earliest is shown. All nodes
//! know the same claims, so they show the same, whatever order they heard them in.
//!
//! The view that is shown to a joiner is a persistent version: taking one costs nothing however many members there
//! are, so it is done under the channel's lock; its JSON is made outside of it, once for each version.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rpds::RedBlackTreeMapSync;
use smallvec::SmallVec;

use crate::adapter::NodeId;
use crate::protocol::channel_name::ChannelName;
use crate::protocol::frame::Frame;
use crate::protocol::presence::Member;
use crate::protocol::server;
use crate::relay::{Origin, Stamp};

/// The members as they were at one moment.
#[derive(Debug)]
pub struct PresenceView {
    members: RedBlackTreeMapSync<Arc<str>, Arc<str>>,
    acknowledgement: OnceLock<Frame>,
}

impl PresenceView {
    /// `subscription_succeeded` with these members, encoded at the first call.
    pub fn acknowledgement(&self, channel: &ChannelName) -> Frame {
        let encode = || {
            let json = server::presence_json(self.members.iter().map(|(id, info)| (&**id, &**info)));
            server::subscription_succeeded_presence(channel, &json)
        };
        self.acknowledgement.get_or_init(encode).clone()
    }

    /// The members, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().map(|(id, info)| Member {
            user_id: id.clone(),
            user_info: info.clone(),
        })
    }
}

/// What a join changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The user's first socket anywhere.
    NewMember,
    /// The first one here of a user whom another node has.
    NewHere,
    /// A further socket here.
    AnotherSocket,
    /// A new user, and the channel has as many members as it may have.
    Full,
}

/// What a leave changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The user's last socket anywhere went.
    Gone,
    /// The last one here went; another node has the user.
    OnlyElsewhere,
    /// Another socket is still here, or the user was not.
    Nothing,
}

/// A node's word that it has a socket of a user.
#[derive(Debug)]
struct Claim {
    origin: Origin,
    user_info: Arc<str>,
}

/// What holds one user.
#[derive(Debug, Default)]
struct Held {
    /// Its sockets on this node, which share one claim.
    sockets: u32,
    /// One for each node; hardly ever more than one.
    claims: SmallVec<[Claim; 1]>,
}

impl Held {
    /// The `user_info` of the earliest claim.
    fn shown(&self) -> Option<&Arc<str>> {
        let earliest = self.claims.iter().min_by_key(|claim| claim.origin);
        earliest.map(|claim| &claim.user_info)
    }

    fn of(&self, node: NodeId) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.origin.node == node)
    }

    fn put(&mut self, user_info: &Arc<str>, origin: Origin) {
        self.claims.retain(|claim| claim.origin.node != origin.node);
        self.claims.push(Claim {
            origin,
            user_info: user_info.clone(),
        });
    }
}

/// A member that has come or gone on this node since the others were told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnannouncedMember {
    /// Who.
    pub user_id: Arc<str>,
    /// Whether they were told that the user is here.
    pub was_here: bool,
    /// The `user_info` and when the first socket came, if the user is here.
    pub claim: Option<(Arc<str>, Stamp)>,
}

/// Members by user id, with what holds each.
#[derive(Debug, Default)]
pub struct Presence {
    held: HashMap<Arc<str>, Held>,
    members: RedBlackTreeMapSync<Arc<str>, Arc<str>>,
    view: Option<Arc<PresenceView>>,
    /// Whether the others were told that the user is here.
    unannounced: HashMap<Arc<str>, bool>,
}

impl Presence {
    /// Distinct users.
    pub fn user_count(&self) -> usize {
        self.held.len()
    }

    /// Whether any node has a socket of this user.
    pub fn has(&self, user_id: &str) -> bool {
        self.held.contains_key(user_id)
    }

    /// A socket of this member joins here. The `user_info` of a user's first socket holds as long as one of them is
    /// here; `origin` tells it from those that other nodes claim.
    pub fn join(&mut self, member: &Member, origin: Origin, members_max: usize) -> Joined {
        let user_id = &member.user_id;
        if let Some(held) = self.held.get_mut(user_id) {
            held.sockets += 1;
            if held.sockets > 1 {
                return Joined::AnotherSocket;
            }
        } else if self.held.len() >= members_max {
            return Joined::Full;
        } else {
            self.held.entry(user_id.clone()).or_default().sockets = 1;
        }
        if self.claim(user_id, &member.user_info, origin) {
            Joined::NewMember
        } else {
            Joined::NewHere
        }
    }

    /// A socket of this user leaves; `here` is this node.
    pub fn leave(&mut self, user_id: &str, here: NodeId) -> Left {
        let Some(held) = self.held.get_mut(user_id).filter(|held| held.sockets > 0) else {
            return Left::Nothing;
        };
        held.sockets -= 1;
        if held.sockets > 0 {
            Left::Nothing
        } else if self.unclaim(user_id, here) {
            Left::Gone
        } else {
            Left::OnlyElsewhere
        }
    }

    /// A node has a socket of this user, and came by the first of them then. True if this makes a new member.
    pub fn claim(&mut self, user_id: &Arc<str>, user_info: &Arc<str>, origin: Origin) -> bool {
        let held = self.held.entry(user_id.clone()).or_default();
        let is_new = held.claims.is_empty();
        held.put(user_info, origin);
        self.show(user_id);
        is_new
    }

    /// A node has no socket of this user any more. True if that was the last claim: the member is gone.
    pub fn unclaim(&mut self, user_id: &str, node: NodeId) -> bool {
        let Some(held) = self.held.get_mut(user_id) else {
            return false;
        };
        let before = held.claims.len();
        held.claims.retain(|claim| claim.origin.node != node);
        let is_gone = held.claims.is_empty();
        if held.claims.len() < before {
            self.show(user_id);
        }
        is_gone
    }

    /// Brings what is shown of a user into line with the claims.
    fn show(&mut self, user_id: &str) {
        match self.held.get_key_value(user_id) {
            Some((user_id, held)) if let Some(shown) = held.shown() => {
                if self.members.get(user_id).is_some_and(|before| before == shown) {
                    return;
                }
                self.members.insert_mut(user_id.clone(), shown.clone());
            }
            _ => {
                self.held.remove(user_id);
                self.members.remove_mut(user_id);
            }
        }
        self.view = None;
    }

    /// The users that a node claims, with when it came by them. Looks at every member.
    pub fn claimed_by(&self, node: NodeId) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Stamp)> {
        self.held.iter().filter_map(move |(user_id, held)| {
            let claim = held.of(node)?;
            Some((user_id, &claim.user_info, claim.origin.stamp))
        })
    }

    /// Since when a node has this user.
    pub fn claimed_since(&self, user_id: &str, node: NodeId) -> Option<Stamp> {
        Some(self.held.get(user_id)?.of(node)?.origin.stamp)
    }

    /// The other nodes are to be told that this user came or went here.
    pub fn mark_unannounced(&mut self, user_id: &Arc<str>, was_here: bool) {
        // Only the first of several changes knows what was told before.
        self.unannounced.entry(user_id.clone()).or_insert(was_here);
    }

    pub(super) fn take_unannounced(&mut self, here: NodeId) -> Vec<UnannouncedMember> {
        let unannounced = std::mem::take(&mut self.unannounced);
        let member = |(user_id, was_here): (Arc<str>, bool)| {
            let held = self.held.get(&user_id).and_then(|held| held.of(here));
            UnannouncedMember {
                claim: held.map(|claim| (claim.user_info.clone(), claim.origin.stamp)),
                was_here,
                user_id,
            }
        };
        unannounced.into_iter().map(member).collect()
    }

    /// The members as they are now.
    pub fn view(&mut self) -> Arc<PresenceView> {
        let members = &self.members;
        let fresh = || {
            Arc::new(PresenceView {
                members: members.clone(),
                acknowledgement: OnceLock::new(),
            })
        };
        self.view.get_or_insert_with(fresh).clone()
    }
}

#[cfg(test)]
mod tests;
