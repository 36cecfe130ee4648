//! What was published against what was heard. Pure: these are the judges, so they judge themselves first
//! ([`judge_known_cases`]).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::ear::{Heard, What};

/// What one ear heard of what it should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) heard: u64,
    /// Ranges of numbers that never came.
    pub(crate) missing: Vec<RangeInclusive<u32>>,
    /// Where they were to come from.
    missing_from: BTreeSet<String>,
    /// Sequences of which the last number did not come, or not yet.
    pub(crate) unfinished: u32,
}

impl Tally {
    /// How many numbers never came.
    pub(crate) fn missing_count(&self) -> u64 {
        self.missing
            .iter()
            .map(|range| u64::from(range.end() - range.start() + 1))
            .sum()
    }

    /// Adds what another channel or publisher comes to, by its name.
    pub(crate) fn add(&mut self, other: Tally, name: &str) {
        if !other.missing.is_empty() {
            self.missing_from.insert(name.to_owned());
        }
        self.heard += other.heard;
        self.unfinished += other.unfinished;
        self.missing.extend(other.missing);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = &self.missing[..self.missing.len().min(8)];
        write!(
            f,
            "{} of {}: {ranges:?} of {:?}",
            self.missing_count(),
            self.missing_count() + self.heard,
            self.missing_from
        )
    }
}

/// The numbers that were heard, by publisher and channel, in the order in which they came.
pub(crate) fn numbers(heard: &[Heard]) -> HashMap<(u32, &String), Vec<u32>> {
    let mut numbers: HashMap<_, Vec<u32>> = HashMap::new();
    for heard in heard {
        if let What::Number {
            publisher,
            channel,
            number,
        } = &heard.what
        {
            numbers.entry((*publisher, channel)).or_default().push(*number);
        }
    }
    numbers
}

/// Compares what came of one publisher on one channel with what must have: `first_sure` to `last`, without a hole from
/// the first that came. A number out of order, heard twice or never published is a fault.
pub(crate) fn tally(heard: &[u32], first_sure: u32, last: u32) -> Result<Tally, String> {
    let first = heard.first().map_or(first_sure, |first| (*first).min(first_sure));
    let mut missing = Vec::new();
    let mut next = first;
    for (at, &number) in heard.iter().enumerate() {
        if number < next {
            let from = at.saturating_sub(5);
            let around = &heard[from..heard.len().min(at + 5)];
            let fault = if heard[..at].contains(&number) {
                "twice"
            } else {
                "late"
            };
            return Err(format!("{number} came {fault}: … {around:?} …"));
        }
        if number > next {
            missing.push(next..=number - 1);
        }
        next = number + 1;
    }
    if next > last + 1 {
        return Err(format!("{} came, and {last} was the last", next - 1));
    }
    let is_unfinished = next <= last && first_sure <= last;
    if is_unfinished {
        missing.push(next..=last);
    }
    Ok(Tally {
        heard: heard.len() as u64,
        missing,
        missing_from: BTreeSet::new(),
        unfinished: u32::from(is_unfinished),
    })
}

/// By channel, when the first number beyond one was heard.
pub(crate) fn first_beyond(heard: &[Heard], of: u32, beyond: u32) -> HashMap<&String, Instant> {
    let mut first = HashMap::new();
    for Heard { at, what } in heard {
        match what {
            What::Number {
                publisher,
                channel,
                number,
            } if *publisher == of && *number > beyond => {
                first.entry(channel).or_insert(*at);
            }
            _ => {}
        }
    }
    first
}

/// The largest pause between two events of a publisher.
pub(crate) fn largest_gap(heard: &[Heard], of: u32) -> Duration {
    let times = heard.iter().filter_map(|heard| match heard.what {
        What::Number { publisher, .. } if publisher == of => Some(heard.at),
        _ => None,
    });
    let mut last = None;
    let gaps = times.map(|at| {
        let gap = last.map_or(Duration::ZERO, |last| at.duration_since(last));
        last = Some(at);
        gap
    });
    gaps.max().unwrap_or_default()
}

/// A ledger that never finds a fault would let everything pass.
pub(crate) fn judge_known_cases() {
    let missing = |ranges: &[RangeInclusive<u32>]| Some(ranges.to_vec());
    let none = missing(&[]);
    type Known<'a> = (&'a str, &'a [u32], u32, u32, Option<Vec<RangeInclusive<u32>>>);
    let known: [Known<'_>; 11] = [
        ("all of it", &[1, 2, 3], 1, 3, none.clone()),
        ("from the middle", &[5, 6], 6, 6, none.clone()),
        ("nothing was sure", &[], 4, 3, none.clone()),
        ("nothing came", &[], 1, 3, missing(&[1..=3])),
        ("a hole", &[1, 4], 1, 4, missing(&[2..=3])),
        ("the first", &[2, 3], 1, 3, missing(&[1..=1])),
        ("the last", &[1, 2], 1, 3, missing(&[3..=3])),
        ("a hole before what was sure", &[1, 3], 3, 3, missing(&[2..=2])),
        ("twice", &[1, 2, 2], 1, 2, None),
        ("late", &[1, 3, 2], 1, 3, None),
        ("never published", &[1, 2, 3], 1, 2, None),
    ];
    for (name, heard, first_sure, last, expected) in known {
        let found = tally(heard, first_sure, last).ok().map(|tally| tally.missing);
        assert_eq!(found, expected, "{name}");
    }
}
