//! What waits for one endpoint, and in which order it goes there. Pure: no clock, no network, no lock.
//!
//! Events wait by channel. A channel whose events are on their way, or wait to be tried again, holds its later ones back:
//! so their order is kept, and nobody else is held up. The channels that may go stand in a line; a batch takes from its
//! front what fits. A batch stays what it is until it is delivered or given up, and goes on counting as waiting.

mod lanes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::body::Event;
use lanes::Lanes;

/// Events in one body happened within so much of each other, since they are given up together. As much earlier than
/// need be some of them are given up at worst.
const SPREAD_MAX: Duration = Duration::from_secs(30);
/// A batch takes no further event once its body is as large as this. Bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What the settings of the endpoint say about the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Events in a batch.
    pub(super) max_events: usize,
    /// How long an event waits for others.
    pub(super) max_delay: Duration,
    /// Requests on their way at once.
    pub(super) concurrency: usize,
    /// Time of one request.
    pub(super) timeout: Duration,
}

impl Terms {
    /// Half of the requests at most are such that failed before, so that what keeps failing leaves room for the rest.
    fn retries_max(&self) -> usize {
        self.concurrency.div_ceil(2)
    }
}

/// Events that go in one request, until they are delivered or given up.
#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    pub(super) events: Vec<Event>,
    /// Attempts that failed.
    pub(super) failed: u32,
    expires: Instant,
    /// Was given up before: its channels have gone on without it.
    is_redelivery: bool,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.events.iter().map(Event::bytes).sum()
    }

    /// Whether it has waited too long to be sent at all.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.expires <= now
    }
}

/// How a batch ended that was on its way.
#[derive(Debug)]
pub(super) enum Settled {
    Delivered,
    /// It will be tried again.
    Retried,
    /// It has been tried for long enough.
    GivenUp(Batch),
}

/// What waits for one endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointQueue {
    lanes: Lanes,
    /// By the time of the next attempt.
    retries: BTreeMap<(Instant, u64), Batch>,
    under_way: usize,
    retries_under_way: usize,
    events_under_way: usize,
    events: usize,
    bytes: usize,
    next_number: u64,
}

/// What goes next.
enum Next {
    Fresh,
    Retry(u64),
}

impl EndpointQueue {
    /// Events that wait, those on their way and those to be tried again included.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests on their way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Events on their way.
    pub(super) fn events_under_way(&self) -> usize {
        self.events_under_way
    }

    /// Requests that wait to be tried again.
    pub(super) fn retries(&self) -> usize {
        self.retries.len()
    }

    /// Takes an event in, behind those of its channel.
    pub(super) fn push(&mut self, event: Event, now: Instant) {
        self.events += 1;
        self.bytes += event.bytes();
        self.lanes.push(event, now);
    }

    /// Takes in what was given up before, to go at once, past the order of its channels.
    pub(super) fn redeliver(&mut self, events: Vec<Event>, expires: Instant, now: Instant) {
        let batch = self.batch(events, expires, true);
        self.events += batch.events.len();
        self.bytes += batch.bytes();
        self.retries.insert((now, batch.number), batch);
    }

    /// Has what failed be tried again at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        let retries = std::mem::take(&mut self.retries).into_iter();
        self.retries = retries
            .map(|((at, number), batch)| ((at.min(now), number), batch))
            .collect();
    }

    fn batch(&mut self, events: Vec<Event>, expires: Instant, is_redelivery: bool) -> Batch {
        self.next_number += 1;
        Batch {
            number: self.next_number,
            events,
            failed: 0,
            expires,
            is_redelivery,
        }
    }

    /// When [`EndpointQueue::take`] has something to give, which may have been long ago. None: not before something
    /// else happens.
    pub(super) fn due(&self, terms: &Terms) -> Option<Instant> {
        self.next(terms).map(|(at, _)| at)
    }

    fn next(&self, terms: &Terms) -> Option<(Instant, Next)> {
        if self.under_way >= terms.concurrency {
            return None;
        }
        let fresh = self.lanes.due(terms).map(|at| (at, Next::Fresh));
        let retry = self.retries.keys().next();
        let retry = retry.filter(|_| self.retries_under_way < terms.retries_max());
        let retry = retry.map(|&(at, number)| (at, Next::Retry(number)));
        match (fresh, retry) {
            (Some(fresh), Some(retry)) => Some(if retry.0 < fresh.0 { retry } else { fresh }),
            (fresh, retry) => fresh.or(retry),
        }
    }

    /// The batch that is to be sent now, to be given back by [`EndpointQueue::settle`]. One that has waited too long
    /// comes as well, to be given back by [`EndpointQueue::give_up`] instead.
    pub(super) fn take(&mut self, terms: &Terms, now: Instant) -> Option<Batch> {
        let (at, next) = self.next(terms)?;
        if at > now {
            return None;
        }
        let batch = match next {
            Next::Retry(number) => self.retries.remove(&(at, number))?,
            Next::Fresh => {
                let events = self.lanes.take(terms.max_events, now);
                let expires = events.iter().map(|event| event.expires).min()?;
                self.batch(events, expires, false)
            }
        };
        self.under_way += 1;
        self.events_under_way += batch.events.len();
        self.retries_under_way += usize::from(batch.failed > 0);
        Some(batch)
    }

    /// Takes a batch back that was sent. `random` is in `0.0..1.0`.
    pub(super) fn settle(
        &mut self,
        mut batch: Batch,
        is_delivered: bool,
        backoff: Backoff,
        terms: &Terms,
        random: f64,
        now: Instant,
    ) -> Settled {
        if is_delivered {
            self.give_up(batch, now);
            return Settled::Delivered;
        }
        match backoff.next(batch.failed + 1, random, terms.timeout, batch.expires, now) {
            Some(at) => {
                self.arrived(&batch);
                batch.failed += 1;
                self.retries.insert((at, batch.number), batch);
                Settled::Retried
            }
            None => {
                let mut batch = self.give_up(batch, now);
                batch.failed += 1;
                Settled::GivenUp(batch)
            }
        }
    }

    /// Takes a batch back that is not to be tried again; its channels go on.
    pub(super) fn give_up(&mut self, batch: Batch, now: Instant) -> Batch {
        self.arrived(&batch);
        self.events -= batch.events.len();
        self.bytes -= batch.bytes();
        if !batch.is_redelivery {
            self.lanes.release(&batch.events, now);
        }
        batch
    }

    fn arrived(&mut self, batch: &Batch) {
        self.under_way -= 1;
        self.events_under_way -= batch.events.len();
        self.retries_under_way -= usize::from(batch.failed > 0);
    }
}

#[cfg(test)]
mod tests;
