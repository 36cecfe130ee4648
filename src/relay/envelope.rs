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
        origin: Origin,
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

/// Who an event is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The app's back end.
    Published,
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
                origin,
                after,
                ..
            } => {
                let except = if except.is_some() { EVENT_EXCEPT } else { 0 };
                let client = if *origin == Origin::Client {
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
                origin: if kind & EVENT_CLIENT != 0 {
                    Origin::Client
                } else {
                    Origin::Published
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
