//! WebSocket frames (RFC 6455) as they arrive from a client: bytes of the shard's scratch buffer in, messages out.
//!
//! `Incomplete` is a value, and the usual one: a socket whose input ended with a whole message holds nothing here.
//! What arrived whole in one frame is unmasked where it lies and never copied; only an unfinished frame or message
//! is kept, grows with the bytes that came (never by the length a header promises) and is given back with its last
//! byte. This is not a connection: it reads no socket, answers no ping and knows nothing of what a text says.

use std::{mem, ops::Range, str};

mod header;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use crate::protocol::CloseCode;
use header::{CONTROL_BYTES_MAX, ClientFrame, HEAD_BYTES_MAX, Opcode};

/// One message of a client. Borrowed: from the input when it came in one piece, else from the [`Reader`].
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text, whole, whatever fragments it came in.
    Text(&'a str),
    /// To be answered by a pong with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// An answer to a ping, or sent unasked.
    Pong(&'a [u8]),
    /// The last message of a socket: nothing after it is read.
    Close {
        /// What the client gave as reason; absent from an empty close frame.
        code: Option<u16>,
    },
}

/// Why a client's bytes cannot be read on. The socket is to be closed with [`FrameError::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set though no extension was agreed on.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that RFC 6455 leaves open.
    #[error("unknown opcode")]
    UnknownOpcode,
    /// A client must mask every frame.
    #[error("frame is not masked")]
    Unmasked,
    /// A ping, pong or close without the final bit.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// A ping, pong or close of more than 125 bytes.
    #[error("control frame is longer than 125 bytes")]
    LongControl,
    /// A continuation while no message is unfinished.
    #[error("continuation without a beginning")]
    ContinuationOfNothing,
    /// A new text or binary while a message is unfinished.
    #[error("new message inside a fragmented one")]
    MessageInsideMessage,
    /// A length beyond 63 bits.
    #[error("length out of range")]
    BadLength,
    /// A close whose payload is one byte, or whose code may not be sent.
    #[error("malformed close frame")]
    BadClose,
    /// A binary message; Pusher's clients send text only.
    #[error("binary message")]
    Binary,
    /// A text or the reason of a close is not UTF-8.
    #[error("text is not valid UTF-8")]
    NotUtf8,
    /// The frame, or the sum of a message's fragments, is over the limit.
    #[error("message is over the size limit")]
    TooBig,
}

impl FrameError {
    /// The close code that tells the client (RFC 6455, section 7.4.1).
    pub fn code(self) -> CloseCode {
        match self {
            FrameError::Binary => CloseCode::UnsupportedData,
            FrameError::NotUtf8 => CloseCode::InvalidText,
            FrameError::TooBig => CloseCode::TooBig,
            FrameError::ReservedBits
            | FrameError::UnknownOpcode
            | FrameError::Unmasked
            | FrameError::FragmentedControl
            | FrameError::LongControl
            | FrameError::ContinuationOfNothing
            | FrameError::MessageInsideMessage
            | FrameError::BadLength
            | FrameError::BadClose => CloseCode::ProtocolError,
        }
    }
}

/// What one socket remembers between two readings: as a rule, nothing.
#[derive(Debug, Default)]
pub struct Framing {
    /// Absent while the input ends with a whole message.
    unfinished: Option<Box<Unfinished>>,
    /// A close or an error came: the rest of the stream means nothing.
    has_ended: bool,
}

/// What came of a header, of a frame or of a message whose rest is still to come.
#[derive(Debug, Default)]
struct Unfinished {
    head: Head,
    /// The frame in the middle of which the input ended.
    frame: Option<ClientFrame>,
    /// Payload of the ping, pong or close in `frame`: those come between the fragments of a text.
    control: Vec<u8>,
    /// The text so far, unmasked, from the moment it cannot be handed out in one piece.
    text: Option<Vec<u8>>,
    /// So much of `text` is known to be UTF-8.
    text_bytes_checked: usize,
}

