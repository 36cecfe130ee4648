//! Where the floors are reached: one epoll; handshakes, subscriptions and publications of this program's own clients,
//! answered without a look at who they are.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use serde::Deserialize;

/// The standard library's 128 are too few for a crowd that connects.
const BACKLOG: i32 = 4096;
/// As Fanwire sets it. Bytes.
const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;
const EVENTS_MAX: usize = 64;
const BUFFER_BYTES: usize = 64 * 1024;
/// Stands for the listener among the guests.
const LISTENER: u64 = u64::MAX;

/// The answer to the one key that this program's clients send.
const WELCOME: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const GREETING: &str =
    r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#;
const DONE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// What somebody wants.
pub(super) enum Heard<'a> {
    /// To get what is published on a channel.
    Joined {
        socket: &'a Arc<TcpStream>,
        channel: &'a str,
    },
    /// To publish.
    Published(Publication<'a>),
    /// To say something to the others.
    Said { text: &'a str, by: &'a Arc<TcpStream> },
}

/// An event, as an HTTP call brings it.
#[derive(Debug, Deserialize)]
pub(super) struct Publication<'a> {
    name: &'a str,
    pub(super) channels: Vec<&'a str>,
    data: &'a str,
}

impl Publication<'_> {
    /// What the subscribers of a channel get.
    pub(super) fn message(&self, channel: &str) -> String {
        let (name, data) = (self.name, self.data);
        format!(r#"{{"event":"{name}","channel":"{channel}","data":"{data}"}}"#)
    }
}

/// Where clients come in.
pub(super) struct Door {
    listener: TcpListener,
    epoll: OwnedFd,
    events: Vec<Event>,
    buffer: Vec<u8>,
    guests: Vec<Option<Guest>>,
    vacant: Vec<usize>,
}

#[derive(Debug)]
struct Guest {
    stream: Arc<TcpStream>,
    /// What has come and is not understood yet.
    pending: Vec<u8>,
    is_web_socket: bool,
}

