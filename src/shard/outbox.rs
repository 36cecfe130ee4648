//! Bounded bytes that wait for one socket, whose peer reads more slowly than its channels speak.
//!
//! The bytes are shared with all other sockets that wait for them and never copied. Pings and pongs overtake data,
//! but only between frames; a close lets the frame in progress end and nothing follow it. While nothing waits nothing
//! is held. This is not a writer: it shows the bytes that are next and is told how many have left.

use std::{collections::VecDeque, io::IoSlice, mem};

use bytes::Bytes;

use crate::protocol::Frame;
use crate::protocol::frame::frame_boundary;

/// What a piece is charged beyond its bytes: its place in the queue, and a share in a buffer that may be far larger.
pub const PIECE_OVERHEAD_BYTES: usize = 64;

/// What became of a run that was to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It waits, or nothing of it was left to wait.
    Queued,
    /// It would exceed the bound: nothing was queued, and the socket is to be closed as slow.
    Slow,
    /// The socket is being closed: nothing was queued, nobody will miss it.
    Closing,
}

/// What waits for one socket.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Option<Box<Waiting>>,
    is_closing: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Data, the oldest first; only the first may be partly sent.
    pieces: VecDeque<Piece>,
    /// The charge of all pieces.
    bytes: usize,
    /// What overtakes data: at most one that is partly sent, one ping, one pong and one close.
    controls: VecDeque<Bytes>,
    /// So much of the first control is sent.
    control_bytes_sent: usize,
    /// So much of the first piece goes before the controls: the rest of the frame in progress when they came.
    bytes_before_controls: usize,
}

/// A run of whole frames, of which the first bytes may have been sent.
#[derive(Debug)]
struct Piece {
    run: Bytes,
    sent: usize,
}

impl Outbox {
    /// An outbox in which nothing waits.
    pub const fn new() -> Outbox {
        Outbox {
            waiting: None,
            is_closing: false,
        }
    }

    /// Whether nothing waits: only then may bytes be sent past the outbox.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// Whether a close has been asked for: nothing that is pushed now is queued. With [`Outbox::is_empty`]: the close
    /// frame has left.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// What the data in it is charged: the bytes still to be sent and [`PIECE_OVERHEAD_BYTES`] for each piece. Controls
    /// are not counted; there are never more than four, of at most 127 bytes.
    pub fn bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Queues a run of whole frames, of which `already_sent` bytes have left (possible only while nothing waits).
    ///
    /// The charge of all that waits may not exceed `bytes_max`; but if no data waits, one run of any size is taken:
    /// else an answer larger than the bound could never be given.
    pub fn push(&mut self, run: Bytes, already_sent: usize, bytes_max: usize) -> Pushed {
        debug_assert!(
            already_sent == 0 || self.is_empty(),
            "bytes were sent past others that wait"
        );
        if self.is_closing {
            return Pushed::Closing;
        }
        let piece = Piece {
            run,
            sent: already_sent,
        };
        if piece.rest().is_empty() {
            return Pushed::Queued;
        }
        let bytes = self.bytes() + piece.charge();
        if self.bytes() > 0 && bytes > bytes_max {
            return Pushed::Slow;
        }
        let waiting = self.waiting.get_or_insert_default();
        waiting.pieces.push_back(piece);
        waiting.bytes = bytes;
        Pushed::Queued
    }

    /// Queues a ping or pong before all data but the frame in progress, whatever the bound. It takes the place of one
    /// of its kind that has not begun to leave, so that a peer who pings without reading fills nothing.
    pub fn push_control(&mut self, frame: Frame) {
        if self.is_closing {
            return;
        }
        let waiting = self.waiting.get_or_insert_default();
        waiting.fix_place_of_controls();
        let frame = frame.into_bytes();
        let begun = usize::from(waiting.control_bytes_sent > 0);
        match waiting
            .controls
            .iter_mut()
            .skip(begun)
            .find(|older| older.first() == frame.first())
        {
            Some(older) => *older = frame,
            None => waiting.controls.push_back(frame),
        }
    }

    /// Queues the last words (whole frames, the close frame at their end) behind all that waits, whatever the bound:
    /// for a socket that has done nothing wrong. A second close changes nothing.
    pub fn close_behind(&mut self, last_words: Bytes) {
        if mem::replace(&mut self.is_closing, true) {
            return;
        }
        let piece = Piece {
            run: last_words,
            sent: 0,
        };
        let waiting = self.waiting.get_or_insert_default();
        waiting.bytes += piece.charge();
        waiting.pieces.push_back(piece);
    }

