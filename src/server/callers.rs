//! The connections that speak HTTP: how many there are, and who of them has been idle longest. They are API calls above
//! all, and have descriptors of their own that no socket takes away; in turn they are bounded. Who comes when there are
//! as many as may be sends the longest idle one away: a kept connection is a comfort, and a call is not. Only where
//! nobody is idle a call is refused.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// All of a node.
#[derive(Debug)]
pub(super) struct Callers {
    max: usize,
    count: AtomicUsize,
    /// By shard. Others look into it only to send somebody away.
    idle: Box<[Mutex<Idle>]>,
}

/// Those of one shard who are idle, the longest first. Whoever is no longer leaves a gap: a kept connection goes in and
/// out with each call, and nothing is to be moved or allocated for it.
#[derive(Debug, Default)]
struct Idle {
    next: u64,
    line: VecDeque<(u64, Option<Arc<Bell>>)>,
    gaps: usize,
}

impl Idle {
    /// Puts one at the end. The answer is its number.
    fn join(&mut self, bell: Arc<Bell>) -> u64 {
        if self.gaps > self.line.len() / 2 {
            self.line.retain(|(_, bell)| bell.is_some());
            self.gaps = 0;
        }
        let age = self.next;
        self.next += 1;
        self.line.push_back((age, Some(bell)));
        age
    }

    /// Takes one out. False: it is no longer there.
    fn leave(&mut self, age: u64) -> bool {
        if self.line.pop_back_if(|(last, _)| *last == age).is_some() {
            return true;
        }
        let Ok(place) = self.line.binary_search_by_key(&age, |(age, _)| *age) else {
            return false;
        };
        let bell = self.line.get_mut(place).and_then(|(_, bell)| bell.take());
        self.gaps += usize::from(bell.is_some());
        bell.is_some()
    }

    /// Takes out who has been there longest.
    fn first(&mut self) -> Option<Arc<Bell>> {
        while let Some((_, bell)) = self.line.pop_front() {
            match bell {
                Some(bell) => return Some(bell),
                None => self.gaps -= 1,
            }
        }
        None
    }
}

/// How an idle caller is told to go.
#[derive(Debug, Default)]
struct Bell {
    has_rung: AtomicBool,
    waker: AtomicWaker,
}

/// One connection.
pub(super) struct Caller {
    callers: Arc<Callers>,
    shard: usize,
    bell: Arc<Bell>,
    standing: Cell<Standing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    AtWork,
    /// Since this number, among those of its shard.
    Idle(u64),
    /// Sent away, and no longer counted.
    Gone,
}

impl Callers {
    /// Nobody yet, of so many.
    pub(super) fn new(max: usize, shards: usize) -> Arc<Callers> {
        Arc::new(Callers {
            max,
            count: AtomicUsize::new(0),
            idle: (0..shards).map(|_| Mutex::default()).collect(),
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// One more, with its first request; and whether there is room for it.
    pub(super) fn enter(self: &Arc<Self>, shard: usize) -> (Caller, bool) {
        let caller = Caller {
            callers: self.clone(),
            shard,
            bell: Arc::default(),
            standing: Cell::new(Standing::AtWork),
        };
        let has_room = self.count.fetch_add(1, Ordering::Relaxed) < self.max;
        (caller, has_room || self.send_away(shard))
    }

    fn idle(&self, shard: usize) -> MutexGuard<'_, Idle> {
        // It is whole after every statement.
        self.idle[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends away who of this shard has been idle longest, or of another one if nobody is. False: all are at work.
    fn send_away(&self, shard: usize) -> bool {
        let shards = self.idle.len();
        for shard in (shard..shards).chain(0..shard) {
            let longest = self.idle(shard).first();
            if let Some(bell) = longest {
                self.count.fetch_sub(1, Ordering::Relaxed);
                bell.has_rung.store(true, Ordering::Release);
                bell.waker.wake();
                return true;
            }
        }
        false
    }
}

impl Caller {
    /// Nothing is asked for at the moment.
    pub(super) fn rest(&self) {
        if self.standing.get() != Standing::AtWork {
            return;
        }
        let age = self.callers.idle(self.shard).join(self.bell.clone());
        self.standing.set(Standing::Idle(age));
    }

    /// A request has come. False: it was sent away at this very moment, so this one is its last.
    pub(super) fn work(&self) -> bool {
        if let Standing::Idle(age) = self.standing.get() {
            self.standing.set(match self.callers.idle(self.shard).leave(age) {
                true => Standing::AtWork,
                false => Standing::Gone,
            });
        }
        self.standing.get() != Standing::Gone
    }

    /// Whether it was sent away; if not, `waker` is woken when it is.
    pub(super) fn is_sent_away(&self, waker: &Waker) -> bool {
        self.bell.waker.register(waker);
        self.bell.has_rung.load(Ordering::Acquire)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.work() {
            self.callers.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sent_away(caller: &Caller) -> bool {
        caller.is_sent_away(Waker::noop())
    }

    #[test]
    fn who_has_been_idle_longest_goes_first_and_nobody_at_work() {
        let callers = Callers::new(3, 2);
        let [first, second, third] = [0, 1, 0].map(|shard| {
            let (caller, has_room) = callers.enter(shard);
            assert!(has_room);
            caller
        });
        assert!(!callers.enter(0).1, "all are at work");
        assert_eq!(callers.count(), 3, "who was refused has gone");
        for caller in [&second, &first, &third] {
            caller.rest();
        }
        assert!(first.work());
        first.rest();
        let (_fourth, has_room) = callers.enter(0);
        assert!(has_room);
        let sent_away = [&first, &second, &third].map(is_sent_away);
        assert_eq!(
            sent_away,
            [false, false, true],
            "of the own shard if there is one"
        );
        let (_fifth, _) = callers.enter(0);
        let (_sixth, has_room) = callers.enter(0);
        assert!(has_room);
        assert_eq!([&first, &second, &third].map(is_sent_away), [true; 3]);
        assert_eq!(callers.count(), 3);
        drop((first, second, third));
        assert_eq!(callers.count(), 3, "they were given up before");
    }

    #[test]
    fn the_line_is_no_longer_than_it_must_be() {
        let callers = Callers::new(usize::MAX, 1);
        let all: Vec<Caller> = (0..10).map(|_| callers.enter(0).0).collect();
        for _ in 0..100 {
            all.iter().for_each(Caller::rest);
            assert!(all.iter().all(Caller::work));
            assert!(callers.idle(0).line.len() <= 20);
        }
        all[3].rest();
        all[7].rest();
        all[5].rest();
        assert!(all[7].work());
        assert!(callers.send_away(0) && callers.send_away(0) && !callers.send_away(0));
        let sent_away: Vec<usize> = (0..10).filter(|index| is_sent_away(&all[*index])).collect();
        assert_eq!(sent_away, [3, 5]);
        drop(all);
        assert_eq!(callers.count(), 0);
    }

    #[test]
    fn who_is_sent_away_while_its_request_comes_is_served_once() {
        let callers = Callers::new(1, 1);
        let (first, _) = callers.enter(0);
        first.rest();
        let (_second, has_room) = callers.enter(0);
        assert!(has_room);
        assert!(!first.work(), "the last one");
        first.rest();
        assert!(!callers.enter(0).1, "it is no longer there to be sent away");
        drop(first);
        assert_eq!(callers.count(), 1);
    }
}
