//! Numbers and texts as the nodes write them: integers of seven bits a byte (LEB128), texts with their length before
//! them. What another node wrote is believed no further than it can be read.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes do not say what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not understood: a message of another node is cut off, or of a version that is not known here")]
pub struct Malformed;

/// Writes an integer.
pub fn put_number(into: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        into.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

/// Writes bytes with their length before them.
pub fn put_bytes(into: &mut BytesMut, bytes: &[u8]) {
    put_number(into, bytes.len() as u64);
    into.put_slice(bytes);
}

/// Reads what was written so. The pieces it gives share the memory of the whole.
#[derive(Clone, Debug)]
pub struct Reader(Bytes);

impl Reader {
    /// Begins to read.
    pub fn new(bytes: Bytes) -> Reader {
        Reader(bytes)
    }

    /// Whether all has been read.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed)
    }

    /// Eight bytes, the highest first.
    pub fn fixed(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| Malformed)
    }

    /// An integer.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if length > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(length))
    }

    /// A text with its length before it, as its own bytes.
    pub fn text(&mut self) -> Result<Text, Malformed> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map_err(|_| Malformed)?;
        Ok(Text(bytes))
    }

    /// All that is left.
    pub fn rest(self) -> Bytes {
        self.0
    }
}

/// A text that shares the memory of the message it came in: to keep one for long is to keep that message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text(Bytes);

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // Checked in `Reader::text`; a second look costs nanoseconds and spares an `unsafe`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
