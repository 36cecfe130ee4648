//! Whatever joins, leaves, blocks and comes back in the middle of broadcasts: every subscriber gets what was published
//! while it was there, once, in order, and nobody else does.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::hub::channel::Topic;
use crate::metrics::Metrics;
use crate::protocol::ChannelName;

const SLOTS: u32 = 300;
const CHANNELS: usize = 5;
/// Each frame of the tests is its number, as four bytes.
const FRAME_BYTES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Join {
        slot: u32,
        channel: usize,
    },
    Leave {
        slot: u32,
        channel: usize,
    },
    /// The socket goes and another client gets its slot, with another descriptor.
    Replace {
        slot: u32,
    },
    /// Many at once, so that a channel is longer than a batch.
    Crowd {
        channel: usize,
        from: u32,
        count: u32,
    },
    Publish {
        channel: usize,
        except: Option<u32>,
    },
    Start,
    Work,
    /// Time passes.
    Pass {
        ms: u64,
    },
    /// A socket takes this many bytes and then no more, until it is drained.
    Block {
        slot: u32,
        bytes: usize,
    },
    Drain {
        slot: u32,
    },
    /// Somebody wants to know when all that was published by now has reached everybody.
    Barrier,
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..SLOTS;
    let channel = 0..CHANNELS;
    prop_oneof![
        3 => (slot.clone(), channel.clone()).prop_map(|(slot, channel)| Step::Join { slot, channel }),
        3 => (slot.clone(), channel.clone()).prop_map(|(slot, channel)| Step::Leave { slot, channel }),
        1 => slot.clone().prop_map(|slot| Step::Replace { slot }),
        1 => (channel.clone(), slot.clone(), 1..SLOTS)
            .prop_map(|(channel, from, count)| Step::Crowd { channel, from, count }),
        6 => (channel, proptest::option::of(slot.clone()))
            .prop_map(|(channel, except)| Step::Publish { channel, except }),
        3 => Just(Step::Start),
        6 => Just(Step::Work),
        2 => (0..6u64).prop_map(|ms| Step::Pass { ms }),
        1 => (slot.clone(), 0..40usize).prop_map(|(slot, bytes)| Step::Block { slot, bytes }),
        1 => slot.prop_map(|slot| Step::Drain { slot }),
        1 => Just(Step::Barrier),
    ]
}

/// Sockets that remember what they were sent.
struct Wire {
    /// By slot: the descriptor of the socket that has it now.
    fds: HashMap<u32, RawFd>,
    room: HashMap<u32, usize>,
    parked: HashMap<u32, Vec<u8>>,
    received: HashMap<RawFd, Vec<u8>>,
    /// By descriptor, for each channel: the last frame that was taken or parked.
    handed: HashMap<RawFd, [Option<u32>; CHANNELS]>,
    /// By frame.
    channel_of: Vec<usize>,
    positions: HashMap<(u32, u32), u32>,
    counted: BatchCounts,
    charge: usize,
    now: Instant,
}

use std::os::fd::RawFd;

impl Wire {
    fn last(&self, fd: RawFd, channel: usize) -> Option<u32> {
        self.handed.get(&fd).and_then(|last| last[channel])
    }

    fn hand(&mut self, fd: RawFd, frames: &[u8]) {
        let last = self.handed.entry(fd).or_default();
        for frame in frames.chunks(FRAME_BYTES) {
            let number = u32::from_be_bytes(frame.try_into().expect("whole frames are sent"));
            last[self.channel_of[number as usize]] = Some(number);
        }
    }

    fn take(&mut self, seat: Seat, bytes: &[u8]) -> usize {
        assert_eq!(
            self.fds.get(&seat.slot),
            Some(&seat.fd),
            "a descriptor is used after its socket has left"
        );
        self.hand(seat.fd, bytes);
        if self.parked.contains_key(&seat.slot) {
            return 0;
        }
        let room = self.room.get(&seat.slot).copied().unwrap_or(usize::MAX);
        let taken = bytes.len().min(room);
        if let Some(room) = self.room.get_mut(&seat.slot) {
            *room -= taken;
        }
        self.received
            .entry(seat.fd)
            .or_default()
            .extend_from_slice(&bytes[..taken]);
        taken
    }

    fn drain(&mut self, slot: u32) {
        self.room.remove(&slot);
        if let (Some(rest), Some(fd)) = (self.parked.remove(&slot), self.fds.get(&slot)) {
            self.received.entry(*fd).or_default().extend(rest);
        }
    }
}

