//! What a ring keeps and what subscribers' events travel in: one thing that one node tells the others, with the frame
//! finished and last, so that who receives it writes out the bytes it came in.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

use super::Stamp;
use super::wire::{Malformed, Reader, Text, number_length, put_bytes, put_number};
use crate::protocol::socket_id::SocketId;

/// The version of the encoding: the upper half of the first byte. The lower half says what it is.
const VERSION: u8 = 1;

/// An event has the upper bit of the lower half clear; the other three say what of it is there.
const EVENT_EXCEPT: u8 = 0b0001;
const EVENT_CLIENT: u8 = 0b0010;
const EVENT_AFTER: u8 = 0b0100;
const EVENT_MAX: u8 = 0b0111;
const CLOSE: u8 = 8;
const ROSTER: u8 = 9;

/// One thing that one node tells the others. Names are borrowed where it is written, and shared with the message that
/// it came in where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<T = Text> {
    /// When its sender let it go.
    pub stamp: Stamp,
    /// What is told.
    pub body: Body<T>,
}

/// What an envelope tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<T = Text> {
    /// An event for the subscribers of a channel.
    Event {
        /// The app's id.
        app: T,
        /// The channel's name.
        channel: T,
        /// The socket that must not get it.
        except: Option<SocketId>,
        /// Who it is from.
        author: Author,
        /// The number on the sender's roster topic that must have been applied before this event is delivered; 0: none.
        after: u64,
        /// The finished WebSocket frame.
        frame: Bytes,
    },
    /// All sockets of a user are to be closed.
    Close {
        /// The app's id.
        app: T,
        /// The user's own channel.
        channel: T,
        /// The code to close with.
        code: u16,
    },
    /// A change of the roster, opaque here.
    Roster(Bytes),
}

/// Whom an event is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The app's back end.
    Backend,
    /// A subscriber.
    Client,
}

impl<T: Deref<Target = str>> Envelope<T> {
    /// As it travels.
    pub fn encode(&self) -> Bytes {
        let text = |text: &T| number_length(text.len() as u64) + text.len();
        let length = 1
            + number_length(self.stamp.0)
            + match &self.body {
                Body::Event {
                    app,
                    channel,
                    except,
                    after,
                    frame,
                    ..
                } => {
                    let except =
                        except.map_or(0, |id| number_length(id.parts().0) + number_length(id.parts().1));
                    let after = if *after > 0 { number_length(*after) } else { 0 };
                    except + after + text(app) + text(channel) + frame.len()
                }
                Body::Close { app, channel, code } => {
                    number_length(u64::from(*code)) + text(app) + text(channel)
                }
                Body::Roster(delta) => delta.len(),
            };
        let mut into = BytesMut::with_capacity(length);
        into.put_u8(VERSION << 4 | self.kind());
        put_number(&mut into, self.stamp.0);
        match &self.body {
            Body::Event {
                app,
                channel,
                except,
                after,
                frame,
                ..
            } => {
                if let Some(socket) = except {
                    let (left, right) = socket.parts();
                    put_number(&mut into, left);
                    put_number(&mut into, right);
                }
                if *after > 0 {
                    put_number(&mut into, *after);
                }
                put_bytes(&mut into, app.as_bytes());
                put_bytes(&mut into, channel.as_bytes());
                into.put_slice(frame);
            }
            Body::Close { app, channel, code } => {
                put_number(&mut into, u64::from(*code));
                put_bytes(&mut into, app.as_bytes());
                put_bytes(&mut into, channel.as_bytes());
            }
            Body::Roster(delta) => into.put_slice(delta),
        }
        debug_assert_eq!(into.len(), length, "the capacity was exact");
        into.freeze()
    }

    fn kind(&self) -> u8 {
        match &self.body {
            Body::Event {
                except,
                author,
                after,
                ..
            } => {
                let except = if except.is_some() { EVENT_EXCEPT } else { 0 };
                let client = if *author == Author::Client {
                    EVENT_CLIENT
                } else {
                    0
                };
                let after = if *after > 0 { EVENT_AFTER } else { 0 };
                except | client | after
            }
            Body::Close { .. } => CLOSE,
            Body::Roster(_) => ROSTER,
        }
    }
}

impl Envelope {
    /// Reads what another node wrote. Its frame and its names share the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Envelope, Malformed> {
        let mut reader = Reader::new(bytes);
        let first = reader.byte()?;
        if first >> 4 != VERSION {
            return Err(Malformed);
        }
        let stamp = Stamp(reader.number()?);
        let body = match first & 0x0f {
            kind @ 0..=EVENT_MAX => Body::Event {
                except: (kind & EVENT_EXCEPT != 0)
                    .then(|| socket(&mut reader))
                    .transpose()?,
                author: if kind & EVENT_CLIENT != 0 {
                    Author::Client
                } else {
                    Author::Backend
                },
                after: if kind & EVENT_AFTER != 0 {
                    reader.number()?
                } else {
                    0
                },
                app: reader.text()?,
                channel: reader.text()?,
                frame: reader.rest(),
            },
            CLOSE => {
                let code = u16::try_from(reader.number()?).map_err(|_| Malformed)?;
                let (app, channel) = (reader.text()?, reader.text()?);
                if !reader.is_done() {
                    return Err(Malformed);
                }
                Body::Close { app, channel, code }
            }
            ROSTER => Body::Roster(reader.rest()),
            _ => return Err(Malformed),
        };
        Ok(Envelope { stamp, body })
    }
}

