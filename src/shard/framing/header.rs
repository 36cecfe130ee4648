//! The two to fourteen bytes before a frame's payload: what they say, and which of it no client may say.

use super::FrameError;
use crate::protocol::frame::payload_length;

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
pub(super) const HEAD_BYTES_MAX: usize = 14;

/// The longest payload of a ping, pong or close.
pub(super) const CONTROL_BYTES_MAX: usize = 125;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A header, and how much of its frame is still to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientFrame {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    /// Turned so that its first byte belongs to the next byte due.
    mask: [u8; 4],
    pub(super) bytes_due: usize,
    /// Some of the payload came with an earlier input.
    pub(super) is_begun: bool,
}

impl ClientFrame {
    /// The frame and the length of its header; `None`: more bytes are needed. An error stays the same error however
    /// many bytes follow, so it does not matter in what pieces a header comes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(ClientFrame, usize)>, FrameError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBits);
        }
        let opcode = match first & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(FrameError::UnknownOpcode),
        };
        if second & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let is_final = first & 0x80 != 0;
        let short = second & 0x7f;
        if opcode.is_control() {
            if !is_final {
                return Err(FrameError::FragmentedControl);
            }
            if usize::from(short) > CONTROL_BYTES_MAX {
                return Err(FrameError::LongControl);
            }
        }
        let Some((length, length_bytes)) = payload_length(short, rest) else {
            return Ok(None);
        };
        // A length in more bytes than it needs is let through, as by other servers: there is no doubt what it means.
        if length >> 63 != 0 {
            return Err(FrameError::BadLength);
        }
        let Some(&mask) = rest.get(length_bytes..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        // A length that this machine cannot count is over every limit as well.
        let bytes_due = usize::try_from(length).unwrap_or(usize::MAX);
        let frame = ClientFrame {
            opcode,
            is_final,
            mask,
            bytes_due,
            is_begun: false,
        };
        Ok(Some((frame, 2 + length_bytes + mask.len())))
    }

    /// Unmasks the next bytes of the payload, in place.
    pub(super) fn unmask(&mut self, came: &mut [u8]) {
        fastwebsockets::unmask(came, self.mask);
        self.mask.rotate_left(came.len() % 4);
        self.bytes_due -= came.len();
    }
}