impl Sink for Wire {
    fn send(&mut self, seat: Seat, bytes: &[u8]) -> usize {
        self.take(seat, bytes)
    }

    fn send_all(&mut self, seat: Seat, pieces: &[IoSlice<'_>]) -> usize {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.take(seat, &bytes)
    }

    fn park(&mut self, seat: Seat, frames: Bytes, sent: usize) -> bool {
        assert_eq!(frames.len() % FRAME_BYTES, 0, "whole frames are parked");
        self.hand(seat.fd, &frames);
        self.parked
            .entry(seat.slot)
            .or_default()
            .extend_from_slice(&frames[sent..]);
        true
    }

    fn moved(&mut self, seat: Seat, position: u32) {
        self.positions.insert((seat.slot, seat.place), position);
    }

    fn served(&mut self, _: &Channel, run: &Run) -> Instant {
        self.counted.messages += run.sent.messages;
        self.counted.bytes += run.sent.bytes;
        self.charge -= run.charge;
        self.now
    }
}

/// One membership: what it must hear, and whether it is over.
#[derive(Default)]
struct Membership {
    expected: Vec<u32>,
    is_over: bool,
}

/// What must have reached whom by the time that every frame below a number has been served.
struct Barrier {
    number: u64,
    /// Descriptor, channel, which of its memberships there, and the last frame it must have got.
    owed: Vec<(RawFd, usize, usize, u32)>,
}

struct World {
    fanout: Fanout,
    wire: Wire,
    channels: Vec<Arc<Channel>>,
    /// By descriptor and channel: memberships one after the other.
    memberships: HashMap<(RawFd, usize), Vec<Membership>>,
    seated: HashSet<(u32, usize)>,
    barriers: VecDeque<Barrier>,
    oldest: u64,
    next_fd: RawFd,
}

impl World {
    fn new() -> World {
        let metrics = Metrics::new("test", 0).expect("a legal prefix").app("1");
        let channels = (0..CHANNELS).map(|number| {
            let name = ChannelName::parse(&format!("channel-{number}"), 200).expect("a legal name");
            Arc::new(Channel::new(Topic::Channel(name), metrics.clone()))
        });
        World {
            fanout: Fanout::new(LiveBytes::default()),
            wire: Wire {
                fds: (0..SLOTS).map(|slot| (slot, 1_000 + slot as RawFd)).collect(),
                room: HashMap::new(),
                parked: HashMap::new(),
                received: HashMap::new(),
                handed: HashMap::new(),
                channel_of: Vec::new(),
                positions: HashMap::new(),
                counted: BatchCounts::default(),
                charge: 0,
                now: Instant::now(),
            },
            channels: channels.collect(),
            memberships: HashMap::new(),
            seated: HashSet::new(),
            barriers: VecDeque::new(),
            oldest: 0,
            next_fd: 100_000,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join { slot, channel } => self.join(slot, channel),
            Step::Leave { slot, channel } => self.leave(slot, channel),
            Step::Replace { slot } => {
                (0..CHANNELS).for_each(|channel| self.leave(slot, channel));
                self.wire.parked.remove(&slot);
                self.wire.room.remove(&slot);
                self.wire.fds.insert(slot, self.next_fd);
                self.next_fd += 1;
            }
            Step::Crowd { channel, from, count } => {
                (from..(from + count).min(SLOTS)).for_each(|slot| self.join(slot, channel));
            }
            Step::Publish { channel, except } => self.publish(channel, except),
            Step::Start => self.fanout.start(self.wire.now),
            Step::Work => self.fanout.work(&mut self.wire),
            Step::Pass { ms } => self.wire.now += Duration::from_millis(ms),
            Step::Block { slot, bytes } => {
                self.wire.room.entry(slot).or_insert(bytes);
            }
            Step::Drain { slot } => self.wire.drain(slot),
            Step::Barrier => self.barrier(),
        }
        self.pass_barriers();
    }

    fn barrier(&mut self) {
        let owed = self.seated.iter().filter_map(|(slot, channel)| {
            let fd = self.wire.fds[slot];
            let memberships = &self.memberships[&(fd, *channel)];
            let last = memberships.last()?.expected.last()?;
            Some((fd, *channel, memberships.len() - 1, *last))
        });
        self.barriers.push_back(Barrier {
            number: self.fanout.next_number(),
            owed: owed.collect(),
        });
    }

