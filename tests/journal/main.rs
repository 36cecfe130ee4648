//! What every durable queue of webhooks keeps, whichever broker holds it: the same checks for all of them.

#[path = "../support/brokers/mod.rs"]
mod brokers;
mod ground;
mod memory;
mod nats;
mod redis;
mod suite;
