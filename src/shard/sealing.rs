//! Sockets that are encrypted: what goes out to them is sealed in the shard's one buffer, what comes in is opened there.
//!
//! A record cannot be taken back once it is sealed, since the next one depends on it. So there is never more than one on
//! its way to a socket: what the socket did not take of it goes first (`Sealed::unsent`), and all else waits as it is, in
//! the outbox. What a send reports as taken is what was sealed.
//!
//! To open a record costs about what a message costs, whether it says anything or not, so records are heard like messages.

use std::io::{ErrorKind, IoSlice};
use std::mem;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, Interest, ReadBuf};

use super::core::Core;
use super::input::Worked;
use super::sockets::{SLICES_MAX, Sockets};
use super::wire::{send_gathered, send_plain};
use crate::hub::inbox::SocketKey;
use crate::tls::{RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES_MIN, Records};

/// The most that is read of one encrypted socket at a time: however little its records hold, they are hardly more than the
/// messages that are heard in a turn. Bytes.
const READ_BYTES_MAX: usize = 16 * 1024;

impl Sockets {
    /// Seals and sends, record by record, until all is taken or the socket takes no more. The answer is how much was
    /// sealed: nobody may send it again.
    pub(super) fn send_sealed(&mut self, key: SocketKey, pieces: &[IoSlice<'_>]) -> usize {
        let (mut records, mut gathered) = (mem::take(&mut self.records), mem::take(&mut self.gathered));
        let mut rest = Pieces { pieces, offset: 0 };
        let mut taken = 0;
        while let Some(bytes) = rest.next(&mut gathered) {
            let length = bytes.len();
            if !self.seal(key, bytes, &mut records) {
                break;
            }
            taken += length;
            if !self.send_records(key, &mut records) {
                break;
            }
        }
        (self.records, self.gathered) = (records, gathered);
        taken
    }

    /// Seals one record's worth. False: that cannot be, and the socket goes.
    fn seal(&mut self, key: SocketKey, bytes: &[u8], records: &mut Records) -> bool {
        let socket = self.get_mut(key);
        let Some(sealed) = socket.and_then(|socket| socket.sealed.as_mut()) else {
            return false;
        };
        let done = sealed.seal(bytes, records);
        if let Err(error) = &done {
            tracing::debug!(%error, "an encrypted socket cannot be written to any more");
            self.cut(key);
        }
        done.is_ok()
    }

    /// Sends records past nothing that waits. False: the socket did not take all of it, and the rest waits.
    fn send_records(&mut self, key: SocketKey, records: &mut Records) -> bool {
        let Some(socket) = self.get(key) else { return false };
        let sent = send_plain(socket.fd(), records.as_bytes());
        let is_all = sent == records.as_bytes().len();
        if !is_all {
            self.keep_unsent(key, Bytes::copy_from_slice(&records.as_bytes()[sent..]));
        }
        records.clear();
        is_all
    }

    /// These records go before all else that waits.
    fn keep_unsent(&mut self, key: SocketKey, records: Bytes) {
        let records = self.live.track(records);
        if let Some(sealed) = self.get_mut(key).and_then(|socket| socket.sealed.as_mut()) {
            sealed.unsent = records;
        }
        self.wait_for(key);
    }

    /// Sends what the rules of TLS have us answer: behind records that wait, and before all else.
    fn answer_sealed(&mut self, key: SocketKey, answers: &mut Records) {
        if answers.is_empty() {
            return;
        }
        if !self.is_blocked(key.slot) {
            self.send_records(key, answers);
            return;
        }
        // Answers are few: rustls counts what a peer provokes.
        let Some(sealed) = self.get(key).and_then(|socket| socket.sealed.as_ref()) else {
            return;
        };
        let all = [&sealed.unsent[..], answers.as_bytes()].concat();
        answers.clear();
        self.keep_unsent(key, all.into());
    }

    /// As [`Sockets::poll_drain`]: first the rest of a record, then what waits in the outbox, and the goodbye of TLS
    /// behind the last words. False: the connection is broken.
    pub(super) fn poll_drain_sealed(&mut self, key: SocketKey, cx: &mut Context<'_>) -> Poll<bool> {
        let (mut records, mut gathered) = (mem::take(&mut self.records), mem::take(&mut self.gathered));
        let polled = self.drain_sealed(key, &mut records, &mut gathered, cx);
        (self.records, self.gathered) = (records, gathered);
        polled
    }

    fn drain_sealed(
        &mut self,
        key: SocketKey,
        records: &mut Records,
        gathered: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            let Some(socket) = self.get_mut(key) else {
                return Poll::Ready(false);
            };
            let fd = socket.fd();
            let Some(sealed) = &mut socket.sealed else {
                return Poll::Ready(false);
            };
            if !sealed.unsent.is_empty() {
                ready!(socket.stream.poll_write_ready(cx)).unwrap_or_default();
                let write = || Ok(send_gathered(fd, &[IoSlice::new(&sealed.unsent)])?);
                match socket.stream.try_io(Interest::WRITABLE, write) {
                    Ok(sent) => sealed.unsent.advance(sent),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => {
                        self.cut(key);
                        return Poll::Ready(false);
                    }
                }
                continue;
            }
            // Gives back a buffer that its last byte has left.
            sealed.unsent = Bytes::new();
            if !socket.outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let filled = socket.outbox.chunks(&mut slices);
                let mut pieces = Pieces {
                    pieces: &slices[..filled],
                    offset: 0,
                };
                let bytes = pieces.next(gathered).unwrap_or_default();
                let (length, done) = (bytes.len(), sealed.seal(bytes, records));
                socket.outbox.advance(length);
                if done.is_err() {
                    self.cut(key);
                    return Poll::Ready(false);
                }
            } else if socket.outbox.is_closing() && !sealed.has_said_goodbye() {
                // Who cannot be told is not told.
                let _ = sealed.say_goodbye(records);
            } else {
                return Poll::Ready(true);
            }
            self.send_records(key, records);
        }
    }
}

