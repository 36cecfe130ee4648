use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MEMBERS_MAX: usize = 4;
const HERE: NodeId = NodeId(5);

fn member(user: u8, info: u8) -> Member {
    Member {
        user_id: user.to_string().into(),
        user_info: format!("{{\"n\":{info}}}").into(),
    }
}

fn origin(stamp: u64, node: NodeId) -> Origin {
    Origin {
        stamp: Stamp(stamp),
        node,
    }
}

/// What happens to one of some users, here or on one of some other nodes.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join(u8, u8, u64),
    Leave(u8),
    Claim(u8, u8, u64, u64),
    Unclaim(u8, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (user, node, stamp) = (0..6_u8, 3..8_u64, 0..50_u64);
    let node = node.prop_filter("another node", |node| NodeId(*node) != HERE);
    let step = prop_oneof![
        (user.clone(), any::<u8>(), stamp.clone()).prop_map(|(user, info, at)| Step::Join(user, info, at)),
        user.clone().prop_map(Step::Leave),
        (user.clone(), any::<u8>(), stamp, node.clone())
            .prop_map(|(user, info, at, node)| Step::Claim(user, info, at, node)),
        (user, node).prop_map(|(user, node)| Step::Unclaim(user, node)),
    ];
    proptest::collection::vec(step, 0..200)
}

/// The model: what each node claims of each user, and the sockets here.
#[derive(Default)]
struct Model {
    claims: BTreeMap<(u8, u64), (u64, u8)>,
    sockets: BTreeMap<u8, u32>,
}

impl Model {
    fn users(&self) -> BTreeSet<u8> {
        self.claims.keys().map(|(user, _)| *user).collect()
    }

    fn shown(&self, user: u8) -> Option<String> {
        let of_user = self.claims.iter().filter(|((held, _), _)| *held == user);
        let earliest = of_user.min_by_key(|((_, node), (stamp, _))| (*stamp, *node))?;
        Some(format!("{{\"n\":{}}}", earliest.1.1))
    }
}

proptest! {
    #[test]
    fn members_are_users_however_many_sockets_they_have_on_however_many_nodes(steps in steps()) {
        let mut presence = Presence::default();
        let mut model = Model::default();
        for step in steps {
            let before = model.users();
            match step {
                Step::Join(user, info, stamp) => {
                    let joined = presence.join(&member(user, info), origin(stamp, HERE), MEMBERS_MAX);
                    if !before.contains(&user) && before.len() >= MEMBERS_MAX {
                        prop_assert_eq!(joined, Joined::Full);
                        continue;
                    }
                    let sockets = model.sockets.entry(user).or_default();
                    *sockets += 1;
                    let expected = match (*sockets, before.contains(&user)) {
                        (1, false) => Joined::NewMember,
                        (1, true) => Joined::NewHere,
                        _ => Joined::AnotherSocket,
                    };
                    model.claims.entry((user, HERE.0)).or_insert((stamp, info));
                    prop_assert_eq!(joined, expected);
                }
                Step::Leave(user) => {
                    let left = presence.leave(&user.to_string(), HERE);
                    let sockets = model.sockets.entry(user).or_default();
                    let was_last = *sockets == 1;
                    *sockets = sockets.saturating_sub(1);
                    if was_last {
                        model.claims.remove(&(user, HERE.0));
                    }
                    let expected = match (was_last, model.users().contains(&user)) {
                        (true, false) => Left::Gone,
                        (true, true) => Left::OnlyElsewhere,
                        (false, _) => Left::Nothing,
                    };
                    prop_assert_eq!(left, expected);
                }
                Step::Claim(user, info, stamp, node) => {
                    let Member { user_id, user_info } = member(user, info);
                    let is_new = presence.claim(&user_id, &user_info, origin(stamp, NodeId(node)));
                    model.claims.insert((user, node), (stamp, info));
                    prop_assert_eq!(is_new, !before.contains(&user), "whatever others claim is never refused");
                }
                Step::Unclaim(user, node) => {
                    let is_gone = presence.unclaim(&user.to_string(), NodeId(node));
                    model.claims.remove(&(user, node));
                    prop_assert_eq!(is_gone, before.contains(&user) && !model.users().contains(&user));
                }
            }
            let seen: BTreeMap<String, String> = presence.view().members()
                .map(|member| (member.user_id.to_string(), member.user_info.to_string())).collect();
            let shown = |user: &u8| Some((user.to_string(), model.shown(*user)?));
            let truth: BTreeMap<String, String> = model.users().iter().filter_map(shown).collect();
            prop_assert_eq!(presence.user_count(), truth.len());
            prop_assert_eq!(seen, truth);
        }
    }
}

#[test]
fn a_view_stays_as_it_was_taken() {
    let mut presence = Presence::default();
    presence.join(&member(1, 1), origin(1, HERE), MEMBERS_MAX);
    let before = presence.view();
    presence.join(&member(1, 2), origin(2, HERE), MEMBERS_MAX);
    presence.claim(&"1".into(), &"{}".into(), origin(3, NodeId(1)));
    assert!(
        Arc::ptr_eq(&before, &presence.view()),
        "nothing that is shown changed: the same version, encoded once"
    );
    presence.join(&member(2, 2), origin(4, HERE), MEMBERS_MAX);
    assert_eq!(before.members().count(), 1);
    assert_eq!(presence.view().members().count(), 2);
}

#[test]
fn of_two_joins_at_once_the_earlier_one_is_shown_whichever_is_heard_first() {
    let claims = [
        (7, NodeId(9), "{\"n\":1}"),
        (7, NodeId(2), "{\"n\":2}"),
        (8, NodeId(1), "{\"n\":3}"),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut presence = Presence::default();
        for index in order {
            let (stamp, node, info): (u64, NodeId, &str) = claims[index];
            presence.claim(&"42".into(), &info.into(), origin(stamp, node));
        }
        let shown = |presence: &mut Presence| presence.view().members().next().map(|member| member.user_info);
        assert_eq!(
            shown(&mut presence).as_deref(),
            Some("{\"n\":2}"),
            "then the smaller node"
        );
        presence.unclaim("42", NodeId(2));
        assert_eq!(
            shown(&mut presence).as_deref(),
            Some("{\"n\":1}"),
            "without it, the next"
        );
    }
}

#[test]
fn the_others_are_told_what_is_now_and_what_they_were_told_before() {
    let mut presence = Presence::default();
    let user: Arc<str> = "1".into();
    presence.join(&member(1, 1), origin(1, HERE), MEMBERS_MAX);
    presence.mark_unannounced(&user, false);
    presence.leave("1", HERE);
    presence.mark_unannounced(&user, true);
    let told = |claim| {
        vec![UnannouncedMember {
            user_id: user.clone(),
            was_here: false,
            claim,
        }]
    };
    assert_eq!(
        presence.take_unannounced(HERE),
        told(None),
        "came and went meanwhile"
    );
    presence.join(&member(1, 2), origin(3, HERE), MEMBERS_MAX);
    presence.mark_unannounced(&user, false);
    assert_eq!(
        presence.take_unannounced(HERE),
        told(Some(("{\"n\":2}".into(), Stamp(3))))
    );
    assert_eq!(presence.take_unannounced(HERE), vec![], "and only once");
}
