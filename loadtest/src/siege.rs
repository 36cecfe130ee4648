//! Clients that find no room: on a thread of their own they connect, are refused, and come back a second after they were
//! told, as pusher-js does. They come and stop coming as they are told to.
//!
//! They want nothing but a socket, and nobody's deliveries are told here.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::swarm::stream::Stream;
use crate::target::Target;

/// After a refusal with 4100, pusher-js comes back so much later, to the millisecond.
const COMES_BACK: Duration = Duration::from_secs(1);
/// Then it takes a connection for dead that has said nothing: twice as long as its last one took, and so much more. Its last
/// one took no time here.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long is waited at most before somebody looks at the time.
const TICK: Duration = Duration::from_millis(5);
const EVENTS_MAX: usize = 256;
const BUFFER_BYTES: usize = 4096;
/// Its answer to the close frame: masked, with the same code.
const GOODBYE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x10, 0x04];

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// Connections that were begun.
    pub(crate) begun: u64,
    /// Refused with 4100.
    pub(crate) refused: u64,
    /// Of these, told so late that pusher-js would have hung up before.
    pub(crate) late: u64,
    /// Let in, which was not meant.
    pub(crate) let_in: u64,
    /// Ended without a word.
    pub(crate) failed: u64,
}

impl Attempts {
    /// What has happened since.
    pub(crate) fn since(self, before: Attempts) -> Attempts {
        Attempts {
            begun: self.begun - before.begun,
            refused: self.refused - before.refused,
            late: self.late - before.late,
            let_in: self.let_in - before.let_in,
            failed: self.failed - before.failed,
        }
    }
}

#[derive(Debug, Default)]
struct Board {
    comes: AtomicBool,
    is_over: AtomicBool,
    begun: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    let_in: AtomicU64,
    failed: AtomicU64,
}

/// Clients that come again and again. Ended with this.
#[derive(Debug)]
pub(crate) struct Siege {
    board: Arc<Board>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Siege {
    /// So many clients, none of which has come yet.
    ///
    /// # Errors
    /// The system does not give what is needed.
    pub(crate) fn start(target: Arc<Target>, clients: usize) -> Result<Siege> {
        let board = Arc::new(Board::default());
        let work = Work {
            handshake: target.handshake(),
            target,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            board: board.clone(),
            clients: (0..clients).map(|_| None).collect(),
            resting: VecDeque::new(),
        };
        let thread = std::thread::Builder::new()
            .name("siege".to_owned())
            .spawn(move || work.run())?;
        Ok(Siege {
            board,
            thread: Some(thread),
        })
    }

    /// Lets them come, all within the first second, or come no more.
    pub(crate) fn come(&self, comes: bool) {
        self.board.comes.store(comes, Relaxed);
    }

    /// What has happened so far.
    pub(crate) fn attempts(&self) -> Attempts {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        Attempts {
            begun: count(&self.board.begun),
            refused: count(&self.board.refused),
            late: count(&self.board.late),
            let_in: count(&self.board.let_in),
            failed: count(&self.board.failed),
        }
    }

    /// It is over.
    ///
    /// # Errors
    /// What has kept it from going on.
    pub(crate) fn end(mut self) -> Result<Attempts> {
        self.board.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(worked) => worked?,
                Err(_) => bail!("the thread of those who are refused has ended"),
            }
        }
        Ok(self.attempts())
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.board.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection.
struct Attempt {
    stream: Stream,
    since: Instant,
    has_asked: bool,
    is_told: bool,
}

struct Work {
    target: Arc<Target>,
    handshake: Vec<u8>,
    epoll: OwnedFd,
    board: Arc<Board>,
    clients: Vec<Option<Attempt>>,
    /// When who comes, the first one first.
    resting: VecDeque<(Instant, usize)>,
}

impl Work {
    fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        let mut comes = false;
        while !self.board.is_over.load(Relaxed) {
            let now = Instant::now();
            if self.board.comes.load(Relaxed) != comes {
                comes = !comes;
                if comes {
                    self.line_up(now);
                }
            }
            while let Some((_, client)) = self.resting.pop_front_if(|(at, _)| *at <= now) {
                if comes {
                    self.begin(client, now)?;
                }
            }
            let next = self.resting.front().map(|(at, _)| *at);
            let wait = next.map_or(TICK, |next| {
                TICK.min(next.saturating_duration_since(Instant::now()))
            });
            match epoll::wait(
                &self.epoll,
                spare_capacity(&mut events),
                Some(&Timespec::try_from(wait)?),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                self.hear(event.data.u64() as usize, &mut buffer);
            }
        }
        Ok(())
    }

    /// Those who lost their sockets one after the other come one after the other.
    fn line_up(&mut self, now: Instant) {
        self.resting.clear();
        let count = self.clients.len();
        for (client, attempt) in self.clients.iter_mut().enumerate() {
            *attempt = None;
            let at = now + COMES_BACK.mul_f64(client as f64 / count as f64);
            self.resting.push_back((at, client));
        }
    }

    fn begin(&mut self, client: usize, now: Instant) -> Result<()> {
        let sources = &self.target.sources;
        let source = sources.get(client % sources.len().max(1)).copied();
        let stream = Stream::connect(self.target.address, source, self.target.tls.as_ref())?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(client as u64), flags)?;
        self.clients[client] = Some(Attempt {
            stream,
            since: now,
            has_asked: false,
            is_told: false,
        });
        self.board.begun.fetch_add(1, Relaxed);
        Ok(())
    }

    fn hear(&mut self, client: usize, buffer: &mut [u8]) {
        let Some(attempt) = &mut self.clients[client] else {
            return;
        };
        if !attempt.has_asked {
            attempt.has_asked = true;
            // What fails here fails at the read too.
            let _ = attempt.stream.send(&self.handshake);
        }
        loop {
            match attempt.stream.read(buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let has = |word: &[u8]| buffer[..length].windows(word.len()).any(|part| part == word);
                    if has(b"connection_established") {
                        self.board.let_in.fetch_add(1, Relaxed);
                        break;
                    }
                    if has(b"\"code\":4100") && !attempt.is_told {
                        attempt.is_told = true;
                        let late = attempt.since.elapsed() > PATIENCE;
                        self.board.refused.fetch_add(1, Relaxed);
                        self.board.late.fetch_add(late.into(), Relaxed);
                        let _ = attempt.stream.send(&GOODBYE);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        if !attempt.is_told {
            self.board.failed.fetch_add(1, Relaxed);
        }
        self.clients[client] = None;
        // Not to the millisecond after it was told, but after the end, which follows at once.
        self.resting.push_back((Instant::now() + COMES_BACK, client));
    }
}
