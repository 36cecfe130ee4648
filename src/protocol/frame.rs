//! One finished WebSocket message: header and payload in one piece of memory, ready to be written to any
//! number of sockets.
//!
//! Server frames are not masked, so the bytes are the same for every receiver. Frames of clients are read
//! elsewhere.

use bytes::Bytes;

use super::code::CloseCode;

/// The first byte of a frame: the only one of its message (FIN) and its opcode.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The longest header of an unmasked frame.
const HEADER_MAX: usize = 10;
/// The longest payload of a control frame.
const CONTROL_PAYLOAD_MAX: usize = 125;

/// One WebSocket message as it goes onto the wire. Cheap to clone: the bytes are shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame(Bytes);

impl Frame {
    /// A text message.
    pub fn text(json: impl AsRef<str>) -> Frame {
        Frame::text_of([json.as_ref().as_bytes(), &[], &[]])
    }

    /// A text message of several pieces, copied once, into a buffer of the exact size.
    pub(super) fn text_of(pieces: [&[u8]; 3]) -> Frame {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut header = [0; HEADER_MAX];
        let start = write_header(&mut header, TEXT, length);
        let mut bytes = Vec::with_capacity(HEADER_MAX - start + length);
        bytes.extend_from_slice(&header[start..]);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Frame(bytes.into())
    }

    /// A text message known when the server is compiled: at most 125 bytes, its header written out before it.
    pub(super) const fn of_static(frame: &'static [u8]) -> Frame {
        Frame(Bytes::from_static(frame))
    }

    /// A close with its own number and sentence.
    pub fn close(code: CloseCode) -> Frame {
        Frame::close_with(code.number(), code.reason())
    }

    /// A close with another sentence; what does not fit into 123 bytes is cut off.
    pub fn close_with(code: u16, reason: &str) -> Frame {
        let reason = &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_MAX - 2)];
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        Frame::control(CLOSE, &payload)
    }

    /// A close that gives no code: the answer to a client's close that gave none.
    pub fn close_without_code() -> Frame {
        Frame::control(CLOSE, &[])
    }

    /// A ping without payload.
    pub fn ping() -> Frame {
        Frame::control(PING, &[])
    }

    /// The answer to a ping: its payload, of which a lawful client sends at most 125 bytes.
    pub fn pong(payload: &[u8]) -> Frame {
        Frame::control(PONG, payload)
    }

    fn control(first: u8, payload: &[u8]) -> Frame {
        let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)];
        Frame([&[first, payload.len() as u8], payload].concat().into())
    }

    /// Takes over bytes that another node made, if they are exactly one unmasked text frame.
    pub fn from_bytes(bytes: Bytes) -> Option<Frame> {
        let header = header_length(&bytes)?;
        let mut expected = [0; HEADER_MAX];
        let start = write_header(&mut expected, TEXT, bytes.len() - header);
        (expected[start..] == bytes[..header]).then_some(Frame(bytes))
    }

    /// Header and payload.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Header and payload, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The `data` of the event in it, if it holds one whose data is a string.
    pub fn event_data(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Event {
            data: String,
        }
        serde_json::from_slice::<Event>(self.payload())
            .ok()
            .map(|event| event.data)
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        let header = header_length(&self.0).expect("every constructor writes a whole header");
        &self.0[header..]
    }
}

/// How many bytes the header of an unmasked frame takes. `None` if the bytes end before, or if they are masked.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let [_, second @ ..=127, rest @ ..] = bytes else {
        return None;
    };
    payload_length(*second, rest).map(|(_, length_bytes)| 2 + length_bytes)
}

/// Reads the length of a payload: `short` is the header's second byte without the mask's bit, `rest` what follows
/// it. The answer is the length, and how many bytes of `rest` it took; `None` if those are not all there.
pub fn payload_length(short: u8, rest: &[u8]) -> Option<(u64, usize)> {
    match short {
        126 => rest
            .first_chunk()
            .map(|bytes| (u64::from(u16::from_be_bytes(*bytes)), 2)),
        127 => rest.first_chunk().map(|bytes| (u64::from_be_bytes(*bytes), 8)),
        _ => Some((u64::from(short), 0)),
    }
}

/// The smallest end of a frame that is not below `at_least`, in a run of frames as they are made here: unmasked,
/// whole, the first one beginning with the run. Zero counts as an end, and the run's length is one.
pub fn frame_boundary(run: &[u8], at_least: usize) -> usize {
    let mut end = 0;
    while end < at_least {
        let next = run.get(end..).and_then(|frame| {
            let (length, length_bytes) = payload_length(frame.get(1)? & 0x7f, &frame[2..])?;
            end.checked_add(2 + length_bytes)?
                .checked_add(usize::try_from(length).ok()?)
        });
        match next {
            Some(next) if next <= run.len() => end = next,
            _ => return run.len(),
        }
    }
    end
}

