//! A connection that never waits: plain TCP, or TLS on it.
//!
//! It knows nothing of what is said on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ClientConnection;
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::Tls;

/// A connection, and what it has not taken yet.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    unsent: Vec<u8>,
}

impl Stream {
    /// Begins to connect. Whether it worked is known when the socket takes something.
    ///
    /// # Errors
    /// Whatever the system says at once: no descriptors, no ports, nothing listening.
    pub(crate) fn connect(to: SocketAddr, from: Option<IpAddr>, tls: Option<&Tls>) -> io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Stream::over(socket.into(), tls)
    }

    /// Connects, and waits for that.
    ///
    /// # Errors
    /// Nobody answers there.
    pub(crate) fn dial(to: SocketAddr, tls: Option<&Tls>) -> io::Result<Stream> {
        let tcp = TcpStream::connect(to)?;
        tcp.set_nonblocking(true)?;
        Stream::over(tcp, tls)
    }

    fn over(tcp: TcpStream, tls: Option<&Tls>) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        let tls = tls.map(Tls::connection).transpose();
        Ok(Stream {
            tcp,
            tls: tls.map_err(io::Error::other)?.map(Box::new),
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

    /// Whether a read that gave less than there was room for has taken all that was there.
    #[inline]
    pub(crate) fn is_read_at_once(&self) -> bool {
        self.tls.is_none()
    }

    /// Reads what is there. Zero is the end.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.read(buffer),
            Some(tls) => decrypt(tls, &mut self.tcp, buffer),
        }
    }

    /// Sends this, now or as soon as the socket takes it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.unsent.extend_from_slice(bytes),
            Some(tls) => tls.writer().write_all(bytes)?,
        }
        self.flush()
    }

    /// Sends what could not be sent before.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return encrypt(tls, &mut self.tcp);
        }
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.tcp.write(&self.unsent[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.drain(..sent);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        // An idle socket holds no buffer.
        self.unsent = Vec::new();
        Ok(())
    }
}

/// Reads until there is something to hand on.
fn decrypt(tls: &mut ClientConnection, tcp: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Many servers end without the farewell of TLS; WebSockets have their own.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            read => return read,
        }
        if tls.read_tls(tcp)? == 0 {
            if tls.is_handshaking() {
                let words = "it ended before TLS was agreed on (does the server speak it there? See --tls and --port)";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, words));
            }
            return Ok(0);
        }
        let taken = tls.process_new_packets();
        // Its part of the handshake, or what was wrong. What fails here fails at the next read too.
        let _ = encrypt(tls, tcp);
        taken.map_err(io::Error::other)?;
    }
}

/// Sends what there is, as far as the socket takes it.
fn encrypt(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(tcp) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}
