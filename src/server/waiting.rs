//! Those who have connected to a shard and not yet asked for anything. There is room for so many: when it is full, the one
//! goes that has waited longest, so that no crowd that says nothing keeps others out. One timer is for all of them.
//!
//! Those on the porch who have said nothing yet stand in the same kind of [`Line`]. Knows nothing of what is asked, or of
//! what becomes of who has.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// While somebody waits, it is looked at least so often whether patience has become shorter.
const LOOK: Duration = Duration::from_secs(1);
/// When the server leaves, who has not asked yet has so long to do so.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Why a connection is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CalledOff {
    /// It has not asked for anything in time.
    TooLong,
    /// Of too many that wait, it has waited longest.
    TooMany,
}

/// The room, of one shard.
#[derive(Debug)]
pub(super) struct WaitingRoom {
    seats_max: usize,
    line: RefCell<Line>,
}

impl WaitingRoom {
    pub(super) fn new(seats_max: usize) -> Rc<WaitingRoom> {
        Rc::new(WaitingRoom {
            seats_max: seats_max.max(1),
            line: RefCell::default(),
        })
    }

    /// Lets a connection wait, until the answer is dropped.
    pub(super) fn sit(self: &Rc<Self>, now: Instant) -> Seated {
        let mut line = self.line.borrow_mut();
        if line.waiting == self.seats_max {
            line.call_off_oldest(CalledOff::TooMany);
        }
        let key = line.sit(now);
        if let Some(keeper) = line.keeper.take() {
            keeper.wake();
        }
        Seated {
            room: self.clone(),
            key,
        }
    }

    /// Calls off those who have waited for as long as `patience` says, which may change at any time. Runs for ever.
    pub(super) async fn keep(
        self: Rc<Self>,
        patience: impl Fn() -> Duration,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut closing_since = None;
        loop {
            poll_fn(|cx| self.line.borrow_mut().poll_somebody(cx)).await;
            let now = Instant::now();
            let patience = patience();
            let deadline = |since: Instant| {
                let last = closing_since.map(|closing: Instant| closing.max(since) + LAST_REQUESTS);
                last.map_or(since + patience, |last| last.min(since + patience))
            };
            let Some(next) = self.line.borrow_mut().expire(now, deadline) else {
                continue;
            };
            tokio::select! {
                () = sleep_until(next.min(now + LOOK)) => {}
                _ = closing.wait_for(|closing| *closing), if closing_since.is_none() => {
                    closing_since = Some(Instant::now());
                }
            }
        }
    }
}

/// A connection that waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Seated {
    room: Rc<WaitingRoom>,
    key: usize,
}

impl Seated {
    /// Ready when it is not waited for any longer.
    pub(super) fn poll_called_off(&self, cx: &mut Context<'_>) -> Poll<CalledOff> {
        self.room.line.borrow_mut().poll_called_off(self.key, cx)
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.room.line.borrow_mut().leave(self.key);
    }
}

/// No seat: there is none at this side.
const NONE: usize = usize::MAX;

/// Who waits, in the order of their coming: a list that is linked both ways, so that anybody can leave it.
#[derive(Debug)]
pub(super) struct Line {
    seats: Slab<Seat>,
    oldest: usize,
    newest: usize,
    /// Those who have not been called off.
    waiting: usize,
    /// Who is to be woken when somebody comes, while nobody waits.
    keeper: Option<Waker>,
}

#[derive(Debug)]
struct Seat {
    since: Instant,
    older: usize,
    newer: usize,
    waker: Option<Waker>,
    called_off: Option<CalledOff>,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            seats: Slab::new(),
            oldest: NONE,
            newest: NONE,
            waiting: 0,
            keeper: None,
        }
    }
}

impl Line {
    /// Puts one at the end, and tells its key.
    pub(super) fn sit(&mut self, since: Instant) -> usize {
        let older = self.newest;
        let key = self.seats.insert(Seat {
            since,
            older,
            newer: NONE,
            waker: None,
            called_off: None,
        });
        match self.seats.get_mut(older) {
            Some(older) => older.newer = key,
            None => self.oldest = key,
        }
        self.newest = key;
        self.waiting += 1;
        key
    }

    /// Takes one out. To be done for everybody, called off or not.
    pub(super) fn leave(&mut self, key: usize) {
        if self.seats[key].called_off.is_none() {
            self.unlink(key);
        }
        self.seats.remove(key);
        if self.seats.capacity() > 1024 && self.seats.len() < self.seats.capacity() / 8 {
            self.seats.shrink_to_fit();
        }
    }

    fn unlink(&mut self, key: usize) {
        let Seat { older, newer, .. } = self.seats[key];
        match self.seats.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.seats.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.waiting -= 1;
    }

    fn call_off_oldest(&mut self, why: CalledOff) {
        let key = self.oldest;
        self.unlink(key);
        let seat = &mut self.seats[key];
        seat.called_off = Some(why);
        if let Some(waker) = seat.waker.take() {
            waker.wake();
        }
    }

