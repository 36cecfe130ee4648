//! A receiver of webhooks, on a thread of its own: it counts the events that come, by kind, and answers at once, or never.
//!
//! It checks no signature and keeps nothing, and it gives way to everybody: it stands for a back end on another machine,
//! so what it costs must not look like a cost of the server.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

/// The niceness of its thread.
const NICENESS: i32 = 19;
const EVENTS_MAX: usize = 64;
const BUFFER_BYTES: usize = 64 * 1024;
/// Stand for what is not a connection.
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// What stands before the name of each event in a body.
const NAME: &[u8] = br#""name":""#;
const OCCUPIED: &[u8] = b"channel_occupied";
const VACATED: &[u8] = b"channel_vacated";

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It answers with 200 at once.
    Answers,
    /// It reads, and never answers.
    Hangs,
}

/// What has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Requests that came whole.
    pub(crate) requests: u64,
    /// Their events, of all kinds.
    pub(crate) events: u64,
    /// Of these, channels that became occupied or vacated.
    pub(crate) changes: u64,
}

impl Received {
    /// What has come since.
    pub(crate) fn since(self, before: Received) -> Received {
        Received {
            requests: self.requests - before.requests,
            events: self.events - before.events,
            changes: self.changes - before.changes,
        }
    }

    /// Both together.
    pub(crate) fn and(self, other: Received) -> Received {
        Received {
            requests: self.requests + other.requests,
            events: self.events + other.events,
            changes: self.changes + other.changes,
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    events: AtomicU64,
    changes: AtomicU64,
    is_over: AtomicBool,
}

/// A receiver that listens. Ended with this.
#[derive(Debug)]
pub(crate) struct Receiver {
    counts: Arc<Counts>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on a port of 127.0.0.1.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) fn start(port: u16, manner: Manner) -> Result<Receiver> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen for webhooks on port {port}"))?;
        listener.set_nonblocking(true)?;
        let counts = Arc::new(Counts::default());
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (counted, woken) = (Arc::clone(&counts), Arc::clone(&wake));
        let thread = std::thread::Builder::new()
            .name("webhooks".to_owned())
            .spawn(move || {
                // On Linux this is of the calling thread alone.
                let _ = rustix::process::setpriority_process(None, NICENESS);
                // What fails here is seen by what does not come.
                let _ = receive(&listener, manner, &counted, &woken);
            })?;
        Ok(Receiver {
            counts,
            wake,
            thread: Some(thread),
        })
    }

    /// What has come so far.
    pub(crate) fn received(&self) -> Received {
        Received {
            requests: self.counts.requests.load(Relaxed),
            events: self.counts.events.load(Relaxed),
            changes: self.counts.changes.load(Relaxed),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.counts.is_over.store(true, Relaxed);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Somebody who sends webhooks.
#[derive(Debug)]
struct Sender {
    stream: TcpStream,
    /// What has come and is not whole yet.
    pending: Vec<u8>,
}

/// The thread's loop, until it is over.
fn receive(listener: &TcpListener, manner: Manner, counts: &Counts, wake: &OwnedFd) -> Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&epoll, wake, EventData::new_u64(WAKE), EventFlags::IN)?;
    let mut senders: HashMap<u64, Sender> = HashMap::new();
    let (mut next, mut buffer) = (0, vec![0; BUFFER_BYTES]);
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
    while !counts.is_over.load(Relaxed) {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                WAKE => {}
                LISTENER => {
                    while let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true)?;
                        stream.set_nodelay(true)?;
                        epoll::add(&epoll, &stream, EventData::new_u64(next), EventFlags::IN)?;
                        let pending = Vec::new();
                        senders.insert(next, Sender { stream, pending });
                        next += 1;
                    }
                }
                number => {
                    let Some(sender) = senders.get_mut(&number) else {
                        continue;
                    };
                    if !sender.hear(&mut buffer, manner, counts) {
                        senders.remove(&number);
                    }
                }
            }
        }
    }
    Ok(())
}

impl Sender {
    /// Reads once. The answer is whether there may be more.
    fn hear(&mut self, buffer: &mut [u8], manner: Manner, counts: &Counts) -> bool {
        match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        let pending = mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while let Some((body, behind)) = body(rest) {
            rest = behind;
            let (events, changes) = count(body);
            counts.requests.fetch_add(1, Relaxed);
            counts.events.fetch_add(events, Relaxed);
            counts.changes.fetch_add(changes, Relaxed);
            if manner == Manner::Answers && self.stream.write_all(ANSWER).is_err() {
                return false;
            }
        }
        self.pending = rest.to_vec();
        true
    }
}

/// The body of the first request, and what is behind it, once it has come whole.
fn body(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    bytes[head + 4..].split_at_checked(length.unwrap_or(0))
}

/// Events in a body, and those of them that tell of channels that became occupied or vacated.
fn count(body: &[u8]) -> (u64, u64) {
    let (mut events, mut changes) = (0, 0);
    let mut rest = body;
    while let Some(at) = rest.windows(NAME.len()).position(|word| word == NAME) {
        rest = &rest[at + NAME.len()..];
        events += 1;
        changes += u64::from(rest.starts_with(OCCUPIED) || rest.starts_with(VACATED));
    }
    (events, changes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const REQUEST: &[u8] = b"POST /w HTTP/1.1\r\nhost: a\r\ncontent-length: 116\r\n\r\n\
        {\"time_ms\":1,\"events\":[{\"name\":\"channel_occupied\",\"channel\":\"a\"},{\"name\":\"subscription_count\",\"channel\":\"a\",\"n\":1}]}";

    #[test]
    fn a_request_counts_once_it_is_whole() {
        for cut in 0..REQUEST.len() {
            assert_eq!(body(&REQUEST[..cut]), None, "{cut}");
        }
        let (body, rest) = body(REQUEST).expect("it is whole");
        assert_eq!((count(body), rest), ((2, 1), &b""[..]));
    }

    fn port() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is to be had");
        listener.local_addr().expect("it is bound").port()
    }

    #[test]
    fn what_comes_is_counted_and_answered_or_not() {
        for manner in [Manner::Answers, Manner::Hangs] {
            let port = port();
            let receiver = Receiver::start(port, manner).expect("the port is free");
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
            let (first, second) = REQUEST.split_at(70);
            stream.write_all(first).expect("it is taken");
            stream.write_all(second).expect("it is taken");
            if manner == Manner::Answers {
                let mut answer = [0; ANSWER.len()];
                stream.read_exact(&mut answer).expect("it answers");
                assert_eq!(answer, ANSWER);
            }
            let began = Instant::now();
            while receiver.received().requests == 0 && began.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let expected = Received {
                requests: 1,
                events: 2,
                changes: 1,
            };
            assert_eq!(receiver.received(), expected);
        }
    }
}
