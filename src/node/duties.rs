//! What is due later: paced counts, users going offline after their grace, cached events that expire, apps to forget.
//!
//! A queue ordered by time, and one task on the control runtime that works it. Each channel has at most one count and
//! each leaving user at most one offline waiting per grace, so the number of duties is bounded by what is connected.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Node, now};
use crate::hub::cache::CachedEvent;
use crate::hub::channel::Channel;
use crate::hub::namespace::Namespace;
use crate::protocol::channel_name::ChannelName;

/// How often expired events of cache channels are looked for. They are not shown meanwhile.
const CACHE_TRIM_INTERVAL: Duration = Duration::from_secs(10);

/// One thing to do at a time that was set.
#[derive(Debug)]
pub(super) enum Duty {
    /// Tell the count of a big channel.
    TellCount(Arc<Namespace>, Arc<Channel>),
    /// Tell an app's back end the count of a big channel.
    ReportCount(Arc<Namespace>, Arc<Channel>),
    /// Tell watchers that a user is offline, if so.
    TellOffline(Arc<Namespace>, Arc<Channel>),
    /// Keep a cache channel's last event, which another node announced, if the relay has not brought a later one.
    Remember(Arc<Namespace>, ChannelName, CachedEvent),
}

#[derive(Debug)]
struct Due {
    at: Instant,
    /// Keeps duties of one instant in the order in which they were set.
    number: u64,
    duty: Duty,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What waits for its time.
#[derive(Debug, Default)]
pub(super) struct Duties {
    queue: Mutex<(u64, BinaryHeap<Reverse<Due>>)>,
    earlier: Notify,
}

impl Duties {
    /// Sets a duty. May be called under a channel's lock.
    pub(super) fn at(&self, at: Instant, duty: Duty) {
        let mut guard = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (numbers, queue) = &mut *guard;
        *numbers += 1;
        let first = queue.peek().is_none_or(|Reverse(next)| at < next.at);
        queue.push(Reverse(Due {
            at,
            number: *numbers,
            duty,
        }));
        if first {
            self.earlier.notify_one();
        }
    }

    /// The next duty whose time has come, or when to ask again.
    fn next(&self, now: Instant) -> Result<Duty, Option<Instant>> {
        let mut guard = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.1.peek() {
            Some(Reverse(due)) if due.at <= now => {}
            other => return Err(other.map(|Reverse(due)| due.at)),
        }
        guard.1.pop().map(|Reverse(due)| due.duty).ok_or(None)
    }
}

impl Node {
    /// Does what is due, for ever. Runs on the control runtime.
    pub async fn work_duties(&self) {
        let mut trim_at = now() + CACHE_TRIM_INTERVAL;
        loop {
            let now = now();
            if now >= trim_at {
                trim_at = now + CACHE_TRIM_INTERVAL;
                for namespace in self.hub.namespaces() {
                    self.hub.trim_cache(&namespace, now);
                }
                self.forget_unserved_apps();
            }
            match self.duties.next(now) {
                Ok(Duty::TellCount(namespace, channel)) => self.count_due(&namespace, &channel, now),
                Ok(Duty::ReportCount(namespace, channel)) => {
                    self.report_count_due(&namespace, &channel, now);
                }
                Ok(Duty::TellOffline(namespace, channel)) => self.offline_due(&namespace, &channel, now),
                Ok(Duty::Remember(namespace, name, event)) => {
                    self.remember(&namespace, &name, event, false, now);
                }
                Err(next) => {
                    let until = next.map_or(trim_at, |next| next.min(trim_at));
                    let sleep = tokio::time::sleep_until(until.into());
                    tokio::select! {
                        () = sleep => {}
                        () = self.duties.earlier.notified() => {}
                    }
                }
            }
        }
    }
}
