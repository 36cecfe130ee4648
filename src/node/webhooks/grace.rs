//! What an app's back end is yet to be told of its channels and their members, and when.
//!
//! A channel is occupied or not, a user is a member or not, and the back end believes the one or the other. While both
//! agree, nothing is kept. Who goes gets a grace, and who is back within it never went: neither the leave is told nor
//! the return. Who comes is news at once.
//!
//! Several nodes see the same and only one of them is to tell it. So the others keep it as well, until they hear that it
//! was told, or until it is theirs to tell: whose turn it is, is asked of the caller. Knows nothing of nodes, hubs or
//! webhooks; time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whose turn it is may change: what waits for its turn is asked for again so much later.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Where others told what does not fit to the view here, the view is given so long to catch up.
const VIEW_LAG: Duration = Duration::from_secs(2);

/// A change that the back end was not told of. What it believes is the opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Untold {
    /// How it is.
    pub(super) is_there: bool,
    /// From when on it is to be told.
    pub(super) due: Instant,
    /// Whether the change was seen here. If not, somebody else was heard to tell the opposite of what is known here, and
    /// may know better.
    pub(super) is_witnessed: bool,
    look: Look,
}

/// When it is looked at next; the number keeps the order of one instant.
type Look = (Instant, u64);

/// What concerns one channel.
#[derive(Debug, Default)]
struct Changes {
    channel: Option<Untold>,
    members: HashMap<Arc<str>, Untold>,
}

impl Changes {
    fn get(&self, member: Option<&str>) -> Option<&Untold> {
        match member {
            None => self.channel.as_ref(),
            Some(user_id) => self.members.get(user_id),
        }
    }

    fn remove(&mut self, member: Option<&str>) -> Option<Untold> {
        match member {
            None => self.channel.take(),
            Some(user_id) => self.members.remove(user_id),
        }
    }

    fn is_empty(&self) -> bool {
        self.channel.is_none() && self.members.is_empty()
    }
}

/// Whose turn it is to tell the back end, and how that is done.
pub(super) trait Teller<P> {
    /// From when on this is to be told from here, as it looks now. `None`: others do it.
    fn turn(&self, place: &P, untold: &Untold) -> Option<Instant>;

    /// Tells it: the channel is occupied or vacated, or this member was added or removed.
    fn tell(&mut self, place: &P, member: Option<&Arc<str>>, is_there: bool);
}

/// All that the back end was not told of yet. A place is a channel of an app.
#[derive(Debug)]
pub(super) struct Grace<P> {
    places: HashMap<P, Changes>,
    looks: BTreeMap<Look, (P, Option<Arc<str>>)>,
    numbers: u64,
    untold_max: usize,
    hasty: u64,
}

impl<P: Clone + Eq + Hash> Grace<P> {
    /// Nothing is untold. At most `untold_max` changes are kept; one more is told without a grace, or left to others.
    pub(super) fn new(untold_max: usize) -> Grace<P> {
        Grace {
            places: HashMap::new(),
            looks: BTreeMap::new(),
            numbers: 0,
            untold_max,
            hasty: 0,
        }
    }

    /// Changes that are kept.
    pub(super) fn len(&self) -> usize {
        self.looks.len()
    }

    /// Changes that found no room: each was told at once if it was this node's to tell, and left to others if not.
    pub(super) fn hasty(&self) -> u64 {
        self.hasty
    }

    /// A channel was occupied or vacated, or a member came or went. Who goes is told of after the grace.
    pub(super) fn changed(
        &mut self,
        place: &P,
        member: Option<&Arc<str>>,
        is_there: bool,
        grace: Duration,
        now: Instant,
        teller: &mut impl Teller<P>,
    ) {
        match self.get(place, member.map(|user_id| &**user_id)) {
            Some(untold) if untold.is_there == is_there => return,
            Some(_) => {
                // As the back end believes it to be.
                self.remove(place, member.map(|user_id| &**user_id));
                return;
            }
            None => {}
        }
        let due = if is_there { now } else { now + grace };
        let untold = self.number(is_there, due, true);
        if due <= now && teller.turn(place, &untold).is_some_and(|at| at <= now) {
            self.tell(place, member, untold, teller);
        } else if self.looks.len() < self.untold_max {
            self.insert(place, member, untold);
        } else {
            self.hasty += 1;
            let hasty = Untold { due: now, ..untold };
            if teller.turn(place, &hasty).is_some_and(|at| at <= now) {
                self.tell(place, member, hasty, teller);
            }
        }
    }

