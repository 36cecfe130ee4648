use super::*;

const A: Topic = Topic::Channels(1);
const B: Topic = Topic::Channels(2);
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// Positions that are interested in topic A, and a clock.
struct Case {
    positions: Positions,
    now: Instant,
    /// What came out: `1` delivered, `-1` given up.
    out: Vec<i64>,
    asked: Vec<(NodeId, Vec<Range>)>,
}

impl Case {
    fn new() -> Case {
        let mut positions = Positions::new(1);
        let now = Instant::now();
        positions.interested(A, now);
        Case {
            positions,
            now,
            out: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn work(&mut self, step: impl FnOnce(&mut Positions, Instant, &mut Vec<Output>)) {
        let mut out = Vec::new();
        step(&mut self.positions, self.now, &mut out);
        for output in out {
            match output {
                Output::Deliver { number, envelope, .. } => {
                    assert_eq!(
                        envelope.len() as u64,
                        number % 1000,
                        "the envelope of this number"
                    );
                    self.out.push(number as i64);
                }
                Output::GiveUp { from, count, .. } => {
                    (from..from + count).for_each(|number| self.out.push(-(number as i64)));
                }
                Output::Ask { sender, ranges } => self.asked.push((sender, ranges)),
            }
        }
    }

    /// Envelopes `from ..= to` of topic A of the first node are heard.
    fn hear(&mut self, from: u64, to: u64) {
        self.hear_of(ONE, A, from, to, false);
    }

    fn hear_again(&mut self, from: u64, to: u64) {
        self.hear_of(ONE, A, from, to, true);
    }

    fn hear_of(&mut self, sender: NodeId, topic: Topic, from: u64, to: u64, is_repair: bool) {
        let envelopes = (from..=to).map(|number| Bytes::from(vec![0; number as usize % 1000]));
        let run = Run {
            first: from,
            is_repair,
            envelopes: envelopes.collect(),
        };
        self.work(|positions, now, out| positions.receive(sender, topic, run, now, out));
    }

    fn head(&mut self, number: u64) {
        let now = self.now;
        self.positions.head(ONE, A, number, now);
    }

    fn gone(&mut self, below: u64) {
        self.work(|positions, now, out| positions.gone(ONE, A, below, now, out));
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now += Duration::from_millis(50);
            self.work(Positions::tick);
        }
    }

    fn came_out(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.out)
    }

    /// The requests to the first node since last looked: pieces of topic A.
    fn asked(&mut self) -> Vec<Vec<(u64, u64)>> {
        let asked = std::mem::take(&mut self.asked);
        let pieces = |ranges: Vec<Range>| ranges.iter().map(|range| (range.from, range.to)).collect();
        asked.into_iter().map(|(_, ranges)| pieces(ranges)).collect()
    }
}

#[test]
fn in_order_is_delivered_at_once_and_what_comes_again_is_dropped() {
    let mut case = Case::new();
    case.hear(5, 6);
    case.hear(5, 7);
    case.hear(7, 7);
    case.hear(4, 4);
    case.hear(8, 8);
    assert_eq!(case.came_out(), [5, 6, 7, 8]);
    assert_eq!(case.positions.counts().received, 4);
    assert_eq!(case.positions.counts().duplicates, 4);
    case.pass(5_000);
    assert_eq!(case.asked(), [[]; 0]);
}

#[test]
fn topics_and_senders_count_for_themselves_and_others_than_wanted_are_not_heard() {
    let mut case = Case::new();
    case.hear(5, 5);
    case.hear_of(TWO, A, 1, 1, false);
    case.hear_of(ONE, B, 9, 9, false);
    assert_eq!(case.came_out(), [5, 1]);
    case.positions.forget(A);
    case.hear(6, 6);
    assert_eq!(case.came_out(), [0; 0]);
}

