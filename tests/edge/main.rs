//! The server at its edge, in bytes and messages: what the Pusher protocol promises to clients, and what the server
//! must stand from those who do not keep to it. Every test starts a server of its own.
//!
//! One binary, so that the tests which wait for something wait at the same time. Not here: the HTTP API for its own
//! sake, and the parts that need no server.
#![allow(clippy::large_futures, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod channels;
mod client_events;
mod counts;
mod handshake;
mod hostile;
mod http;
mod liveness;
mod presence;
mod presence_model;
mod refusals;
mod smuggling;
mod users;
mod watchlist;
