//! The wishes of one lane, and how far each has come: what is to be asked of which connection, and what its answers
//! mean. Pure: connections are numbers here.
//!
//! Of a topic at most one question is under way, so an answer always belongs to the last one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Topic, WishNumber};

/// One life of a connection: every new connection has a new number.
pub(super) type Life = u64;

/// What a server is asked about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Let this connection hear it.
    Hear(WishNumber),
    /// Let it no more.
    Leave,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Topics to be reported as lost, before anything is asked.
    pub(super) lost: Vec<Topic>,
    /// What is to be asked, by connection.
    pub(super) asks: BTreeMap<Life, Vec<(Topic, Ask)>>,
}

#[derive(Debug, Default)]
struct Wish {
    wanted: bool,
    number: WishNumber,
    /// The connection that hears it, and the wish that was confirmed last.
    heard: Option<(Life, WishNumber)>,
    asked: Option<(Life, Ask)>,
}

/// All wishes of a lane.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    wishes: HashMap<Topic, Wish>,
    /// Those that something may be due for.
    unsettled: BTreeSet<Topic>,
}

impl Wishes {
    /// Takes a wish. An older one than that known is void.
    pub(super) fn want(&mut self, topic: Topic, wanted: bool, number: WishNumber) {
        let wish = self.wishes.entry(topic).or_default();
        if number >= wish.number {
            wish.wanted = wanted;
            wish.number = number;
            self.unsettled.insert(topic);
        }
    }

    /// What is to be done now, which then counts as under way. `owner` says which connection a topic belongs to, if
    /// that is up; `free` whether a connection may be asked now, about so many more.
    pub(super) fn due(
        &mut self,
        owner: impl Fn(Topic) -> Option<Life>,
        free: impl Fn(Life, usize) -> bool,
    ) -> Due {
        let mut due = Due::default();
        for topic in std::mem::take(&mut self.unsettled) {
            let Some(wish) = self.wishes.get_mut(&topic) else {
                continue;
            };
            if wish.asked.is_some() {
                continue;
            }
            let owner = owner(topic);
            if let Some((life, _)) = wish.heard
                && wish.wanted
                && owner != Some(life)
            {
                // It belongs to another server now; the old one ends the subscription by itself.
                wish.heard = None;
                due.lost.push(topic);
            }
            let ask = match (wish.wanted, wish.heard, owner) {
                (true, Some((_, confirmed)), _) if confirmed == wish.number => continue,
                (true, _, Some(life)) => (life, Ask::Hear(wish.number)),
                (true, _, None) => continue,
                (false, Some((life, _)), _) => (life, Ask::Leave),
                (false, None, _) => {
                    self.wishes.remove(&topic);
                    continue;
                }
            };
            let asks = due.asks.entry(ask.0).or_default();
            if free(ask.0, asks.len()) {
                wish.asked = Some(ask);
                asks.push((topic, ask.1));
            } else {
                self.unsettled.insert(topic);
            }
        }
        due.asks.retain(|_, asks| !asks.is_empty());
        due
    }

    /// A server confirmed that a topic is heard. Gives the wish to be reported as confirmed.
    pub(super) fn heard(&mut self, life: Life, topic: Topic) -> Option<WishNumber> {
        let wish = self.wishes.get_mut(&topic)?;
        let Some((_, Ask::Hear(number))) = wish.asked.filter(|(asked, _)| *asked == life) else {
            return None;
        };
        wish.asked = None;
        wish.heard = Some((life, number));
        self.unsettled.insert(topic);
        wish.wanted.then_some(number)
    }

    /// A server said that a topic is heard no more. Whether that is to be reported as a loss.
    pub(super) fn left(&mut self, life: Life, topic: Topic) -> bool {
        let Some(wish) = self.wishes.get_mut(&topic) else {
            return false;
        };
        let is_asked = wish.asked == Some((life, Ask::Leave));
        if is_asked {
            wish.asked = None;
        }
        let is_heard = wish.heard.is_some_and(|(heard, _)| heard == life);
        if is_heard {
            wish.heard = None;
        }
        self.unsettled.insert(topic);
        is_heard && !is_asked && wish.wanted
    }

    /// All answers to what was asked about these topics have come: what was not confirmed was refused, and is due
    /// again. Whether there is any such.
    pub(super) fn answered(&mut self, life: Life, topics: impl IntoIterator<Item = Topic>) -> bool {
        let mut is_refused = false;
        for topic in topics {
            let wish = self.wishes.get_mut(&topic);
            if let Some(wish) = wish.filter(|wish| wish.asked.is_some_and(|(asked, _)| asked == life)) {
                wish.asked = None;
                self.unsettled.insert(topic);
                is_refused = true;
            }
        }
        is_refused
    }

    /// A connection is gone. Gives the topics to be reported as lost.
    pub(super) fn down(&mut self, life: Life) -> Vec<Topic> {
        let mut lost = Vec::new();
        for (topic, wish) in &mut self.wishes {
            wish.asked = wish.asked.filter(|(asked, _)| *asked != life);
            if wish.heard.is_some_and(|(heard, _)| heard == life) {
                wish.heard = None;
                lost.extend(wish.wanted.then_some(*topic));
            }
        }
        self.look_again();
        lost
    }

    /// Something may be due for every topic: connections came up, or topics changed owners.
    pub(super) fn look_again(&mut self) {
        self.unsettled.extend(self.wishes.keys());
    }
}

#[cfg(test)]
mod tests;
