//! To be described.

pub mod framing;
pub mod outbox;
pub mod wheel;
