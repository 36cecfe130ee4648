//! The ledger against a model of it that remembers everything: whatever is published, refused, dropped, repeated, held
//! back or made up, and whoever comes and goes meanwhile, both count the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const RUN: u32 = 7;
const CHANNELS: u32 = 3;

/// Something that happens. Indexes are taken modulo of what there is.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        channel: u32,
    },
    /// The answer to a publication.
    Answer {
        index: usize,
        is_accepted: bool,
    },
    /// The next event that a subscription has not been sent.
    Next {
        seat: usize,
    },
    /// Any event.
    Deliver {
        seat: usize,
        event: usize,
    },
    /// As if nothing was lost for a while.
    Skip {
        seat: usize,
        count: usize,
    },
    OtherRun {
        seat: usize,
    },
    OtherChannel {
        seat: usize,
    },
    NeverPublished {
        seat: usize,
        by: u32,
    },
    /// A visitor asks for these channels.
    Come {
        channels: BTreeSet<u32>,
    },
    Acknowledge {
        seat: usize,
    },
    /// All of a socket's subscriptions end.
    Go {
        seat: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seat = || 0_usize..20;
    let step = prop_oneof![
        40 => (0..CHANNELS).prop_map(|channel| Step::Publish { channel }),
        40 => (0_usize..10, prop::bool::weighted(0.9)).prop_map(|(index, is_accepted)| Step::Answer { index, is_accepted }),
        90 => seat().prop_map(|seat| Step::Next { seat }),
        20 => (seat(), 0_usize..200).prop_map(|(seat, event)| Step::Deliver { seat, event }),
        4 => (seat(), 1_usize..5).prop_map(|(seat, count)| Step::Skip { seat, count }),
        1 => (seat(), 60_usize..80).prop_map(|(seat, count)| Step::Skip { seat, count }),
        1 => seat().prop_map(|seat| Step::OtherRun { seat }),
        1 => seat().prop_map(|seat| Step::OtherChannel { seat }),
        1 => (seat(), prop_oneof![Just(0_u32), 0_u32..100]).prop_map(|(seat, by)| Step::NeverPublished { seat, by }),
        2 => channels().prop_map(|channels| Step::Come { channels }),
        4 => seat().prop_map(|seat| Step::Acknowledge { seat }),
        1 => seat().prop_map(|seat| Step::Go { seat }),
    ];
    prop::collection::vec(step, 0..800)
}

fn channels() -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(0..CHANNELS, 1..=CHANNELS as usize)
}

/// A subscription as the model sees it.
#[derive(Debug)]
struct Known {
    socket: Range<Seat>,
    channel: u32,
    state: State,
    is_awaited: bool,
    from: u32,
    /// What was sent to it next, if nothing else is asked for.
    next: u32,
    has: BTreeSet<u32>,
    /// Should have come, and has not.
    missed: BTreeSet<u32>,
    /// Came although it had been missed.
    late: BTreeSet<u32>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    delivered: u64,
    lost: u64,
    repeated: u64,
    out_of_order: u64,
    foreign: u64,
}

struct Model {
    ledger: Ledger,
    seats: Vec<Known>,
    published: [u32; CHANNELS as usize],
    unanswered: Vec<(u32, u32)>,
    stamps: BTreeMap<(u32, u32), Stamp>,
    void: Vec<Vec<u32>>,
    counts: Counts,
    /// What the ledger says of each channel.
    done: BTreeMap<u32, u32>,
    now_ns: u64,
}

impl Model {
    fn new(awaited: &[BTreeSet<u32>]) -> Model {
        let mut model = Model {
            ledger: Ledger::new(RUN, &[0, 0, 1], true),
            seats: Vec::new(),
            published: [0; CHANNELS as usize],
            unanswered: Vec::new(),
            stamps: BTreeMap::new(),
            void: vec![Vec::new(); CHANNELS as usize],
            counts: Counts::default(),
            done: BTreeMap::new(),
            now_ns: 1,
        };
        for channels in awaited {
            for seat in model.come(channels, true) {
                model.acknowledge(seat as usize);
            }
        }
        model
    }

