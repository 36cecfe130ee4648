//! WebSocket frames as a server sends them, cut anywhere by the reads they come in. Frames that a read holds whole are
//! lent out in place; of one that is cut only the head is kept, since nobody looks further.
//!
//! It knows nothing of what the frames say.

use std::fmt;

/// Bytes of a longest header.
const HEADER_MAX: usize = 10;
/// Bytes of a longest ping or close: those are kept whole.
const CONTROL_MAX: usize = 125;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A message: the head of it, at least so much as was asked to be kept. Control frames come whole.
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(&'a [u8]),
}

/// What no server should send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A mask, or an extension that was never agreed on.
    Bits,
    /// A message in several frames. No server of this protocol is known to send them.
    Fragmented,
    /// A frame of another kind: these are its four bits.
    Kind(u8),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Bits => write!(f, "a masked or compressed frame"),
            Broken::Fragmented => write!(f, "a message in several frames, which this client does not read"),
            Broken::Kind(kind) => write!(f, "a frame of kind {kind:#x}"),
        }
    }
}

/// Where in its stream of frames a client is.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    cut: Option<Box<Cut>>,
}

/// A frame that a read ended in.
#[derive(Debug, Default)]
struct Cut {
    /// Header and payload from the start, as far as they are kept.
    kept: Vec<u8>,
    /// How much of it has come, kept or not. Bytes.
    come: usize,
}

struct Header {
    kind: u8,
    payload_at: usize,
    length: usize,
}

impl Frames {
    /// Takes in what arrived and hands on every frame that is complete with it. Of a frame in pieces at least `keep`
    /// bytes of the payload are kept.
    ///
    /// # Errors
    /// What no server should send: the stream is of no use from there on.
    #[inline]
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        keep: usize,
        mut take: impl FnMut(Frame<'_>),
    ) -> Result<(), Broken> {
        let keep = keep.max(CONTROL_MAX);
        if self.cut.is_some() {
            input = self.join(input, keep, &mut take)?;
        }
        while let Some(header) = Header::read(input)? {
            let end = header.payload_at.saturating_add(header.length);
            if input.len() < end {
                break;
            }
            take(header.frame(&input[header.payload_at..end])?);
            input = &input[end..];
        }
        if !input.is_empty() {
            let kept = input[..input.len().min(HEADER_MAX + keep)].to_vec();
            let come = input.len();
            self.cut = Some(Box::new(Cut { kept, come }));
        }
        Ok(())
    }

    /// Goes on with the frame that was cut. The answer is what remains of the input behind it.
    #[cold]
    fn join<'a>(
        &mut self,
        mut input: &'a [u8],
        keep: usize,
        take: &mut impl FnMut(Frame<'_>),
    ) -> Result<&'a [u8], Broken> {
        let Some(cut) = self.cut.as_deref_mut() else {
            return Ok(input);
        };
        while let [byte, rest @ ..] = input {
            if let Some(header) = Header::read(&cut.kept)? {
                let end = header.payload_at.saturating_add(header.length);
                let taken = input.len().min(end - cut.come);
                let room = (HEADER_MAX + keep).saturating_sub(cut.kept.len());
                cut.kept.extend_from_slice(&input[..taken.min(room)]);
                cut.come += taken;
                input = &input[taken..];
                if cut.come == end {
                    take(header.frame(&cut.kept[header.payload_at..])?);
                    self.cut = None;
                    return Ok(input);
                }
                continue;
            }
            cut.kept.push(*byte);
            cut.come += 1;
            input = rest;
            // A frame without payload ends with its header.
            if let Some(header) = Header::read(&cut.kept)?
                && header.length == 0
            {
                take(header.frame(&[])?);
                self.cut = None;
                return Ok(input);
            }
        }
        Ok(input)
    }
}

impl Header {
    /// The header at the start of this; nothing if more must come first.
    #[inline]
    fn read(input: &[u8]) -> Result<Option<Header>, Broken> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(Broken::Bits);
        }
        let kind = first & 0x0f;
        if first & 0x80 == 0 || kind == 0 {
            return Err(Broken::Fragmented);
        }
        let (payload_at, length) = match (second, rest) {
            (..126, _) => (2, usize::from(*second)),
            (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
            }
            _ => return Ok(None),
        };
        Ok(Some(Header {
            kind,
            payload_at,
            length,
        }))
    }

    #[inline]
    fn frame<'a>(&self, payload: &'a [u8]) -> Result<Frame<'a>, Broken> {
        match self.kind {
            TEXT => Ok(Frame::Text(payload)),
            PING => Ok(Frame::Ping(payload)),
            PONG => Ok(Frame::Pong),
            CLOSE => Ok(Frame::Close(payload)),
            kind => Err(Broken::Kind(kind)),
        }
    }
}

/// Puts a client's text frame behind what is there. Masked as it must be, with a mask of zeroes.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, TEXT, text.as_bytes());
}

/// Puts the answer to a ping behind what is there.
pub(crate) fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put(out, PONG, payload);
}

fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(0x80 | kind);
    match payload.len() {
        short @ ..126 => out.push(0x80 | short as u8),
        long @ ..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server's frame: unmasked.
    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        put(&mut masked, kind, payload);
        let header = masked.len() - payload.len() - 4;
        masked[1] &= 0x7f;
        masked.drain(header..header + 4);
        masked
    }

    fn feed(frames: &mut Frames, input: &[u8], keep: usize, got: &mut Vec<(u8, Vec<u8>)>) {
        frames
            .feed(input, keep, |frame| {
                got.push(match frame {
                    Frame::Text(text) => (TEXT, text.to_vec()),
                    Frame::Ping(payload) => (PING, payload.to_vec()),
                    Frame::Pong => (PONG, Vec::new()),
                    Frame::Close(payload) => (CLOSE, payload.to_vec()),
                });
            })
            .expect("only lawful frames");
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            lengths in prop::collection::vec(prop_oneof![0_usize..5, 120_usize..130, 300_usize..310, 65_530_usize..65_540], 1..8),
            cuts in prop::collection::vec(prop_oneof![1_usize..12, 100_usize..400, 10_000_usize..70_000], 1..40),
            keep in prop_oneof![Just(0_usize), 1_usize..200, Just(100_000_usize)],
        ) {
            let mut stream = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                stream.extend(frame(TEXT, &vec![b'a' + index as u8; *length]));
                stream.extend(frame(PING, &[index as u8]));
            }
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                feed(&mut frames, piece, keep, &mut got);
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got.len(), lengths.len() * 2);
            for (index, pair) in got.chunks(2).enumerate() {
                let (text, ping) = (&pair[0].1, &pair[1].1);
                prop_assert!(text.len() >= keep.max(CONTROL_MAX).min(lengths[index]) && text.len() <= lengths[index]);
                prop_assert!(text.iter().all(|byte| *byte == b'a' + index as u8));
                prop_assert_eq!(ping, &[index as u8]);
            }
            prop_assert!(frames.cut.is_none());
        }
    }

    #[test]
    fn what_no_server_should_send_is_told() {
        for (bytes, broken) in [
            (vec![0x81, 0x80, 1, 2, 3, 4], Broken::Bits),
            (vec![0xc1, 0], Broken::Bits),
            (vec![0x01, 1, b'a'], Broken::Fragmented),
            (vec![0x82, 1, 7], Broken::Kind(2)),
        ] {
            assert_eq!(Frames::default().feed(&bytes, 10, |_| ()), Err(broken));
        }
    }
}