    /// Calls off those who have waited longest, until so many are about to leave, but nobody who has not waited for `least`.
    pub(super) fn make_room(&mut self, count: usize, now: Instant, least: Duration) {
        while self.seats.len() - self.waiting < count
            && let Some(oldest) = self.seats.get(self.oldest)
            && now.saturating_duration_since(oldest.since) >= least
        {
            self.call_off_oldest(CalledOff::TooMany);
        }
    }

    /// Calls off those whose deadline has come; one who came later has none that is earlier. The answer is the next one.
    fn expire(&mut self, now: Instant, deadline: impl Fn(Instant) -> Instant) -> Option<Instant> {
        loop {
            let next = deadline(self.seats.get(self.oldest)?.since);
            if next > now {
                return Some(next);
            }
            self.call_off_oldest(CalledOff::TooLong);
        }
    }

    /// Ready when the one with this key is not waited for any longer.
    pub(super) fn poll_called_off(&mut self, key: usize, cx: &mut Context<'_>) -> Poll<CalledOff> {
        let seat = &mut self.seats[key];
        if let Some(why) = seat.called_off {
            return Poll::Ready(why);
        }
        match &mut seat.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => seat.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn poll_somebody(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting > 0 {
            return Poll::Ready(());
        }
        self.keeper = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    impl Seated {
        fn called_off(&self) -> Option<CalledOff> {
            poll_fn(|cx| self.poll_called_off(cx)).now_or_never()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Sit,
        /// The one at this place among those who are there.
        Leave(usize),
        /// So much later, those go who have waited for ten.
        Later(u64),
        /// So many are to be on their way out, of those who have waited for five.
        MakeRoom(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Sit),
            2 => (0_usize..8).prop_map(Step::Leave),
            2 => (0_u64..8).prop_map(Step::Later),
            1 => (0_usize..4).prop_map(Step::MakeRoom),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Held against a plain list.
        #[test]
        fn who_has_waited_longest_goes_first(steps in steps()) {
            let (begun, patience) = (Instant::now(), Duration::from_secs(10));
            let mut now = begun;
            let room = WaitingRoom::new(3);
            let mut there: Vec<Seated> = Vec::new();
            // Who waits, by the key of the seat, and since when.
            let mut model: VecDeque<(usize, Instant)> = VecDeque::new();
            let mut called_off: Vec<(usize, CalledOff)> = Vec::new();
            for step in steps {
                match step {
                    Step::Sit => {
                        if model.len() == 3 {
                            let (oldest, _) = model.pop_front().expect("three");
                            called_off.push((oldest, CalledOff::TooMany));
                        }
                        let seated = room.sit(now);
                        model.push_back((seated.key, now));
                        there.push(seated);
                    }
                    Step::Leave(place) if place < there.len() => {
                        let key = there.remove(place).key;
                        model.retain(|(other, _)| *other != key);
                        called_off.retain(|(other, _)| *other != key);
                    }
                    Step::Leave(_) => {}
                    Step::MakeRoom(count) => {
                        let least = Duration::from_secs(5);
                        room.line.borrow_mut().make_room(count, now, least);
                        while called_off.len() < count
                            && let Some((oldest, _)) = model.pop_front_if(|(_, since)| *since + least <= now)
                        {
                            called_off.push((oldest, CalledOff::TooMany));
                        }
                    }
                    Step::Later(s) => {
                        now += Duration::from_secs(s);
                        let next = room.line.borrow_mut().expire(now, |since| since + patience);
                        while model.front().is_some_and(|(_, since)| *since + patience <= now) {
                            let (oldest, _) = model.pop_front().expect("there is one");
                            called_off.push((oldest, CalledOff::TooLong));
                        }
                        prop_assert_eq!(next, model.front().map(|(_, since)| *since + patience));
                    }
                }
                for seated in &there {
                    let expected = called_off.iter().find(|(key, _)| *key == seated.key);
                    prop_assert_eq!(seated.called_off(), expected.map(|(_, why)| *why));
                }
                prop_assert_eq!(room.line.borrow().waiting, model.len());
            }
            drop(there);
            prop_assert_eq!(room.line.borrow().seats.len(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_with_time_and_sooner_when_the_server_leaves() {
        let room = WaitingRoom::new(10);
        let (close, closing) = watch::channel(false);
        let work = async {
            let begun = Instant::now();
            let waits = |seated: Seated| {
                let begun = Instant::now();
                async move {
                    let why = poll_fn(|cx| seated.poll_called_off(cx)).await;
                    (why, begun.elapsed().as_millis())
                }
            };
            let first = waits(room.sit(begun)).await;
            assert_eq!(first, (CalledOff::TooLong, 10_000));
            let second = waits(room.sit(Instant::now()));
            tokio::time::sleep(Duration::from_secs(3)).await;
            close.send_replace(true);
            let (why, ms) = second.await;
            assert_eq!((why, ms), (CalledOff::TooLong, 4_000));
            let third = waits(room.sit(Instant::now())).await;
            assert_eq!(third, (CalledOff::TooLong, 1_000));
        };
        tokio::select! {
            () = room.clone().keep(|| Duration::from_secs(10), closing) => {}
            () = work => {}
        }
    }
}