fn socket(reader: &mut Reader) -> Result<SocketId, Malformed> {
    let (left, right) = (reader.number()?, reader.number()?);
    let could_be = |part| (1..=SocketId::PART_MAX).contains(&part);
    if !could_be(left) || !could_be(right) {
        return Err(Malformed);
    }
    Ok(SocketId::from_parts(left, right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapter::NodeId;
    use crate::relay::parcel::{Content, Parcel, Run};

    fn part() -> impl Strategy<Value = u64> {
        prop_oneof![Just(1), Just(SocketId::PART_MAX), 1..=SocketId::PART_MAX]
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    fn body() -> impl Strategy<Value = Body<String>> {
        let except = proptest::option::of((part(), part()).prop_map(|(l, r)| SocketId::from_parts(l, r)));
        let author = prop_oneof![Just(Author::Backend), Just(Author::Client)];
        let after = prop_oneof![Just(0), any::<u64>()];
        let event = (any::<String>(), any::<String>(), except, author, after, bytes());
        prop_oneof![
            event.prop_map(|(app, channel, except, author, after, frame)| Body::Event {
                app,
                channel,
                except,
                author,
                after,
                frame
            }),
            (any::<String>(), any::<String>(), any::<u16>()).prop_map(|(app, channel, code)| Body::Close {
                app,
                channel,
                code
            }),
            bytes().prop_map(Body::Roster),
        ]
    }

    fn envelope() -> impl Strategy<Value = Envelope<String>> {
        (any::<u64>(), body()).prop_map(|(stamp, body)| Envelope {
            stamp: Stamp(stamp),
            body,
        })
    }

    /// With names of its own, to be compared.
    fn owned(envelope: Envelope) -> Envelope<String> {
        let body = match envelope.body {
            Body::Event {
                app,
                channel,
                except,
                author,
                after,
                frame,
            } => Body::Event {
                app: app.to_string(),
                channel: channel.to_string(),
                except,
                author,
                after,
                frame,
            },
            Body::Close { app, channel, code } => Body::Close {
                app: app.to_string(),
                channel: channel.to_string(),
                code,
            },
            Body::Roster(delta) => Body::Roster(delta),
        };
        Envelope {
            stamp: envelope.stamp,
            body,
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(envelope in envelope()) {
            let decoded = Envelope::decode(envelope.encode()).expect("as it was encoded");
            prop_assert_eq!(owned(decoded), envelope);
        }

        #[test]
        fn hostile_bytes_are_read_or_refused(
            envelope in envelope(),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = envelope.encode().to_vec();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(envelope) = Envelope::decode(bytes.into()) {
                prop_assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
            }
        }
    }

    #[test]
    fn another_version_or_kind_is_malformed() {
        let bytes = Envelope::<&str> {
            stamp: Stamp(1),
            body: Body::Roster(Bytes::new()),
        }
        .encode();
        assert!(Envelope::decode(bytes.clone()).is_ok());
        for first in [0x09, 0x1a, 0x1f, 0x29, 0xff] {
            let mut other = bytes.to_vec();
            other[0] = first;
            assert_eq!(Envelope::decode(other.into()), Err(Malformed), "{first:#x}");
        }
        assert_eq!(Envelope::decode(Bytes::new()), Err(Malformed));
    }

    #[test]
    fn a_socket_that_cannot_be_is_malformed() {
        for (left, right) in [(0, 1), (1, 0), (SocketId::PART_MAX + 1, 1)] {
            let except = Some(SocketId::from_parts(left, right));
            assert_eq!(
                Envelope::decode(event(except, Bytes::new()).encode()),
                Err(Malformed)
            );
        }
    }

    #[test]
    fn a_frame_is_not_copied_when_it_is_read() {
        let bytes = event(None, Bytes::from_static(b"a frame")).encode();
        let end = bytes.as_ptr_range().end;
        let Body::Event { frame, .. } = Envelope::decode(bytes).expect("well formed").body else {
            panic!("an event was encoded");
        };
        assert_eq!(frame.as_ptr_range().end, end);
    }

    fn event(except: Option<SocketId>, frame: Bytes) -> Envelope<&'static str> {
        Envelope {
            stamp: Stamp(1_800_000_000_000_000),
            body: Body::Event {
                app: "1",
                channel: "private-chat.1234",
                except,
                author: Author::Backend,
                after: 0,
                frame,
            },
        }
    }

    /// Bytes on the bus for a publish are at most 1.2 times the frame, alone and among others.
    #[test]
    fn the_bus_carries_little_more_than_the_frame() {
        let json = format!(
            r#"{{"event":"new-message","channel":"private-chat.1234","data":"{}"}}"#,
            "x".repeat(200)
        );
        let frame = crate::protocol::frame::Frame::text(json).into_bytes();
        let longest = SocketId::from_parts(SocketId::PART_MAX, SocketId::PART_MAX);
        for except in [None, Some(longest)] {
            for count in [1, 2, 100] {
                let envelope = event(except, frame.clone()).encode();
                let parcel = Parcel {
                    sender: NodeId(u64::MAX),
                    content: Content::Envelopes(Run {
                        first: 2_000_000,
                        is_repair: false,
                        envelopes: vec![envelope; count],
                    }),
                };
                let ratio = parcel.encode().len() as f64 / (count * frame.len()) as f64;
                assert!(ratio <= 1.2, "{count} with {except:?}: {ratio}");
            }
        }
    }
}
