//! One endpoint's queue, case by case and against a model that knows only what was asked of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::protocol::ChannelName;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    max: Duration::from_secs(60),
};
const GIVE_UP: Duration = Duration::from_secs(300);
const SINGLY: Terms = Terms {
    max_events: 1,
    max_delay: Duration::ZERO,
    concurrency: 8,
    timeout: Duration::from_secs(10),
};

fn event(channel: &str, id: u128, now: Instant) -> Event {
    Event {
        channel: ChannelName::parse(channel, 200).expect("a legal name"),
        json: "{}".into(),
        id,
        time_ms: 0,
        expires: now + GIVE_UP,
        ticket: None,
    }
}

/// A queue at a time that the test moves.
struct Stage {
    queue: EndpointQueue,
    terms: Terms,
    now: Instant,
}

impl Stage {
    fn new(terms: Terms) -> Stage {
        Stage {
            queue: EndpointQueue::default(),
            terms,
            now: Instant::now(),
        }
    }

    fn push(&mut self, channel: &str, id: u128) {
        self.queue.push(event(channel, id, self.now), self.now);
    }

    fn take(&mut self) -> Option<Batch> {
        self.queue.take(&self.terms, self.now)
    }

    /// Everything that goes now, by the events' ids.
    fn take_all(&mut self) -> Vec<Batch> {
        std::iter::from_fn(|| self.take()).collect()
    }

