//! Days, quotas and ledgers, with the time as an argument.

use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;

const DAY: i64 = SECONDS_PER_DAY;
/// Some midnight.
const MIDNIGHT: i64 = 20_000 * DAY;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

/// An app that is known since that midnight.
fn usage() -> Usage {
    Usage::since(Day::of(at(MIDNIGHT)))
}

fn no_clock() -> Timestamp {
    panic!("an app without a quota asks no clock")
}

/// Deliveries and bytes, all of them this number.
fn readings(number: u64) -> Readings {
    Readings {
        delivered: number,
        bytes_sent: number * 10,
        bytes_received: number * 100,
    }
}

#[test]
fn a_day_begins_and_ends_at_midnight_in_utc() {
    let day = Day::of("2026-11-21T23:59:59.999Z".parse().expect("a time"));
    assert_eq!(day.date(), date(2026, 11, 21));
    assert_eq!(day.ends().to_string(), "2026-11-22T00:00:00Z");
    assert_eq!(Day::of(day.ends()).date(), date(2026, 11, 22));
    assert_eq!(Day::of(at(-5)).date(), date(1970, 1, 1));
    assert_eq!(Day::of(Timestamp::MAX), Day(u16::MAX));
}

#[test]
fn the_quota_is_exact_all_or_nothing_and_whole_again_the_next_day() {
    let usage = usage();
    let charge = |count, second| usage.charge(count, 10, || at(MIDNIGHT + second));
    let until = at(MIDNIGHT + DAY);
    assert_eq!(charge(7, 0), Ok(()));
    let refused = OverQuota {
        max: 10,
        left: 3,
        until,
    };
    assert_eq!(charge(4, 1), Err(refused));
    assert_eq!(charge(3, 1), Ok(()));
    assert_eq!(charge(1, DAY - 1), Err(OverQuota { left: 0, ..refused }));
    assert_eq!(charge(10, DAY), Ok(()));
    assert!(charge(1, DAY).is_err());
    assert_eq!(usage.messages(), 20);
}

#[test]
fn a_quota_that_comes_during_the_day_counts_what_was_before() {
    let usage = usage();
    assert_eq!(usage.charge(8, u64::MAX, no_clock), Ok(()));
    assert!(usage.charge(3, 10, || at(MIDNIGHT)).is_err());
    assert_eq!(usage.charge(5, u64::MAX, no_clock), Ok(()));
    let over = usage
        .charge(1, 10, || at(MIDNIGHT))
        .expect_err("13 of 10 are used");
    assert_eq!(over.left, 0);
}

#[test]
fn a_clock_put_back_over_midnight_gives_nothing_back_and_one_that_was_wrong_blocks_nothing() {
    let usage = usage();
    let charge = |second| usage.charge(10, 10, || at(MIDNIGHT + second));
    assert_eq!(charge(0), Ok(()));
    let over = charge(-1).expect_err("the day has begun");
    assert_eq!(over.until, at(MIDNIGHT + DAY));
    assert!(charge(1).is_err());
    // The clock was a year ahead and was put right.
    assert_eq!(charge(365 * DAY), Ok(()));
    assert_eq!(charge(2), Ok(()));
    assert!(charge(3).is_err());
}

#[test]
fn a_race_over_midnight_accepts_exactly_the_quota_of_each_day() {
    let (usage, barrier) = (&Usage::since(Day::of(at(MIDNIGHT - DAY))), &Barrier::new(8));
    let race = |racer: i64| {
        barrier.wait();
        let charge = |second| usage.charge(1, 1_000, || at(second)).is_ok();
        let accepted = |second: i64| (0..500).filter(|_| charge(second)).count();
        // Clocks of threads differ by what they were interrupted for.
        (accepted(MIDNIGHT - 1 - racer), accepted(MIDNIGHT + racer))
    };
    let race = &race;
    let accepted: usize = thread::scope(|scope| {
        let racers: Vec<_> = (0..8).map(|racer| scope.spawn(move || race(racer))).collect();
        let accepted = racers
            .into_iter()
            .map(|racer| racer.join().expect("no racer panics"));
        accepted.map(|(before, after)| before + after).sum()
    });
    usage.settle(at(MIDNIGHT + 100), readings(0), || 0);
    let days: Vec<_> = usage.unsaved().iter().map(|used| used.messages).collect();
    // The first who is past midnight ends the day for all: it may be that not all of its quota was used.
    assert!(days[0] <= 1_000, "{days:?}");
    assert_eq!((days[1], days[0] + 1_000), (1_000, accepted as u64));
}

