//! Very many clients on one thread, as cheap as clients can be, so that the server and not they set the pace: one epoll,
//! one read buffer for all, one reading of the clock per read, and nothing allocated per message.
//!
//! `crowd.rs` has several of these threads. What arrived is told to the ledger; nothing here decides what it means.

pub(crate) mod account;
pub(crate) mod board;
mod client;
pub(crate) mod crowd;
mod ears;
mod end;
pub(crate) mod frames;
mod gaps;
mod ledger;
mod manners;
pub(crate) mod members;
pub(crate) mod rally;
pub(crate) mod stamp;
pub(crate) mod stream;
mod tally;
mod window;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::target::Target;

use self::board::Board;
pub(crate) use self::client::words;
use self::client::{Client, Stage};
use self::ears::Ears;
use self::end::End;
use self::frames::{Frame, Frames};
use self::ledger::Ledger;
use self::members::Members;
use self::rally::{Rally, Role};
use self::stamp::Finder;
use self::stream::Stream;

/// Connections of one thread on their way at once, unless it is told otherwise: far less than a listener's backlog.
pub(crate) const CONNECTING_MAX: usize = 256;
/// Sockets read before anybody looks at something else.
const EVENTS_MAX: usize = 64;
const BUFFER_BYTES: usize = 128 * 1024;
/// Stands for what is not a socket of the swarm.
const OTHER: u64 = u64::MAX;
/// How often is looked for clients that have heard nothing for long. Seconds.
const SWEEP_S: u32 = 5;
const EXAMPLES_MAX: usize = 5;

/// A client that is to come.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// Its number in the run.
    pub(crate) client: u32,
    /// What it subscribes to.
    pub(crate) channels: Vec<u32>,
    /// Whether broadcasts wait for it. It must then come while nothing is published, and stay.
    pub(crate) is_awaited: bool,
    /// What it does with events.
    pub(crate) role: Role,
}

/// What connecting came to.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// From the start of the connection until all subscriptions were acknowledged. Nanoseconds.
    pub(crate) handshakes: Histogram<u64>,
    /// From the start of the connection until the server's greeting. Nanoseconds.
    pub(crate) greetings: Histogram<u64>,
    /// Why connections failed or ended: a few, in words.
    pub(crate) ends: Vec<String>,
}

/// The clients of one thread.
pub(crate) struct Swarm {
    target: Arc<Target>,
    board: Arc<Board>,
    /// The number of this thread.
    thread: usize,
    epoll: OwnedFd,
    events: Vec<Event>,
    buffer: Vec<u8>,
    clients: Vec<Option<Client>>,
    vacant: Vec<usize>,
    waiting: VecDeque<Ticket>,
    /// Not live yet.
    on_their_way: usize,
    connecting_max: usize,
    pub(crate) ledger: Ledger,
    finder: Finder,
    arrivals: Arrivals,
    members: Members,
    rally: Rally,
    /// What fills the data of a client event up behind the stamp.
    padding: String,
    /// Clients that do not read any more.
    stalled: Vec<usize>,
    /// How long the others of them lasted. Nanoseconds.
    endured: Vec<u64>,
    nudged_ns: u64,
    handshake: Vec<u8>,
    hopeless: Option<String>,
    counts: Counts,
    /// After so long without anything, a client asks whether the server is still there.
    silence_max_s: u32,
    swept_s: u32,
}

#[derive(Debug, Default)]
struct Counts {
    live: u32,
    failed: u32,
    closed: u32,
    other: u64,
}

