//! A run: the frames of one channel that one turn sends together, as contiguous bytes, so that a subscriber costs one
//! system call for all of them. Pure.
//!
//! Two things make a subscriber's share differ from the whole: it joined in the middle of the run (then it gets the
//! rest from there), or a frame leaves it out (`except`).

use std::ops::Range;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::audience::Waiting;
use super::live::LiveBytes;
use crate::metrics::BatchCounts;

/// A run is not made longer than this: one `send` of it should fit what a socket takes. Bytes.
const RUN_BYTES_MAX: usize = 128 * 1024;

/// Ranges of a run's bytes.
pub(super) type Share = SmallVec<[Range<usize>; 2]>;

/// Subscribers below `end` (and not below the group before) get the run from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    end: u32,
    offset: usize,
    frames: u64,
}

/// One position that a frame leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hole {
    position: u32,
    from: usize,
    to: usize,
}

/// What a stretch of subscribers has in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Up to this position (exclusive), everybody gets the bytes from `offset` on, which are this many frames.
    Same {
        /// First position that differs.
        until: u32,
        /// Where their share begins.
        offset: usize,
        /// How many frames it is.
        frames: u64,
    },
    /// This one subscriber gets these ranges.
    Own(Share, u64),
    /// Nobody further.
    End,
}

/// Frames of one channel, to be sent together.
#[derive(Debug)]
pub(super) struct Run {
    /// The number of its first frame.
    pub(super) first: u64,
    /// The frames, one behind the other.
    pub(super) bytes: Bytes,
    groups: SmallVec<[Group; 1]>,
    holes: SmallVec<[Hole; 1]>,
    /// What its frames are charged in the inbox. Bytes.
    pub(super) charge: usize,
    /// When each frame was published.
    pub(super) published: SmallVec<[Instant; 4]>,
    /// What has gone out, or waits in outboxes: frames and bytes, one of each for every subscriber.
    pub(super) sent: BatchCounts,
    /// When its first subscriber had its turn.
    pub(super) began: Instant,
}

impl Run {
    /// Takes as many frames from the front as fit one run.
    pub(super) fn of(waiting: &mut Vec<Waiting>, live: &LiveBytes, now: Instant) -> Option<Run> {
        let mut bytes_total = 0;
        let fits = waiting.iter().take_while(|frame| {
            bytes_total += frame.bytes.len();
            bytes_total <= RUN_BYTES_MAX
        });
        // One frame always goes, whatever its size.
        let count = fits.count().max(1).min(waiting.len());
        let mut run = Run {
            first: waiting.first()?.number,
            bytes: Bytes::new(),
            groups: SmallVec::new(),
            holes: SmallVec::new(),
            charge: 0,
            published: SmallVec::new(),
            sent: BatchCounts::default(),
            began: now,
        };
        let mut offset = 0;
        for (index, frame) in waiting[..count].iter().enumerate() {
            if run.groups.last().is_none_or(|group| group.end != frame.end) {
                run.groups.push(Group {
                    end: frame.end,
                    offset,
                    frames: (count - index) as u64,
                });
            }
            let to = offset + frame.bytes.len();
            if let Some(position) = frame.except {
                run.holes.push(Hole {
                    position,
                    from: offset,
                    to,
                });
            }
            run.charge += frame.charge;
            run.published.push(frame.published);
            offset = to;
        }
        run.holes.sort_unstable();
        let bytes = match waiting.get(..count)? {
            [] => return None,
            [only] => only.bytes.clone(),
            several => {
                let mut joined = BytesMut::with_capacity(offset);
                several
                    .iter()
                    .for_each(|frame| joined.extend_from_slice(&frame.bytes));
                joined.freeze()
            }
        };
        run.bytes = live.track(bytes);
        waiting.drain(..count);
        waiting.shrink_to(64);
        Some(run)
    }

    /// Positions from here on get nothing.
    pub(super) fn end(&self) -> u32 {
        self.groups.last().map_or(0, |group| group.end)
    }

    fn group(&self, position: u32) -> Option<&Group> {
        self.groups.iter().find(|group| position < group.end)
    }

    /// What the subscribers from this position on get.
    pub(super) fn stretch(&self, position: u32) -> Stretch {
        let Some(group) = self.group(position) else {
            return Stretch::End;
        };
        let hole = self.holes.partition_point(|hole| hole.position < position);
        match self.holes.get(hole) {
            Some(hole) if hole.position == position => {
                let (share, frames) = self.share_with_holes(*group, position);
                Stretch::Own(share, frames)
            }
            next => {
                let until = next.map_or(group.end, |hole| hole.position.min(group.end));
                Stretch::Same {
                    until,
                    offset: group.offset,
                    frames: group.frames,
                }
            }
        }
    }

    /// What the subscriber at this position gets, and how many frames that is.
    pub(super) fn share(&self, position: u32) -> (Share, u64) {
        match self.stretch(position) {
            Stretch::Same { offset, frames, .. } => {
                (SmallVec::from_elem(offset..self.bytes.len(), 1), frames)
            }
            Stretch::Own(share, frames) => (share, frames),
            Stretch::End => (Share::new(), 0),
        }
    }

    fn share_with_holes(&self, group: Group, position: u32) -> (Share, u64) {
        let mut share = Share::new();
        let mut frames = group.frames;
        let mut from = group.offset;
        let first = self.holes.partition_point(|hole| hole.position < position);
        for hole in self.holes[first..]
            .iter()
            .take_while(|hole| hole.position == position)
        {
            if hole.from < group.offset {
                continue;
            }
            frames -= 1;
            if from < hole.from {
                share.push(from..hole.from);
            }
            from = hole.to;
        }
        if from < self.bytes.len() {
            share.push(from..self.bytes.len());
        }
        (share, frames)
    }
}
