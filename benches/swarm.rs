//! Ten thousand clients on one thread, as cheap as clients can be, so that the server and not they set the pace: one
//! epoll, one read buffer for all, frames counted by their headers and never looked into.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::serve::{CHANNEL, KEY};

/// Sockets on their way at once while the swarm connects; far less than a listener's backlog.
const CONNECTING_MAX: usize = 256;
/// Sockets read before anybody looks at something else.
const EVENTS_MAX: usize = 64;
/// So long without anything is a fault of server or harness.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Stands for what is not a socket of the swarm.
const OTHER: u64 = u64::MAX;
const TEXT: u8 = 0x81;

/// What a connection goes through before it counts as connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doorstep {
    /// The WebSocket handshake, the greeting, a subscription and its acknowledgement.
    Subscribe,
    /// Nothing: the other side sends frames at once.
    None,
}

#[derive(Debug)]
enum Stage {
    Upgrading,
    Greeting,
    Subscribing,
    Live,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    stage: Stage,
    frames: Frames,
    received: u64,
}

/// Clients of one server.
pub(crate) struct Swarm {
    epoll: OwnedFd,
    clients: Vec<Client>,
    live: usize,
    /// How many clients have each broadcast, the oldest that somebody lacks first.
    reached: VecDeque<usize>,
    /// Broadcasts that all clients have.
    delivered: u64,
    events: Vec<Event>,
    buffer: Vec<u8>,
    connected_in: Duration,
}

impl Swarm {
    /// Connects so many and waits until all of them are live.
    pub(crate) fn connect(port: u16, count: usize, doorstep: Doorstep) -> Result<Swarm> {
        let mut swarm = Swarm {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clients: Vec::with_capacity(count),
            live: 0,
            reached: VecDeque::new(),
            delivered: 0,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; 64 * 1024],
            connected_in: Duration::ZERO,
        };
        let began = Instant::now();
        let handshake = handshake(port);
        while swarm.live < count {
            while swarm.clients.len() < count && swarm.clients.len() - swarm.live < CONNECTING_MAX {
                swarm.connect_one(port, doorstep, &handshake)?;
            }
            if swarm.live < count {
                swarm.poll(None)?;
            }
        }
        swarm.connected_in = began.elapsed();
        Ok(swarm)
    }

    fn connect_one(&mut self, port: u16, doorstep: Doorstep, handshake: &[u8]) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nonblocking(true)?;
        let stage = match doorstep {
            Doorstep::None => {
                self.live += 1;
                Stage::Live
            }
            Doorstep::Subscribe => {
                stream.write_all(handshake)?;
                Stage::Upgrading
            }
        };
        let token = EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, &stream, token, EventFlags::IN | EventFlags::ET)?;
        self.clients.push(Client {
            stream,
            stage,
            frames: Frames::default(),
            received: 0,
        });
        Ok(())
    }

    /// How many clients.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// From the first `connect` until the last client was live.
    pub(crate) fn connected_in(&self) -> Duration {
        self.connected_in
    }

    /// Broadcasts that every client has received.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
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

    /// Waits until every client has one broadcast more.
    pub(crate) fn wait_for_one_more(&mut self) -> Result<()> {
        let goal = self.delivered + 1;
        while self.delivered < goal {
            self.poll(None)?;
        }
        Ok(())
    }

    /// Waits for something to arrive, but no longer than it is told to, and works a few sockets.
    pub(crate) fn poll(&mut self, at_most: Option<Duration>) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        let timeout = Timespec::try_from(at_most.unwrap_or(SILENCE_MAX))?;
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
        ensure!(
            at_most.is_some() || !events.is_empty(),
            "nothing has arrived for {SILENCE_MAX:?}"
        );
        for event in events.drain(..) {
            match event.data.u64() {
                OTHER => {}
                index => self.receive(index as usize)?,
            }
        }
        self.events = events;
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        loop {
            let client = &mut self.clients[index];
            let length = match client.stream.read(&mut self.buffer) {
                Ok(0) => bail!("the server ended a connection"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let was_live = matches!(client.stage, Stage::Live);
            let broadcasts = client.work(&self.buffer[..length])?;
            self.live += usize::from(!was_live && matches!(client.stage, Stage::Live));
            let first = client.received;
            client.received += broadcasts;
            self.count(first, broadcasts);
            // Less than there was room for: the next arrival is an event of its own.
            if length < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// A client has these broadcasts now.
    fn count(&mut self, first: u64, broadcasts: u64) {
        for broadcast in first..first + broadcasts {
            let place = (broadcast - self.delivered) as usize;
            if place == self.reached.len() {
                self.reached.push_back(0);
            }
            self.reached[place] += 1;
        }
        while self.reached.front() == Some(&self.clients.len()) {
            self.reached.pop_front();
            self.delivered += 1;
        }
    }
}

impl Client {
    /// Takes in what arrived. The answer is how many broadcasts it completed.
    fn work(&mut self, input: &[u8]) -> Result<u64> {
        match self.stage {
            Stage::Live => self.frames.count(input),
            Stage::Upgrading => {
                if !input.starts_with(b"HTTP/1.1 101") {
                    bail!("the handshake was refused: {}", String::from_utf8_lossy(input));
                }
                let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
                    bail!("the answer to the handshake came in pieces, which this client does not expect");
                };
                self.stage = Stage::Greeting;
                self.work(&input[end + 4..])
            }
            Stage::Greeting => {
                if self.frames.count(input)? > 0 {
                    self.stream.write_all(&subscribe())?;
                    self.stage = Stage::Subscribing;
                }
                Ok(0)
            }
            Stage::Subscribing => {
                if self.frames.count(input)? > 0 {
                    let text = String::from_utf8_lossy(input);
                    ensure!(text.contains("subscription_succeeded"), "not subscribed: {text}");
                    self.stage = Stage::Live;
                }
                Ok(0)
            }
        }
    }
}

/// Where in the stream of frames a client is.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the frame at hand still to come.
    left: usize,
    /// The header at hand, as far as it has come.
    header: [u8; 10],
    header_bytes: usize,
}

impl Frames {
    /// Takes in what arrived. The answer is how many text frames it completed.
    fn count(&mut self, mut input: &[u8]) -> Result<u64> {
        let mut complete = 0;
        while let [byte, rest @ ..] = input {
            if self.left > 0 {
                let taken = self.left.min(input.len());
                self.left -= taken;
                complete += u64::from(self.left == 0);
                input = &input[taken..];
                continue;
            }
            self.header[self.header_bytes] = *byte;
            self.header_bytes += 1;
            input = rest;
            let length = match &self.header[..self.header_bytes] {
                [_, length @ ..126] => usize::from(*length),
                [_, 126, high, low] => usize::from(u16::from_be_bytes([*high, *low])),
                [_, 126, ..] | [_] => continue,
                _ => bail!("a frame of a length that nothing here should have"),
            };
            ensure!(
                self.header[0] == TEXT && length > 0,
                "the server sent something else than text"
            );
            self.left = length;
            self.header_bytes = 0;
        }
        Ok(complete)
    }
}

fn handshake(port: u16) -> Vec<u8> {
    format!(
        "GET /app/{KEY}?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1\r\n\
         Host: 127.0.0.1:{port}\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         Origin: http://127.0.0.1\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// Masked as a client's frame must be, with a mask of zeroes.
fn subscribe() -> Vec<u8> {
    let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{CHANNEL}"}}}}"#);
    let mut frame = vec![TEXT, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}
