//! What nodes say to each other, and how nothing of it is lost, doubled or disordered on the way: envelopes and their
//! codec, the sender's ring, the receiver's positions.
//!
//! An adapter may lose, repeat and delay. Here each topic of each sender is numbered, the sender keeps the last
//! numbers in a ring, and a receiver that misses one asks for it. Pure: no I/O, and time is an argument. Knows nothing
//! of channels' subscribers; the roster's contents are opaque bytes to it.

pub mod envelope;
pub mod parcel;
pub mod positions;
pub mod ring;
#[cfg(test)]
mod tests;
pub mod wire;

use crate::adapter::NodeId;

/// A moment by the cluster's clock: microseconds since 1970, but never earlier than any stamp heard before. Of two
/// claims the earlier stamp holds, or of two writes the later; then the smaller or larger [`NodeId`] ([`Origin`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// When something was claimed or written, and by which node. Of two claims the earlier holds, of two writes the later;
/// the same on every node, since no two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// When.
    pub stamp: Stamp,
    /// Where.
    pub node: NodeId,
}
