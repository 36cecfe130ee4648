//! What an app uses, told apart by days in UTC, and the quota of messages per day.
//!
//! Messages and the peak of connections are counted here. Deliveries and bytes are counted by the app's metrics anyway
//! and read off them whenever a day is settled, so that nothing is counted twice on the way of an event. Not here: a
//! clock (`now` is an argument), a store, and what is a message (whoever charges it knows).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use jiff::ToSpan;
use jiff::civil::{Date, date};

use super::store::UsageDay;
use crate::metrics::AppMetrics;

/// Days that are kept until a store has them, or for as long as they last if there is none.
pub const USAGE_DAYS_MAX: usize = 31;

const SECONDS_PER_DAY: i64 = 86_400;

/// A day in UTC, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u16);

impl Day {
    /// The day of a moment.
    pub fn of(now: Timestamp) -> Day {
        let days = now.as_second().div_euclid(SECONDS_PER_DAY);
        Day(u16::try_from(days.max(0)).unwrap_or(u16::MAX))
    }

    /// Its date.
    pub fn date(self) -> Date {
        date(1970, 1, 1).saturating_add(i64::from(self.0).days())
    }

    /// When the next one begins.
    pub fn ends(self) -> Timestamp {
        let second = (i64::from(self.0) + 1) * SECONDS_PER_DAY;
        Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
    }
}

/// The messages of the day are used up, or what is left is not enough. Nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverQuota {
    /// Messages per day.
    pub max: u64,
    /// Those of them that are left.
    pub left: u64,
    /// When the next day begins.
    pub until: Timestamp,
}

/// A number that belongs to a day, in eight bytes: 16 bits for the day, 48 for the number. A million messages per
/// second fill these in nine years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OfDay {
    day: Day,
    number: u64,
}

impl OfDay {
    const BITS: u32 = 48;
    const NUMBER_MAX: u64 = (1 << Self::BITS) - 1;

    fn unpack(packed: u64) -> OfDay {
        OfDay {
            day: Day((packed >> Self::BITS) as u16),
            number: packed & Self::NUMBER_MAX,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.day.0) << Self::BITS | self.number.min(Self::NUMBER_MAX)
    }
}

/// What counters said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Messages sent to sockets.
    pub delivered: u64,
    /// Bytes sent to sockets, and in answers of the API.
    pub bytes_sent: u64,
    /// Bytes that came in, from sockets and to the API.
    pub bytes_received: u64,
}

impl From<&AppMetrics> for Readings {
    fn from(metrics: &AppMetrics) -> Readings {
        Readings {
            delivered: metrics.ws_messages_sent_total.get(),
            bytes_sent: metrics.socket_transmitted_bytes.get() + metrics.http_transmitted_bytes.get(),
            bytes_received: metrics.socket_received_bytes.get() + metrics.http_received_bytes.get(),
        }
    }
}

/// What one app uses on this node.
#[derive(Debug)]
pub(super) struct Usage {
    /// Messages since the app is known here. Only grows, so that most apps need no clock to count.
    messages: AtomicU64,
    /// The present day, and the messages there were when it began.
    began: AtomicU64,
    /// Messages of a day that count as well: those of other nodes, and of this one before it was started.
    elsewhere: AtomicU64,
    /// Most connections at once, since the day was last settled for another.
    connections_peak: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// What was used up to the last look at the counters.
#[derive(Debug)]
struct Ledger {
    messages: u64,
    readings: Readings,
    /// The present day.
    today: UsageDay,
    /// What no store has yet, the oldest day first.
    unsaved: Vec<UsageDay>,
}

impl Usage {
    /// Of an app that is known since this day.
    pub(super) fn since(day: Day) -> Usage {
        Usage {
            messages: AtomicU64::new(0),
            began: AtomicU64::new(OfDay { day, number: 0 }.pack()),
            elsewhere: AtomicU64::new(0),
            connections_peak: AtomicU64::new(0),
            ledger: Mutex::new(Ledger {
                messages: 0,
                readings: Readings::default(),
                today: UsageDay::new(day.date()),
                unsaved: Vec::new(),
            }),
        }
    }

    /// Counts messages, unless the quota of the day does not allow all of them: then none. Exact under races: of what is
    /// accepted here on a day, there are never more than `max`. The clock is asked only if there is a quota.
    pub(super) fn charge(
        &self,
        count: u64,
        max: u64,
        now: impl FnOnce() -> Timestamp,
    ) -> Result<(), OverQuota> {
        // Relaxed is enough everywhere: the counts guard no other memory, and each step is one atomic change.
        if max == u64::MAX {
            self.messages.fetch_add(count, Ordering::Relaxed);
            return Ok(());
        }
        let began = self.turn(Day::of(now()));
        let max_here = max.saturating_sub(self.elsewhere(began.day));
        // Who still holds an earlier beginning refuses sooner, never later.
        let more = |messages: u64| {
            let today = messages.saturating_sub(began.number).checked_add(count)?;
            (today <= max_here).then(|| messages.wrapping_add(count))
        };
        let charged = self
            .messages
            .try_update(Ordering::Relaxed, Ordering::Relaxed, more);
        charged.map(drop).map_err(|messages| OverQuota {
            max,
            left: max_here.saturating_sub(messages.saturating_sub(began.number)),
            until: began.day.ends(),
        })
    }

