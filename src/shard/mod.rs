//! To be described.

pub mod framing;
