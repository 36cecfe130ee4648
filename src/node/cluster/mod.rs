//! What a node tells the others of its own sockets, and what it makes of what they tell.

pub mod announce;
pub mod apply;
pub mod collect;
pub mod settle;

#[cfg(test)]
mod tests;
