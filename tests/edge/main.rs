//! The server at its edge, in bytes and messages: what the Pusher protocol promises to clients, and what the server
//! must stand from those who do not keep to it. Every test starts a server of its own.
//!
//! One binary, so that the tests which wait for something wait at the same time. Not here: the HTTP API for its own
//! sake, and the parts that need no server.

#[path = "../support/certificates.rs"]
mod authority;
#[path = "../support/mod.rs"]
mod support;

#[path = "../support/brokers/tls.rs"]
mod certificates;

// From the upgrade to the end.
mod arrival;
mod drain;
mod handshake;
mod liveness;
mod refusals;

// What the protocol promises.
mod cache;
mod channels;
mod client_events;
mod counts;
mod presence;
mod presence_model;
mod transcripts;
mod users;
mod watchlist;
mod webhook_events;

// What holds whoever comes and goes, and whatever changes.
mod backpressure;
mod crowd;
mod descriptors;
mod live;
mod memory;
mod ordering;
mod overload;
mod policies;
mod threads;
mod turns;

// What must be stood.
mod hostile;
mod smuggling;
mod tls;

// For back ends and operators.
mod health;
mod http;
mod limits;
mod metrics;
mod shed;
mod webhooks;
