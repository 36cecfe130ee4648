//! What every way to the other nodes keeps, whichever broker it goes through: the same checks for all of them.

#[path = "../support/brokers/mod.rs"]
mod brokers;
mod memory;
mod nats;
mod node;
mod redis;
mod suite;
