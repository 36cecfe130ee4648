//! What all threads of a run see: how many events each channel has had, and how far each thread's sockets are.
//!
//! Every number has one writer. Nobody decides on two of them together, so relaxed loads and stores do.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The numbers of a run.
#[derive(Debug)]
pub(crate) struct Board {
    epoch: Instant,
    /// Events published to each channel, requests under way included. Written by the publisher.
    published: Vec<AtomicU32>,
    lanes: Vec<Lane>,
}

/// One thread's numbers. Apart from the others, or each write would take a cache line from another core.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Lane {
    /// Sockets that have all their subscriptions.
    pub(crate) live: AtomicU32,
    /// Sockets that failed before they were live.
    pub(crate) failed: AtomicU32,
    /// Sockets that the server ended.
    pub(crate) closed: AtomicU32,
    /// Events delivered since the measurement began.
    pub(crate) delivered: AtomicU64,
    /// Messages of other kinds that live sockets got.
    pub(crate) other: AtomicU64,
    /// Per channel: so many of its broadcasts have all sockets of this thread that wait for them.
    done: Vec<AtomicU32>,
}

/// The lanes added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) live: u32,
    pub(crate) failed: u32,
    pub(crate) closed: u32,
    pub(crate) delivered: u64,
    pub(crate) other: u64,
}

impl Board {
    /// For so many channels and threads. Its epoch is now.
    pub(crate) fn new(channels: usize, threads: usize) -> Board {
        let lane = |_| Lane {
            live: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            closed: AtomicU32::new(0),
            delivered: AtomicU64::new(0),
            other: AtomicU64::new(0),
            done: (0..channels).map(|_| AtomicU32::new(u32::MAX)).collect(),
        };
        Board {
            epoch: Instant::now(),
            published: (0..channels).map(|_| AtomicU32::new(0)).collect(),
            lanes: (0..threads).map(lane).collect(),
        }
    }

    /// Nanoseconds since the epoch.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// A thread's numbers.
    pub(crate) fn lane(&self, thread: usize) -> &Lane {
        &self.lanes[thread]
    }

    /// How many channels.
    pub(crate) fn channels(&self) -> u32 {
        self.published.len() as u32
    }

    /// How many events a channel has had.
    pub(crate) fn published(&self, channel: u32) -> u32 {
        self.published
            .get(channel as usize)
            .map_or(0, |published| published.load(Relaxed))
    }

    /// How many events each channel has had.
    pub(crate) fn published_each(&self) -> Vec<u32> {
        self.published
            .iter()
            .map(|published| published.load(Relaxed))
            .collect()
    }

    /// Counts an event that is about to be published; the answer is its sequence. For the one publisher.
    pub(crate) fn publish(&self, channel: u32) -> u32 {
        let published = &self.published[channel as usize];
        let sequence = published.load(Relaxed);
        published.store(sequence + 1, Relaxed);
        sequence
    }

    /// Whether every socket that waits for it has this event.
    pub(crate) fn is_done(&self, channel: u32, sequence: u32) -> bool {
        let done = |lane: &Lane| lane.done[channel as usize].load(Relaxed) > sequence;
        self.lanes.iter().all(done)
    }

    /// Whether every socket has every event that it waits for.
    pub(crate) fn is_all_done(&self) -> bool {
        let is_done = |(channel, published): (u32, u32)| {
            published
                .checked_sub(1)
                .is_none_or(|last| self.is_done(channel, last))
        };
        (0..).zip(self.published_each()).all(is_done)
    }

    /// All threads together.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for lane in &self.lanes {
            totals.live += lane.live.load(Relaxed);
            totals.failed += lane.failed.load(Relaxed);
            totals.closed += lane.closed.load(Relaxed);
            totals.delivered += lane.delivered.load(Relaxed);
            totals.other += lane.other.load(Relaxed);
        }
        totals
    }
}

impl Lane {
    /// Sockets that have all their subscriptions.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// How far this thread's sockets are with a channel.
    #[inline]
    pub(crate) fn set_done(&self, channel: u32, done: u32) {
        self.done[channel as usize].store(done, Relaxed);
    }
}
