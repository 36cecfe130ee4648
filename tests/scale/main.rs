//! How far a cluster goes: what a node's knowledge of all others takes, how long many nodes need to agree, and what the
//! way between two nodes carries; and how many apps a node may know. The figures of `docs/scaling.md` come from here, and
//! those of look-ups in `docs/performance.md`.
//!
//! ```text
//! make scale SCALE="entries"                       what an entry of the roster takes, by kind
//! make scale SCALE="roster --nodes 50"             many nodes of one process, on virtual time
//! make scale SCALE="relay --driver redis"          two nodes and a private broker: events per second, and delays
//! make scale SCALE="messages"                      what the bus carries for 1, 3 and 10 nodes
//! make scale SCALE="apps"                          100,000 apps of a store: their memory, and how fast one is found
//! ```
//!
//! It uses the server's own library, which the load harness must not: fifty servers with a million sockets fit on no
//! machine that this runs on, and where the time of the relay goes is only seen without sockets and HTTP around it.
#![allow(clippy::print_stdout, reason = "its tables are its result")]

mod apps;
mod broker;
mod entries;
mod machine;
mod messages;
#[path = "../support/port.rs"]
mod port;
mod relay;
mod roster;
mod usage;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;

/// The binary's own: what an entry takes depends on it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measures how far a cluster goes.
#[derive(Parser)]
struct Arguments {
    /// Tells what nodes log: error, warn, info, debug or trace.
    #[arg(long, global = true, default_value = "error")]
    log: tracing_subscriber::filter::LevelFilter,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Apps(apps::Options),
    Entries(entries::Options),
    Roster(roster::Options),
    Relay(relay::Options),
    Messages(messages::Options),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_max_level(arguments.log)
        .with_writer(std::io::stderr)
        .init();
    match arguments.what {
        What::Apps(options) => apps::run(&options),
        What::Entries(options) => entries::run(&options),
        What::Roster(options) => roster::run(&options),
        What::Relay(options) => relay::run(&options),
        What::Messages(options) => messages::run(&options),
    }
}
