//! Fan-out: from frames that left the inbox to sends, in batches that take turns. Knows seats and bytes; how a
//! socket is written to, and what becomes of what it does not take, is the [`Sink`]'s part.
//!
//! - Consecutive frames of a channel become one [`Run`]: a subscriber costs one send for all of them.
//! - A turn that starts one run walks that channel's array (a sweep). A turn that starts several puts each run on the
//!   lists of its sockets, and then visits each socket once with all it must get (a round): a visit to a cold socket
//!   is what costs. Small channels come first in a round and are free again as soon as they are served.
//! - A channel has one run at work; later frames line up and become the next run. Per socket and channel the order is
//!   the order of publication, always; a small channel may overtake a big one at work, which is the purpose.
//! - While frames come faster than a big channel's runs go out, its next run rests a little, for more to join it.
//! - Sweeps and rounds take turns batch by batch, so nothing waits for more than a batch of each.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use super::audience::{Audience, Seat, Waiting};
use super::live::LiveBytes;
use super::run::{Run, Stretch};
use crate::hub::channel::{Channel, ChannelKey};
use crate::metrics::BatchCounts;

/// Sockets served before somebody else has a turn: about half a millisecond of the kernel's work.
const BATCH_SEATS: usize = 128;
/// The same bound for long runs, where copying into the kernel is the work. Bytes.
const BATCH_BYTES: usize = 1024 * 1024;
/// A batch that is about bytes serves this many all the same.
const BATCH_SEATS_MIN: usize = 4;
/// Slices of one gathered write; the kernel takes no more than 1,024, and few sockets have so many channels in a turn.
const SLICES_MAX: usize = 64;
/// A channel with more subscribers than this is walked by itself: to put all of them on a round's lists would take
/// longer than a batch.
const ROUND_SEATS_MAX: usize = 4096;

type Channels = std::collections::HashMap<ChannelKey, usize, foldhash::fast::RandomState>;