/// Writes a header against the end of `room` and says where it begins.
fn write_header(room: &mut [u8; HEADER_MAX], first: u8, length: usize) -> usize {
    let start = match length {
        ..=125 => {
            room[9] = length as u8;
            8
        }
        126..=0xffff => {
            room[7] = 126;
            room[8..].copy_from_slice(&(length as u16).to_be_bytes());
            6
        }
        0x1_0000.. => {
            room[1] = 127;
            room[2..].copy_from_slice(&(length as u64).to_be_bytes());
            0
        }
    };
    room[start] = first;
    start
}

/// A text message in the making, with room for the longest header in front: the length is known only at the
/// end, and nothing is copied then.
pub(super) struct FrameBuffer {
    pub(super) json: Vec<u8>,
}

impl FrameBuffer {
    /// `payload` is an estimate in bytes.
    pub(super) fn with_capacity(payload: usize) -> FrameBuffer {
        let mut json = Vec::with_capacity(HEADER_MAX + payload);
        json.extend_from_slice(&[0; HEADER_MAX]);
        FrameBuffer { json }
    }

    pub(super) fn finish(self) -> Frame {
        let mut bytes = self.json;
        let length = bytes.len() - HEADER_MAX;
        let room = bytes.first_chunk_mut().expect("the room was made first");
        let start = write_header(room, TEXT, length);
        Frame(Bytes::from(bytes).slice(start..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_grows_with_the_payload() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let text = "x".repeat(length);
            let frame = Frame::text(&text);
            assert_eq!(frame.as_bytes(), [&header[..], text.as_bytes()].concat());
            assert_eq!(frame.payload(), text.as_bytes());

            let mut buffer = FrameBuffer::with_capacity(0);
            buffer.json.extend_from_slice(text.as_bytes());
            assert_eq!(buffer.finish(), frame);
        }
    }

    #[test]
    fn control_frames_stay_within_125_bytes() {
        assert_eq!(Frame::ping().as_bytes(), [0x89, 0]);
        assert_eq!(Frame::pong(b"abc").as_bytes(), b"\x8a\x03abc");
        assert_eq!(Frame::pong(&[7; 300]).as_bytes().len(), 127);
        assert_eq!(Frame::close_without_code().as_bytes(), [0x88, 0]);
        assert_eq!(Frame::close_with(1000, "").as_bytes(), [0x88, 2, 0x03, 0xe8]);
        let no_such_app = b"\x88\x1c\x0f\xa1Application does not exist";
        assert_eq!(Frame::close(CloseCode::NoSuchApp).as_bytes(), no_such_app);
        // 122 bytes, for the 62nd é would end at byte 124.
        assert_eq!(
            Frame::close_with(4009, &"é".repeat(100)).payload(),
            [&[0x0f, 0xa9], "é".repeat(61).as_bytes()].concat()
        );
    }

    #[test]
    fn a_run_is_cut_between_frames() {
        let run = [0, 125, 126, 70_000].map(|length| Frame::text("a".repeat(length)).into_bytes());
        let run = run.concat();
        let ends = [0, 2, 129, 259, 70_269];
        assert_eq!(run.len(), ends[4]);
        for (from, to) in ends.iter().zip(&ends[1..]) {
            assert_eq!(frame_boundary(&run, *from), *from);
            assert_eq!(frame_boundary(&run, from + 1), *to);
            assert_eq!(frame_boundary(&run, *to), *to);
        }
        for cut in 0..=300 {
            let run = &run[..cut];
            assert_eq!(frame_boundary(run, cut), cut, "cut short it ends at its end");
        }
    }

    #[test]
    fn only_one_whole_text_frame_is_taken_over() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let frame = Frame::text("x".repeat(length));
            assert_eq!(Frame::from_bytes(frame.clone().into_bytes()), Some(frame.clone()));
            let mut longer = frame.as_bytes().to_vec();
            longer.push(0);
            assert_eq!(Frame::from_bytes(longer.into()), None);
            let shorter = frame.as_bytes().len() - 1;
            assert_eq!(Frame::from_bytes(frame.into_bytes().slice(..shorter)), None);
        }
        let refused: [&[u8]; 7] = [
            b"",
            b"\x81",
            b"\x01\x00",                 // not the last of its message
            b"\x82\x00",                 // binary
            b"\x81\x80\x00\x00\x00\x00", // masked
            b"\x81\x7e\x00\x01x",        // a longer header than needed
            b"\x89\x00",                 // ping
        ];
        for bytes in refused {
            assert_eq!(Frame::from_bytes(Bytes::from_static(bytes)), None, "{bytes:?}");
        }
    }
}
