//! The stamp in an event's data: which run, channel and sequence it belongs to and when it was sent. Fixed width and made
//! of letters that no server escapes, so it is found again whatever a server does to the JSON around it.
//!
//! It knows nothing of frames and of JSON.

/// How long a stamp is. Bytes.
pub(crate) const LENGTH: usize = 56;

const MARK: &[u8; 2] = b"@@";
const RUN: usize = 2;
const CHANNEL: usize = 11;
const SEQUENCE: usize = 20;
const BEFORE: usize = 29;
const SENT: usize = 38;

/// What an event says of itself: `@@RRRRRRRR:CCCCCCCC:SSSSSSSS:BBBBBBBB:TTTTTTTTTTTTTTTT@@`, all of it hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The run that made it; other runs may use the same server.
    pub(crate) run: u32,
    /// The channel it was published to, by its number in the run.
    pub(crate) channel: u32,
    /// Its number within the channel, from zero and without a gap.
    pub(crate) sequence: u32,
    /// Every event before this one had been accepted when this was sent, and so must have come before it does.
    pub(crate) before: u32,
    /// When it was sent, or was due. Nanoseconds since the run's epoch.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// The stamp as text.
    pub(crate) fn text(&self) -> String {
        format!(
            "@@{:08x}:{:08x}:{:08x}:{:08x}:{:016x}@@",
            self.run, self.channel, self.sequence, self.before, self.sent_ns
        )
    }

    /// Reads the stamp that begins here, if one does.
    fn read(text: &[u8]) -> Option<Stamp> {
        let text: &[u8; LENGTH] = text.first_chunk()?;
        let is_stamp = text.starts_with(MARK)
            && text.ends_with(MARK)
            && [CHANNEL, SEQUENCE, BEFORE, SENT]
                .iter()
                .all(|at| text[at - 1] == b':');
        is_stamp.then(|| Stamp {
            run: hex(text, RUN),
            channel: hex(text, CHANNEL),
            sequence: hex(text, SEQUENCE),
            before: hex(text, BEFORE),
            sent_ns: u64::from(hex(text, SENT)) << 32 | u64::from(hex(text, SENT + 8)),
        })
    }
}

/// Eight hexadecimal digits, all at once: what other text gives is a number, but not a meaningful one.
fn hex(text: &[u8; LENGTH], at: usize) -> u32 {
    let mut digits = [0; 8];
    digits.copy_from_slice(&text[at..at + 8]);
    let digits = u64::from_be_bytes(digits);
    // A letter is nine more than its low four bits.
    let nibbles = (digits & 0x0f0f_0f0f_0f0f_0f0f) + 9 * ((digits >> 6) & 0x0101_0101_0101_0101);
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let words = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    (words | words >> 16) as u32
}

/// Finds stamps, and remembers where the last one was: a server builds all its events alike.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    offset: usize,
}

impl Finder {
    /// The stamp in this text, if there is one.
    #[inline]
    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Stamp> {
        match text.get(self.offset..).and_then(Stamp::read) {
            Some(stamp) => Some(stamp),
            None => self.search(text),
        }
    }

    #[cold]
    fn search(&mut self, text: &[u8]) -> Option<Stamp> {
        let places = text.windows(LENGTH).enumerate();
        let (offset, stamp) = places
            .filter(|(_, place)| place.starts_with(MARK))
            .find_map(|(offset, place)| Some((offset, Stamp::read(place)?)))?;
        self.offset = offset;
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn stamps()(run: u32, channel: u32, sequence: u32, before: u32, sent_ns: u64) -> Stamp {
            Stamp { run, channel, sequence, before, sent_ns }
        }
    }

    proptest! {
        #[test]
        fn a_stamp_is_found_wherever_it_stands(
            stamp in stamps(),
            before in "[ -?A-~]{0,80}",
            after in "[ -~]{0,80}",
            remembered in 0_usize..200,
        ) {
            let mut finder = Finder { offset: remembered };
            let text = format!("{before}{}{after}", stamp.text());
            prop_assert_eq!(finder.find(text.as_bytes()), Some(stamp));
            prop_assert_eq!(finder.offset, before.len());
            prop_assert_eq!(finder.find(text.as_bytes()), Some(stamp));
        }

        #[test]
        fn nothing_is_found_where_there_is_no_stamp(text in "[ -?A-~]{0,200}@?[ -?A-~]{0,200}") {
            prop_assert_eq!(Finder::default().find(text.as_bytes()), None);
        }
    }

    #[test]
    fn a_stamp_has_its_length_and_only_letters_that_nobody_escapes() {
        let text = Stamp {
            run: u32::MAX,
            channel: 1,
            sequence: 0xabcd,
            before: 7,
            sent_ns: u64::MAX,
        }
        .text();
        assert_eq!(text, "@@ffffffff:00000001:0000abcd:00000007:ffffffffffffffff@@");
        assert_eq!(text.len(), LENGTH);
    }

    #[test]
    fn a_stamp_cut_short_is_none() {
        let text = Stamp {
            run: 1,
            channel: 2,
            sequence: 3,
            before: 3,
            sent_ns: 4,
        }
        .text();
        for length in 0..LENGTH {
            assert_eq!(Finder::default().find(&text.as_bytes()[..length]), None);
        }
    }
}
