//! One finished WebSocket message: header and payload in one piece of memory, ready to be written to any number of sockets.
//!
//! Server frames are not masked, so the bytes are the same for every receiver. Frames of clients are read elsewhere.

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
        Frame::text_of([json.as_ref(), "", ""])
    }

    /// A text message of several pieces, copied once, into a buffer of the exact size.
    pub(super) fn text_of(pieces: [&str; 3]) -> Frame {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut header = [0; HEADER_MAX];
        let start = write_header(&mut header, TEXT, length);
        let mut bytes = Vec::with_capacity(HEADER_MAX - start + length);
        bytes.extend_from_slice(&header[start..]);
        pieces
            .iter()
            .for_each(|piece| bytes.extend_from_slice(piece.as_bytes()));
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
        serde_json::from_slice::<Event>(self.payload()).ok().map(|event| event.data)
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        let header = header_length(&self.0).expect("every constructor writes a whole header");
        &self.0[header..]
    }
}

/// How many bytes the header takes, going by its second byte. `None` if the bytes end before, or if they are masked.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let length = match bytes.get(1)? {
        ..=125 => 2,
        126 => 4,
        127 => 10,
        128.. => return None,
    };
    (bytes.len() >= length).then_some(length)
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

/// A text message in the making, with room for the longest header in front: the length is known only at the end, and
/// nothing is copied then.
pub(super) struct FrameBuffer {
    pub(super) json: String,
}

impl FrameBuffer {
    /// `payload` is an estimate in bytes.
    pub(super) fn with_capacity(payload: usize) -> FrameBuffer {
        let mut json = String::with_capacity(HEADER_MAX + payload);
        json.extend(['\0'; HEADER_MAX]);
        FrameBuffer { json }
    }

    pub(super) fn finish(self) -> Frame {
        let mut bytes = self.json.into_bytes();
        let length = bytes.len() - HEADER_MAX;
        let room = bytes.first_chunk_mut().expect("the room was made first");
        let start = write_header(room, TEXT, length);
        Frame(Bytes::from(bytes).slice(start..))
    }
}