#[test]
fn what_is_missed_is_asked_for_and_what_came_behind_it_waits() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.hear(4, 5);
    case.hear(8, 8);
    case.hear(8, 8);
    assert_eq!(case.came_out(), [1]);
    assert!(case.positions.held_bytes() > 0);
    case.pass(200);
    assert_eq!(case.asked(), [[(2, 3), (6, 7)]]);
    case.hear_again(2, 3);
    assert_eq!(case.came_out(), [2, 3, 4, 5]);
    case.hear_again(6, 8);
    assert_eq!(case.came_out(), [6, 7, 8]);
    let counts = case.positions.counts();
    assert_eq!((counts.repaired, counts.duplicates, counts.gaps), (4, 2, 0));
    assert_eq!(case.positions.held_bytes(), 0);
    case.pass(5_000);
    assert_eq!(case.asked(), [[]; 0]);
}

#[test]
fn one_request_names_all_topics_of_a_sender() {
    let mut case = Case::new();
    let now = case.now;
    case.positions.interested(B, now);
    for topic in [A, B] {
        case.hear_of(ONE, topic, 1, 1, false);
        case.hear_of(ONE, topic, 3, 3, false);
    }
    case.pass(200);
    let missed = |topic| Range {
        topic,
        from: 2,
        to: 2,
    };
    assert_eq!(case.asked, [(ONE, vec![missed(A), missed(B)])]);
}

#[test]
fn after_two_seconds_without_progress_it_goes_on_and_counts_the_gap() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.hear(3, 3);
    case.pass(1_900);
    let asked = case.asked();
    assert!(
        (3..=5).contains(&asked.len()),
        "asked with growing pauses: {asked:?}"
    );
    case.hear(5, 5);
    assert_eq!(case.came_out(), [1]);
    case.pass(150);
    // The second hole is younger than any request.
    assert_eq!(case.came_out(), [-2, 3]);
    case.hear_again(2, 2);
    assert_eq!(case.came_out(), [0; 0], "too late: order never breaks");
    case.pass(2_500);
    assert_eq!(case.came_out(), [-4, 5]);
    assert_eq!(case.positions.counts().gaps, 2);
    assert_eq!(case.positions.counts().duplicates, 1);
}

#[test]
fn progress_gives_more_time() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.hear(10, 10);
    for number in 2..10 {
        case.pass(1_500);
        case.hear_again(number, number);
    }
    assert_eq!(case.came_out(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn what_is_gone_is_given_up_at_once() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.gone(5);
    assert_eq!(case.came_out(), [1], "nothing is missed yet");
    case.hear(4, 4);
    case.hear(8, 8);
    case.gone(7);
    assert_eq!(case.came_out(), [-2, -3, 4, -5, -6]);
    case.hear_again(7, 7);
    assert_eq!(case.came_out(), [7, 8]);
}

#[test]
fn a_head_tells_of_a_lost_last_envelope_but_it_may_be_on_its_way() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.head(3);
    case.pass(250);
    case.hear(2, 3);
    case.pass(5_000);
    assert_eq!((case.came_out(), case.asked()), (vec![1, 2, 3], vec![]));
    case.head(4);
    case.pass(250);
    assert_eq!(case.asked(), [[]; 0]);
    case.pass(300);
    assert_eq!(case.asked(), [[(4, 4)]]);
    case.hear_again(4, 4);
    assert_eq!(case.came_out(), [4]);
}

#[test]
fn a_new_interest_begins_at_the_first_envelope_or_behind_the_first_head() {
    // Heads and envelopes, in the order in which they are heard; what comes out within 5 s.
    enum Hears {
        Head(u64),
        Envelope(u64),
        Repair(u64),
    }
    use Hears::*;
    let cases: [(&str, &[Hears], &[i64]); 9] = [
        ("an envelope", &[Envelope(7), Envelope(8)], &[7, 8]),
        ("a head only", &[Head(7), Head(7)], &[]),
        (
            "on its way when the head was told",
            &[Head(7), Envelope(6), Envelope(7)],
            &[6, 7],
        ),
        ("the next one", &[Head(7), Envelope(8)], &[8]),
        ("one was lost behind the head", &[Head(7), Envelope(9)], &[-8, 9]),
        ("heads move on", &[Head(7), Head(9)], &[-8, -9]),
        ("an answer for another", &[Repair(3), Envelope(7)], &[7]),
        (
            "an answer for another, with a head",
            &[Head(7), Repair(3), Envelope(8)],
            &[8],
        ),
        (
            "an answer for all",
            &[Head(7), Head(8), Repair(7), Repair(8)],
            &[8],
        ),
    ];
    for (what, hears, came_out) in cases {
        let mut case = Case::new();
        for heard in hears {
            match heard {
                Head(number) => case.head(*number),
                Envelope(number) => case.hear(*number, *number),
                Repair(number) => case.hear_again(*number, *number),
            }
        }
        case.pass(5_000);
        assert_eq!(case.came_out(), came_out, "{what}");
    }
}

