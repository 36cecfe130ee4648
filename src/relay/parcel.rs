//! One message on the bus: who sends it, and what. A run of envelopes, or what nodes ask and tell each other about
//! them. No list announces its length: a message is read to its end, so nothing is believed that is not there.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{Malformed, Reader, number_length, put_bytes, put_number};
use crate::adapter::{NodeId, Topic};

/// The version of the encoding: the upper half of the first byte. The lower half says what it is.
const VERSION: u8 = 1;

/// A lone envelope needs no length.
const ENVELOPE: u8 = 0;
const ENVELOPES: u8 = 1;
const ENVELOPE_AGAIN: u8 = 2;
const ENVELOPES_AGAIN: u8 = 3;
const ASK: u8 = 4;
const GONE: u8 = 5;
const BEAT: u8 = 6;
const ROSTER: u8 = 7;

/// Version and kind, and the sender.
const HEADER_BYTES: usize = 1 + 8;

/// No topic is ever numbered as high; what claims to be is malformed. So numbers can be added without care.
pub const NUMBER_MAX: u64 = 1 << 62;

/// One message on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Who sent it.
    pub sender: NodeId,
    /// What it says.
    pub content: Content,
}

/// What a message on the bus says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Envelopes of the topic that it travels on.
    Envelopes(Run),
    /// To the sender of those topics: these are missed here.
    Ask(Vec<Range>),
    /// Numbers below these are no longer to be had.
    Gone(Vec<(Topic, u64)>),
    /// The sender is alive.
    Beat(Beat),
    /// What nodes ask and tell each other about the roster, opaque here.
    Roster(Bytes),
}

/// Envelopes with consecutive numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The number of the first one.
    pub first: u64,
    /// Whether they are sent again since somebody missed them: who hears a topic for the first time does not begin here.
    pub is_repair: bool,
    /// In the order of their numbers.
    pub envelopes: Vec<Bytes>,
}

/// Numbers of a topic, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The topic on which they count.
    pub topic: Topic,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// What a heartbeat says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The node has just started, and numbered nothing before this beat that its first one did not tell.
    pub is_starting: bool,
    /// This is a goodbye: the heads are final.
    pub is_leaving: bool,
    /// It takes part in duties that need one doer.
    pub is_ready: bool,
    /// It wants the heads of all topics from everybody.
    pub asks_heads: bool,
    /// The heads are of all topics, not only of those used in the last minute.
    pub has_all_heads: bool,
    /// Into how many topics it spreads channels.
    pub topics: u16,
    /// By which hash.
    pub hash: u8,
    /// Beats of this node up to this one.
    pub number: u64,
    /// What it announced of its roster, in short, if the broker has accepted all of that.
    pub roster_digest: Option<u64>,
    /// By topic, the last number that the broker has accepted.
    pub heads: Vec<(Topic, u64)>,
}

impl Parcel {
    /// As it travels.
    pub fn encode(&self) -> Bytes {
        let header = |kind: u8, capacity: usize| {
            let mut into = BytesMut::with_capacity(HEADER_BYTES + capacity);
            into.put_u8(VERSION << 4 | kind);
            into.put_u64(self.sender.0);
            into
        };
        match &self.content {
            Content::Envelopes(run) => encode_run(run, header),
            Content::Ask(ranges) => {
                let mut into = header(ASK, ranges.len() * 16);
                for range in ranges {
                    put_topic(&mut into, range.topic);
                    put_number(&mut into, range.from);
                    put_number(&mut into, range.to.saturating_sub(range.from));
                }
                into.freeze()
            }
            Content::Gone(below) => {
                let mut into = header(GONE, below.len() * 8);
                put_numbers(&mut into, below);
                into.freeze()
            }
            Content::Beat(beat) => {
                let mut into = header(BEAT, 32 + beat.heads.len() * 8);
                into.put_u8(beat.flags());
                into.put_u16(beat.topics);
                into.put_u8(beat.hash);
                put_number(&mut into, beat.number);
                into.put_u64(beat.roster_digest.unwrap_or_default());
                put_numbers(&mut into, &beat.heads);
                into.freeze()
            }
            Content::Roster(bytes) => {
                let mut into = header(ROSTER, bytes.len());
                into.put_slice(bytes);
                into.freeze()
            }
        }
    }

    /// Reads what another node wrote. Envelopes share the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Parcel, Malformed> {
        let mut reader = Reader::new(bytes);
        let first = reader.byte()?;
        if first >> 4 != VERSION {
            return Err(Malformed);
        }
        let sender = NodeId(reader.fixed()?);
        let content = match first & 0x0f {
            ENVELOPE => Content::Envelopes(decode_one(reader, false)?),
            ENVELOPE_AGAIN => Content::Envelopes(decode_one(reader, true)?),
            ENVELOPES => Content::Envelopes(decode_run(reader, false)?),
            ENVELOPES_AGAIN => Content::Envelopes(decode_run(reader, true)?),
            ASK => Content::Ask(decode_all(&mut reader, range)?),
            GONE => Content::Gone(decode_all(&mut reader, numbered_topic)?),
            BEAT => Content::Beat(decode_beat(reader)?),
            ROSTER => Content::Roster(reader.rest()),
            _ => return Err(Malformed),
        };
        Ok(Parcel { sender, content })
    }
}