    fn settle(&mut self, batch: Batch, is_delivered: bool) -> Settled {
        self.queue
            .settle(batch, is_delivered, BACKOFF, &self.terms, 0.0, self.now)
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
}

fn ids(batch: &Batch) -> Vec<u128> {
    batch.events.iter().map(|event| event.id).collect()
}

fn all_ids(batches: &[Batch]) -> Vec<Vec<u128>> {
    batches.iter().map(ids).collect()
}

#[test]
fn a_channel_waits_for_its_own_events_only() {
    let mut stage = Stage::new(SINGLY);
    for (channel, id) in [("a", 1), ("a", 2), ("b", 3), ("a", 4)] {
        stage.push(channel, id);
    }
    let mut gone = stage.take_all();
    assert_eq!(all_ids(&gone), [[1], [3]]);
    let (a, b) = (gone.remove(0), gone.remove(0));
    // The first of `a` fails: `b` goes on, the rest of `a` waits for its retry.
    assert!(matches!(stage.settle(a, false), Settled::Retried));
    assert!(matches!(stage.settle(b, true), Settled::Delivered));
    stage.push("b", 5);
    stage.wait(999);
    let b = stage.take_all();
    assert_eq!(all_ids(&b), [[5]]);
    stage.wait(1);
    let mut a = stage.take_all();
    assert_eq!(all_ids(&a), [[1]]);
    stage.settle(a.remove(0), true);
    assert_eq!(all_ids(&stage.take_all()), [[2]]);
}

#[test]
fn a_batch_waits_until_it_is_full_or_its_first_event_has_waited_long_enough() {
    let terms = Terms {
        max_events: 3,
        max_delay: Duration::from_millis(500),
        ..SINGLY
    };
    let mut stage = Stage::new(terms);
    stage.push("a", 1);
    stage.wait(400);
    stage.push("a", 2);
    assert_eq!(all_ids(&stage.take_all()), [[0; 0]; 0]);
    stage.wait(100);
    assert_eq!(all_ids(&stage.take_all()), [[1, 2]]);
    for (channel, id) in [("b", 3), ("c", 4), ("b", 5), ("b", 6)] {
        stage.push(channel, id);
    }
    assert_eq!(all_ids(&stage.take_all()), [[3, 5, 6]], "full, so at once");
    stage.wait(500);
    assert_eq!(all_ids(&stage.take_all()), [[4]]);
}

#[test]
fn an_endpoint_that_fails_for_four_minutes_gets_its_event_once() {
    let mut stage = Stage::new(SINGLY);
    stage.push("a", 1);
    let begun = stage.now;
    let mut attempts = Vec::new();
    loop {
        stage.now = stage
            .queue
            .due(&SINGLY)
            .expect("it is not given up")
            .max(stage.now);
        let batch = stage.take().expect("it is due");
        let elapsed = stage.now.duration_since(begun);
        attempts.push(elapsed.as_secs());
        assert_eq!(ids(&batch), [1]);
        if let Settled::Delivered = stage.settle(batch, elapsed >= Duration::from_secs(240)) {
            break;
        }
    }
    assert_eq!(attempts, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    assert_eq!((stage.queue.events(), stage.queue.bytes()), (0, 0));
    assert!(stage.queue.due(&SINGLY).is_none());
}

#[test]
fn after_five_minutes_it_is_given_up_and_its_channel_goes_on() {
    let mut stage = Stage::new(SINGLY);
    let begun = stage.now;
    stage.push("a", 1);
    stage.wait(200_000);
    stage.push("a", 2);
    let last = loop {
        stage.now = stage
            .queue
            .due(&SINGLY)
            .expect("it is not given up")
            .max(stage.now);
        let batch = stage.take().expect("it is due");
        // It hangs, each time for as long as it may.
        stage.now += SINGLY.timeout;
        if let Settled::GivenUp(batch) = stage.settle(batch, false) {
            break batch;
        }
    };
    assert_eq!(ids(&last), [1]);
    let ended = stage.now.duration_since(begun).as_secs();
    assert!((290..=300).contains(&ended), "{ended}");
    assert_eq!(all_ids(&stage.take_all()), [[2]]);
}

#[test]
fn what_has_waited_too_long_is_told_apart() {
    let mut stage = Stage::new(Terms {
        max_events: 10,
        ..SINGLY
    });
    for id in 1..=3 {
        stage.push("a", id);
        stage.wait(40_000);
    }
    // Happened at 0, 40 and 80 s; now it is 330 s.
    stage.wait(210_000);
    let old = stage.take().expect("it is due");
    assert!(old.has_expired(stage.now));
    assert_eq!(ids(&old), [1]);
    stage.queue.give_up(old, stage.now);
    let younger = stage.take().expect("it is due");
    assert!(!younger.has_expired(stage.now));
    assert_eq!(ids(&younger), [2], "the next is more than half a minute younger");
}

#[test]
fn what_keeps_failing_leaves_room_for_the_rest() {
    let mut stage = Stage::new(Terms {
        concurrency: 4,
        ..SINGLY
    });
    for id in 0..4 {
        stage.push(&format!("bad-{id}"), id);
    }
    for batch in stage.take_all() {
        stage.settle(batch, false);
    }
    stage.wait(2_000);
    for id in 10..14 {
        stage.push(&format!("good-{id}"), id);
    }
    let mut gone: Vec<_> = stage.take_all().iter().flat_map(ids).collect();
    gone.sort_unstable();
    assert_eq!(gone.len(), 4);
    assert_eq!(gone.iter().filter(|id| **id < 10).count(), 2, "{gone:?}");
}

#[test]
fn a_redelivery_waits_for_nobody_and_holds_nobody_up() {
    let mut stage = Stage::new(SINGLY);
    stage.push("a", 2);
    let under_way = stage.take().expect("it is due");
    let dead = event("a", 1, stage.now);
    stage.queue.redeliver(vec![dead], stage.now + GIVE_UP, stage.now);
    let again = stage.take().expect("it is due");
    assert_eq!(ids(&again), [1]);
    stage.push("a", 3);
    stage.settle(again, true);
    assert!(stage.take().is_none(), "2 is still under way");
    stage.settle(under_way, true);
    assert_eq!(all_ids(&stage.take_all()), [[3]]);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Take,
    Settle { which: usize, is_delivered: bool },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5u8).prop_map(Step::Push),
        4 => Just(Step::Take),
        4 => (any::<usize>(), any::<bool>())
            .prop_map(|(which, is_delivered)| Step::Settle { which, is_delivered }),
        2 => prop_oneof![Just(0), 1..3_000u64, 10_000..400_000u64].prop_map(Step::Wait),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    (1..5usize, 0..2_000u64, 1..5usize).prop_map(|(max_events, delay, concurrency)| Terms {
        max_events,
        max_delay: Duration::from_millis(delay),
        concurrency,
        ..SINGLY
    })
}

/// What is known without looking inside: what was pushed and is not done, by channel.
struct Model {
    stage: Stage,
    undone: HashMap<ChannelName, VecDeque<u128>>,
    under_way: Vec<Batch>,
    pushed: u128,
}

impl Model {
    fn take(&mut self) -> bool {
        let due = self.stage.queue.due(&self.stage.terms);
        let taken = self.stage.take();
        assert_eq!(
            due.is_some_and(|due| due <= self.stage.now),
            taken.is_some(),
            "due says when"
        );
        let Some(batch) = taken else { return false };
        assert!((1..=self.stage.terms.max_events).contains(&batch.events.len()));
        // Each channel's next ones, in their order, and no channel twice under way.
        let mut next: HashMap<&ChannelName, usize> = HashMap::new();
        for event in &batch.events {
            let place = next.entry(&event.channel).or_default();
            assert_eq!(self.undone[&event.channel].get(*place), Some(&event.id));
            *place += 1;
        }
        let under_way = self.under_way.iter().flat_map(|batch| &batch.events);
        let busy: HashSet<_> = under_way.map(|event| &event.channel).collect();
        assert!(next.keys().all(|channel| !busy.contains(channel)));
        if batch.has_expired(self.stage.now) {
            let batch = self.stage.queue.give_up(batch, self.stage.now);
            self.done(&batch.events);
        } else {
            self.under_way.push(batch);
        }
        assert!(self.under_way.len() <= self.stage.terms.concurrency);
        true
    }