    /// Somebody told the back end that it is so (`told`), while the view here is `is_there`.
    pub(super) fn heard(
        &mut self,
        place: &P,
        member: Option<&Arc<str>>,
        told: bool,
        is_there: bool,
        grace: Duration,
        now: Instant,
    ) {
        match self.get(place, member.map(|user_id| &**user_id)) {
            Some(untold) if untold.is_there == told => {
                self.remove(place, member.map(|user_id| &**user_id));
            }
            Some(_) => {}
            None if told == is_there => {}
            None if self.looks.len() < self.untold_max => {
                let wait = if is_there { VIEW_LAG } else { grace.max(VIEW_LAG) };
                let untold = self.number(is_there, now + wait, false);
                self.insert(place, member, untold);
            }
            None => self.hasty += 1,
        }
    }

    /// When to call [`Grace::work`].
    pub(super) fn next(&self) -> Option<Instant> {
        self.looks.first_key_value().map(|((at, _), _)| *at)
    }

    /// Looks at one change whose time has come. False if there is none.
    pub(super) fn work(&mut self, now: Instant, teller: &mut impl Teller<P>) -> bool {
        let Some(first) = self.looks.first_entry().filter(|first| first.key().0 <= now) else {
            return false;
        };
        let (place, member) = first.remove();
        let Some(untold) = self.take(&place, member.as_deref()) else {
            return true;
        };
        match teller.turn(&place, &untold) {
            Some(at) if at <= now => self.tell(&place, member.as_ref(), untold, teller),
            at => {
                let soon = now + LOOK_INTERVAL;
                let at = at.map_or(soon, |at| at.min(soon));
                let look = (at, untold.look.1);
                self.insert(&place, member.as_ref(), Untold { look, ..untold });
            }
        }
        true
    }

    /// Tells all that is left at once, in its order: nobody will be here to tell it later.
    pub(super) fn finish(&mut self, teller: &mut impl Teller<P>) {
        while let Some((_, (place, member))) = self.looks.pop_first() {
            if let Some(untold) = self.take(&place, member.as_deref()) {
                self.tell(&place, member.as_ref(), untold, teller);
            }
        }
    }

    /// Tells one change, with what must come before it: a channel is occupied before it has members, and has none any
    /// more when it is vacated.
    fn tell(&mut self, place: &P, member: Option<&Arc<str>>, untold: Untold, teller: &mut impl Teller<P>) {
        match member {
            Some(_) if untold.is_there && self.get(place, None).is_some_and(|channel| channel.is_there) => {
                self.remove(place, None);
                teller.tell(place, None, true);
            }
            None if !untold.is_there => {
                for user_id in self.untold_leaves(place) {
                    self.remove(place, Some(&user_id));
                    teller.tell(place, Some(&user_id), false);
                }
            }
            _ => {}
        }
        teller.tell(place, member, untold.is_there);
    }

    /// The members of a channel who went, as they went.
    fn untold_leaves(&self, place: &P) -> Vec<Arc<str>> {
        let members = self
            .places
            .get(place)
            .into_iter()
            .flat_map(|place| &place.members);
        let mut gone: Vec<_> = members.filter(|(_, untold)| !untold.is_there).collect();
        gone.sort_by_key(|(_, untold)| untold.look.1);
        gone.into_iter().map(|(user_id, _)| user_id.clone()).collect()
    }

    fn number(&mut self, is_there: bool, due: Instant, is_witnessed: bool) -> Untold {
        self.numbers += 1;
        Untold {
            is_there,
            due,
            is_witnessed,
            look: (due, self.numbers),
        }
    }

    fn get(&self, place: &P, member: Option<&str>) -> Option<&Untold> {
        self.places.get(place)?.get(member)
    }

    fn insert(&mut self, place: &P, member: Option<&Arc<str>>, untold: Untold) {
        self.looks.insert(untold.look, (place.clone(), member.cloned()));
        let place = self.places.entry(place.clone()).or_default();
        match member {
            None => place.channel = Some(untold),
            Some(user_id) => drop(place.members.insert(user_id.clone(), untold)),
        }
    }

    fn remove(&mut self, place: &P, member: Option<&str>) {
        if let Some(untold) = self.take(place, member) {
            self.looks.remove(&untold.look);
        }
    }

    /// Takes a change out, but for its look.
    fn take(&mut self, place: &P, member: Option<&str>) -> Option<Untold> {
        let known = self.places.get_mut(place)?;
        let untold = known.remove(member);
        if known.is_empty() {
            self.places.remove(place);
        }
        untold
    }
}

#[cfg(test)]
mod tests;