    /// Whoever stayed has got what it is owed behind the barriers that have been reached.
    fn pass_barriers(&mut self) {
        let oldest = self.fanout.oldest();
        assert!(oldest >= self.oldest, "what was served stays served");
        self.oldest = oldest;
        while let Some(barrier) = self.barriers.pop_front_if(|next| next.number <= oldest) {
            for (fd, channel, membership, last) in barrier.owed {
                assert!(
                    self.memberships[&(fd, channel)][membership].is_over
                        || self.wire.last(fd, channel) >= Some(last),
                    "a barrier was reached before frame {last} reached {fd}"
                );
            }
        }
    }

    fn join(&mut self, slot: u32, channel: usize) {
        if !self.seated.insert((slot, channel)) {
            return;
        }
        let fd = self.wire.fds[&slot];
        let seat = Seat {
            fd,
            slot,
            place: channel as u32,
        };
        let position = self.fanout.join(&self.channels[channel], seat);
        self.wire.positions.insert((slot, channel as u32), position);
        self.memberships
            .entry((fd, channel))
            .or_default()
            .push(Membership::default());
    }

    fn leave(&mut self, slot: u32, channel: usize) {
        if !self.seated.remove(&(slot, channel)) {
            return;
        }
        let position = self.wire.positions[&(slot, channel as u32)];
        self.fanout
            .leave(&self.channels[channel], position, &mut self.wire);
        let fd = self.wire.fds[&slot];
        let now = self
            .memberships
            .get_mut(&(fd, channel))
            .and_then(|all| all.last_mut());
        now.expect("it joined before").is_over = true;
    }

    fn publish(&mut self, channel: usize, except: Option<u32>) {
        let number = self.wire.channel_of.len() as u32;
        self.wire.channel_of.push(channel);
        let except = except.filter(|slot| self.seated.contains(&(*slot, channel)));
        let position = except.map(|slot| self.wire.positions[&(slot, channel as u32)]);
        let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
        if !self
            .fanout
            .broadcast(&self.channels[channel], bytes, position, 7, self.wire.now)
        {
            return;
        }
        self.wire.charge += 7;
        for (slot, _) in self
            .seated
            .iter()
            .filter(|(slot, at)| *at == channel && Some(*slot) != except)
        {
            let memberships = self.memberships.get_mut(&(self.wire.fds[slot], channel));
            let now = memberships.and_then(|all| all.last_mut()).expect("seated");
            now.expected.push(number);
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            match self.fanout.rests_until() {
                _ if self.fanout.is_busy() => {}
                Some(until) => self.wire.now = self.wire.now.max(until),
                None => break,
            }
            self.take(Step::Start);
            self.take(Step::Work);
        }
        let is_resting = self.fanout.rests_until().is_some();
        assert!(!self.fanout.is_busy() && !is_resting, "the work comes to an end");
        assert_eq!(self.fanout.oldest(), self.fanout.next_number());
        assert!(self.barriers.is_empty(), "every barrier is reached in the end");
        (0..SLOTS).for_each(|slot| self.wire.drain(slot));
    }

    fn check(&self) {
        let mut by_membership: HashMap<(RawFd, usize), Vec<u32>> = HashMap::new();
        for (fd, bytes) in &self.wire.received {
            for number in bytes.chunks(FRAME_BYTES) {
                let Ok(number) = number.try_into().map(u32::from_be_bytes) else {
                    continue;
                };
                by_membership
                    .entry((*fd, self.wire.channel_of[number as usize]))
                    .or_default()
                    .push(number);
            }
        }
        for (who, memberships) in &self.memberships {
            let mut received = by_membership
                .remove(who)
                .unwrap_or_default()
                .into_iter()
                .peekable();
            for membership in memberships {
                // Who leaves misses what had not yet been sent, from some point on; who stays misses nothing.
                let mut heard = 0;
                while let Some(number) = received.next_if(|next| membership.expected.get(heard) == Some(next))
                {
                    let _ = number;
                    heard += 1;
                }
                assert!(
                    membership.is_over || heard == membership.expected.len(),
                    "{who:?} missed something"
                );
            }
            assert_eq!(
                received.next(),
                None,
                "{who:?} got something twice, out of order or not for it"
            );
        }
        assert!(by_membership.is_empty(), "somebody got what it never joined");
        assert_eq!(self.wire.charge, 0, "every charge is given back");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn everybody_gets_what_was_published_while_there_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.take(step));
        world.settle();
        world.check();
        // All counted: a frame for each who was served, whether it was taken at once or waited.
        if !world.memberships.values().flatten().any(|membership| membership.is_over) {
            let expected: usize = world.memberships.values().flatten().map(|m| m.expected.len()).sum();
            prop_assert_eq!(world.wire.counted.messages, expected as u64);
        }
    }
}

