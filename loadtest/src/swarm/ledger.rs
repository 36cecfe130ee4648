//! Who has which message: what was delivered, how late, and what went wrong. One thread's sockets; the accounts of all
//! threads are added up (`account.rs`).
//!
//! Pure: it is told what arrived and when. It reads no clock and knows no socket.

#[cfg(test)]
mod model;

use std::mem;
use std::ops::Range;

use super::account::Account;
use super::gaps::Gaps;
use super::stamp::Stamp;
use super::tally::{Channel, Tally};
use super::window::{Place, Window};

/// One socket's subscription to one channel: its number in this ledger.
pub(crate) type Seat = u32;

/// A subscription.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    channel: u32,
    window: Window,
    state: State,
    /// Whether a broadcast waits for it: those who come and go while others publish are not waited for.
    is_awaited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not acknowledged yet.
    Asked,
    /// Acknowledged. What was on its way at that moment may or may not come.
    Joined,
    /// Ended.
    Left,
}

/// The book of one thread.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: u32,
    subscriptions: Vec<Subscription>,
    channels: Vec<Channel>,
    /// What subscriptions lack, other than what their windows know. Empty when all goes well.
    gaps: Gaps,
    /// Whether each arrival is recorded, for exact quantiles of single broadcasts.
    every_arrival: bool,
    /// Channels whose `done` is another since it was last asked for.
    moved: Vec<u32>,
    audiences: usize,
    account: Account,
}

impl Ledger {
    /// An empty book. Each channel belongs to an audience, whose deliveries are timed together.
    pub(crate) fn new(run: u32, audiences: &[usize], every_arrival: bool) -> Ledger {
        let count = audiences.iter().max().map_or(1, |most| most + 1);
        let channel = |audience: &usize| Channel {
            audience: *audience,
            ..Channel::default()
        };
        Ledger {
            run,
            subscriptions: Vec::new(),
            channels: audiences.iter().map(channel).collect(),
            gaps: Gaps::default(),
            every_arrival,
            moved: Vec::new(),
            audiences: count,
            account: Account::new(count),
        }
    }

    /// A seat for a subscription that is about to be asked for. Seats of one socket are taken one after the other.
    pub(crate) fn take_seat(&mut self, channel: u32, is_awaited: bool) -> Seat {
        self.subscriptions.push(Subscription {
            channel,
            window: Window::new(0),
            state: State::Asked,
            is_awaited,
        });
        self.subscriptions.len() as Seat - 1
    }

    /// The channel of a seat.
    pub(crate) fn channel_of(&self, seat: Seat) -> u32 {
        self.subscriptions[seat as usize].channel
    }

    /// A subscription is acknowledged, when so many events had been published to its channel. The answer is whether that
    /// is news. Awaited ones join while nothing is published.
    pub(crate) fn join(&mut self, seat: Seat, published: u32) -> bool {
        let subscription = &mut self.subscriptions[seat as usize];
        if subscription.state != State::Asked {
            return false;
        }
        subscription.state = State::Joined;
        subscription.window = Window::new(published);
        let channel = &mut self.channels[subscription.channel as usize];
        if subscription.is_awaited {
            channel.awaited += 1;
            channel.done = published;
            channel.open.clear();
            self.moved.push(subscription.channel);
        }
        true
    }

    /// A subscription ends: nothing more is owed to it.
    pub(crate) fn leave(&mut self, seat: Seat) {
        let own = &mut self.subscriptions[seat as usize];
        let (number, was_joined) = (own.channel, own.state == State::Joined);
        let is_awaited = own.is_awaited;
        own.state = State::Left;
        if !is_awaited || !was_joined {
            // What was only late is not waited for any more.
            self.gaps.overtake(seat, u32::MAX);
            return;
        }
        self.channels[number as usize].gone += 1;
        let end = self.channels[number as usize].end();
        self.overtake(seat, end, false);
        self.settle(number);
        self.moved.push(number);
    }