impl Unfinished {
    fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.text.is_none()
    }
}

/// The beginning of a header, too short to tell.
#[derive(Debug, Default, Clone, Copy)]
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl Framing {
    /// A socket that has said nothing yet.
    pub const fn new() -> Framing {
        Framing {
            unfinished: None,
            has_ended: false,
        }
    }

    /// Begins to read what a socket just sent. The bytes are unmasked in place, so the buffer's content is spent.
    ///
    /// `message_bytes_max` bounds a text, over all its fragments, and is decided by the header alone.
    pub fn read<'a>(&'a mut self, input: &'a mut [u8], message_bytes_max: usize) -> Reader<'a> {
        let read = if self.has_ended { input.len() } else { 0 };
        Reader {
            framing: self,
            input,
            read,
            message_bytes_max,
            kept: Vec::new(),
        }
    }
}

/// A cursor over one socket's input. It lends each message, so the caller works it off before asking for the next.
#[derive(Debug)]
pub struct Reader<'a> {
    framing: &'a mut Framing,
    input: &'a mut [u8],
    read: usize,
    message_bytes_max: usize,
    /// The payload lent out, if it did not lie in the input in one piece.
    kept: Vec<u8>,
}

/// Where a finished payload lies.
enum Payload {
    Input(Range<usize>),
    Kept,
}

impl Reader<'_> {
    /// The next whole message. `None`: the input is used up, what was unfinished is kept for the next reading.
    ///
    /// After a [`Message::Close`] or an error only `None` follows, in later readings too.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Message<'_>>, FrameError> {
        let finished = self.finish_frame();
        self.framing
            .unfinished
            .take_if(|unfinished| unfinished.is_empty());
        let Reader {
            framing,
            input,
            read,
            kept,
            ..
        } = self;
        let message = match finished {
            Ok(None) => return Ok(None),
            Ok(Some((opcode, Payload::Input(range)))) => Message::of(opcode, &input[range]),
            Ok(Some((opcode, Payload::Kept))) => Message::of(opcode, kept),
            Err(error) => Err(error),
        };
        if matches!(message, Err(_) | Ok(Message::Close { .. })) {
            **framing = Framing {
                unfinished: None,
                has_ended: true,
            };
            *read = input.len();
        }
        message.map(Some)
    }

    /// What was not read yet, exactly as it arrived: for a caller that has to stop here and go on later. Kept, it is
    /// to be the input of the next reading, before anything newer. Nothing after a close or an error.
    pub fn rest(&self) -> &[u8] {
        &self.input[self.read..]
    }

    /// Reads on to the end of a frame that finishes a message.
    fn finish_frame(&mut self) -> Result<Option<(Opcode, Payload)>, FrameError> {
        self.kept = Vec::new();
        loop {
            let Some(mut frame) = self.frame()? else {
                return Ok(None);
            };
            let came = self.read..self.read + frame.bytes_due.min(self.input.len() - self.read);
            self.read = came.end;
            frame.unmask(&mut self.input[came.clone()]);

            let is_whole = frame.bytes_due == 0;
            let is_text = !frame.opcode.is_control();
            if is_whole && !frame.is_begun && frame.opcode != Opcode::Continuation && frame.is_final {
                return Ok(Some((frame.opcode, Payload::Input(came))));
            }

            let unfinished = self.framing.unfinished.get_or_insert_default();
            let (payload, bytes_max) = if is_text {
                (unfinished.text.get_or_insert_default(), self.message_bytes_max)
            } else {
                (&mut unfinished.control, CONTROL_BYTES_MAX)
            };
            append(payload, &self.input[came], bytes_max);
            if !is_whole {
                frame.is_begun = true;
                unfinished.frame = Some(frame);
                return Ok(None);
            }
            if !is_text {
                self.kept = mem::take(payload);
                return Ok(Some((frame.opcode, Payload::Kept)));
            }
            if frame.is_final {
                self.kept = mem::take(payload);
                unfinished.text = None;
                unfinished.text_bytes_checked = 0;
                return Ok(Some((Opcode::Text, Payload::Kept)));
            }
            unfinished.text_bytes_checked += valid_up_to(&payload[unfinished.text_bytes_checked..])?;
        }
    }

    /// The frame the input ended in, or the next one, once its header is whole and nothing is wrong with it.
    fn frame(&mut self) -> Result<Option<ClientFrame>, FrameError> {
        let mut head = Head::default();
        if let Some(unfinished) = &mut self.framing.unfinished {
            if let Some(frame) = unfinished.frame.take() {
                return Ok(Some(frame));
            }
            head = mem::take(&mut unfinished.head);
        }
        let had = head.len;
        let came = self.input.len() - self.read;
        let taken = came.min(HEAD_BYTES_MAX - had);
        head.bytes[had..had + taken].copy_from_slice(&self.input[self.read..self.read + taken]);
        head.len += taken;

        let Some((frame, head_len)) = ClientFrame::parse(&head.bytes[..head.len])? else {
            self.read += taken;
            if head.len > 0 {
                self.framing.unfinished.get_or_insert_default().head = head;
            }
            return Ok(None);
        };
        self.read += head_len - had;
        self.admit(&frame)?;
        Ok(Some(frame))
    }

    /// Whether a frame may come here and be so long.
    fn admit(&self, frame: &ClientFrame) -> Result<(), FrameError> {
        let text = self
            .framing
            .unfinished
            .as_ref()
            .and_then(|unfinished| unfinished.text.as_ref());
        match (frame.opcode, text) {
            (Opcode::Ping | Opcode::Pong | Opcode::Close, _) => return Ok(()),
            (Opcode::Continuation, None) => return Err(FrameError::ContinuationOfNothing),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(FrameError::MessageInsideMessage),
            (Opcode::Binary, None) => return Err(FrameError::Binary),
            (Opcode::Continuation, Some(_)) | (Opcode::Text, None) => {}
        }
        let before = text.map_or(0, Vec::len);
        if frame.bytes_due > self.message_bytes_max.saturating_sub(before) {
            return Err(FrameError::TooBig);
        }
        Ok(())
    }
}