#[test]
fn what_was_on_its_way_is_delivered_though_heads_moved_on_meanwhile() {
    let mut case = Case::new();
    case.head(7);
    case.head(9);
    case.pass(500);
    assert_eq!(case.asked()[0], [(8, 9)]);
    case.hear(6, 6);
    case.hear_again(8, 9);
    case.pass(500);
    assert_eq!(case.asked().last().expect("asked again"), &[(7, 7)]);
    case.hear_again(7, 7);
    assert_eq!(case.came_out(), [6, 7, 8, 9]);
}

#[test]
fn a_node_that_starts_counts_from_one_on_what_was_wanted_before() {
    let mut case = Case::new();
    case.positions.sender_is_new(ONE);
    let now = case.now;
    case.positions.interested(B, now);
    case.hear(2, 2);
    case.hear_of(ONE, B, 2, 2, false);
    assert_eq!(case.came_out(), [2], "that on B");
    case.pass(200);
    assert_eq!(case.asked(), [[(1, 1)]]);
    case.hear_again(1, 1);
    assert_eq!(case.came_out(), [1, 2]);

    // Its head was heard before its first words.
    let mut case = Case::new();
    case.head(1);
    case.positions.sender_is_new(ONE);
    case.head(1);
    case.pass(500);
    assert_eq!(case.asked()[0], [(1, 1)]);

    // Its first words were lost, and only its head tells of them.
    let mut case = Case::new();
    case.positions.sender_is_new(ONE);
    case.head(1);
    case.pass(1_000);
    assert_eq!(case.asked()[0], [(1, 1)]);
    case.pass(3_000);
    assert_eq!(case.came_out(), [-1]);
}

#[test]
fn who_listens_while_the_broker_is_away_misses_what_is_published_from_then_on() {
    let told = |topics: &[(Topic, u64)], told_all: bool| {
        let mut case = Case::new();
        let now = case.now;
        for (topic, head) in topics {
            case.positions.head(ONE, *topic, *head, now);
        }
        if told_all {
            case.positions.told_all_heads(ONE);
        }
        case.positions.listened_to_unconfirmed(B);
        case.pass(5_000);
        assert_eq!(case.asked(), [[]; 0], "not before it is confirmed");
        let now = case.now;
        case.positions.interested(B, now);
        case.hear_of(ONE, B, 9, 9, false);
        case.pass(200);
        (case.came_out(), case.asked())
    };
    for (what, topics, told_all, came_out, asked) in [
        (
            "its head was told",
            &[(B, 7)][..],
            false,
            vec![],
            vec![vec![(8, 8)]],
        ),
        (
            "it was told twice",
            &[(B, 3), (B, 7)],
            false,
            vec![],
            vec![vec![(8, 8)]],
        ),
        ("it was not used yet", &[(A, 7)], true, vec![], vec![vec![(1, 8)]]),
        ("it may have been used", &[(A, 7)], false, vec![9], vec![]),
    ] {
        assert_eq!(told(topics, told_all), (came_out, asked), "{what}");
    }

    // A node that starts meanwhile has said nothing before.
    let mut case = Case::new();
    case.positions.listened_to_unconfirmed(B);
    case.positions.sender_is_new(ONE);
    let now = case.now;
    case.positions.interested(B, now);
    case.hear_of(ONE, B, 2, 2, false);
    case.pass(200);
    assert_eq!(case.asked(), [[(1, 1)]]);
}

#[test]
fn the_first_words_on_a_topic_are_missed_if_a_beat_came_before_them() {
    let mut case = Case::new();
    let now = case.now;
    case.positions.told_all_heads(ONE);
    case.positions.interested(B, now);
    case.hear(1, 1);
    case.positions.told_heads(ONE);
    // The first two were lost.
    case.hear_of(ONE, B, 3, 3, false);
    case.pass(200);
    assert_eq!(case.asked(), [[(1, 2)]]);
}