    fn done(&mut self, events: &[Event]) {
        for event in events {
            let undone = self.undone.get_mut(&event.channel).expect("it was pushed");
            assert_eq!(undone.pop_front(), Some(event.id), "in the order of the channel");
        }
    }

    fn settle(&mut self, which: usize, is_delivered: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let batch = self.under_way.swap_remove(which % self.under_way.len());
        let events = batch.events.clone();
        match self.stage.settle(batch, is_delivered) {
            Settled::Delivered => {
                assert!(is_delivered);
                self.done(&events);
            }
            Settled::GivenUp(batch) => {
                let last = batch.expires - self.stage.terms.timeout;
                assert!(!is_delivered && self.stage.now >= last);
                self.done(&events);
            }
            Settled::Retried => assert!(!is_delivered),
        }
    }

    fn check(&self) {
        let undone: usize = self.undone.values().map(VecDeque::len).sum();
        assert_eq!(self.stage.queue.events(), undone);
        assert_eq!(self.stage.queue.under_way(), self.under_way.len());
    }
}

proptest! {
    #[test]
    fn every_channel_keeps_its_order_and_nothing_is_lost(
        terms in terms(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut model = Model {
            stage: Stage::new(terms),
            undone: HashMap::new(),
            under_way: Vec::new(),
            pushed: 0,
        };
        for step in steps {
            match step {
                Step::Push(channel) => {
                    model.pushed += 1;
                    let event = event(&format!("c{channel}"), model.pushed, model.stage.now);
                    model.undone.entry(event.channel.clone()).or_default().push_back(event.id);
                    model.stage.queue.push(event, model.stage.now);
                }
                Step::Take => drop(model.take()),
                Step::Settle { which, is_delivered } => model.settle(which, is_delivered),
                Step::Wait(ms) => model.stage.wait(ms),
            }
            model.check();
        }
        // Whatever state that is: an endpoint that answers gets all of it.
        let mut rounds = 0;
        while model.stage.queue.events() > 0 {
            rounds += 1;
            prop_assert!(rounds < 1_000, "it comes to an end");
            while model.take() {}
            model.check();
            if model.under_way.is_empty() && model.stage.queue.events() > 0 {
                let due = model.stage.queue.due(&model.stage.terms);
                model.stage.now = due.expect("something is to be done").max(model.stage.now);
            }
            while !model.under_way.is_empty() {
                model.settle(0, true);
            }
        }
        prop_assert_eq!(model.stage.queue.bytes(), 0);
        prop_assert_eq!(model.stage.queue.retries(), 0);
        prop_assert!(model.stage.queue.due(&model.stage.terms).is_none());
    }
}