impl Run {
    /// The number after the last one.
    pub fn end(&self) -> u64 {
        self.first + self.envelopes.len() as u64
    }
}

impl Beat {
    fn flags(&self) -> u8 {
        [
            self.is_starting,
            self.is_leaving,
            self.is_ready,
            self.asks_heads,
            self.has_all_heads,
            self.roster_digest.is_some(),
        ]
        .iter()
        .enumerate()
        .map(|(bit, set)| u8::from(*set) << bit)
        .sum()
    }
}

fn encode_run(run: &Run, header: impl Fn(u8, usize) -> BytesMut) -> Bytes {
    let first = number_length(run.first);
    if let [envelope] = run.envelopes.as_slice() {
        let kind = if run.is_repair { ENVELOPE_AGAIN } else { ENVELOPE };
        let mut into = header(kind, first + envelope.len());
        put_number(&mut into, run.first);
        into.put_slice(envelope);
        return into.freeze();
    }
    let length = |envelope: &Bytes| number_length(envelope.len() as u64) + envelope.len();
    let kind = if run.is_repair { ENVELOPES_AGAIN } else { ENVELOPES };
    let mut into = header(kind, first + run.envelopes.iter().map(length).sum::<usize>());
    put_number(&mut into, run.first);
    for envelope in &run.envelopes {
        put_bytes(&mut into, envelope);
    }
    into.freeze()
}

fn decode_one(mut reader: Reader, is_repair: bool) -> Result<Run, Malformed> {
    Ok(Run {
        first: position(&mut reader)?,
        is_repair,
        envelopes: vec![reader.rest()],
    })
}

fn decode_run(mut reader: Reader, is_repair: bool) -> Result<Run, Malformed> {
    Ok(Run {
        first: position(&mut reader)?,
        is_repair,
        envelopes: decode_all(&mut reader, envelope)?,
    })
}

fn decode_beat(mut reader: Reader) -> Result<Beat, Malformed> {
    let flags = reader.byte()?;
    let is_set = |bit: u8| flags & (1 << bit) != 0;
    Ok(Beat {
        is_starting: is_set(0),
        is_leaving: is_set(1),
        is_ready: is_set(2),
        asks_heads: is_set(3),
        has_all_heads: is_set(4),
        topics: u16::from_be_bytes([reader.byte()?, reader.byte()?]),
        hash: reader.byte()?,
        number: reader.number()?,
        roster_digest: Some(reader.fixed()?).filter(|_| is_set(5)),
        heads: decode_all(&mut reader, numbered_topic)?,
    })
}

/// Reads to the end of the message.
fn decode_all<T>(
    reader: &mut Reader,
    one: impl Fn(&mut Reader) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut all = Vec::new();
    while !reader.is_done() {
        all.push(one(reader)?);
    }
    Ok(all)
}

/// An envelope is never empty: a few bytes are not to become a long list.
fn envelope(reader: &mut Reader) -> Result<Bytes, Malformed> {
    Some(reader.bytes()?)
        .filter(|bytes| !bytes.is_empty())
        .ok_or(Malformed)
}

/// The number of an envelope, from 1.
fn position(reader: &mut Reader) -> Result<u64, Malformed> {
    let number = reader.number()?;
    if !(1..=NUMBER_MAX).contains(&number) {
        return Err(Malformed);
    }
    Ok(number)
}

fn range(reader: &mut Reader) -> Result<Range, Malformed> {
    let topic = topic(reader)?;
    let from = position(reader)?;
    let more = reader.number()?;
    if more > NUMBER_MAX {
        return Err(Malformed);
    }
    Ok(Range {
        topic,
        from,
        to: from + more,
    })
}

fn put_numbers(into: &mut BytesMut, numbers: &[(Topic, u64)]) {
    for (topic, number) in numbers {
        put_topic(into, *topic);
        put_number(into, *number);
    }
}

fn numbered_topic(reader: &mut Reader) -> Result<(Topic, u64), Malformed> {
    Ok((topic(reader)?, position(reader)?))
}

/// The channels' topics, of which there are many, in two bytes mostly.
fn put_topic(into: &mut BytesMut, topic: Topic) {
    match topic {
        Topic::Beats => put_number(into, 0),
        Topic::Roster => put_number(into, 1),
        Topic::Node(id) => {
            put_number(into, 2);
            into.put_u64(id.0);
        }
        Topic::Channels(number) => put_number(into, 3 + u64::from(number)),
    }
}

