//! The members of one presence channel on this node: users, however many sockets each has.
//!
//! The view that is shown to a joiner is a persistent version: taking one costs nothing however many members there
//! are, so it is done under the channel's lock; its JSON is made outside of it, once for each version.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rpds::RedBlackTreeMapSync;

use crate::protocol::channel_name::ChannelName;
use crate::protocol::frame::Frame;
use crate::protocol::presence::Member;
use crate::protocol::server;

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
#[derive(Debug, PartialEq, Eq)]
pub enum Joined {
    /// The user's first socket here.
    NewMember,
    /// A further socket of a member.
    AnotherSocket,
    /// A new user, and the channel has as many members as it may have.
    Full,
}

/// Members by user id, with the number of sockets of each.
#[derive(Debug, Default)]
pub struct Presence {
    sockets: HashMap<Arc<str>, u32>,
    members: RedBlackTreeMapSync<Arc<str>, Arc<str>>,
    view: Option<Arc<PresenceView>>,
}

impl Presence {
    /// Distinct users.
    pub fn user_count(&self) -> usize {
        self.sockets.len()
    }

    /// A socket of this member joins. The `user_info` of a user's first socket holds as long as one of them is here.
    pub fn join(&mut self, member: &Member, members_max: usize) -> Joined {
        if let Some(sockets) = self.sockets.get_mut(&member.user_id) {
            *sockets += 1;
            return Joined::AnotherSocket;
        }
        if self.sockets.len() >= members_max {
            return Joined::Full;
        }
        self.sockets.insert(member.user_id.clone(), 1);
        self.members
            .insert_mut(member.user_id.clone(), member.user_info.clone());
        self.view = None;
        Joined::NewMember
    }

    /// A socket of this user leaves. True if it was the last one.
    pub fn leave(&mut self, user_id: &str) -> bool {
        let Some(sockets) = self.sockets.get_mut(user_id) else {
            return false;
        };
        *sockets -= 1;
        if *sockets > 0 {
            return false;
        }
        self.sockets.remove(user_id);
        self.members.remove_mut(user_id);
        self.view = None;
        true
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
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MEMBERS_MAX: usize = 4;

    fn member(user: u8, info: u8) -> Member {
        Member {
            user_id: user.to_string().into(),
            user_info: format!("{{\"n\":{info}}}").into(),
        }
    }

    /// Joins and leaves of some users; a leave of who is not there does not happen.
    fn steps() -> impl Strategy<Value = Vec<(bool, u8, u8)>> {
        proptest::collection::vec((any::<bool>(), 0..6_u8, any::<u8>()), 0..200)
    }

    proptest! {
        #[test]
        fn members_are_users_however_many_sockets_they_have(steps in steps()) {
            let mut presence = Presence::default();
            // The model: each user's sockets, and the info of the first.
            let mut model: BTreeMap<String, (u32, String)> = BTreeMap::new();
            for (joins, user, info) in steps {
                let member = member(user, info);
                let id = member.user_id.to_string();
                if joins {
                    let is_full = model.len() == MEMBERS_MAX;
                    let expected = match model.get_mut(&id) {
                        Some((sockets, _)) => {
                            *sockets += 1;
                            Joined::AnotherSocket
                        }
                        None if is_full => Joined::Full,
                        None => {
                            model.insert(id, (1, member.user_info.to_string()));
                            Joined::NewMember
                        }
                    };
                    prop_assert_eq!(presence.join(&member, MEMBERS_MAX), expected);
                } else if let Some((sockets, _)) = model.get_mut(&id) {
                    *sockets -= 1;
                    let was_last = *sockets == 0;
                    model.retain(|_, (sockets, _)| *sockets > 0);
                    prop_assert_eq!(presence.leave(&id), was_last);
                } else {
                    prop_assert!(!presence.leave(&id), "nobody leaves who is not there");
                }
                let seen: BTreeMap<String, String> = presence.view().members()
                    .map(|member| (member.user_id.to_string(), member.user_info.to_string())).collect();
                let truth = model.iter().map(|(id, (_, info))| (id.clone(), info.clone())).collect();
                prop_assert_eq!(seen, truth);
                prop_assert_eq!(presence.user_count(), model.len());
            }
        }
    }

    #[test]
    fn a_view_stays_as_it_was_taken() {
        let mut presence = Presence::default();
        presence.join(&member(1, 1), MEMBERS_MAX);
        let before = presence.view();
        assert!(
            Arc::ptr_eq(&before, &presence.view()),
            "nothing changed: the same version, encoded once"
        );
        presence.join(&member(2, 2), MEMBERS_MAX);
        assert_eq!(before.members().count(), 1);
        assert_eq!(presence.view().members().count(), 2);
    }
}
