//! Any bytes as a client's frames: the same messages however they are cut, and the same as tungstenite reads.
#![no_main]

use std::io::{self, Cursor, Read, Write};

use fanwire::shard::framing::{FrameError, Framing, Message};
use libfuzzer_sys::fuzz_target;
use tungstenite::{
    WebSocket,
    protocol::{Role, WebSocketConfig, frame::coding::CloseCode},
};

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (piece, limit, stream) = input;
    let limit = usize::from(limit);
    let whole = read([stream], limit);
    assert_eq!(whole, read(stream.chunks(usize::from(piece).max(1)), limit));

    let (ours, error) = whole;
    let (theirs, their_error) = second_opinion(stream, limit);
    match error {
        // Here binary is refused at its first fragment; there, and with a long ping or a late code, it is let through.
        Some(FrameError::Binary | FrameError::LongControl) => assert!(theirs.starts_with(&ours)),
        _ if ours
            .last()
            .is_some_and(|last| last == "Close { code: Some(1014) }") => {}
        Some(_) => assert_eq!(ours, theirs),
        None => assert_eq!((ours, false), (theirs, their_error)),
    }
});

/// All messages, as text, and the error that ended them.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> (Vec<String>, Option<FrameError>) {
    let mut framing = Framing::new();
    let mut messages = Vec::new();
    for piece in pieces {
        let mut scratch = piece.to_vec();
        let mut reader = framing.read(&mut scratch, limit);
        loop {
            match reader.next() {
                Ok(Some(message)) => messages.push(format!("{message:?}")),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// What tungstenite reads, and whether it ended in an error.
fn second_opinion(stream: &[u8], limit: usize) -> (Vec<String>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit.max(125)));
    let mut socket = WebSocket::from_raw_socket(Wire(Cursor::new(stream)), Role::Server, Some(config));
    let mut messages = Vec::new();
    loop {
        let message = match socket.read() {
            Ok(message) => message,
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (messages, false);
            }
            Err(_) => return (messages, true),
        };
        messages.push(match &message {
            tungstenite::Message::Text(text) => format!("{:?}", Message::Text(text)),
            tungstenite::Message::Ping(payload) => format!("{:?}", Message::Ping(payload)),
            tungstenite::Message::Pong(payload) => format!("{:?}", Message::Pong(payload)),
            tungstenite::Message::Close(Some(close))
                if close.code == CloseCode::Protocol && close.reason.as_str() == "Protocol violation" =>
            {
                return (messages, true);
            }
            tungstenite::Message::Close(close) => {
                let code = close.as_ref().map(|close| close.code.into());
                messages.push(format!("{:?}", Message::Close { code }));
                return (messages, false);
            }
            tungstenite::Message::Binary(_) | tungstenite::Message::Frame(_) => return (messages, true),
        });
    }
}

/// A socket whose other side has sent a stream and now waits; what is written to it is lost.
struct Wire<'a>(Cursor<&'a [u8]>);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
