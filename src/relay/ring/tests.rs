use super::*;

const A: Topic = Topic::Channels(1);
const B: Topic = Topic::Channels(2);
const C: Topic = Topic::Channels(3);
const BATCH: usize = 256 * 1024;

/// A ring and a clock.
struct Case {
    ring: Ring,
    now: Instant,
}

impl Case {
    fn new(bytes_max: usize) -> Case {
        let now = Instant::now();
        Case {
            ring: Ring::new(bytes_max, 4, now),
            now,
        }
    }

    fn append(&mut self, topic: Topic, length: usize) -> u64 {
        self.ring.append(topic, Bytes::from(vec![b'x'; length]), self.now)
    }

    fn fill(&mut self, topic: Topic, count: usize) {
        for _ in 0..count {
            self.append(topic, 100);
        }
    }

    fn batch(&mut self) -> Vec<Sent> {
        self.ring.next_batch(BATCH).iter().map(sent).collect()
    }

    /// Takes a batch that ends as the broker says.
    fn settled(&mut self, is_accepted: bool) -> Vec<Sent> {
        let batch = self.batch();
        self.ring.settle(&vec![is_accepted; batch.len()], self.now);
        batch
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn resend(&mut self, topic: Topic, from: u64, to: u64) -> Vec<(Topic, u64)> {
        self.ring.resend(&[Range { topic, from, to }], self.now)
    }
}

/// Topic, first and last number, whether it is a repair; an unnumbered message has the numbers 0 … its length.
type Sent = (Topic, u64, u64, bool);

fn sent(outgoing: &Outgoing) -> Sent {
    match &outgoing.payload {
        Payload::Run(run) => (outgoing.topic, run.first, run.end() - 1, run.is_repair),
        Payload::Express(message) => (outgoing.topic, 0, message.len() as u64, false),
    }
}

#[test]
fn each_topic_counts_from_one() {
    let mut case = Case::new(1 << 20);
    assert_eq!(
        [case.append(A, 10), case.append(A, 10), case.append(B, 10)],
        [1, 2, 1]
    );
}

#[test]
fn what_waits_on_a_topic_travels_in_one_parcel_and_topics_take_turns() {
    let mut case = Case::new(1 << 20);
    case.fill(A, 3);
    case.fill(B, 2);
    assert_eq!(case.settled(true), [(A, 1, 3, false), (B, 1, 2, false)]);
    case.fill(B, 1);
    case.fill(A, 1);
    assert_eq!(case.settled(true), [(B, 3, 3, false), (A, 4, 4, false)]);
    assert!(!case.ring.has_unsent());
    assert_eq!(case.batch(), []);
    assert_eq!(case.ring.unaccepted_bytes(), 0);
    assert_eq!(case.ring.counts().accepted, 7);
}

#[test]
fn a_parcel_and_a_batch_are_bounded_but_a_big_envelope_goes_alone() {
    let mut case = Case::new(1 << 24);
    for topic in [A, B] {
        case.append(topic, PARCEL_BYTES - 10);
        case.append(topic, 10);
        case.append(topic, 1);
        case.append(topic, 3 * PARCEL_BYTES);
    }
    assert_eq!(case.settled(true), [(A, 1, 2, false), (B, 1, 2, false)]);
    assert_eq!(case.settled(true), [(A, 3, 3, false), (B, 3, 3, false)]);
    // Together they would be too much for one batch.
    let batch = case.ring.next_batch(PARCEL_BYTES);
    assert_eq!(batch.iter().map(sent).collect::<Vec<_>>(), [(A, 4, 4, false)]);
    case.ring.settle(&[true], case.now);
    assert_eq!(case.settled(true), [(B, 4, 4, false)]);
}

#[test]
fn a_topic_in_flight_waits_for_its_end_and_what_was_not_accepted_goes_again() {
    let mut case = Case::new(1 << 20);
    case.fill(A, 2);
    case.fill(B, 1);
    assert_eq!(case.batch(), [(A, 1, 2, false), (B, 1, 1, false)]);
    case.fill(A, 1);
    case.ring.settle(&[false, true], case.now);
    assert_eq!(case.ring.all_heads(), [(B, 1)], "a head counts what was accepted");
    assert_eq!(case.batch(), [(A, 1, 3, false)]);
    // Its connection was lost, and nobody said how it ended.
    assert_eq!(case.settled(true), [(A, 1, 3, false)]);
    assert_eq!(case.ring.all_heads(), [(A, 3), (B, 1)]);
}

#[test]
fn what_is_overwritten_before_it_left_is_counted() {
    let mut case = Case::new(200 * (100 + ENTRY_BYTES));
    case.fill(A, 500);
    assert_eq!(case.ring.counts().gaps, 300);
    assert!(case.ring.bytes() <= 200 * (100 + ENTRY_BYTES));
    assert_eq!(case.settled(true)[0].1, 301);
    case.settled(true);
    case.fill(A, 200);
    assert_eq!(case.ring.counts().gaps, 300, "what was accepted is no gap");
}

#[test]
fn what_is_overwritten_in_flight_is_a_gap_only_if_it_was_not_accepted() {
    for (is_accepted, gaps) in [(true, 0), (false, 10)] {
        let mut case = Case::new(100 * (100 + ENTRY_BYTES));
        case.fill(A, 10);
        assert_eq!(case.batch(), [(A, 1, 10, false)]);
        case.fill(A, 100);
        case.ring.settle(&[is_accepted], case.now);
        assert_eq!(case.ring.counts().gaps, gaps);
        assert_eq!(case.settled(true), [(A, 11, 110, false)]);
        assert_eq!(case.ring.unaccepted_bytes(), 0);
    }
}

#[test]
fn what_is_overwritten_behind_the_flight_is_a_gap_too() {
    let mut case = Case::new(100 * (100 + ENTRY_BYTES));
    case.fill(A, 10);
    assert_eq!(case.batch(), [(A, 1, 10, false)]);
    case.fill(A, 130);
    case.ring.settle(&[true], case.now);
    assert_eq!(case.ring.counts().gaps, 30);
    assert_eq!(case.settled(true), [(A, 41, 140, false)]);
}

#[test]
fn a_noisy_topic_leaves_the_others_their_sure_part() {
    let mut case = Case::new(64 * 1024);
    case.fill(B, 10);
    case.append(C, 20_000);
    case.settled(true);
    case.fill(A, 10_000);
    assert_eq!(case.resend(B, 1, 10), [], "all of it is there");
    assert_eq!(case.resend(C, 1, 1), [(C, 2)], "it was more than the sure part");
    assert!(case.ring.bytes() <= 64 * 1024);
    // A topic that goes on pays with its own oldest first.
    case.fill(B, 100);
    case.fill(A, 10_000);
    let gone = case.resend(B, 1, 110);
    assert!(matches!(gone[..], [(B, 80..)]), "{gone:?}");
}

#[test]
fn what_was_accepted_goes_before_what_waits_however_old_that_is() {
    let mut case = Case::new(100 * (100 + ENTRY_BYTES));
    case.fill(A, 10);
    case.fill(B, 60);
    assert_eq!(case.batch(), [(A, 1, 10, false), (B, 1, 60, false)]);
    case.ring.settle(&[false, true], case.now);
    case.fill(B, 60);
    assert_eq!(case.ring.counts().gaps, 0);
    assert_eq!(case.settled(true), [(A, 1, 10, false), (B, 61, 120, false)]);
    assert_eq!(case.resend(B, 1, 120), [(B, 31)]);
}

#[test]
fn after_a_minute_what_was_accepted_goes_and_its_memory_too() {
    let mut case = Case::new(1 << 24);
    case.fill(A, 10_000);
    case.pass(90_000);
    case.ring.trim(case.now);
    assert_eq!(case.ring.counts().gaps, 0, "nothing of it was accepted yet");
    while case.ring.has_unsent() {
        case.settled(true);
    }
    case.fill(B, 1);
    case.pass(59_000);
    case.ring.trim(case.now);
    assert_eq!(case.resend(A, 1, 10_000), []);
    case.pass(2_000);
    case.ring.trim(case.now);
    assert_eq!(
        case.ring.bytes(),
        100 + ENTRY_BYTES,
        "what was never accepted stays"
    );
    assert!(case.ring.age.capacity() < 1_000);
    assert_eq!(case.resend(A, 1, 10_000), [(A, 10_001)]);
    assert_eq!(case.append(A, 1), 10_001);
}

#[test]
fn heads_are_told_for_a_minute_after_a_topic_was_used() {
    let mut case = Case::new(1 << 20);
    case.fill(A, 2);
    assert_eq!(case.ring.heads(case.now), [], "nothing was accepted");
    case.settled(true);
    case.pass(30_000);
    case.fill(B, 1);
    case.settled(true);
    assert_eq!(case.ring.heads(case.now), [(A, 2), (B, 1)]);
    case.pass(40_000);
    case.ring.trim(case.now);
    assert_eq!(case.ring.heads(case.now), [(B, 1)]);
    assert_eq!(case.ring.all_heads(), [(A, 2), (B, 1)]);
}

#[test]
fn what_several_miss_is_sent_again_once() {
    let mut case = Case::new(1 << 20);
    case.fill(A, 20);
    case.settled(true);
    case.fill(A, 5);
    assert_eq!(case.resend(A, 3, 6), []);
    case.resend(A, 5, 8);
    case.resend(A, 3, 8);
    // What was not accepted yet will come anyway, and what does not exist nobody can miss.
    case.resend(A, 19, 1 << 60);
    let batch = [
        (A, 3, 6, true),
        (A, 7, 8, true),
        (A, 19, 20, true),
        (A, 21, 25, false),
    ];
    assert_eq!(case.settled(true), batch);
    case.pass(150);
    case.resend(A, 2, 9);
    assert_eq!(case.settled(true), [(A, 2, 2, true), (A, 9, 9, true)]);
    case.pass(150);
    case.resend(A, 2, 9);
    assert_eq!(case.settled(true), [(A, 3, 8, true)]);
}

#[test]
fn repairs_leave_room_for_what_is_new() {
    let mut case = Case::new(1 << 24);
    for _ in 0..8 {
        case.append(A, PARCEL_BYTES / 2);
    }
    while case.ring.has_unsent() {
        case.settled(true);
    }
    case.resend(A, 1, 8);
    case.fill(B, 1);
    assert_eq!(case.settled(true), [(A, 1, 2, true), (B, 1, 1, false)]);
    case.fill(B, 1);
    assert_eq!(case.settled(true), [(A, 3, 4, true), (B, 2, 2, false)]);
    assert!(case.ring.has_unsent());
    case.settled(true);
    case.settled(true);
    assert_eq!(case.settled(true), []);
    assert!(!case.ring.has_unsent());
    assert_eq!(case.ring.counts().repeated, 8);
}

#[test]
fn what_goes_while_it_is_repaired_is_left_out() {
    let mut case = Case::new(100 * (100 + ENTRY_BYTES));
    case.fill(A, 100);
    case.settled(true);
    case.resend(A, 1, 10);
    case.fill(A, 100);
    assert_eq!(case.settled(true), [(A, 101, 200, false)]);
    assert_eq!(case.resend(A, 1, 10), [(A, 101)]);
}

#[test]
fn unnumbered_messages_go_first_and_are_kept_until_accepted_but_bounded() {
    let mut case = Case::new(1 << 20);
    let node = Topic::Node(NodeId(7));
    let message = |length: usize| Bytes::from(vec![0; length]);
    case.fill(A, 1);
    assert!(case.ring.send(node, message(1)) && case.ring.send(Topic::Roster, message(2)));
    let (first, second) = ((node, 0, 1, false), (Topic::Roster, 0, 2, false));
    assert_eq!(case.batch(), [first, second, (A, 1, 1, false)]);
    case.ring.settle(&[false, false, true], case.now);
    assert_eq!(case.settled(true), [first, second]);

    let half = message(EXPRESS_BYTES_MAX / 2 - ENTRY_BYTES);
    assert!(case.ring.send(node, half.clone()) && case.ring.send(node, half.clone()));
    case.settled(false);
    assert!(
        !case.ring.send(node, message(1)),
        "what is tried again needs its room"
    );
    assert_eq!(case.ring.counts().refused, 1);
    case.settled(true);
    case.settled(true);
    assert!(case.ring.send(node, message(1)));
}

#[test]
fn it_is_behind_when_something_waits_for_a_second() {
    let mut case = Case::new(1 << 20);
    case.fill(A, 1);
    case.pass(900);
    assert!(!case.ring.is_behind(case.now));
    case.settled(false);
    case.fill(B, 1);
    case.pass(200);
    assert!(case.ring.is_behind(case.now));
    case.batch();
    assert!(case.ring.is_behind(case.now), "in flight is not accepted");
    case.ring.settle(&[true, true], case.now);
    assert!(!case.ring.is_behind(case.now));
}
