//! What a measurement came to: deliveries and their delays, what went wrong, and the broadcasts one by one. Accounts of
//! several threads add up to one.
//!
//! Pure: it knows neither sockets nor clocks.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;

use hdrhistogram::Histogram;

use super::stamp::Stamp;

/// A slice of time, of which the longest delay is told.
pub(crate) const SLICE_NS: u64 = 100_000_000;
/// Later than that is told as that: one hour. Nanoseconds.
const DELAY_MAX_NS: u64 = 3_600_000_000_000;
/// What goes wrong is counted; so many are told in words.
const EXAMPLES_MAX: usize = 10;

/// The sum of a measurement.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) foreign: u64,
    pub(crate) examples: Vec<String>,
    /// From when an event was sent, or due, until each subscriber had it, by audience. Nanoseconds.
    pub(crate) delays: Vec<Histogram<u64>>,
    /// The same of those who come and go while others publish, whatever their audience.
    pub(crate) visitors: Histogram<u64>,
    /// The longest time without any delivery while something was due, of one thread's sockets. Nanoseconds.
    pub(crate) stall_ns: u64,
    /// When that ended.
    pub(crate) stalled_at_ns: u64,
    /// The longest delay in each slice of time, by [`SLICE_NS`], from the run's epoch.
    pub(crate) peaks: BTreeMap<u64, u64>,
    delivered_at_ns: u64,
    /// The slice at work, and its longest delay.
    peak: (u64, u64),
    /// Every broadcast, those that somebody lacks included.
    pub(crate) broadcasts: Vec<Broadcast>,
}

/// One event on its way to all subscribers of a channel. Nanoseconds since the run's epoch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broadcast {
    pub(crate) channel: u32,
    pub(crate) sequence: u32,
    /// When it was sent, or was due; zero if nobody has it.
    pub(crate) sent_ns: u64,
    /// Subscribers that have it, and that should have it and have not.
    pub(crate) received: u32,
    pub(crate) missed: u32,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// Every arrival, if they were recorded.
    pub(crate) arrivals: Vec<u64>,
}

/// An empty histogram of nanoseconds.
pub(crate) fn delays() -> Histogram<u64> {
    Histogram::new_with_max(DELAY_MAX_NS, 3).expect("three digits of an hour are within the library's limits")
}