/// Pieces that are to go out, and how far they have been taken.
struct Pieces<'a> {
    pieces: &'a [IoSlice<'a>],
    /// Of the first.
    offset: usize,
}

impl<'a> Pieces<'a> {
    /// Takes one record's worth out, put together in `gathered` where it is of several pieces. None: that was all.
    fn next<'b>(&mut self, gathered: &'b mut Vec<u8>) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        gathered.clear();
        while let [first, others @ ..] = self.pieces {
            let first: &'a [u8] = first;
            let rest = &first[self.offset..];
            let taken = rest.len().min(RECORD_BYTES_MAX - gathered.len());
            let is_whole = taken == rest.len();
            let bytes = &rest[..taken];
            (self.pieces, self.offset) = match is_whole {
                true => (others, 0),
                false => (self.pieces, self.offset + taken),
            };
            if gathered.is_empty() && (!is_whole || others.is_empty()) && taken > 0 {
                return Some(bytes);
            }
            gathered.extend_from_slice(bytes);
            if gathered.len() == RECORD_BYTES_MAX {
                break;
            }
        }
        (!gathered.is_empty()).then_some(gathered)
    }
}

impl Core {
    /// Reads once from an encrypted socket and works what came, as a plain one's input is. False: there may be more.
    pub(super) fn read_sealed(
        &mut self,
        key: SocketKey,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<(ControlFlow<(), Worked>, bool)> {
        const OVER: Poll<(ControlFlow<(), Worked>, bool)> = Poll::Ready((ControlFlow::Break(()), true));
        let Some(socket) = self.sockets.get_mut(key) else {
            return OVER;
        };
        let Some(sealed) = &mut socket.sealed else {
            return OVER;
        };
        let begun = sealed.partial().len();
        if sealed.is_over() || begun >= scratch.len() {
            self.lost(key);
            return OVER;
        }
        scratch[..begun].copy_from_slice(sealed.partial());
        let end = scratch.len().min(begun + READ_BYTES_MAX);
        let mut buffer = ReadBuf::new(&mut scratch[begun..end]);
        let read = ready!(Pin::new(&mut socket.stream).poll_read(cx, &mut buffer));
        let filled = begun + buffer.filled().len();
        if read.is_err() || filled == begun {
            self.lost(key);
            return OVER;
        }
        let is_all = filled < end;
        let mut opened = mem::take(&mut self.opened);
        // Hardly ever is there anything to answer.
        let mut answers = Records::default();
        let done = sealed.open(&mut scratch[..filled], &mut opened, &mut answers);
        self.heard += records_at_most(filled - sealed.partial().len(), opened.len());
        self.sockets.answer_sealed(key, &mut answers);
        // What was said before the end counts.
        let worked = match opened.is_empty() {
            true => ControlFlow::Continue(Worked::All),
            false => self.receive(key, &mut opened),
        };
        opened.clear();
        self.opened = opened;
        match done {
            Ok(()) => Poll::Ready((worked, is_all)),
            Err(error) => {
                tracing::debug!(%error, "an encrypted socket broke the rules of TLS");
                self.lost(key);
                OVER
            }
        }
    }
}

/// How many records so many bytes were, at most, that held so many. One at least: a read that completes none costs as well.
fn records_at_most(sealed_bytes: usize, opened_bytes: usize) -> u64 {
    let overhead = sealed_bytes.saturating_sub(opened_bytes);
    (overhead / RECORD_OVERHEAD_BYTES_MIN).max(1) as u64
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_come_out_whole_in_order_and_in_few_records(
            lengths in vec(prop_oneof![0..300_usize, 16_000..17_000_usize, 30_000..60_000_usize], 0..12),
        ) {
            let mut next = 0_u8;
            let all: Vec<Vec<u8>> = lengths.iter().map(|length| {
                next = next.wrapping_add(1);
                (0..*length).map(|at| next.wrapping_add(at as u8)).collect()
            }).collect();
            let slices: Vec<_> = all.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut pieces = Pieces { pieces: &slices, offset: 0 };
            let (mut gathered, mut taken, mut records) = (Vec::new(), Vec::new(), 0);
            while let Some(record) = pieces.next(&mut gathered) {
                prop_assert!(!record.is_empty() && record.len() <= RECORD_BYTES_MAX);
                taken.extend_from_slice(record);
                records += 1;
            }
            prop_assert_eq!(&taken, &all.concat());
            // Two records that follow each other are more than one record's worth, but for the last.
            prop_assert!(records <= 2 * taken.len().div_ceil(RECORD_BYTES_MAX));
        }
    }
}