    /// Lets the frame in progress end, drops all else that waits and queues the last words (whole frames, the close
    /// frame at their end): for a socket that reads too slowly or breaks the rules. A second close changes nothing.
    pub fn close(&mut self, last_words: Bytes) {
        if mem::replace(&mut self.is_closing, true) {
            return;
        }
        let waiting = self.waiting.get_or_insert_default();
        waiting.fix_place_of_controls();
        waiting
            .controls
            .truncate(usize::from(waiting.control_bytes_sent > 0));
        waiting.controls.push_back(last_words);

        waiting
            .pieces
            .truncate(usize::from(waiting.bytes_before_controls > 0));
        if let Some(first) = waiting.pieces.front_mut() {
            // Copied, since the end of one frame would keep a whole run alive that others share.
            let end = first.sent + waiting.bytes_before_controls;
            first.run = Bytes::copy_from_slice(&first.run[first.sent..end]);
            first.sent = 0;
        }
        waiting.bytes = waiting.pieces.iter().map(Piece::charge).sum();
    }

    /// Fills `chunks` with what is to be sent next, in order, and says how many it filled.
    pub fn chunks<'a>(&'a self, chunks: &mut [IoSlice<'a>]) -> usize {
        let Some(waiting) = &self.waiting else { return 0 };
        let mut filled = 0;
        for (chunk, bytes) in chunks.iter_mut().zip(waiting.in_order()) {
            *chunk = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Takes out what has been sent: `sent` bytes from the front of what [`Outbox::chunks`] showed.
    pub fn advance(&mut self, mut sent: usize) {
        let Some(waiting) = &mut self.waiting else { return };
        while sent > 0 && !waiting.is_empty() {
            sent -= waiting.advance_one(sent);
        }
        debug_assert_eq!(sent, 0, "more was sent than waited");
        self.waiting.take_if(|waiting| waiting.is_empty());
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.controls.is_empty()
    }

    /// Settles, before a first control is queued, after which frame controls leave.
    fn fix_place_of_controls(&mut self) {
        if self.controls.is_empty() {
            self.bytes_before_controls = self.pieces.front().map_or(0, Piece::bytes_of_frame_in_progress);
        }
    }

    /// The bytes in the order in which they leave. No chunk is empty.
    fn in_order(&self) -> impl Iterator<Item = &[u8]> {
        let first = self.pieces.front().map_or(&[][..], Piece::rest);
        let (before, after) = first.split_at(self.bytes_before_controls);
        let controls = self.controls.iter().enumerate().map(|(at, control)| match at {
            0 => &control[self.control_bytes_sent..],
            _ => &control[..],
        });
        let others = self.pieces.iter().skip(1).map(Piece::rest);
        let chunks = [before].into_iter().chain(controls).chain([after]).chain(others);
        chunks.filter(|chunk| !chunk.is_empty())
    }

    /// Takes up to `sent` bytes out of what leaves first, and says how many it took.
    fn advance_one(&mut self, sent: usize) -> usize {
        if let Some(control) = self.controls.front()
            && self.bytes_before_controls == 0
        {
            let taken = sent.min(control.len() - self.control_bytes_sent);
            self.control_bytes_sent += taken;
            if self.control_bytes_sent == control.len() {
                self.controls.pop_front();
                self.control_bytes_sent = 0;
            }
            return taken;
        }
        let Some(first) = self.pieces.front_mut() else {
            return sent;
        };
        let due = if self.controls.is_empty() {
            first.rest().len()
        } else {
            self.bytes_before_controls
        };
        let taken = sent.min(due);
        first.sent += taken;
        self.bytes -= taken;
        self.bytes_before_controls = self.bytes_before_controls.saturating_sub(taken);
        if first.rest().is_empty() {
            self.pieces.pop_front();
            self.bytes -= PIECE_OVERHEAD_BYTES;
        }
        taken
    }
}

impl Piece {
    fn rest(&self) -> &[u8] {
        &self.run[self.sent..]
    }

    fn charge(&self) -> usize {
        self.rest().len() + PIECE_OVERHEAD_BYTES
    }

    /// What is left of the frame that has begun to leave; zero between frames.
    fn bytes_of_frame_in_progress(&self) -> usize {
        frame_boundary(&self.run, self.sent) - self.sent
    }
}

#[cfg(test)]
mod tests;