#[test]
fn a_break_before_anything_was_heard_is_no_excuse_where_heads_were_told() {
    let mut case = Case::new();
    let now = case.now;
    case.positions.head(ONE, B, 7, now);
    case.positions.interested(B, now);
    case.positions.lost(B);
    case.positions.interested(B, now);
    case.hear_of(ONE, B, 10, 10, false);
    case.pass(200);
    assert_eq!(case.asked(), [[(8, 9)]]);
    // What was heard goes before what was told before.
    let mut case = Case::new();
    case.hear(8, 8);
    case.positions.lost(A);
    case.positions.listened_to_unconfirmed(A);
    case.hear(9, 9);
    assert_eq!(case.came_out(), [8, 9]);
    // It is what was told when the topic is wanted again.
    case.positions.forget(A);
    case.positions.listened_to_unconfirmed(A);
    let now = case.now;
    case.positions.interested(A, now);
    case.hear(11, 11);
    case.pass(200);
    assert_eq!(case.asked(), [[(10, 10)]]);
}

#[test]
fn while_a_topic_is_not_heard_nothing_is_asked_for_or_given_up() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.hear(3, 3);
    case.positions.lost(A);
    case.pass(30_000);
    assert_eq!((case.came_out(), case.asked()), (vec![1], vec![]));
    let now = case.now;
    case.positions.interested(A, now);
    case.pass(200);
    assert_eq!(case.asked(), [[(2, 2)]]);
    case.hear_again(2, 2);
    assert_eq!(case.came_out(), [2, 3]);
    // Of whom nothing was known before the break, nobody knows what was missed.
    case.hear_of(TWO, A, 5, 5, false);
    assert_eq!(case.positions.counts().breaks, 1);
}

#[test]
fn a_node_that_was_stopped_blames_nobody() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.hear(3, 3);
    case.pass(200);
    case.now += Duration::from_secs(60);
    case.work(Positions::tick);
    case.pass(200);
    case.hear_again(2, 2);
    assert_eq!(case.came_out(), [1, 2, 3]);
}

#[test]
fn positions_outlive_a_lost_node_by_ten_minutes() {
    for (minutes, came_out) in [(9, vec![5]), (11, vec![5, 4])] {
        let mut case = Case::new();
        case.hear(5, 5);
        let now = case.now;
        case.positions.sender_lost(ONE, now);
        case.pass(minutes * 60_000);
        case.hear(4, 4);
        assert_eq!(case.came_out(), came_out, "after {minutes} minutes");
    }
}

#[test]
fn what_is_held_back_is_bounded_and_more_of_it_gives_the_gap_up() {
    let mut case = Case::new();
    case.hear(1, 1);
    assert_eq!(case.came_out(), [1]);
    let mut number = 2;
    while case.out.is_empty() {
        number += 1;
        case.hear(number, number);
        assert!(case.positions.held_bytes() <= HELD_BYTES_MAX);
    }
    assert_eq!(case.positions.counts().overflows, 1);
    assert_eq!(case.positions.counts().gaps, 1);
    assert_eq!(case.positions.held_bytes(), 0);
    assert_eq!(
        case.came_out(),
        [-2].into_iter().chain(3..=number as i64).collect::<Vec<_>>()
    );

    // All topics together have a bound, too.
    let mut case = Case::new();
    let now = case.now;
    for topic in 0..40 {
        let topic = Topic::Channels(topic);
        case.positions.interested(topic, now);
        case.hear_of(ONE, topic, 1, 1, false);
        case.hear_of(ONE, topic, 3, 1_000, false);
        assert!(case.positions.held_bytes() <= LANE_HELD_BYTES_MAX);
    }
    assert!(case.positions.counts().overflows > 0);
}

#[test]
fn a_number_far_away_costs_nothing() {
    let mut case = Case::new();
    case.hear(1, 1);
    case.head(1 << 62);
    case.hear(1 << 61, 1 << 61);
    case.pass(500);
    assert_eq!(case.asked()[0].len(), 2);
    case.positions.forget(A);
    assert_eq!(case.positions.held_bytes(), 0);
}