fn topic(reader: &mut Reader) -> Result<Topic, Malformed> {
    Ok(match reader.number()? {
        0 => Topic::Beats,
        1 => Topic::Roster,
        2 => Topic::Node(NodeId(reader.fixed()?)),
        number => Topic::Channels(u16::try_from(number - 3).map_err(|_| Malformed)?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn topic() -> impl Strategy<Value = Topic> {
        prop_oneof![
            Just(Topic::Beats),
            Just(Topic::Roster),
            any::<u64>().prop_map(|id| Topic::Node(NodeId(id))),
            any::<u16>().prop_map(Topic::Channels),
        ]
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![1..300u64, 1..=NUMBER_MAX, Just(NUMBER_MAX)]
    }

    fn envelope() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 1..300).prop_map(Bytes::from)
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    fn beat() -> impl Strategy<Value = Beat> {
        let numbers = (any::<u16>(), any::<u8>(), any::<u64>(), any::<u64>());
        (any::<[bool; 5]>(), numbers, vec((topic(), number()), 0..20)).prop_map(|(flags, numbers, heads)| {
            Beat {
                is_starting: flags[0],
                is_leaving: flags[1],
                is_ready: flags[2],
                asks_heads: flags[3],
                has_all_heads: flags[4],
                topics: numbers.0,
                hash: numbers.1,
                number: numbers.2,
                roster_digest: (numbers.3 % 2 == 0).then_some(numbers.3),
                heads,
            }
        })
    }

    fn content() -> impl Strategy<Value = Content> {
        let run = (number(), any::<bool>(), vec(envelope(), 0..5));
        let range = (topic(), number(), 0..=NUMBER_MAX).prop_map(|(topic, from, more)| Range {
            topic,
            from,
            to: from + more,
        });
        prop_oneof![
            run.prop_map(|(first, is_repair, envelopes)| Content::Envelopes(Run {
                first,
                is_repair,
                envelopes
            })),
            vec(range, 0..10).prop_map(Content::Ask),
            vec((topic(), number()), 0..10).prop_map(Content::Gone),
            beat().prop_map(Content::Beat),
            bytes().prop_map(Content::Roster),
        ]
    }

    fn parcel() -> impl Strategy<Value = Parcel> {
        (any::<u64>(), content()).prop_map(|(id, content)| Parcel {
            sender: NodeId(id),
            content,
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(parcel in parcel()) {
            prop_assert_eq!(Parcel::decode(parcel.encode()), Ok(parcel));
        }

        #[test]
        fn hostile_bytes_are_read_or_refused(
            parcel in parcel(),
            flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = parcel.encode().to_vec();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let length = bytes.len();
            if let Ok(parcel) = Parcel::decode(bytes.into()) {
                prop_assert!(elements(&parcel.content) <= length);
                prop_assert_eq!(Parcel::decode(parcel.encode()), Ok(parcel));
            }
        }
    }

    /// What was read has taken room for so many elements; each is at least a byte of the message.
    fn elements(content: &Content) -> usize {
        match content {
            Content::Envelopes(run) => run.envelopes.len(),
            Content::Ask(ranges) => ranges.len(),
            Content::Gone(below) => below.len(),
            Content::Beat(beat) => beat.heads.len(),
            Content::Roster(_) => 0,
        }
    }

    #[test]
    fn what_cannot_be_is_malformed() {
        let header = |kind: u8| [&[VERSION << 4 | kind][..], &[0; 8]].concat();
        let number = |number: u64| {
            let mut into = BytesMut::new();
            put_number(&mut into, number);
            into.to_vec()
        };
        let cases = [
            ("nothing", vec![]),
            ("a header cut off", header(ASK)[..5].to_vec()),
            ("another version", [&[2 << 4][..], &[0; 8], &[1]].concat()),
            ("an unknown kind", header(8)),
            ("envelope 0", [header(ENVELOPE), number(0)].concat()),
            (
                "a number too high",
                [header(ENVELOPE), number(NUMBER_MAX + 1)].concat(),
            ),
            (
                "an envelope cut off",
                [header(ENVELOPES), number(1), number(1 << 60), vec![0]].concat(),
            ),
            (
                "a range without end",
                [header(ASK), number(1), number(1), number(u64::MAX)].concat(),
            ),
            (
                "a topic that is none",
                [header(GONE), number(3 + 65_536), number(1)].concat(),
            ),
            ("half a head", [header(GONE), number(1)].concat()),
            ("a beat cut off", [header(BEAT), vec![0, 4]].concat()),
        ];
        for (what, bytes) in cases {
            assert_eq!(Parcel::decode(bytes.into()), Err(Malformed), "{what}");
        }
    }

    #[test]
    fn envelopes_share_the_memory_of_their_parcel() {
        for count in [1, 3] {
            let run = Run {
                first: 7,
                is_repair: false,
                envelopes: vec![Bytes::from_static(b"envelope"); count],
            };
            let bytes = Parcel {
                sender: NodeId(1),
                content: Content::Envelopes(run),
            }
            .encode();
            let Ok(Content::Envelopes(run)) = Parcel::decode(bytes.clone()).map(|parcel| parcel.content)
            else {
                panic!("envelopes were encoded");
            };
            assert_eq!(run.envelopes.len(), count);
            assert!(
                run.envelopes
                    .iter()
                    .all(|envelope| bytes.as_ptr_range().contains(&envelope.as_ptr()))
            );
        }
    }
}
