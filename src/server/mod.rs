//! To be described.

pub mod admin;
pub mod health;
pub mod usage;
