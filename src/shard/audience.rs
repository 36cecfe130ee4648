//! The subscribers of one channel on one shard: a dense array to walk, with O(1) joining and leaving, that may be
//! changed while a broadcast is working its way through it. Pure.
//!
//! While a run is at work positions stand still: who joins is behind its end, who leaves is blanked in place and
//! swept out afterwards. So nobody is skipped, served twice, or taken for somebody else, and a descriptor is never
//! used after its socket has left.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::rest::Rest;
use super::run::Run;
use crate::hub::channel::Channel;

/// One subscriber's place in the array: all that the hot loop needs, without a look at the socket itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Where to write, or [`Seat::BLANK`].
    pub(super) fd: RawFd,
    /// The socket's slot.
    pub(super) slot: u32,
    /// The subscription's place in the socket's own list.
    pub(super) place: u32,
}

impl Seat {
    const BLANK: RawFd = -1;

    /// Whether its subscriber has left.
    pub(super) fn is_blank(&self) -> bool {
        self.fd == Self::BLANK
    }
}

/// A frame that left the inbox and waits for its run.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Counts the shard's broadcasts.
    pub(super) number: u64,
    /// One finished frame.
    pub(super) bytes: Bytes,
    /// Positions from here on joined later and do not get it.
    pub(super) end: u32,
    /// The position that is left out.
    pub(super) except: Option<u32>,
    /// What it is charged in the inbox. Bytes.
    pub(super) charge: usize,
    /// When it was published.
    pub(super) published: Instant,
}

/// The subscribers of one channel on one shard.
#[derive(Debug)]
pub(super) struct Audience {
    /// Whose subscribers.
    pub(super) channel: Arc<Channel>,
    seats: Vec<Seat>,
    /// Positions blanked while a run is at work.
    blanks: Vec<u32>,
    /// Frames for the next run, in order.
    pub(super) waiting: Vec<Waiting>,
    /// The run at work.
    pub(super) run: Option<Run>,
    /// Whether the next run waits for more frames.
    pub(super) rest: Rest,
}

impl Audience {
    pub(super) fn new(channel: Arc<Channel>) -> Self {
        Audience {
            channel,
            seats: Vec::new(),
            blanks: Vec::new(),
            waiting: Vec::new(),
            run: None,
            rest: Rest::default(),
        }
    }

    /// The array, blanked places included.
    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The oldest frame that has not reached everybody.
    pub(super) fn oldest(&self) -> Option<u64> {
        let at_work = self.run.as_ref().map(|run| run.first);
        at_work.or_else(|| self.waiting.first().map(|frame| frame.number))
    }

    /// Whether it can be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.run.is_none() && self.waiting.is_empty()
    }

    /// Takes a subscriber in, behind everybody. The answer is its position.
    pub(super) fn join(&mut self, seat: Seat) -> u32 {
        self.seats.push(seat);
        (self.seats.len() - 1) as u32
    }

    /// Lets the subscriber at this position go. Whoever moved to close the gap is told by its new position.
    pub(super) fn leave(&mut self, position: u32) -> Option<(Seat, u32)> {
        // Frames that wait know positions too: nothing moves before they have been served.
        if self.run.is_some() || !self.waiting.is_empty() {
            self.seats[position as usize].fd = Seat::BLANK;
            self.blanks.push(position);
            return None;
        }
        self.close_gap(position)
    }

    fn close_gap(&mut self, position: u32) -> Option<(Seat, u32)> {
        self.seats.swap_remove(position as usize);
        self.seats.get(position as usize).map(|moved| (*moved, position))
    }

    /// Sweeps out what was blanked, once nothing waits or works. Calls back for each subscriber that moved.
    pub(super) fn sweep(&mut self, mut moved: impl FnMut(Seat, u32)) {
        if self.run.is_some() || !self.waiting.is_empty() {
            return;
        }
        // From the back: the last seat is then never a blank one that has its turn later.
        self.blanks.sort_unstable();
        while let Some(position) = self.blanks.pop() {
            if let Some((seat, position)) = self.close_gap(position) {
                moved(seat, position);
            }
        }
        if self.seats.capacity() > 64 && self.seats.len() < self.seats.capacity() / 4 {
            self.seats.shrink_to(self.seats.len() * 2);
        }
        self.blanks.shrink_to(16);
    }
}