/// How sockets are written to.
pub(super) trait Sink {
    /// Writes to a socket at once. The answer is how much it took; less than all, and the rest is to be parked.
    fn send(&mut self, seat: Seat, bytes: &[u8]) -> usize;
    /// The same with several pieces.
    fn send_all(&mut self, seat: Seat, pieces: &[IoSlice<'_>]) -> usize;
    /// Keeps whole frames, of which `sent` bytes have left, until the socket takes more. False: it has no room for
    /// them either, and is given up.
    fn park(&mut self, seat: Seat, frames: Bytes, sent: usize) -> bool;
    /// A subscriber has moved to another position of its channel's array.
    fn moved(&mut self, seat: Seat, position: u32);
    /// A run was served to its last subscriber. The answer is the time.
    fn served(&mut self, channel: &Channel, run: &Run) -> Instant;
}

/// One socket of a round, with the head of the list of what it gets.
#[derive(Debug)]
struct Visit {
    seat: Seat,
    first: u32,
    last: u32,
}

/// One run for one socket of a round.
#[derive(Debug)]
struct Item {
    audience: u32,
    position: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// Several runs, each socket visited once.
#[derive(Debug)]
struct Round {
    visits: Vec<Visit>,
    items: Vec<Item>,
    cursor: usize,
    /// The runs with the last visit each of them is on, the first to finish at the end.
    unfinished: Vec<(usize, usize)>,
}

#[derive(Debug)]
enum Job {
    /// One run over its channel's array, from this position on.
    Sweep {
        audience: usize,
        cursor: u32,
    },
    Round(Round),
}

/// The subscribers of a shard by channel, and the broadcasts at work.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    audiences: Slab<Audience>,
    by_channel: Channels,
    jobs: VecDeque<Job>,
    /// Audiences with frames that wait and no run at work.
    ready: Vec<usize>,
    /// Audiences with frames that wait for more to join them.
    resting: Vec<usize>,
    /// While a round is put together: a slot's visit, by slot. Empty of meaning otherwise.
    visit_of: Vec<u32>,
    /// The number of the next broadcast.
    next_number: u64,
    live: LiveBytes,
}

impl Fanout {
    /// Nobody yet; the bytes of its runs are added to `live`.
    pub(super) fn new(live: LiveBytes) -> Fanout {
        Fanout {
            live,
            ..Fanout::default()
        }
    }

    /// Takes a subscriber in. The answer is its position in the channel's array.
    pub(super) fn join(&mut self, channel: &Arc<Channel>, seat: Seat) -> u32 {
        let audiences = &mut self.audiences;
        let audience = *self
            .by_channel
            .entry(channel.key)
            .or_insert_with(|| audiences.insert(Audience::new(channel.clone())));
        self.audiences[audience].join(seat)
    }

    /// Lets a subscriber go: nothing is sent to its seat from now on.
    pub(super) fn leave(&mut self, channel: &Channel, position: u32, sink: &mut impl Sink) {
        let Some(&audience) = self.by_channel.get(&channel.key) else {
            return;
        };
        if let Some((seat, position)) = self.audiences[audience].leave(position) {
            sink.moved(seat, position);
        }
        self.forget_if_idle(audience);
    }

    fn forget_if_idle(&mut self, audience: usize) {
        if self.audiences[audience].is_idle() {
            let gone = self.audiences.remove(audience);
            self.by_channel.remove(&gone.channel.key);
        }
    }

    /// The subscribers of a channel.
    pub(super) fn seats(&self, channel: &Channel) -> &[Seat] {
        self.by_channel
            .get(&channel.key)
            .map_or(&[], |&audience| self.audiences[audience].seats())
    }

    /// Takes a frame for all who are in the channel now, but one. False: nobody is.
    pub(super) fn broadcast(
        &mut self,
        channel: &Channel,
        bytes: Bytes,
        except: Option<u32>,
        charge: usize,
        published: Instant,
    ) -> bool {
        let Some(&index) = self.by_channel.get(&channel.key) else {
            return false;
        };
        let audience = &mut self.audiences[index];
        if audience.waiting.is_empty() && audience.run.is_none() {
            self.ready.push(index);
        }
        let end = audience.seats().len() as u32;
        let number = self.next_number;
        self.next_number += 1;
        audience.waiting.push(Waiting {
            number,
            bytes,
            end,
            except,
            charge,
            published,
        });
        true
    }

    /// The number that the next broadcast will have.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The number of the oldest broadcast that has not reached everybody; of the next one if all have.
    pub(super) fn oldest(&self) -> u64 {
        let at_work = self.jobs.iter().flat_map(|job| match job {
            Job::Sweep { audience, .. } => vec![*audience],
            Job::Round(round) => round.unfinished.iter().map(|(_, audience)| *audience).collect(),
        });
        let busy = at_work.chain(self.ready.iter().chain(&self.resting).copied());
        busy.filter_map(|index| self.audiences[index].oldest())
            .min()
            .unwrap_or(self.next_number)
    }

    /// Whether anything is at work or ready to begin.
    pub(super) fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || !self.ready.is_empty()
    }

    /// When the first rest of an audience is over: somebody must come back then.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        let over = |&index: &usize| self.audiences[index].rest.until();
        self.resting.iter().filter_map(over).min()
    }

    /// Begins the runs that are ready.
    pub(super) fn start(&mut self, now: Instant) {
        let mut ready = std::mem::take(&mut self.ready);
        ready.append(&mut self.resting);
        ready.retain(|&index| {
            let audience = &mut self.audiences[index];
            if audience.rest.goes_on(audience.waiting.len(), now) {
                self.resting.push(index);
                return false;
            }
            audience.run = Run::of(&mut audience.waiting, &self.live, now);
            audience.run.is_some()
        });
        // The smallest first: in a round, their sockets are then in the first batches.
        let size = |index: usize| self.audiences[index].seats().len();
        ready.sort_unstable_by_key(|&index| size(index));
        let small = ready.partition_point(|&index| size(index) <= ROUND_SEATS_MAX);
        match ready[..small] {
            [] => {}
            [audience] => self.jobs.push_back(Job::Sweep { audience, cursor: 0 }),
            _ => {
                let round = self.round(&ready[..small]);
                self.jobs.push_back(Job::Round(round));
            }
        }
        let big = ready[small..]
            .iter()
            .map(|&audience| Job::Sweep { audience, cursor: 0 });
        self.jobs.extend(big);
        ready.clear();
        self.ready = ready;
    }