impl Door {
    pub(super) fn open(port: u16) -> Result<Door> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on port {port}"))?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Door {
            listener,
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; BUFFER_BYTES],
            guests: Vec::new(),
            vacant: Vec::new(),
        })
    }

    /// Waits for somebody, and tells what was heard.
    pub(super) fn work(&mut self, mut tell: impl FnMut(Heard<'_>)) -> Result<()> {
        let mut events = mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                LISTENER => self.accept()?,
                index => self.hear(index as usize, &mut tell),
            }
        }
        self.events = events;
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept a connection"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            socket2::SockRef::from(&stream).set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
            let index = self.vacant.pop().unwrap_or_else(|| {
                self.guests.push(None);
                self.guests.len() - 1
            });
            epoll::add(
                &self.epoll,
                &stream,
                EventData::new_u64(index as u64),
                EventFlags::IN,
            )?;
            self.guests[index] = Some(Guest {
                stream: Arc::new(stream),
                pending: Vec::new(),
                is_web_socket: false,
            });
        }
    }

    fn hear(&mut self, index: usize, tell: &mut impl FnMut(Heard<'_>)) {
        let Some(guest) = &mut self.guests[index] else {
            return;
        };
        let is_here = match (&*guest.stream).read(&mut self.buffer) {
            Ok(0) => false,
            Ok(count) => {
                guest.pending.extend_from_slice(&self.buffer[..count]);
                guest.understand(tell).is_some()
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if !is_here {
            // A thread that sends may hold it a little longer, so it would not leave by being dropped.
            let _ = epoll::delete(&self.epoll, &*guest.stream);
            self.guests[index] = None;
            self.vacant.push(index);
        }
    }
}

impl Guest {
    /// Answers all that has come whole; nothing if it makes no sense.
    fn understand(&mut self, tell: &mut impl FnMut(Heard<'_>)) -> Option<()> {
        let mut pending = mem::take(&mut self.pending);
        let mut done = 0;
        loop {
            let took = match self.is_web_socket {
                true => self.frame(&mut pending[done..], tell)?,
                false => self.request(&pending[done..], tell)?,
            };
            if took == 0 {
                break;
            }
            done += took;
        }
        pending.drain(..done);
        self.pending = pending;
        Some(())
    }

    /// Answers a request, and tells how long it was; nothing of it, if there is more to come.
    fn request(&mut self, bytes: &[u8], tell: &mut impl FnMut(Heard<'_>)) -> Option<usize> {
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Some(0);
        };
        let text = std::str::from_utf8(&bytes[..head]).ok()?;
        if text.contains("Upgrade: websocket") {
            self.is_web_socket = true;
            let mut answer = WELCOME.to_vec();
            put_text(&mut answer, GREETING);
            self.answer(&answer)?;
            return Some(head + 4);
        }
        let length = text.split_once("Content-Length: ").map_or(Some(0), |(_, rest)| {
            rest.lines().next().and_then(|length| length.parse().ok())
        })?;
        let Some(body) = bytes.get(head + 4..head + 4 + length) else {
            return Some(0);
        };
        self.answer(DONE)?;
        if length > 0 {
            tell(Heard::Published(serde_json::from_slice(body).ok()?));
        }
        Some(head + 4 + length)
    }

    /// Answers a frame, as `request` does.
    fn frame(&mut self, bytes: &mut [u8], tell: &mut impl FnMut(Heard<'_>)) -> Option<usize> {
        let Some((kind, payload)) = frame(bytes) else {
            return Some(0);
        };
        let end = payload.end;
        if kind == TEXT {
            let text = std::str::from_utf8(&bytes[payload]).ok()?;
            if let Some((_, rest)) = text.split_once(r#""pusher:subscribe""#) {
                let channel = rest.split_once(r#""channel":""#)?.1.split('"').next()?;
                let mut answer = Vec::new();
                put_text(
                    &mut answer,
                    &format!(
                        r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{}}"}}"#
                    ),
                );
                self.answer(&answer)?;
                let socket = &self.stream;
                tell(Heard::Joined { socket, channel });
            } else if text.contains(r#""pusher:ping""#) {
                let mut answer = Vec::new();
                put_text(&mut answer, r#"{"event":"pusher:pong","data":"{}"}"#);
                self.answer(&answer)?;
            } else if !text.contains(r#""pusher:unsubscribe""#) {
                tell(Heard::Said {
                    text,
                    by: &self.stream,
                });
            }
        }
        Some(end)
    }

    fn answer(&self, bytes: &[u8]) -> Option<()> {
        (&*self.stream).write_all(bytes).ok()
    }
}

const TEXT: u8 = 1;

/// A client's frame, unmasked in place: its kind, and where its payload is. Nothing if it is not whole yet.
fn frame(bytes: &mut [u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let kind = bytes.first()? & 0x0f;
    let (length, head) = match bytes.get(1)? & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let mask: [u8; 4] = bytes.get(head..head + 4)?.try_into().ok()?;
    let payload = head + 4..head + 4 + length;
    for (byte, key) in bytes
        .get_mut(payload.clone())?
        .iter_mut()
        .zip(mask.iter().cycle())
    {
        *byte ^= key;
    }
    Some((kind, payload))
}

/// Puts a text as a server's frame behind what is there.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(0x80 | TEXT);
    match text.len() {
        length @ 0..126 => out.push(length as u8),
        length @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_frame_is_unmasked_once_it_is_whole() {
        let whole = [0x81, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3, 0x81];
        for cut in 0..9 {
            assert_eq!(frame(&mut whole[..cut].to_vec()), None);
        }
        let mut bytes = whole;
        assert_eq!(frame(&mut bytes), Some((TEXT, 6..9)));
        assert_eq!(&bytes[6..9], b"abc");
    }

    #[test]
    fn a_publication_becomes_what_subscribers_get() {
        let body = br#"{"name":"load","channels":["a"],"data":"x"}"#;
        let publication: Publication<'_> = serde_json::from_slice(body).expect("it is one");
        assert_eq!(
            publication.message("a"),
            r#"{"event":"load","channel":"a","data":"x"}"#
        );
    }
}
