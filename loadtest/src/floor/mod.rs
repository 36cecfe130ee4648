//! The floors of the figures: what the machine itself needs for a bare loop of `send` and for a bare relay, in a process
//! that the same clients load in the same way. No server can be much cheaper without sending less often.
//!
//! It speaks just enough of the protocol for this program's own clients, checks nothing, and is NOT a server for anybody
//! else.

mod door;
mod relay;
mod send;

use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::Result;
use clap::Args;

use self::door::{Door, Heard};
use self::relay::Relay;
use self::send::Senders;
use crate::process::raise_descriptor_limit;

/// Sends and relays, and nothing else. Ends when it is ended.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorArguments {
    /// Threads that send; without it, as many as there are cores.
    #[arg(long)]
    senders: Option<usize>,
}

impl FloorArguments {
    /// Does it, on a port of 127.0.0.1, for ever.
    ///
    /// # Errors
    /// The port is taken, or the system refuses something.
    pub(crate) fn run(&self, port: u16) -> Result<()> {
        raise_descriptor_limit(0)?;
        let mut senders = Senders::start(match self.senders {
            Some(count) => count.max(1),
            None => available_parallelism()?.get(),
        });
        let mut relay = Relay::default();
        let mut door = Door::open(port)?;
        loop {
            door.work(|heard| match heard {
                Heard::Joined { socket, channel } => {
                    relay.hold(socket);
                    senders.hold(Arc::clone(socket), channel);
                }
                Heard::Published(publication) => senders.send(&publication),
                Heard::Said { text, by } => relay.pass_on(text, by),
            })?;
        }
    }
}
