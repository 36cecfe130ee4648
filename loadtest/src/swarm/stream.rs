//! A connection that never waits: plain TCP.
//!
//! It knows nothing of what is said on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// A connection, and what it has not taken yet.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    unsent: Vec<u8>,
}

impl Stream {
    /// Begins to connect. Whether it worked is known when the socket takes something.
    ///
    /// # Errors
    /// Whatever the system says at once: no descriptors, no ports, nothing listening.
    pub(crate) fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(Stream {
            tcp: socket.into(),
            unsent: Vec::new(),
        })
    }

    /// What became of connecting.
    pub(crate) fn connected(&self) -> io::Result<()> {
        match self.tcp.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Reads what is there. Zero is the end.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buffer)
    }

    /// Sends this, now or as soon as the socket takes it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what could not be sent before.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.tcp.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // An idle socket holds no buffer.
        self.unsent = Vec::new();
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}
