//! Channels that become occupied and vacated: a few sockets on a thread of their own subscribe to one channel after the
//! other, each with a name that was never used, and leave it soon after. The apps that it happens in take turns.
//!
//! Nothing is published to these channels, and nobody's deliveries are told here.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::swarm::frames::{Frame, Frames, put_pong, put_text};
use crate::swarm::stream::Stream;
use crate::swarm::words;
use crate::target::Target;

/// Sockets in each app.
const SOCKETS: usize = 16;
/// So long somebody is in each channel.
pub(crate) const STAY: Duration = Duration::from_millis(300);
/// How long is waited at most before somebody looks whether anything has changed.
const TICK: Duration = Duration::from_millis(20);
/// So long at most until a socket is greeted.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// The numbers in names of channels have six digits.
const NUMBERS: u32 = 1_000_000;
const BUFFER_BYTES: usize = 64 * 1024;
/// Nobody's turn.
const NOBODY: usize = usize::MAX;

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turns {
    pub(crate) occupied: u64,
    pub(crate) vacated: u64,
    /// Subscriptions that were acknowledged.
    pub(crate) acknowledged: u64,
}

impl Turns {
    /// What has happened since.
    pub(crate) fn since(self, before: Turns) -> Turns {
        Turns {
            occupied: self.occupied - before.occupied,
            vacated: self.vacated - before.vacated,
            acknowledged: self.acknowledged - before.acknowledged,
        }
    }
}

#[derive(Debug)]
struct Board {
    /// The app whose turn it is.
    turn: AtomicUsize,
    occupied: AtomicU64,
    vacated: AtomicU64,
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

/// Channels that become occupied and vacated. Ended with this.
#[derive(Debug)]
pub(crate) struct Turnover {
    board: Arc<Board>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Turnover {
    /// Connects to each app. Nothing happens before it is an app's turn; then so many channels become occupied per second,
    /// and as many vacated.
    ///
    /// # Errors
    /// An app cannot be connected to.
    pub(crate) fn start(targets: &[&Target], per_s: f64) -> Result<Turnover> {
        let mut sockets = Vec::new();
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for target in targets {
            for _ in 0..SOCKETS {
                let socket = Socket::connect(target)?;
                let number = sockets.len() as u64;
                epoll::add(&epoll, &socket.stream, EventData::new_u64(number), EventFlags::IN)?;
                sockets.push(socket);
            }
        }
        let board = Arc::new(Board {
            turn: AtomicUsize::new(NOBODY),
            occupied: AtomicU64::new(0),
            vacated: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let work = Work {
            stem: targets.first().context("there is an app")?.turnover_stem(),
            epoll,
            sockets,
            every: Duration::from_secs_f64(1.0 / per_s),
            held: VecDeque::new(),
            next: 0,
            board: Arc::clone(&board),
        };
        let thread = std::thread::Builder::new()
            .name("turnover".to_owned())
            .spawn(move || work.run())?;
        Ok(Turnover {
            board,
            thread: Some(thread),
        })
    }

    /// From now on it happens in the app of this place; those that are occupied in others become vacated in time.
    pub(crate) fn turn(&self, app: usize) {
        self.board.turn.store(app, Relaxed);
    }

    /// What has happened so far.
    pub(crate) fn turns(&self) -> Turns {
        Turns {
            occupied: self.board.occupied.load(Relaxed),
            vacated: self.board.vacated.load(Relaxed),
            acknowledged: self.board.acknowledged.load(Relaxed),
        }
    }

    /// Nobody's turn any more: waits until all has been vacated. What has happened until then.
    ///
    /// # Errors
    /// What has kept it from going on.
    pub(crate) fn end(mut self) -> Result<Turns> {
        self.board.turn.store(NOBODY, Relaxed);
        std::thread::sleep(STAY * 2);
        self.board.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(worked) => worked?,
                Err(_) => bail!("the thread of the turnover has ended"),
            }
        }
        Ok(self.turns())
    }
}

impl Drop for Turnover {
    fn drop(&mut self) {
        self.board.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket in some channels.
#[derive(Debug)]
struct Socket {
    stream: Stream,
    frames: Frames,
}

impl Socket {
    /// Connects, and waits for the greeting.
    fn connect(target: &Target) -> Result<Socket> {
        let stream = Stream::dial(target.address, target.tls.as_ref())
            .with_context(|| format!("no connection to {}", target.address))?;
        let mut socket = Socket {
            stream,
            frames: Frames::default(),
        };
        socket.stream.send(&target.handshake())?;
        let (began, mut buffer) = (Instant::now(), vec![0; BUFFER_BYTES]);
        let (mut answer, mut is_greeted) = (Vec::new(), false);
        while !is_greeted {
            ensure!(
                began.elapsed() < GREETING_MAX,
                "a socket was not greeted: {}",
                words(&answer)
            );
            match socket.stream.read(&mut buffer) {
                Ok(0) => bail!("a socket was not greeted: {}", words(&answer)),
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
            let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let mut refused = None;
            let mut frames = Frames::default();
            let fed = frames.feed(&answer[head + 4..], BUFFER_BYTES, |frame| match frame {
                Frame::Text(text) if has(text, "pusher:connection_established") => is_greeted = true,
                Frame::Text(text) => refused = Some(words(text)),
                _ => {}
            });
            fed.map_err(|broken| anyhow::anyhow!("the server sent {broken}"))?;
            if let Some(refused) = refused {
                bail!("the server refused: {refused}");
            }
        }
        Ok(socket)
    }

    fn say(&mut self, text: &str) {
        let mut out = Vec::new();
        put_text(&mut out, text);
        // What fails here fails at the next read too, and is told there.
        let _ = self.stream.send(&out);
    }
}

fn has(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|other| other == word.as_bytes())
}

/// What the thread has.
struct Work {
    stem: String,
    epoll: OwnedFd,
    /// Those of the first app, then those of the next.
    sockets: Vec<Socket>,
    every: Duration,
    /// Since when which socket is in which channel, the first one first.
    held: VecDeque<(Instant, usize, u32)>,
    /// The number of the next channel.
    next: u32,
    board: Arc<Board>,
}

impl Work {
    fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut events: Vec<Event> = Vec::with_capacity(SOCKETS);
        let (mut turn, mut due) = (NOBODY, Instant::now());
        while !self.board.is_over.load(Relaxed) {
            let now = Instant::now();
            let current = self.board.turn.load(Relaxed);
            if current != turn {
                (turn, due) = (current, now);
            }
            while turn != NOBODY && due <= now {
                self.occupy(turn, now)?;
                due += self.every;
            }
            while let Some((since, socket, number)) = self.held.front().copied()
                && since + STAY <= now
            {
                self.held.pop_front();
                self.vacate(socket, number);
            }
            let leave = self.held.front().map(|(since, ..)| *since + STAY);
            let come = (turn != NOBODY).then_some(due);
            let next = leave.into_iter().chain(come).min();
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
                self.hear(event.data.u64() as usize, &mut buffer)?;
            }
        }
        Ok(())
    }

