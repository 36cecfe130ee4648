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

/// How many bytes [`put_number`] writes.
pub fn number_length(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Item {
        Byte(u8),
        Number(u64),
        Fixed(u64),
        Bytes(Vec<u8>),
        Text(String),
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            any::<u8>().prop_map(Item::Byte),
            // Of every length, and both ends of each.
            (0..64u32, -1i64..=1)
                .prop_map(|(bits, off)| Item::Number((1u64 << bits).wrapping_add_signed(off))),
            any::<u64>().prop_map(Item::Number),
            any::<u64>().prop_map(Item::Fixed),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Item::Bytes),
            any::<String>().prop_map(Item::Text),
        ]
    }

    fn write(items: &[Item]) -> Bytes {
        let mut into = BytesMut::new();
        for item in items {
            match item {
                Item::Byte(byte) => into.put_u8(*byte),
                Item::Number(number) => {
                    let before = into.len();
                    put_number(&mut into, *number);
                    assert_eq!(into.len() - before, number_length(*number));
                }
                Item::Fixed(number) => into.put_u64(*number),
                Item::Bytes(bytes) => put_bytes(&mut into, bytes),
                Item::Text(text) => put_bytes(&mut into, text.as_bytes()),
            }
        }
        into.freeze()
    }

    /// What is read where `like` was written.
    fn read(reader: &mut Reader, like: &Item) -> Result<Item, Malformed> {
        Ok(match like {
            Item::Byte(_) => Item::Byte(reader.byte()?),
            Item::Number(_) => Item::Number(reader.number()?),
            Item::Fixed(_) => Item::Fixed(reader.fixed()?),
            Item::Bytes(_) => Item::Bytes(reader.bytes()?.to_vec()),
            Item::Text(_) => Item::Text(reader.text()?.to_string()),
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(items in proptest::collection::vec(item(), 0..20)) {
            let mut reader = Reader::new(write(&items));
            for item in &items {
                prop_assert_eq!(&read(&mut reader, item).expect("as it was written"), item);
            }
            prop_assert!(reader.is_done());
        }

        #[test]
        fn what_is_cut_off_is_malformed(items in proptest::collection::vec(item(), 1..6), cut in any::<prop::sample::Index>()) {
            let whole = write(&items);
            let mut reader = Reader::new(whole.slice(..cut.index(whole.len())));
            prop_assert!(items.iter().any(|item| read(&mut reader, item).is_err()));
        }

        #[test]
        fn hostile_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), wanted in proptest::collection::vec(item(), 0..8)) {
            let mut reader = Reader::new(bytes.into());
            let _ = wanted.iter().try_for_each(|item| read(&mut reader, item).map(drop));
        }
    }

    #[test]
    fn an_announced_length_is_not_believed() {
        for announced in [2, 1 << 20, 1 << 40, u64::MAX] {
            let mut bytes = BytesMut::new();
            put_number(&mut bytes, announced);
            bytes.put_u8(b'x');
            let message = bytes.freeze();
            assert_eq!(Reader::new(message.clone()).bytes(), Err(Malformed));
            assert_eq!(Reader::new(message).text(), Err(Malformed));
        }
    }

    #[test]
    fn an_integer_has_at_most_64_bits() {
        let read = |bytes: &'static [u8]| Reader::new(Bytes::from_static(bytes)).number();
        assert_eq!(read(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(u64::MAX));
        assert_eq!(read(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Err(Malformed));
        assert_eq!(
            read(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"),
            Err(Malformed)
        );
    }

    #[test]
    fn pieces_share_the_memory_of_the_whole() {
        let mut bytes = BytesMut::new();
        put_bytes(&mut bytes, b"piece");
        let whole = bytes.freeze();
        let mut reader = Reader::new(whole.clone());
        assert_eq!(reader.bytes().expect("a piece").as_ptr(), whole[1..].as_ptr());
    }
}
