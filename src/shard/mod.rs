//! To be described.

pub mod framing;
pub mod wheel;