    fn round(&mut self, audiences: &[usize]) -> Round {
        let mut round = Round {
            visits: Vec::new(),
            items: Vec::new(),
            cursor: 0,
            unfinished: Vec::new(),
        };
        for &index in audiences {
            let audience = &self.audiences[index];
            let end = audience.run.as_ref().map_or(0, Run::end);
            let mut last_visit = 0;
            for (position, seat) in audience.seats().iter().take(end as usize).enumerate() {
                if seat.is_blank() {
                    continue;
                }
                let slot = seat.slot as usize;
                if self.visit_of.len() <= slot {
                    self.visit_of.resize(slot + 1, NONE);
                }
                let item = round.items.len() as u32;
                round.items.push(Item {
                    audience: index as u32,
                    position: position as u32,
                    next: NONE,
                });
                match self.visit_of[slot] {
                    NONE => {
                        self.visit_of[slot] = round.visits.len() as u32;
                        last_visit = last_visit.max(round.visits.len());
                        round.visits.push(Visit {
                            seat: *seat,
                            first: item,
                            last: item,
                        });
                    }
                    visit => {
                        last_visit = last_visit.max(visit as usize);
                        let visit = &mut round.visits[visit as usize];
                        round.items[visit.last as usize].next = item;
                        visit.last = item;
                    }
                }
            }
            round.unfinished.push((last_visit, index));
        }
        for visit in &round.visits {
            self.visit_of[visit.seat.slot as usize] = NONE;
        }
        round.unfinished.sort_unstable_by(|a, b| b.cmp(a));
        round
    }

    /// Works one batch of the job whose turn it is.
    pub(super) fn work(&mut self, sink: &mut impl Sink) {
        let Some(job) = self.jobs.pop_front() else { return };
        let unfinished = match job {
            Job::Sweep { audience, cursor } => {
                let cursor = self.sweep(audience, cursor, sink);
                cursor.map(|cursor| Job::Sweep { audience, cursor })
            }
            Job::Round(round) => self.visit(round, sink).map(Job::Round),
        };
        self.jobs.extend(unfinished);
    }

    /// Serves the next seats of a sweep. The answer is where to go on.
    fn sweep(&mut self, index: usize, mut cursor: u32, sink: &mut impl Sink) -> Option<u32> {
        let audience = &mut self.audiences[index];
        let mut run = audience.run.take()?;
        let batch = (BATCH_BYTES / run.bytes.len().max(1)).clamp(BATCH_SEATS_MIN, BATCH_SEATS) as u32;
        let batch_end = cursor + batch;
        let goes_on = loop {
            if cursor >= batch_end {
                break cursor < run.end();
            }
            match run.stretch(cursor) {
                Stretch::End => break false,
                Stretch::Same {
                    until,
                    offset,
                    frames,
                } => {
                    let until = until.min(batch_end);
                    let bytes = &run.bytes[offset..];
                    let mut served = 0;
                    // The hot loop: one plain send each, from the same bytes.
                    for &seat in &audience.seats()[cursor as usize..until as usize] {
                        if seat.is_blank() {
                            continue;
                        }
                        let sent = sink.send(seat, bytes);
                        if sent == bytes.len() || sink.park(seat, run.bytes.slice(offset..), sent) {
                            served += 1;
                        }
                    }
                    run.sent.messages += served * frames;
                    run.sent.bytes += served * bytes.len() as u64;
                    cursor = until;
                }
                Stretch::Own(share, frames) => {
                    let seat = audience.seats()[cursor as usize];
                    if !seat.is_blank() {
                        let pieces: SmallVec<[Bytes; 2]> =
                            share.into_iter().map(|range| run.bytes.slice(range)).collect();
                        if send_pieces(sink, seat, &pieces) {
                            run.sent.messages += frames;
                            run.sent.bytes += bytes_of(&pieces);
                        }
                    }
                    cursor += 1;
                }
            }
        };
        audience.run = Some(run);
        if goes_on {
            return Some(cursor);
        }
        self.finish(index, sink);
        None
    }