    fn occupy(&mut self, turn: usize, now: Instant) -> Result<()> {
        let number = self.next;
        ensure!(
            number < NUMBERS,
            "there are no more names for channels: end earlier"
        );
        self.next += 1;
        let socket = turn * SOCKETS + number as usize % SOCKETS;
        let text = format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{}{number:06}"}}}}"#,
            self.stem
        );
        self.sockets[socket].say(&text);
        self.held.push_back((now, socket, number));
        self.board.occupied.fetch_add(1, Relaxed);
        Ok(())
    }

    fn vacate(&mut self, socket: usize, number: u32) {
        let text = format!(
            r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{}{number:06}"}}}}"#,
            self.stem
        );
        self.sockets[socket].say(&text);
        self.board.vacated.fetch_add(1, Relaxed);
    }

    /// Reads all that a socket has.
    fn hear(&mut self, socket: usize, buffer: &mut [u8]) -> Result<()> {
        let Socket { stream, frames } = &mut self.sockets[socket];
        let length = match stream.read(buffer) {
            Ok(0) => bail!("the server ended a connection of the turnover without a word"),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("a connection of the turnover broke"),
        };
        let (mut acknowledged, mut pongs, mut trouble) = (0, Vec::new(), None);
        let fed = frames.feed(&buffer[..length], BUFFER_BYTES, |frame| match frame {
            Frame::Text(text) if has(text, "subscription_succeeded") => acknowledged += 1,
            Frame::Text(text) if has(text, "pusher:ping") => {
                put_text(&mut pongs, r#"{"event":"pusher:pong","data":{}}"#);
            }
            Frame::Text(text) if has(text, "error") => trouble = Some(words(text)),
            Frame::Ping(payload) => put_pong(&mut pongs, payload),
            Frame::Close(reason) => trouble = Some(words(reason.get(2..).unwrap_or_default())),
            Frame::Text(_) | Frame::Pong => {}
        });
        fed.map_err(|broken| anyhow::anyhow!("the server sent {broken}"))?;
        if let Some(trouble) = trouble {
            bail!("the server refused: {trouble}");
        }
        if !pongs.is_empty() {
            let _ = stream.send(&pongs);
        }
        self.board.acknowledged.fetch_add(acknowledged, Relaxed);
        Ok(())
    }
}
