//! The wire: what clients and servers of the Pusher protocol say to each other, and nothing else.
//!
//! Takes `&str` and gives values; takes values and gives finished bytes. No I/O, no clock, no async, no
//! randomness: a time or a limit that matters is an argument. It knows no app and no subscriber, and it
//! decides no policy: whether a well-formed request is granted is for the session.

pub mod auth;
pub mod channel_name;
pub mod client;
pub mod code;
mod event;
pub mod frame;
pub(crate) mod json;
pub mod path;
pub mod presence;
pub mod request_auth;
pub mod server;
pub mod socket_id;
pub mod user;
mod user_id;

use std::ops::RangeInclusive;

pub use channel_name::{ChannelKind, ChannelName, NameError};
pub use client::{ClientMessage, ParseError, Text};
pub use code::{CloseCode, RefusalKind};
pub use event::EncodedEvent;
pub use frame::Frame;
pub use presence::Member;
pub use socket_id::SocketId;
pub use user::SignedInUser;

/// The protocol versions served. The official JVM and .NET clients still say 5; browsers and Swift say 7.
pub const PROTOCOL_VERSIONS: RangeInclusive<u8> = 4..=7;