    fn come(&mut self, channels: &BTreeSet<u32>, is_awaited: bool) -> Range<Seat> {
        let first = self.seats.len() as Seat;
        let socket = first..first + channels.len() as Seat;
        for channel in channels {
            self.ledger.take_seat(*channel, is_awaited);
            self.seats.push(Known {
                socket: socket.clone(),
                channel: *channel,
                state: State::Asked,
                is_awaited,
                from: 0,
                next: 0,
                has: BTreeSet::new(),
                missed: BTreeSet::new(),
                late: BTreeSet::new(),
            });
        }
        socket
    }

    fn acknowledge(&mut self, seat: usize) {
        let known = &mut self.seats[seat];
        let published = self.published[known.channel as usize];
        let is_news = known.state == State::Asked;
        assert_eq!(self.ledger.join(seat as Seat, published), is_news);
        if is_news {
            (known.state, known.from, known.next) = (State::Joined, published, published);
        }
    }

    fn arrive(&mut self, seat: usize, stamp: &Stamp) {
        self.now_ns += 1;
        let published = self.published;
        let seats = self.seats[seat].socket.clone();
        self.ledger
            .arrive(seats, stamp, self.now_ns, |channel| published[channel as usize]);
    }

    fn deliver(&mut self, seat: usize, sequence: u32) {
        let known = &mut self.seats[seat];
        let Some(stamp) = self.stamps.get(&(known.channel, sequence)).copied() else {
            return;
        };
        known.next = known.next.max(sequence + 1);
        match known.state {
            State::Left => {}
            State::Asked => self.counts.out_of_order += 1,
            State::Joined if sequence < known.from => self.counts.delivered += 1,
            State::Joined if !known.has.insert(sequence) => self.counts.repeated += 1,
            State::Joined => {
                self.counts.delivered += 1;
                if known.missed.remove(&sequence) {
                    self.counts.out_of_order += 1;
                    known.late.insert(sequence);
                }
                let overtaken = known.from..stamp.before.min(sequence);
                known
                    .missed
                    .extend(overtaken.filter(|other| !known.has.contains(other)));
            }
        }
        self.arrive(seat, &stamp);
    }

    fn publish(&mut self, channel: u32) {
        let sequence = self.published[channel as usize];
        self.published[channel as usize] += 1;
        let of_channel = self.unanswered.iter().filter(|(other, _)| *other == channel);
        let stamp = Stamp {
            run: RUN,
            channel,
            sequence,
            before: of_channel
                .map(|(_, sequence)| *sequence)
                .min()
                .unwrap_or(sequence),
            sent_ns: self.now_ns,
        };
        self.stamps.insert((channel, sequence), stamp);
        self.unanswered.push((channel, sequence));
    }

    fn counterfeit(&mut self, seat: usize, change: impl FnOnce(&mut Stamp)) {
        let channel = self.seats[seat].channel;
        let mut stamp = Stamp {
            run: RUN,
            channel,
            sequence: self.published[channel as usize].saturating_sub(1),
            before: 0,
            sent_ns: self.now_ns,
        };
        change(&mut stamp);
        let seats = self.seats[seat].socket.clone();
        let has_channel = |seat: Seat| self.seats[seat as usize].channel == stamp.channel;
        // Whoever has all channels has no other one.
        let is_own = stamp.run == RUN && seats.into_iter().any(has_channel);
        if !is_own || stamp.sequence >= self.published[stamp.channel as usize] {
            self.counts.foreign += 1;
            self.arrive(seat, &stamp);
        }
    }