impl Account {
    /// Nothing yet, of so many audiences.
    pub(crate) fn new(audiences: usize) -> Account {
        Account {
            delivered: 0,
            lost: 0,
            repeated: 0,
            out_of_order: 0,
            foreign: 0,
            examples: Vec::new(),
            delays: (0..audiences).map(|_| delays()).collect(),
            visitors: delays(),
            stall_ns: 0,
            stalled_at_ns: 0,
            peaks: BTreeMap::new(),
            delivered_at_ns: 0,
            peak: (0, 0),
            broadcasts: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn deliver(&mut self, audience: usize, is_awaited: bool, sent_ns: u64, now_ns: u64) {
        let delay_ns = now_ns.saturating_sub(sent_ns);
        self.delivered += 1;
        let delays = if is_awaited {
            &mut self.delays[audience]
        } else {
            &mut self.visitors
        };
        delays.saturating_record(delay_ns);
        if now_ns == self.delivered_at_ns && delay_ns <= self.peak.1 {
            return;
        }
        let due_ns = sent_ns.max(self.delivered_at_ns);
        let idle_ns = now_ns.saturating_sub(due_ns);
        if idle_ns > self.stall_ns {
            (self.stall_ns, self.stalled_at_ns) = (idle_ns, now_ns);
        }
        self.delivered_at_ns = now_ns;
        let slice = now_ns / SLICE_NS;
        if slice != self.peak.0 {
            self.end_slice();
            self.peak = (slice, 0);
        }
        self.peak.1 = self.peak.1.max(delay_ns);
    }

    fn end_slice(&mut self) {
        let (slice, delay_ns) = self.peak;
        if delay_ns > 0 {
            let peak = self.peaks.entry(slice).or_default();
            *peak = delay_ns.max(*peak);
        }
    }

    pub(super) fn foreign(&mut self, stamp: &Stamp, why: &str) {
        self.foreign += 1;
        self.example(|| format!("foreign: {}: {why}", event(stamp)));
    }

    pub(super) fn out_of_order(&mut self, stamp: &Stamp, how: &str) {
        self.out_of_order += 1;
        self.example(|| format!("out of order: {} came {how}", event(stamp)));
    }

    pub(super) fn repeated(&mut self, stamp: &Stamp) {
        self.repeated += 1;
        self.example(|| format!("repeated: {} came again", event(stamp)));
    }

    pub(super) fn lost(&mut self, count: u64, channel: u32, missing: &Range<u32>) {
        self.lost += count;
        if count > 0 {
            let (first, last) = (missing.start, missing.end - 1);
            self.example(|| {
                format!("lost: a subscriber of channel {channel} lacks {count} of events {first} to {last}")
            });
        }
    }

    fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }

    /// The sum of several threads' accounts; broadcasts in the order of channel and sequence.
    pub(crate) fn sum(accounts: impl IntoIterator<Item = Account>) -> Account {
        let mut sum = Account::new(0);
        for mut account in accounts {
            account.end_slice();
            for (slice, delay_ns) in mem::take(&mut account.peaks) {
                let peak = sum.peaks.entry(slice).or_default();
                *peak = delay_ns.max(*peak);
            }
            if account.stall_ns > sum.stall_ns {
                (sum.stall_ns, sum.stalled_at_ns) = (account.stall_ns, account.stalled_at_ns);
            }
            sum.visitors
                .add(&account.visitors)
                .expect("both have the same limits");
            sum.delivered += account.delivered;
            sum.lost += account.lost;
            sum.repeated += account.repeated;
            sum.out_of_order += account.out_of_order;
            sum.foreign += account.foreign;
            sum.examples.extend(account.examples);
            for (audience, of_one) in account.delays.into_iter().enumerate() {
                match sum.delays.get_mut(audience) {
                    Some(of_all) => of_all.add(&of_one).expect("both have the same limits"),
                    None => sum.delays.push(of_one),
                }
            }
            sum.broadcasts.extend(account.broadcasts);
        }
        sum.examples.truncate(EXAMPLES_MAX);
        sum.broadcasts
            .sort_unstable_by_key(|one| (one.channel, one.sequence));
        sum.broadcasts.dedup_by(|later, first| {
            let is_same = (later.channel, later.sequence) == (first.channel, first.sequence);
            if is_same {
                first.add(later);
            }
            is_same
        });
        sum
    }

    /// The longest delay in each slice of time: seconds since then, and seconds.
    pub(crate) fn peaks_since(&self, began_ns: u64) -> Vec<(f64, f64)> {
        let s = |ns: u64| ns as f64 / 1e9;
        let ended = |slice: u64| s(((slice + 1) * SLICE_NS).saturating_sub(began_ns));
        self.peaks
            .iter()
            .map(|(slice, delay_ns)| (ended(*slice), s(*delay_ns)))
            .collect()
    }

    /// The delays of all audiences together, without those who come and go.
    pub(crate) fn all_delays(&self) -> Histogram<u64> {
        let mut all = delays();
        for of_one in &self.delays {
            all.add(of_one).expect("both have the same limits");
        }
        all
    }

    /// From sent until the last subscriber had it, over all broadcasts that nobody lacks. Nanoseconds.
    pub(crate) fn until_last(&self) -> Histogram<u64> {
        let mut until_last = delays();
        for broadcast in self.broadcasts.iter().filter(|broadcast| broadcast.is_whole()) {
            until_last.saturating_record(broadcast.last_ns.saturating_sub(broadcast.sent_ns));
        }
        until_last
    }
}

fn event(stamp: &Stamp) -> String {
    format!("event {} of channel {}", stamp.sequence, stamp.channel)
}

impl Broadcast {
    /// Whether somebody has it and nobody lacks it.
    pub(crate) fn is_whole(&self) -> bool {
        self.received > 0 && self.missed == 0
    }

    /// From sent until that share of those who have it had it; of recorded arrivals only. Nanoseconds.
    pub(crate) fn until(&mut self, share: f64) -> Option<u64> {
        let last = self.arrivals.len().checked_sub(1)?;
        let rank = (self.arrivals.len() as f64 * share).ceil() as usize;
        let (_, at, _) = self
            .arrivals
            .select_nth_unstable(rank.saturating_sub(1).min(last));
        Some(at.saturating_sub(self.sent_ns))
    }

    /// Adds what another thread's sockets have of it.
    fn add(&mut self, other: &mut Broadcast) {
        self.missed += other.missed;
        if other.received == 0 {
            return;
        }
        if self.received == 0 {
            self.first_ns = u64::MAX;
        }
        self.sent_ns = self.sent_ns.max(other.sent_ns);
        self.received += other.received;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.arrivals.append(&mut other.arrivals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_stall_is_a_time_without_deliveries_while_something_was_due() {
        let mut account = Account::new(1);
        for (sent_ms, came_ms) in [
            (0, 1),
            (1_000, 1_002),
            (1_003, 1_060),
            (1_050, 1_061),
            (1_055, 1_062),
        ] {
            account.deliver(0, true, sent_ms * MS, came_ms * MS);
        }
        // Nothing was due between the first and the second.
        assert_eq!((account.stall_ns, account.stalled_at_ns), (57 * MS, 1_060 * MS));
        let sum = Account::sum([account]);
        assert_eq!(sum.stall_ns, 57 * MS);
        assert_eq!(sum.peaks_since(0), [(0.1, 0.001), (1.1, 0.057)]);
    }

    #[test]
    fn those_who_come_and_go_are_timed_apart() {
        let mut account = Account::new(1);
        account.deliver(0, true, 0, MS);
        account.deliver(0, false, 0, 9 * MS);
        assert_eq!(
            (
                account.delivered,
                account.all_delays().len(),
                account.visitors.len()
            ),
            (2, 1, 1)
        );
    }
}