    /// An event has arrived at a socket, which has these seats. `published` tells how many events were published to a
    /// channel.
    #[inline]
    pub(crate) fn arrive(
        &mut self,
        seats: Range<Seat>,
        stamp: &Stamp,
        now_ns: u64,
        published: impl FnOnce(u32) -> u32,
    ) {
        let own = &mut self.subscriptions[seats.start as usize..seats.end as usize];
        let place = own
            .iter_mut()
            .zip(seats)
            .find(|(own, _)| own.channel == stamp.channel);
        let Some((own, seat)) = place.filter(|_| stamp.run == self.run) else {
            self.account
                .foreign(stamp, "of another run, or of a channel that the socket has not");
            return;
        };
        let published = published(stamp.channel);
        let is_next = own.state == State::Joined
            && self.gaps.is_empty()
            && stamp.sequence < published
            && own.window.advance(stamp.sequence);
        if is_next || self.arrive_oddly(seat, stamp, published) {
            self.enter(seat, stamp, now_ns);
        }
    }

    /// Whatever is not just the next one. The answer is whether it counts as delivered.
    #[cold]
    fn arrive_oddly(&mut self, seat: Seat, stamp: &Stamp, published: u32) -> bool {
        let own = &mut self.subscriptions[seat as usize];
        let sequence = stamp.sequence;
        if sequence >= published {
            self.account.foreign(stamp, "which was never published");
            return false;
        }
        match own.state {
            State::Asked => {
                self.account
                    .out_of_order(stamp, "before its subscription was acknowledged");
                return false;
            }
            State::Left => return false,
            State::Joined => {}
        }
        let gaps = &mut self.gaps;
        let place = own.window.take(sequence, |missing| gaps.wait(seat, missing));
        if place == Place::Known {
            match self.fill_gap(seat, sequence) {
                Some(true) => self
                    .account
                    .out_of_order(stamp, "after one that was sent when it had been accepted"),
                Some(false) => {}
                None => {
                    self.account.repeated(stamp);
                    return false;
                }
            }
        }
        self.overtake(seat, stamp.before.min(sequence), true);
        true
    }

    /// A subscription should have everything before that sequence by now: what it lacks is not waited for any more.
    fn overtake(&mut self, seat: Seat, before: u32, is_missed: bool) {
        let own = &mut self.subscriptions[seat as usize];
        let Subscription {
            channel, is_awaited, ..
        } = *own;
        let mut fresh: Vec<Range<u32>> = Vec::new();
        own.window.overtake(before, |missing| fresh.push(missing));
        fresh.extend(self.gaps.overtake(seat, before));
        for missing in fresh {
            for sequence in missing.clone() {
                let is_open = is_awaited && sequence >= self.channels[channel as usize].done;
                if is_open {
                    let tally = self.tally(channel, sequence);
                    tally.waived += 1;
                    tally.missed += u32::from(is_missed);
                }
            }
            if is_missed {
                self.gaps.miss(seat, missing);
                self.settle(channel);
            }
        }
    }

    /// One that was lacking has come after all. The answer is whether it was overtaken; nothing if it was not lacking.
    fn fill_gap(&mut self, seat: Seat, sequence: u32) -> Option<bool> {
        let is_overtaken = self.gaps.fill(seat, sequence)?;
        let Subscription {
            channel, is_awaited, ..
        } = self.subscriptions[seat as usize];
        let channel = &mut self.channels[channel as usize];
        if is_overtaken
            && is_awaited
            && let Some(place) = sequence.checked_sub(channel.done)
            && let Some(tally) = channel.open.get_mut(place as usize)
        {
            tally.waived -= 1;
            tally.missed -= 1;
        }
        Some(is_overtaken)
    }

    /// Enters a delivery that counts.
    #[inline]
    fn enter(&mut self, seat: Seat, stamp: &Stamp, now_ns: u64) {
        let Subscription {
            channel, is_awaited, ..
        } = self.subscriptions[seat as usize];
        let audience = self.channels[channel as usize].audience;
        self.account.deliver(audience, is_awaited, stamp.sent_ns, now_ns);
        // One that nobody was waiting for any more came late, and has been told of.
        if !is_awaited || stamp.sequence < self.channels[channel as usize].done {
            return;
        }
        let every_arrival = self.every_arrival;
        let tally = self.tally(channel, stamp.sequence);
        if tally.received == 0 {
            tally.sent_ns = stamp.sent_ns;
            tally.first_ns = now_ns;
        }
        tally.received += 1;
        tally.last_ns = now_ns;
        if every_arrival {
            tally.arrivals.push(now_ns);
        }
        let owed = tally.received + tally.waived;
        if owed >= self.channels[channel as usize].awaited {
            self.settle(channel);
        }
    }