#[test]
fn a_small_channel_overtakes_a_big_one_at_work() {
    let mut world = World::new();
    world.take(Step::Crowd {
        channel: 0,
        from: 0,
        count: SLOTS,
    });
    world.take(Step::Publish {
        channel: 0,
        except: None,
    });
    world.take(Step::Start);
    world.take(Step::Work);
    world.take(Step::Join {
        slot: 299,
        channel: 1,
    });
    world.take(Step::Publish {
        channel: 1,
        except: None,
    });
    world.take(Step::Start);
    world.take(Step::Work);
    world.take(Step::Work);
    let fd = world.wire.fds[&299];
    let first: Vec<u8> = world.wire.received[&fd]
        .iter()
        .copied()
        .take(FRAME_BYTES)
        .collect();
    assert_eq!(
        first,
        1_u32.to_be_bytes(),
        "the second publication, to the small channel, came first"
    );
    world.settle();
    world.check();
}

#[test]
fn frames_that_line_up_behind_a_run_leave_together() {
    let mut world = World::new();
    world.take(Step::Join { slot: 0, channel: 0 });
    for _ in 0..10 {
        world.take(Step::Publish {
            channel: 0,
            except: None,
        });
    }
    world.take(Step::Start);
    world.take(Step::Work);
    assert_eq!(
        world.wire.received[&world.wire.fds[&0]].len(),
        10 * FRAME_BYTES,
        "one batch, all ten"
    );
}

#[test]
fn a_barrier_is_reached_when_the_last_frame_before_it_has_been_served() {
    let mut world = World::new();
    let publish = |channel| Step::Publish {
        channel,
        except: None,
    };
    for channel in [0, 1] {
        world.take(Step::Crowd {
            channel,
            from: 0,
            count: SLOTS,
        });
    }
    assert_eq!(
        world.fanout.oldest(),
        world.fanout.next_number(),
        "nothing is at work"
    );
    world.take(publish(0));
    world.take(Step::Start);
    world.take(publish(0));
    let barrier = world.fanout.next_number();
    world.take(publish(1));
    world.take(publish(0));
    let last_before = 1;
    let lacks_it =
        |world: &World| (0..SLOTS).any(|slot| world.wire.last(world.wire.fds[&slot], 0) < Some(last_before));
    let mut turns = 0;
    while lacks_it(&world) {
        assert!(world.fanout.oldest() < barrier, "somebody still lacks it");
        world.take(Step::Start);
        world.take(Step::Work);
        turns += 1;
    }
    assert!(world.fanout.oldest() >= barrier, "everybody has it");
    assert!(turns >= 6, "two runs of three batches each, in {turns} turns");
    world.settle();
    world.check();
}

/// Publishes so many frames to a channel of three batches, a millisecond each, and says at which millisecond a frame
/// published right afterwards begins to leave.
fn next_run_begins_ms(frames: usize, step_ms: u64) -> u64 {
    let mut world = World::new();
    let publish = Step::Publish {
        channel: 0,
        except: None,
    };
    world.take(Step::Crowd {
        channel: 0,
        from: 0,
        count: SLOTS,
    });
    (0..frames).for_each(|_| world.take(publish.clone()));
    while world.wire.charge > 0 {
        world.take(Step::Start);
        world.take(Step::Work);
        world.wire.now += Duration::from_millis(step_ms);
    }
    let served = world.wire.now;
    world.take(publish);
    loop {
        world.take(Step::Start);
        if world.fanout.is_busy() {
            return (world.wire.now - served).as_millis() as u64;
        }
        world.wire.now += Duration::from_millis(1);
    }
}

#[test]
fn the_run_after_one_of_joined_frames_rests_twice_as_long_as_that_one_took() {
    // It took two steps from its first batch to its last one; a third has passed when the next frame comes.
    assert_eq!(next_run_begins_ms(2, 1), 3);
    assert_eq!(next_run_begins_ms(10, 1), 3);
    // Never more than six.
    assert_eq!(next_run_begins_ms(2, 5), 1);
}

#[test]
fn what_does_not_follow_joined_frames_never_waits() {
    assert_eq!(next_run_begins_ms(1, 1), 0, "one at a time");
    assert_eq!(next_run_begins_ms(2, 0), 0, "a run too short to be worth it");
}