impl Swarm {
    pub(crate) fn new(
        target: Arc<Target>,
        board: Arc<Board>,
        thread: usize,
        ledger: Ledger,
    ) -> Result<Swarm> {
        Ok(Swarm {
            handshake: target.handshake(),
            target,
            board,
            thread,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; BUFFER_BYTES],
            clients: Vec::new(),
            vacant: Vec::new(),
            waiting: VecDeque::new(),
            on_their_way: 0,
            connecting_max: CONNECTING_MAX,
            ledger,
            finder: Finder::default(),
            arrivals: Arrivals::new(),
            members: Members::default(),
            rally: Rally::default(),
            padding: String::new(),
            stalled: Vec::new(),
            endured: Vec::new(),
            nudged_ns: 0,
            hopeless: None,
            counts: Counts::default(),
            silence_max_s: 120,
            swept_s: 0,
        })
    }

    /// Lets clients come, a few at a time, as [`Swarm::poll`] is called.
    pub(crate) fn admit(&mut self, tickets: impl IntoIterator<Item = Ticket>) {
        self.waiting.extend(tickets);
    }

    /// Sets how many may be on their way at once.
    pub(crate) fn set_connecting_max(&mut self, connecting_max: usize) {
        self.connecting_max = connecting_max.max(1);
    }

    /// Ends the clients of these numbers, without a word, and those that have not come yet.
    pub(crate) fn dismiss(&mut self, numbers: &Range<u32>) {
        self.waiting.retain(|ticket| !numbers.contains(&ticket.client));
        for index in 0..self.clients.len() {
            if let Some(client) = &self.clients[index]
                && numbers.contains(&client.number)
            {
                if client.is_live() {
                    self.counts.live -= 1;
                } else {
                    self.on_their_way -= 1;
                }
                if self.target.has_members() {
                    self.members.drop(client.number, self.board.now_ns());
                }
                self.stalled.retain(|stalled| *stalled != index);
                self.remove(index);
            }
        }
        self.post();
    }

    /// What connecting came to since this was last asked.
    pub(crate) fn take_arrivals(&mut self) -> Arrivals {
        mem::replace(&mut self.arrivals, Arrivals::new())
    }

    /// What the members of presence channels have seen so far.
    pub(crate) fn members(&self) -> Members {
        self.members.clone()
    }

    /// Lets [`Swarm::poll`] return for something else as well.
    pub(crate) fn also_wait_for(&self, other: impl AsFd) -> Result<()> {
        Ok(epoll::add(
            &self.epoll,
            other,
            EventData::new_u64(OTHER),
            EventFlags::IN,
        )?)
    }

    /// Waits for something to arrive, but no longer than it is told to, and works a few sockets.
    ///
    /// # Errors
    /// What makes it hopeless to go on, in words that say what to do.
    pub(crate) fn poll(&mut self, at_most: Duration) -> Result<()> {
        while self.on_their_way < self.connecting_max
            && let Some(ticket) = self.waiting.pop_front()
        {
            self.connect(ticket);
        }
        let at_most = self.ask_and_nudge(at_most);
        let mut events = mem::take(&mut self.events);
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut events),
            Some(&Timespec::try_from(at_most)?),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                OTHER => {}
                index => self.work(index as usize, event.flags),
            }
        }
        self.events = events;
        self.sweep();
        self.post();
        match self.hopeless.take() {
            Some(words) => bail!(words),
            None => Ok(()),
        }
    }

    /// Tells all threads how far this one is.
    fn post(&mut self) {
        let lane = self.board.lane(self.thread);
        lane.live.store(self.counts.live, Relaxed);
        lane.failed.store(self.counts.failed, Relaxed);
        lane.closed.store(self.counts.closed, Relaxed);
        lane.other.store(self.counts.other, Relaxed);
        let delivered = self.ledger.delivered() + self.rally.count();
        lane.delivered.store(delivered, Relaxed);
        for (channel, done) in self.ledger.settled() {
            lane.set_done(channel, done);
        }
    }

    fn connect(&mut self, ticket: Ticket) {
        let sources = &self.target.sources;
        let source = sources
            .get(ticket.client as usize % sources.len().max(1))
            .copied();
        let stream = match Stream::connect(self.target.address, source, self.target.tls.as_ref()) {
            Ok(stream) => stream,
            Err(error) => {
                self.counts.failed += 1;
                return self.tell(self.unconnected(&error));
            }
        };
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if let Err(error) = epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), flags) {
            self.hopeless = Some(format!("cannot watch a socket: {error}"));
            return;
        }
        let mut seats = ticket
            .channels
            .iter()
            .map(|channel| self.ledger.take_seat(*channel, ticket.is_awaited));
        let first = seats.next().unwrap_or_default();
        let count = seats.count() as u32 + u32::from(!ticket.channels.is_empty());
        let now_ns = self.board.now_ns();
        self.clients[index] = Some(Client {
            stream,
            stage: Stage::Connecting,
            frames: Frames::default(),
            seats: first..first + count,
            pending: count as u16,
            number: ticket.client,
            heard_s: (now_ns / 1_000_000_000) as u32,
            began_ns: now_ns,
            role: ticket.role,
            stalled_ns: None,
        });
        self.on_their_way += 1;
    }

    /// A socket can be read or written, or is over.
    #[inline]
    fn work(&mut self, index: usize, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if client.stalled_ns.is_some() {
            if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                self.endure(index);
            }
            return;
        }
        if matches!(client.stage, Stage::Connecting) {
            match client.stream.connected() {
                Ok(()) if !flags.contains(EventFlags::OUT) => return,
                Ok(()) => {
                    client.stage = Stage::Upgrading(Vec::new());
                    // What fails here fails at the next read too, and is told there.
                    let _ = client.stream.send(&self.handshake);
                }
                Err(error) => {
                    let end = self.unconnected(&error);
                    return self.end(index, end);
                }
            }
        } else if flags.contains(EventFlags::OUT) {
            let _ = client.stream.flush();
        }
        let is_ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if (is_ending || flags.contains(EventFlags::IN))
            && let Err(end) = self.read(index, is_ending)
        {
            self.end(index, end);
        }
    }

    /// Reads all that a socket has.
    #[inline]
    fn read(&mut self, index: usize, is_ending: bool) -> Result<(), End> {
        let mut buffer = mem::take(&mut self.buffer);
        let outcome = loop {
            let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else {
                break Ok(());
            };
            let length = match client.stream.read(&mut buffer) {
                Ok(0) => {
                    break Err(End::Ended(
                        "the server ended the connection without a word".to_owned(),
                    ));
                }
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => break Err(end::broke(&error)),
            };
            let is_all = length < buffer.len() && !is_ending && client.stream.is_read_at_once();
            if let Err(end) = self.take_in(index, &buffer[..length]) {
                break Err(end);
            }
            // Less than there was room for: the next arrival is an event of its own.
            if is_all {
                break Ok(());
            }
        };
        self.buffer = buffer;
        outcome
    }

    /// Takes in what one read gave.
    #[inline]
    fn take_in(&mut self, index: usize, mut input: &[u8]) -> Result<(), End> {
        let now_ns = self.board.now_ns();
        let Swarm {
            clients,
            ledger,
            finder,
            board,
            target,
            counts,
            arrivals,
            on_their_way,
            silence_max_s,
            members,
            rally,
            padding,
            ..
        } = self;
        let Some(client) = clients[index].as_mut() else {
            return Ok(());
        };
        client.heard_s = (now_ns / 1_000_000_000) as u32;
        if !client.is_live() {
            match client.upgrade(input)? {
                Some(rest) => input = rest,
                None => return Ok(()),
            }
        }
        let mut ears = Ears {
            ledger,
            board,
            target,
            counts,
            arrivals,
            members,
            on_their_way,
            silence_max_s,
        };
        let mut frames = mem::take(&mut client.frames);
        let (keep, mut end) = (client.keep(), None);
        let fed = frames.feed(input, keep, |frame| match frame {
            Frame::Text(text) => {
                if let Some(stamp) = finder.find(text) {
                    match client.role {
                        Role::Reads => {}
                        Role::Asks => return rally.answered(index, stamp.sequence, stamp.sent_ns, now_ns),
                        Role::Answers => return client.say_event(target, &stamp, padding),
                    }
                    ears.ledger
                        .arrive(client.seats.clone(), &stamp, now_ns, |channel| {
                            board.published(channel)
                        });
                    return;
                }
                if let Err(ended) = ears.hear(client, text, now_ns) {
                    end = end.take().or(Some(ended));
                }
            }
            Frame::Ping(payload) => client.pong(payload),
            Frame::Pong => {}
            Frame::Close(payload) => end = end.take().or_else(|| Some(end::closed(payload))),
        });
        client.frames = frames;
        match (fed, end) {
            (_, Some(end)) => Err(end),
            (Err(broken), None) => Err(end::broken(broken)),
            (Ok(()), None) => Ok(()),
        }
    }

    /// Clients that have heard nothing for long ask whether the server is still there, as the official ones do.
    #[inline]
    fn sweep(&mut self) {
        let now_s = (self.board.now_ns() / 1_000_000_000) as u32;
        if now_s < self.swept_s + SWEEP_S {
            return;
        }
        self.swept_s = now_s;
        for client in self.clients.iter_mut().flatten() {
            if client.is_live() && now_s.saturating_sub(client.heard_s) >= self.silence_max_s {
                client.say([r#"{"event":"pusher:ping","data":{}}"#]);
                // The next one if this is not answered.
                client.heard_s = now_s;
            }
        }
    }
}

impl Arrivals {
    fn new() -> Arrivals {
        Arrivals {
            handshakes: account::delays(),
            greetings: account::delays(),
            ends: Vec::new(),
        }
    }
}
