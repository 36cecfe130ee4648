//! What clients may send and what they must not, case by case.

use super::*;

pub(super) const MASK: [u8; 4] = [0x11, 0x82, 0x33, 0xf4];
pub(super) const LIMIT: usize = 200;

/// How long the length field is, at least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Shortest,
    Medium,
    Long,
}

/// A client's frame, right or wrong, from its first byte (final and reserved bits, opcode).
pub(super) fn frame_as(first: u8, form: Form, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked_bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match (form, payload.len()) {
        (Form::Shortest, len @ 0..=125) => bytes.push(masked_bit | len as u8),
        (Form::Shortest | Form::Medium, len @ 0..=0xffff) => {
            bytes.push(masked_bit | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        (_, len) => {
            bytes.push(masked_bit | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

pub(super) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame_as(first, Form::Shortest, Some(MASK), payload.as_ref())
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Error(FrameError),
}

pub(super) fn told(message: Result<Message<'_>, FrameError>) -> Told {
    match message {
        Ok(Message::Text(text)) => Told::Text(text.into()),
        Ok(Message::Ping(payload)) => Told::Ping(payload.into()),
        Ok(Message::Pong(payload)) => Told::Pong(payload.into()),
        Ok(Message::Close { code }) => Told::Close(code),
        Err(error) => Told::Error(error),
    }
}

/// Feeds one input; checks on the way that no more memory is held than the limit allows.
pub(super) fn feed(framing: &mut Framing, input: &[u8], all: &mut Vec<Told>) {
    let mut scratch = input.to_vec();
    let mut reader = framing.read(&mut scratch, LIMIT);
    while let Some(message) = reader.next().transpose() {
        all.push(told(message));
    }
    assert!(reader.rest().is_empty());
    if let Some(unfinished) = &framing.unfinished {
        assert!(unfinished.text.as_ref().map_or(0, Vec::capacity) <= LIMIT);
        assert!(unfinished.control.capacity() <= CONTROL_BYTES_MAX);
        assert!(!unfinished.is_empty());
    }
}

pub(super) fn feed_whole(stream: &[u8]) -> Vec<Told> {
    let mut all = Vec::new();
    feed(&mut Framing::new(), stream, &mut all);
    all
}

fn text(text: &str) -> Told {
    Told::Text(text.into())
}

#[test]
fn reads_what_a_client_may_send() {
    let long = "x".repeat(126);
    let cases = [
        ("nothing", vec![], vec![]),
        ("a text", vec![frame(0x81, "{}")], vec![text("{}")]),
        ("an empty text", vec![frame(0x81, "")], vec![text("")]),
        ("a longer text", vec![frame(0x81, &long)], vec![text(&long)]),
        (
            "as long as allowed",
            vec![frame(0x81, "y".repeat(LIMIT))],
            vec![text(&"y".repeat(LIMIT))],
        ),
        (
            "a needlessly long length",
            vec![frame_as(0x81, Form::Long, Some(MASK), b"a")],
            vec![text("a")],
        ),
        (
            "two",
            vec![frame(0x81, "a"), frame(0x81, "b")],
            vec![text("a"), text("b")],
        ),
        (
            "fragments",
            vec![frame(0x01, "a"), frame(0x00, "b"), frame(0x80, "c")],
            vec![text("abc")],
        ),
        (
            "a character in two fragments",
            vec![frame(0x01, [0xc3]), frame(0x80, [0xa9])],
            vec![text("é")],
        ),
        (
            "controls between fragments",
            vec![
                frame(0x01, "a"),
                frame(0x89, "1"),
                frame(0x8a, "2"),
                frame(0x80, "b"),
            ],
            vec![Told::Ping(b"1".into()), Told::Pong(b"2".into()), text("ab")],
        ),
        (
            "a close without a code",
            vec![frame(0x88, "")],
            vec![Told::Close(None)],
        ),
        (
            "a close",
            vec![frame(0x88, [3, 232, b'b', b'y'])],
            vec![Told::Close(Some(1000))],
        ),
        (
            "a close with the app's own code",
            vec![frame(0x88, [0x0f, 0xa9])],
            vec![Told::Close(Some(4009))],
        ),
        (
            "words after a close",
            vec![frame(0x88, ""), frame(0x81, "a")],
            vec![Told::Close(None)],
        ),
        ("a header's beginning", vec![vec![0x81, 0xfe, 0x01]], vec![]),
        (
            "an unfinished text",
            vec![vec![0x81, 0x85, 0, 0, 0, 0, b'a']],
            vec![],
        ),
    ];
    for (name, frames, expected) in cases {
        assert_eq!(feed_whole(&frames.concat()), expected, "{name}");
    }
}

#[test]
fn refuses_what_a_client_must_not_send() {
    let too_big = LIMIT + 1;
    let cases = [
        ("a reserved bit", vec![frame(0xc1, "")], FrameError::ReservedBits),
        (
            "a data opcode of the future",
            vec![frame(0x83, "")],
            FrameError::UnknownOpcode,
        ),
        (
            "a control opcode of the future",
            vec![frame(0x8b, "")],
            FrameError::UnknownOpcode,
        ),
        (
            "no mask",
            vec![frame_as(0x81, Form::Shortest, None, b"a")],
            FrameError::Unmasked,
        ),
        (
            "half a ping",
            vec![frame(0x09, "")],
            FrameError::FragmentedControl,
        ),
        (
            "a long ping",
            vec![frame(0x89, [0; 126])],
            FrameError::LongControl,
        ),
        (
            "a continuation of nothing",
            vec![frame(0x80, "")],
            FrameError::ContinuationOfNothing,
        ),
        (
            "text in text",
            vec![frame(0x01, ""), frame(0x81, "")],
            FrameError::MessageInsideMessage,
        ),
        (
            "binary in text",
            vec![frame(0x01, ""), frame(0x82, "")],
            FrameError::MessageInsideMessage,
        ),
        (
            "a length of 64 bits",
            vec![[&[0x81, 0xff][..], &[0xff; 8]].concat()],
            FrameError::BadLength,
        ),
        ("half a close code", vec![frame(0x88, [3])], FrameError::BadClose),
        (
            "a close code for no frame",
            vec![frame(0x88, [0x03, 0xee])],
            FrameError::BadClose,
        ),
        (
            "a close code of nobody",
            vec![frame(0x88, [0x13, 0x88])],
            FrameError::BadClose,
        ),
        (
            "a close with nothing right",
            vec![frame(0x88, [0xe0, 0xa0, 0x80])],
            FrameError::BadClose,
        ),
        ("binary", vec![frame(0x82, "a")], FrameError::Binary),
        ("no UTF-8", vec![frame(0x81, [0xff])], FrameError::NotUtf8),
        ("half a character", vec![frame(0x81, [0xc3])], FrameError::NotUtf8),
        (
            "no UTF-8 in a first fragment",
            vec![frame(0x01, [0xff])],
            FrameError::NotUtf8,
        ),
        (
            "half a character in the end",
            vec![frame(0x01, "a"), frame(0x80, [0xc3])],
            FrameError::NotUtf8,
        ),
        (
            "a reason that is no UTF-8",
            vec![frame(0x88, [3, 232, 0xff])],
            FrameError::NotUtf8,
        ),
        (
            "too much, said in the header",
            vec![frame(0x81, vec![b'a'; too_big])[..8].into()],
            FrameError::TooBig,
        ),
        (
            "too much in sum",
            vec![frame(0x01, [b'a'; 150]), frame(0x80, [b'a'; 51])],
            FrameError::TooBig,
        ),
    ];
    for (name, frames, expected) in cases {
        let mut stream = vec![frame(0x81, "before")];
        stream.extend(frames);
        stream.push(frame(0x81, "after"));
        assert_eq!(
            feed_whole(&stream.concat()),
            [text("before"), Told::Error(expected)],
            "{name}"
        );
    }
}

#[test]
fn each_error_has_its_close_code() {
    for (error, number) in [
        (FrameError::Unmasked, 1002),
        (FrameError::Binary, 1003),
        (FrameError::NotUtf8, 1007),
        (FrameError::TooBig, 1009),
    ] {
        assert_eq!(error.code().number(), number);
    }
}

#[test]
fn holds_nothing_between_messages() {
    assert!(size_of::<Framing>() <= 16);
    let stream = [
        frame(0x01, "a"),
        frame(0x80, "b"),
        frame(0x89, "1"),
        frame(0x81, "c"),
    ]
    .concat();
    let mut framing = Framing::new();
    for byte in &stream {
        feed(&mut framing, &[*byte], &mut Vec::new());
    }
    assert!(framing.unfinished.is_none());
}

#[test]
fn a_promised_length_costs_nothing() {
    let mut framing = Framing::new();
    let mut promise = frame_as(0x81, Form::Long, Some(MASK), &[]);
    promise[2..10].copy_from_slice(&(1u64 << 40).to_be_bytes());
    assert_eq!(framing.read(&mut promise, 1 << 50).next(), Ok(None));
    let held = framing
        .unfinished
        .expect("a text is under way")
        .text
        .map(|text| text.capacity());
    assert_eq!(held, Some(0));
}

#[test]
fn what_was_not_read_is_handed_back_as_it_came() {
    let stream = [frame(0x81, "a"), frame(0x01, "b"), frame(0x80, "c")].concat();
    let mut scratch = stream.clone();
    let mut framing = Framing::new();
    let mut reader = framing.read(&mut scratch, LIMIT);
    assert_eq!(reader.next(), Ok(Some(Message::Text("a"))));
    assert_eq!(reader.rest(), &stream[7..]);
    assert_eq!(feed_whole(&stream[7..]), [text("bc")]);
}

#[test]
fn after_the_end_nothing_is_read() {
    let mut framing = Framing::new();
    feed(&mut framing, &frame(0x88, ""), &mut Vec::new());
    let mut more = frame(0x81, "a");
    let mut reader = framing.read(&mut more, LIMIT);
    assert!(reader.rest().is_empty());
    assert_eq!(reader.next(), Ok(None));
}
