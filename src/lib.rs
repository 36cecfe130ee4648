//! Fanwire: a self-hosted, drop-in replacement for Pusher Channels.
//!
//! The modules, in the order in which data flows (each may use those below it, never those above;
//! `tests/tidy.rs` holds them to it):

pub mod doctor;

pub mod server;

pub mod config;

pub mod api;
pub mod shard;

pub mod node;

pub mod hub;
pub mod relay;
pub mod roster;
pub mod webhook;

pub mod adapter;

pub mod store;

pub mod address;
pub mod app;
pub mod limit;
pub mod metrics;
pub mod tls;

pub mod pem;

pub mod checkup;
pub mod secret;
pub mod wall;

pub mod protocol;