    /// Serves the next sockets of a round. The answer is what is left of it.
    fn visit(&mut self, mut round: Round, sink: &mut impl Sink) -> Option<Round> {
        let end = round.visits.len().min(round.cursor + BATCH_SEATS);
        let mut bytes_sent = 0;
        let mut pieces: SmallVec<[Bytes; 16]> = SmallVec::new();
        let mut shares: SmallVec<[(usize, BatchCounts); 16]> = SmallVec::new();
        while round.cursor < end && bytes_sent < BATCH_BYTES as u64 {
            let visit = &round.visits[round.cursor];
            let mut next = visit.first;
            while next != NONE {
                let item = &round.items[next as usize];
                next = item.next;
                let audience = &self.audiences[item.audience as usize];
                // Blanked meanwhile: the socket left this channel, or left altogether.
                let seated = audience
                    .seats()
                    .get(item.position as usize)
                    .is_some_and(|seat| !seat.is_blank());
                let Some(run) = audience.run.as_ref().filter(|_| seated) else {
                    continue;
                };
                let (share, messages) = run.share(item.position);
                let bytes = share.iter().map(|range| range.len() as u64).sum();
                pieces.extend(share.into_iter().map(|range| run.bytes.slice(range)));
                shares.push((item.audience as usize, BatchCounts { messages, bytes }));
            }
            bytes_sent += bytes_of(&pieces);
            let is_counted = send_pieces(sink, visit.seat, &pieces);
            for (audience, share) in shares.drain(..) {
                if let Some(run) = self.audiences[audience].run.as_mut().filter(|_| is_counted) {
                    run.sent.messages += share.messages;
                    run.sent.bytes += share.bytes;
                }
            }
            pieces.clear();
            round.cursor += 1;
        }
        while let Some(&(last_visit, index)) = round.unfinished.last() {
            if last_visit >= round.cursor && round.cursor < round.visits.len() {
                break;
            }
            round.unfinished.pop();
            self.finish(index, sink);
        }
        (round.cursor < round.visits.len()).then_some(round)
    }

    /// A run was served to its last subscriber: its channel may move again, and begin the next one.
    fn finish(&mut self, index: usize, sink: &mut impl Sink) {
        let audience = &mut self.audiences[index];
        if let Some(run) = audience.run.take() {
            let now = sink.served(&audience.channel, &run);
            let took = now.saturating_duration_since(run.began);
            audience.rest.after(run.published.len(), took, now);
        }
        audience.sweep(|seat, position| sink.moved(seat, position));
        if audience.waiting.is_empty() {
            self.forget_if_idle(index);
        } else {
            self.ready.push(index);
        }
    }
}

fn bytes_of(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Writes pieces in as few calls as they need, and parks what the socket does not take. False: it is given up.
fn send_pieces(sink: &mut impl Sink, seat: Seat, pieces: &[Bytes]) -> bool {
    let mut is_full = false;
    for pieces in pieces.chunks(SLICES_MAX) {
        let mut sent = 0;
        if !is_full {
            sent = match pieces {
                [only] => sink.send(seat, only),
                _ => {
                    let slices: SmallVec<[IoSlice<'_>; 16]> =
                        pieces.iter().map(|piece| IoSlice::new(piece)).collect();
                    sink.send_all(seat, &slices)
                }
            };
        }
        for piece in pieces {
            let taken = sent.min(piece.len());
            sent -= taken;
            if taken < piece.len() {
                is_full = true;
                if !sink.park(seat, piece.clone(), taken) {
                    return false;
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests;