    /// Messages counted here, on whatever day.
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// So many are connected.
    pub(super) fn note_connections(&self, connections: usize) {
        let connections = connections as u64;
        if connections > self.connections_peak.load(Ordering::Relaxed) {
            self.connections_peak.fetch_max(connections, Ordering::Relaxed);
        }
    }

    /// Begins a day, unless it has begun.
    ///
    /// A clock put back over midnight does not bring yesterday's quota back; one put back by more was wrong before.
    fn turn(&self, day: Day) -> OfDay {
        loop {
            let packed = self.began.load(Ordering::Relaxed);
            let began = OfDay::unpack(packed);
            if began.day == day || began.day.0.checked_sub(1) == Some(day.0) {
                return began;
            }
            let number = self.messages();
            let next = OfDay { day, number };
            let (relaxed, to) = (Ordering::Relaxed, next.pack());
            if self.began.compare_exchange(packed, to, relaxed, relaxed).is_ok() {
                return next;
            }
        }
    }

    fn elsewhere(&self, day: Day) -> u64 {
        let elsewhere = OfDay::unpack(self.elsewhere.load(Ordering::Relaxed));
        if elsewhere.day == day { elsewhere.number } else { 0 }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Whole after each change.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Books what was used since the last time, to the day that was open until now. The answer is what was used today, on
    /// this node since its start. To be called when a day ends, and now and then.
    pub(super) fn settle(
        &self,
        now: Timestamp,
        readings: Readings,
        connections: impl Fn() -> usize,
    ) -> UsageDay {
        let peak = || self.connections_peak.load(Ordering::Relaxed);
        let mut ledger = self.ledger();
        let began = self.turn(Day::of(now));
        let date = began.day.date();
        if ledger.today.day != date {
            // Who was charged first on the new day has begun it, to the message.
            ledger.book(began.number, readings, peak());
            ledger.today = UsageDay::new(date);
            self.connections_peak.store(0, Ordering::Relaxed);
        }
        // Who stays over midnight counts for the new day too.
        self.note_connections(connections());
        ledger.book(self.messages(), readings, peak());
        ledger.today.clone()
    }

    /// What no store has yet, the oldest day first.
    pub(super) fn unsaved(&self) -> Vec<UsageDay> {
        self.ledger().unsaved.clone()
    }

    /// The same, for whoever is going to save it.
    pub(super) fn take_unsaved(&self) -> Vec<UsageDay> {
        std::mem::take(&mut self.ledger().unsaved)
    }

    /// Whether all was taken that the counters tell.
    pub(super) fn is_saved(&self, readings: Readings) -> bool {
        let ledger = self.ledger();
        ledger.unsaved.is_empty() && ledger.messages == self.messages() && ledger.readings == readings
    }

    /// A store has so many messages of this day, among them all of this node but the unsaved ones.
    pub(super) fn set_messages_saved(&self, day: Day, saved: u64) {
        let ledger = self.ledger();
        let here = messages_on(day, std::slice::from_ref(&ledger.today));
        let unsaved = messages_on(day, &ledger.unsaved);
        let number = saved.saturating_sub(here.saturating_sub(unsaved));
        self.elsewhere
            .store(OfDay { day, number }.pack(), Ordering::Relaxed);
    }
}

impl Ledger {
    /// Books what was counted since the last time to the day that is open.
    fn book(&mut self, messages: u64, readings: Readings, connections_peak: u64) {
        let before = self.readings;
        let used = UsageDay {
            day: self.today.day,
            messages: messages.saturating_sub(self.messages),
            delivered: readings.delivered.saturating_sub(before.delivered),
            bytes_sent: readings.bytes_sent.saturating_sub(before.bytes_sent),
            bytes_received: readings.bytes_received.saturating_sub(before.bytes_received),
            connections_peak,
        };
        self.messages = messages.max(self.messages);
        self.readings = readings;
        let counted = used.messages | used.delivered | used.bytes_sent | used.bytes_received;
        if counted > 0 || used.connections_peak > self.today.connections_peak {
            self.today.add(&used);
            self.keep(used);
        }
    }

    fn keep(&mut self, used: UsageDay) {
        if let Some(kept) = self.unsaved.iter_mut().find(|kept| kept.day == used.day) {
            kept.add(&used);
            return;
        }
        if self.unsaved.len() == USAGE_DAYS_MAX {
            self.unsaved.remove(0);
        }
        self.unsaved.push(used);
    }
}

fn messages_on(day: Day, days: &[UsageDay]) -> u64 {
    let date = day.date();
    let found = days.iter().find(|used| used.day == date);
    found.map_or(0, |used| used.messages)
}

#[cfg(test)]
mod tests;
