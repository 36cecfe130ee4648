//! A keep-alive connection that requests are sent on.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;

use super::answer::Answer;

/// A connection of a back end, with at most one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) tcp: Option<TcpStream>,
    pub(super) unsent: Vec<u8>,
    pub(super) answer: Answer,
    /// The request under way.
    pub(super) asked: Option<Asked>,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) channel: u32,
    pub(super) sequence: u32,
    pub(super) at_ns: u64,
}

impl Connection {
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(tcp) = &mut self.tcp else {
            return Ok(());
        };
        let mut sent = 0;
        while sent < self.unsent.len() {
            match tcp.write(&self.unsent[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }
}
