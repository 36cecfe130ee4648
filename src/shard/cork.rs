//! The answers to one socket, while its input is worked: gathered, so that they leave in one write. One buffer for all
//! sockets of a shard, one after the other; who writes is not known here.

use bytes::Bytes;

use crate::hub::inbox::SocketKey;
use crate::protocol::frame::Frame;

/// Room for answers that is kept. Bytes.
const BYTES_KEPT: usize = 64 * 1024;

/// What was gathered for a socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gathered {
    pub(super) socket: SocketKey,
    pub(super) frames: Bytes,
    /// Those of the frames that count as messages.
    pub(super) messages: u64,
}

/// Where answers are gathered.
#[derive(Debug, Default)]
pub(super) struct Cork {
    socket: Option<SocketKey>,
    frames: Vec<u8>,
    messages: u64,
}

impl Cork {
    /// From now on the answers to this socket are gathered.
    pub(super) fn begin(&mut self, socket: SocketKey) {
        self.socket = Some(socket);
    }

    /// Whether the answers to this socket are.
    pub(super) fn is_of(&self, socket: SocketKey) -> bool {
        self.socket == Some(socket)
    }

    /// One more, which counts as so many messages.
    pub(super) fn push(&mut self, frame: &Frame, messages: u64) {
        self.frames.extend_from_slice(frame.as_bytes());
        self.messages += messages;
    }

    /// No more are gathered. None: there were none.
    pub(super) fn end(&mut self) -> Option<Gathered> {
        let socket = self.socket.take()?;
        let messages = std::mem::take(&mut self.messages);
        if self.frames.is_empty() {
            return None;
        }
        let frames = Bytes::copy_from_slice(&self.frames);
        self.frames.clear();
        self.frames.shrink_to(BYTES_KEPT);
        Some(Gathered {
            socket,
            frames,
            messages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_out_together_and_once() {
        let (one, other) = (SocketKey::unpack(1), SocketKey::unpack(2));
        let mut cork = Cork::default();
        assert_eq!(cork.end(), None);
        cork.begin(one);
        assert!(cork.is_of(one) && !cork.is_of(other));
        assert_eq!(cork.end(), None, "nothing was said");
        assert!(!cork.is_of(one));

        cork.begin(other);
        let frames = [Frame::ping(), Frame::pong(b"a")];
        cork.push(&frames[0], 1);
        cork.push(&frames[1], 0);
        let gathered = cork.end().expect("two");
        assert_eq!((gathered.socket, gathered.messages), (other, 1));
        assert_eq!(gathered.frames, frames.map(Frame::into_bytes).concat());
        assert_eq!(cork.end(), None);
    }
}
