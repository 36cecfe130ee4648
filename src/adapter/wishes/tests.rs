//! The wishes, held against servers that do what they like.

use std::collections::{BTreeMap, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

const TOPICS: u16 = 4;
const SERVERS: usize = 2;

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Want(u16, bool),
    /// The connection to a server breaks, and a new one is there at once.
    Break(usize),
    /// A server answers so many of the questions that wait.
    Answer(usize, usize),
    /// A server refuses the next question.
    Refuse(usize),
    /// A server ends a subscription unasked.
    Drop(usize, u16),
    /// A topic moves to another server, which the old one tells by ending the subscription.
    Move(u16, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..TOPICS, any::<bool>()).prop_map(|(topic, wanted)| Step::Want(topic, wanted)),
        1 => (0..SERVERS).prop_map(Step::Break),
        4 => (0..SERVERS, 1..4_usize).prop_map(|(server, count)| Step::Answer(server, count)),
        1 => (0..SERVERS).prop_map(Step::Refuse),
        1 => (0..SERVERS, 0..TOPICS).prop_map(|(server, topic)| Step::Drop(server, topic)),
        1 => (0..TOPICS, 0..SERVERS).prop_map(|(topic, server)| Step::Move(topic, server)),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Two servers, and what the rest of the node believes.
#[derive(Default)]
struct World {
    wishes: Wishes,
    lives: [Life; SERVERS],
    owners: HashMap<Topic, usize>,
    /// What each server is subscribed to by the present connection.
    subscribed: [BTreeSet<Topic>; SERVERS],
    /// The batch under way with each server: what waits for an answer, and all topics of the batch.
    waiting: [VecDeque<(Topic, Ask)>; SERVERS],
    batch: [Vec<Topic>; SERVERS],
    /// What was last reported of each topic: the number of the wish, or none after a loss.
    believed: BTreeMap<Topic, Option<WishNumber>>,
    number: WishNumber,
    last_wish: HashMap<Topic, (bool, WishNumber)>,
}

impl World {
    fn lost(&mut self, topics: impl IntoIterator<Item = Topic>) {
        self.believed
            .extend(topics.into_iter().map(|topic| (topic, None)));
    }

    fn ask(&mut self) {
        let server = |life: Life| self.lives.iter().position(|own| *own == life);
        let owner = |topic| Some(self.lives[self.owners.get(&topic).copied().unwrap_or(0)]);
        let free = |life, more| more < 3 && server(life).is_some_and(|server| self.batch[server].is_empty());
        let due = self.wishes.due(owner, free);
        self.lost(due.lost);
        for (life, asks) in due.asks {
            let server = self
                .lives
                .iter()
                .position(|own| *own == life)
                .expect("a present connection");
            self.batch[server] = asks.iter().map(|(topic, _)| *topic).collect();
            self.waiting[server].extend(asks);
        }
    }

    fn answer(&mut self, server: usize, refuse: bool) {
        let Some((topic, ask)) = self.waiting[server].pop_front() else {
            return;
        };
        let life = self.lives[server];
        let owned = self.owners.get(&topic).copied().unwrap_or(0) == server;
        match ask {
            Ask::Hear(number) if owned && !refuse => {
                self.subscribed[server].insert(topic);
                if let Some(confirmed) = self.wishes.heard(life, topic) {
                    assert_eq!(confirmed, number);
                    self.believed.insert(topic, Some(number));
                }
            }
            Ask::Leave if !refuse => {
                self.subscribed[server].remove(&topic);
                assert!(!self.wishes.left(life, topic), "what was asked is no loss");
            }
            _ => {}
        }
        if self.waiting[server].is_empty() {
            let batch = std::mem::take(&mut self.batch[server]);
            self.wishes.answered(life, batch);
        }
    }

    fn drop_subscription(&mut self, server: usize, topic: Topic) {
        if self.subscribed[server].remove(&topic) && self.wishes.left(self.lives[server], topic) {
            self.lost([topic]);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Want(topic, wanted) => {
                let topic = Topic::Channels(topic);
                self.number += 1;
                self.wishes.want(topic, wanted, self.number);
                self.wishes.want(topic, !wanted, self.number - 1);
                self.last_wish.insert(topic, (wanted, self.number));
            }
            Step::Break(server) => {
                let lost = self.wishes.down(self.lives[server]);
                self.lost(lost);
                self.lives[server] += SERVERS as Life;
                self.subscribed[server].clear();
                self.waiting[server].clear();
                self.batch[server].clear();
                self.wishes.look_again();
            }
            Step::Answer(server, count) => (0..count).for_each(|_| self.answer(server, false)),
            Step::Refuse(server) => self.answer(server, true),
            Step::Drop(server, topic) => self.drop_subscription(server, Topic::Channels(topic)),
            Step::Move(topic, server) => {
                let topic = Topic::Channels(topic);
                self.owners.insert(topic, server);
                for other in (0..SERVERS).filter(|other| *other != server) {
                    self.drop_subscription(other, topic);
                }
                self.wishes.look_again();
            }
        }
        self.ask();
    }
}

proptest! {
    /// Whatever happens, what is believed in the end is what the servers do, and the last wish of each topic holds.
    #[test]
    fn in_the_end_every_wish_is_fulfilled(steps in steps()) {
        let mut world = World { lives: [1, 2], ..World::default() };
        for step in steps {
            world.step(step);
        }
        for _ in 0..4 * TOPICS {
            for server in 0..SERVERS {
                world.step(Step::Answer(server, 8));
            }
        }
        for topic in (0..TOPICS).map(Topic::Channels) {
            let owner = world.owners.get(&topic).copied().unwrap_or(0);
            let (wanted, number) = world.last_wish.get(&topic).copied().unwrap_or_default();
            prop_assert_eq!(world.subscribed[owner].contains(&topic), wanted, "{} at its server", topic);
            if wanted {
                prop_assert_eq!(world.believed.get(&topic).copied().flatten(), Some(number));
            } else {
                prop_assert!(!world.wishes.wishes.contains_key(&topic), "what is not wanted is forgotten");
            }
        }
    }
}

#[test]
fn a_wish_for_what_is_heard_already_is_asked_anew() {
    let mut wishes = Wishes::default();
    let topic = Topic::Channels(7);
    let due = |wishes: &mut Wishes| wishes.due(|_| Some(1), |_, _| true).asks.remove(&1);
    wishes.want(topic, true, 1);
    assert_eq!(due(&mut wishes), Some(vec![(topic, Ask::Hear(1))]));
    wishes.want(topic, true, 2);
    assert_eq!(due(&mut wishes), None, "one question is under way");
    assert_eq!(wishes.heard(1, topic), Some(1), "an answer to the older wish");
    assert_eq!(due(&mut wishes), Some(vec![(topic, Ask::Hear(2))]));
    assert_eq!(wishes.heard(1, topic), Some(2));
    assert_eq!(due(&mut wishes), None);
}