impl Message<'_> {
    fn of(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, FrameError> {
        match opcode {
            Opcode::Ping => Ok(Message::Ping(payload)),
            Opcode::Pong => Ok(Message::Pong(payload)),
            Opcode::Close => close(payload),
            Opcode::Text | Opcode::Continuation | Opcode::Binary => str::from_utf8(payload)
                .map(Message::Text)
                .map_err(|_| FrameError::NotUtf8),
        }
    }
}

fn close(payload: &[u8]) -> Result<Message<'_>, FrameError> {
    let (code, reason) = match payload {
        [] => return Ok(Message::Close { code: None }),
        [_] => return Err(FrameError::BadClose),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 1004 to 1006 and 1015 are never on the wire; 1012 to 1014 were registered after the RFC.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(FrameError::BadClose);
    }
    str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
    Ok(Message::Close { code: Some(code) })
}

/// Appends what came. Room is made for that and as much again as is held, within the limit: what a header promises
/// costs nothing until its bytes are here, and a message in a thousand crumbs is not moved a thousand times.
fn append(payload: &mut Vec<u8>, came: &[u8], bytes_max: usize) {
    let len = payload.len() + came.len();
    if payload.capacity() < len {
        payload.reserve_exact(came.len() + payload.len().min(bytes_max.saturating_sub(len)));
    }
    payload.extend_from_slice(came);
}

/// How many bytes are whole characters. A character may be cut by the end of a fragment, but not be wrong.
fn valid_up_to(bytes: &[u8]) -> Result<usize, FrameError> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(FrameError::NotUtf8),
    }
}
