//! Who is where on the other nodes: what a node announces of its own sockets, and how that is put together again.
//!
//! Each node speaks for its own sockets only: how many subscribe to a channel, which members they are, which event a
//! cache channel keeps. Announcements are absolute, so hearing one twice changes nothing. Pure: no I/O, and time is an
//! argument.

pub mod clock;
pub mod delta;
pub mod digest;
pub mod lease;
pub mod snapshot;