#[test]
fn what_other_nodes_published_counts_on_that_day_only() {
    let usage = usage();
    let charge = |count, second| usage.charge(count, 10, || at(MIDNIGHT + second)).is_ok();
    assert!(charge(2, 0));
    usage.settle(at(MIDNIGHT + 1), readings(0), || 0);
    // Two here are not saved yet: the six are others'.
    usage.set_messages_saved(Day::of(at(MIDNIGHT)), 6);
    assert!(!charge(3, 2) && charge(2, 2));
    assert_eq!(usage.take_unsaved().len(), 1);
    usage.settle(at(MIDNIGHT + 3), readings(0), || 0);
    // Two of the nine are of here.
    usage.set_messages_saved(Day::of(at(MIDNIGHT)), 8);
    assert!(!charge(1, 4));
    usage.set_messages_saved(Day::of(at(MIDNIGHT)), 3);
    assert!(charge(5, 5) && !charge(1, 5));
    assert!(charge(10, DAY));
}

#[test]
fn a_day_ends_to_the_message_and_connections_stay_over_midnight() {
    let usage = usage();
    let settle = |second, number, connections: usize| {
        usage.settle(at(MIDNIGHT + second), readings(number), || connections)
    };
    usage.note_connections(50);
    usage.charge(3, 100, || at(MIDNIGHT + DAY - 1)).expect("3 of 100");
    assert_eq!(settle(DAY - 1, 5, 40).connections_peak, 50);
    usage.charge(4, 100, || at(MIDNIGHT + DAY - 1)).expect("7 of 100");
    usage
        .charge(2, 100, || at(MIDNIGHT + DAY))
        .expect("2 of the next 100");
    let today = settle(DAY + 1, 9, 40);
    let used = |day, messages, number, connections_peak| UsageDay {
        day,
        messages,
        delivered: number,
        bytes_sent: number * 10,
        bytes_received: number * 100,
        connections_peak,
    };
    let (first, second) = (date(2024, 10, 4), date(2024, 10, 5));
    assert_eq!(today, used(second, 2, 0, 40));
    assert_eq!(usage.unsaved(), [used(first, 7, 9, 50), used(second, 2, 0, 40)]);
    assert!(!usage.is_saved(readings(9)));
    assert_eq!(usage.take_unsaved().len(), 2);
    assert_eq!(usage.unsaved(), []);
    assert!(usage.is_saved(readings(9)) && !usage.is_saved(readings(10)));
}

#[test]
fn an_app_at_rest_has_nothing_to_save_and_a_store_that_is_away_for_long_costs_the_oldest_days() {
    let usage = usage();
    for day in 0..40 {
        usage.settle(at(MIDNIGHT + day * DAY), readings(0), || 0);
    }
    assert_eq!(usage.unsaved(), []);
    // An app without a quota asks no clock: what it used since the day was settled is of that day.
    for day in 40..100 {
        usage.charge(1, u64::MAX, no_clock).expect("no quota");
        usage.settle(at(MIDNIGHT + day * DAY), readings(0), || 0);
    }
    let days = usage.unsaved();
    assert_eq!(days.len(), USAGE_DAYS_MAX);
    assert_eq!(
        days.last().map(|last| last.day),
        Some(Day::of(at(MIDNIGHT + 98 * DAY)).date())
    );
}

#[derive(Clone, Debug)]
enum Step {
    Charge(u64),
    Wait(i64),
    Settle,
    Save,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..5).prop_map(Step::Charge),
        2 => (0..DAY).prop_map(Step::Wait),
        2 => Just(Step::Settle),
        1 => Just(Step::Save),
    ]
}

proptest! {
    /// Whatever is settled and saved when: what was saved and what was not is what was accepted, day by day, and no day
    /// has more than its quota.
    #[test]
    fn the_days_add_up(steps in prop::collection::vec(step(), 1..80)) {
        const MAX: u64 = 10;
        let usage = usage();
        let (mut now, mut days) = (MIDNIGHT, Vec::new());
        let mut accepted = std::collections::BTreeMap::<Date, u64>::new();
        for step in steps {
            match step {
                Step::Charge(count) => {
                    let of_day = accepted.entry(Day::of(at(now)).date()).or_default();
                    let fits = *of_day + count <= MAX;
                    prop_assert_eq!(usage.charge(count, MAX, || at(now)).is_ok(), fits);
                    *of_day += if fits { count } else { 0 };
                }
                Step::Wait(seconds) => {
                    // A day that ends is settled at its end.
                    let end = Day::of(at(now)).ends().as_second();
                    now += seconds;
                    if now >= end {
                        usage.settle(at(end), readings(0), || 0);
                    }
                }
                Step::Settle => drop(usage.settle(at(now), readings(0), || 0)),
                Step::Save => days.extend(usage.take_unsaved()),
            }
        }
        usage.settle(at(now), readings(0), || 0);
        days.extend(usage.take_unsaved());
        let mut saved = std::collections::BTreeMap::<Date, u64>::new();
        days.iter().for_each(|used| *saved.entry(used.day).or_default() += used.messages);
        accepted.retain(|_, messages| *messages > 0);
        prop_assert_eq!(saved, accepted);
    }
}