    #[inline]
    fn tally(&mut self, channel: u32, sequence: u32) -> &mut Tally {
        let channel = &mut self.channels[channel as usize];
        let place = sequence.saturating_sub(channel.done) as usize;
        let waived = channel.gone;
        while channel.open.len() <= place {
            channel.open.push_back(Tally {
                waived,
                ..Tally::default()
            });
        }
        &mut channel.open[place]
    }

    /// Closes the broadcasts that nobody lacks any more.
    fn settle(&mut self, number: u32) {
        let channel = &mut self.channels[number as usize];
        let before = channel.done;
        while let Some(tally) = channel.open.front()
            && tally.received + tally.waived >= channel.awaited
        {
            if let Some(tally) = channel.open.pop_front() {
                self.account
                    .broadcasts
                    .push(tally.told(number, channel.done, channel.awaited));
            }
            channel.done += 1;
        }
        if channel.done != before {
            self.moved.push(number);
        }
    }

    /// The channels in which something was settled, each with how many of its broadcasts all awaited subscriptions of this
    /// thread have, or will never have.
    pub(crate) fn settled(&mut self) -> impl Iterator<Item = (u32, u32)> {
        let channels = &self.channels;
        self.moved.drain(..).map(|number| {
            let channel = &channels[number as usize];
            let is_empty = channel.awaited == channel.gone;
            (number, if is_empty { u32::MAX } else { channel.done })
        })
    }

    /// The 99th percentile of what was delivered since then, if anything was. Seconds.
    pub(crate) fn p99_s(&self) -> Option<f64> {
        let delays = self.account.all_delays();
        (!delays.is_empty()).then(|| delays.value_at_quantile(0.99) as f64 / 1e9)
    }

    /// Events delivered since the measurement began.
    pub(crate) fn delivered(&self) -> u64 {
        self.account.delivered
    }

    /// The measurement begins, after so many events in each channel: whatever was before it is forgotten.
    pub(crate) fn begin(&mut self, published: &[u32]) {
        self.gaps.clear();
        for own in &mut self.subscriptions {
            own.window = Window::new(published[own.channel as usize]);
        }
        for ((number, channel), published) in (0..).zip(&mut self.channels).zip(published) {
            channel.open.clear();
            channel.done = *published;
            self.moved.push(number);
        }
        self.account = Account::new(self.audiences);
    }

    /// The measurement ends: the account of it. `published` says how many events each channel has had, `void` which of
    /// them were refused and so are owed to nobody, in ascending order.
    pub(crate) fn account(&mut self, published: &[u32], void: &[Vec<u32>]) -> Account {
        for (seat, own) in (0..).zip(&mut self.subscriptions) {
            let end = published[own.channel as usize];
            if own.state == State::Joined {
                let gaps = &mut self.gaps;
                own.window.overtake(end, |missing| gaps.miss(seat, missing));
            }
        }
        let mut account = mem::replace(&mut self.account, Account::new(self.audiences));
        for (seat, missing) in self.gaps.drain() {
            let channel = self.subscriptions[seat as usize].channel;
            let void = &void[channel as usize];
            let before = |end: u32| void.partition_point(|sequence| *sequence < end);
            let void = before(missing.end) - before(missing.start);
            let lost = missing.len().saturating_sub(void) as u64;
            account.lost(lost, channel, &missing);
        }
        for (number, published) in (0..).zip(published) {
            // Of the last ones, this thread's sockets may have nothing at all.
            if self.channels[number as usize].awaited > 0 && self.channels[number as usize].end() < *published
            {
                self.tally(number, published - 1);
            }
            let channel = &mut self.channels[number as usize];
            for tally in channel.open.drain(..) {
                account
                    .broadcasts
                    .push(tally.told(number, channel.done, channel.awaited));
                channel.done += 1;
            }
            self.moved.push(number);
        }
        account
    }
}
