//! A bare relay: what one socket says is written to the others, from the thread that read it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use super::door::put_text;

/// So many at most are passed on to: client events are measured between a few.
const PARTIES_MAX: usize = 16;

/// The sockets that hear each other.
#[derive(Debug, Default)]
pub(super) struct Relay {
    parties: Vec<Arc<TcpStream>>,
    frame: Vec<u8>,
}

impl Relay {
    pub(super) fn hold(&mut self, socket: &Arc<TcpStream>) {
        if self.parties.len() < PARTIES_MAX {
            self.parties.push(Arc::clone(socket));
        }
    }

    /// To everyone but who said it.
    pub(super) fn pass_on(&mut self, text: &str, by: &Arc<TcpStream>) {
        self.frame.clear();
        put_text(&mut self.frame, text);
        for party in self.parties.iter().filter(|party| !Arc::ptr_eq(party, by)) {
            // Whoever has gone is told of by nobody; the rest is small enough for any socket's buffer.
            let _ = (&**party).write(&self.frame);
        }
    }
}