    fn go(&mut self, seat: usize) {
        for seat in self.seats[seat].socket.clone() {
            if self.seats[seat as usize].state != State::Left {
                self.seats[seat as usize].state = State::Left;
                self.ledger.leave(seat);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let count = self.seats.len();
        match *step {
            Step::Publish { channel } => self.publish(channel),
            Step::Answer { index, is_accepted } => {
                if self.unanswered.is_empty() {
                    return;
                }
                let (channel, sequence) = self.unanswered.remove(index % self.unanswered.len());
                if !is_accepted {
                    self.void[channel as usize].push(sequence);
                }
            }
            Step::Next { seat } => self.deliver(seat % count, self.seats[seat % count].next),
            Step::Deliver { seat, event } => {
                let published = self.published[self.seats[seat % count].channel as usize];
                self.deliver(seat % count, event as u32 % published.max(1));
            }
            Step::Skip { seat, count: by } => {
                let known = &mut self.seats[seat % count];
                let published = self.published[known.channel as usize];
                known.next = published.min(known.next + by as u32);
            }
            Step::OtherRun { seat } => self.counterfeit(seat % count, |stamp| stamp.run += 1),
            Step::OtherChannel { seat } => {
                self.counterfeit(seat % count, |stamp| {
                    stamp.channel = (stamp.channel + 1) % CHANNELS
                });
            }
            Step::NeverPublished { seat, by } => {
                self.counterfeit(seat % count, |stamp| {
                    stamp.sequence += by;
                    stamp.before = stamp.sequence;
                });
            }
            Step::Come { ref channels } => drop(self.come(channels, false)),
            Step::Acknowledge { seat } => self.acknowledge(seat % count),
            Step::Go { seat } => self.go(seat % count),
        }
        self.look();
    }

    fn look(&mut self) {
        let settled: Vec<_> = self.ledger.settled().collect();
        self.done.extend(settled);
    }

    /// What a subscription lacks that it is owed.
    fn lacking(&self, known: &Known) -> BTreeSet<u32> {
        match known.state {
            State::Asked => BTreeSet::new(),
            State::Left => known.missed.clone(),
            State::Joined => {
                let owed = known.from..self.published[known.channel as usize];
                owed.filter(|sequence| !known.has.contains(sequence)).collect()
            }
        }
    }

    /// Compares all there is.
    fn end(mut self) {
        self.look();
        for channel in 0..CHANNELS {
            let awaited = || {
                self.seats
                    .iter()
                    .filter(|known| known.is_awaited && known.channel == channel)
            };
            let waiting = awaited().filter(|known| known.state == State::Joined);
            let first = |known: &Known| {
                let has = |sequence: &u32| known.has.contains(sequence) || known.missed.contains(sequence);
                (known.from..).find(|sequence| !has(sequence)).unwrap_or_default()
            };
            let expected = waiting.map(first).min().unwrap_or(u32::MAX);
            if awaited().next().is_some() {
                assert_eq!(
                    self.done.get(&channel),
                    Some(&expected),
                    "channel {channel} is done so far"
                );
            }
        }
        self.void.iter_mut().for_each(|void| void.sort_unstable());
        for known in &self.seats {
            let void = &self.void[known.channel as usize];
            let lost = self
                .lacking(known)
                .into_iter()
                .filter(|sequence| !void.contains(sequence));
            self.counts.lost += lost.count() as u64;
        }
        let account = self.ledger.account(&self.published, &self.void);
        let counts = Counts {
            delivered: account.delivered,
            lost: account.lost,
            repeated: account.repeated,
            out_of_order: account.out_of_order,
            foreign: account.foreign,
        };
        assert_eq!(counts, self.counts);

        for channel in 0..CHANNELS {
            let awaited = || {
                self.seats
                    .iter()
                    .filter(|known| known.is_awaited && known.channel == channel)
            };
            if awaited().next().is_none() {
                continue;
            }
            let told: Vec<_> = account
                .broadcasts
                .iter()
                .filter(|told| told.channel == channel)
                .collect();
            assert_eq!(told.len(), self.published[channel as usize] as usize);
            for (broadcast, sequence) in told.into_iter().zip(0..) {
                assert_eq!(broadcast.sequence, sequence);
                // One that somebody had been given up for may have been closed before it came.
                if awaited().any(|known| known.late.contains(&sequence)) {
                    continue;
                }
                let received = awaited().filter(|known| known.has.contains(&sequence)).count();
                let missed = awaited()
                    .filter(|known| self.lacking(known).contains(&sequence))
                    .count();
                assert_eq!(
                    (broadcast.received as usize, broadcast.missed as usize),
                    (received, missed)
                );
                assert_eq!(broadcast.arrivals.len(), received);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_ledger_counts_what_a_model_counts(
        awaited in prop::collection::vec(channels(), 1..4),
        steps in steps(),
    ) {
        let mut model = Model::new(&awaited);
        for step in &steps {
            model.step(step);
        }
        model.end();
    }
}
