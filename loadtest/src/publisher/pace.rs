//! When events are published: at times of their own, or when others have arrived.

use std::time::Duration;

/// An open loop needs more connections than there are requests at a time.
const OPEN_LOOP_CONNECTIONS: usize = 64;

/// When the next event may be published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As soon as fewer than so many are in flight: from the request until every subscriber has the event.
    InFlight(usize),
    /// So many per second, whatever becomes of them. What is late is late from when it was due.
    PerSecond(f64),
}

impl Pace {
    /// Connections that it takes.
    pub(crate) fn connections(self) -> usize {
        match self {
            Pace::InFlight(events) => events.max(1),
            Pace::PerSecond(_) => OPEN_LOOP_CONNECTIONS,
        }
    }

    /// When an event is due that many nanoseconds after the first, if it is due at a time.
    pub(crate) fn due_ns(self, number: u64) -> Option<u64> {
        match self {
            Pace::InFlight(_) => None,
            Pace::PerSecond(per_s) => Some((number as f64 / per_s * 1e9) as u64),
        }
    }
}

/// How long until something is due, at least nothing and at most that.
pub(crate) fn until_due(due_ns: u64, now_ns: u64, at_most: Duration) -> Duration {
    Duration::from_nanos(due_ns.saturating_sub(now_ns)).min(at_most)
}
