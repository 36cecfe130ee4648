//! Random streams, right, wrong and damaged: read in any pieces, and beside tungstenite as the second opinion.

use std::{
    fmt::Debug,
    io::{self, Cursor, Read, Write},
};

use proptest::{collection::vec, prelude::*, sample::select};
use tokio_tungstenite::tungstenite::{self, WebSocket, protocol::Role, protocol::WebSocketConfig};

use super::tests::{Form, LIMIT, Told, feed, feed_whole, frame, frame_as, told};
use super::*;

/// Mostly one message as a client may send it, in fragments with pings between them; sometimes any frame at all.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        8 => ".{0,40}".prop_map(String::into_bytes),
        1 => "[a-zé]{120,130}".prop_map(String::into_bytes),
        1 => "[a-z]{195,205}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..20),
    ];
    let form = select(vec![Form::Shortest, Form::Medium, Form::Long]);
    let message = (
        payload.clone(),
        vec(any::<(u8, bool)>(), 0..4),
        form.clone(),
        any::<[u8; 4]>(),
    );
    let message = message.prop_map(|(payload, cuts, form, mask)| {
        let (mut stream, mut rest, mut first) = (Vec::new(), &payload[..], 0x01);
        for (cut, is_pinged) in cuts {
            let (fragment, after) = rest.split_at(usize::from(cut) % (rest.len() + 1));
            stream.extend(frame_as(first, form, Some(mask), fragment));
            stream.extend(is_pinged.then(|| frame(0x89, [cut])).into_iter().flatten());
            (rest, first) = (after, 0x00);
        }
        stream.extend(frame_as(0x80 | first, form, Some(mask), rest));
        stream
    });
    let first = prop_oneof![4 => select(vec![0x81, 0x01, 0x80, 0x00, 0x82, 0x8a]), 1 => any::<u8>()];
    let hostile = (first, form, any::<Option<[u8; 4]>>(), payload);
    let hostile = hostile.prop_map(|(first, form, mask, payload)| {
        // The one point where tungstenite is more patient: see the module's `LongControl`.
        let form = if first & 0x08 != 0 { Form::Shortest } else { form };
        frame_as(first, form, mask, &payload)
    });
    let code = prop_oneof![Just(1000), Just(1005), Just(4200), 900..1012u16, 2999..5001u16];
    let closing = (code, "[a-zé]{0,9}")
        .prop_map(|(code, reason)| frame(0x88, [&code.to_be_bytes()[..], reason.as_bytes()].concat()));
    prop_oneof![20 => message, 2 => hostile, 1 => closing]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(frames(), 0..8).prop_map(|frames| frames.concat())
}

/// A stream with some bytes overwritten, so that headers and payloads no longer fit.
fn damaged_stream() -> impl Strategy<Value = Vec<u8>> {
    (stream(), vec(any::<(u16, u8)>(), 0..4)).prop_map(|(mut stream, damages)| {
        for (at, byte) in damages {
            let at = usize::from(at) % stream.len().max(1);
            stream.get_mut(at).into_iter().for_each(|damaged| *damaged = byte);
        }
        stream
    })
}

/// An error of tungstenite's, `None` where it is not told apart from others.
type TheirError = Option<FrameError>;

/// What tungstenite makes of a stream.
fn second_opinion(stream: &[u8]) -> (Vec<Told>, Option<TheirError>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let mut socket = WebSocket::from_raw_socket(Wire(Cursor::new(stream)), Role::Server, Some(config));
    let mut all = Vec::new();
    let error = loop {
        use tungstenite::{Error, Message, protocol::frame::coding::CloseCode};
        match socket.read() {
            Ok(Message::Text(text)) => all.push(Told::Text(text.as_str().into())),
            Ok(Message::Ping(payload)) => all.push(Told::Ping(payload.into())),
            Ok(Message::Pong(payload)) => all.push(Told::Pong(payload.into())),
            Ok(Message::Binary(_)) => break Some(FrameError::Binary),
            Ok(Message::Close(Some(frame)))
                if frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation" =>
            {
                break Some(FrameError::BadClose);
            }
            Ok(Message::Close(frame)) => {
                all.push(Told::Close(frame.map(|frame| frame.code.into())));
                return (all, None);
            }
            Ok(Message::Frame(_)) => unreachable!("never read, only written"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (all, None),
            Err(Error::Utf8(_)) => break Some(FrameError::NotUtf8),
            Err(Error::Capacity(_)) => break Some(FrameError::TooBig),
            Err(_) => break None,
        }
    };
    (all, Some(error))
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

/// The messages, and the error after them if there is one.
fn split_error(mut all: Vec<Told>) -> (Vec<Told>, Option<FrameError>) {
    // A code that was registered after tungstenite's list was made.
    if all.pop_if(|last| *last == Told::Close(Some(1014))).is_some() {
        all.push(Told::Error(FrameError::BadClose));
    }
    match all.pop_if(|last| matches!(last, Told::Error(_))) {
        Some(Told::Error(error)) => (all, Some(error)),
        _ => (all, None),
    }
}

fn same<T: PartialEq + Debug>(ours: T, theirs: T) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours, theirs);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn pieces_do_not_matter(stream in damaged_stream(), cuts in vec(1..9usize, 1..40)) {
        let (mut framing, mut all, mut rest) = (Framing::new(), Vec::new(), &stream[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            feed(&mut framing, piece, &mut all);
            rest = after;
            if rest.is_empty() { break }
        }
        same(all, feed_whole(&stream))?;
    }

    #[test]
    fn pauses_do_not_matter(stream in damaged_stream(), piece in 1..60usize) {
        let (mut framing, mut all, mut kept) = (Framing::new(), Vec::new(), Vec::new());
        for piece in stream.chunks(piece) {
            kept.extend_from_slice(piece);
            // One message a reading, as a socket reads whose shard has no room.
            let mut reader = framing.read(&mut kept, LIMIT);
            all.extend(reader.next().transpose().map(told));
            kept = reader.rest().to_vec();
        }
        feed(&mut framing, &kept, &mut all);
        same(all, feed_whole(&stream))?;
    }

    #[test]
    fn tungstenite_agrees_on_whole_frames(stream in stream()) {
        let (ours, error) = split_error(feed_whole(&stream));
        let (theirs, their_error) = second_opinion(&stream);
        match error {
            // Here binary is refused at its first fragment, there it is read to its end.
            Some(FrameError::Binary) => prop_assert!(theirs.starts_with(&ours)),
            Some(error @ (FrameError::NotUtf8 | FrameError::TooBig)) => {
                same(ours, theirs)?;
                prop_assert!(matches!(their_error, Some(None)) || their_error == Some(Some(error)));
            }
            _ => {
                same(ours, theirs)?;
                prop_assert_eq!(error.is_some(), their_error.is_some());
            }
        }
    }

    #[test]
    fn tungstenite_agrees_on_damaged_streams(stream in damaged_stream()) {
        let (ours, error) = split_error(feed_whole(&stream));
        let (theirs, their_error) = second_opinion(&stream);
        match error {
            Some(FrameError::Binary | FrameError::LongControl) => prop_assert!(theirs.starts_with(&ours)),
            // It may still wait for the payload of the frame whose header is refused here.
            Some(_) => same(ours, theirs)?,
            None => {
                same(ours, theirs)?;
                prop_assert_eq!(their_error, None);
            }
        }
    }
}
