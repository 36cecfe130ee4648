//! An encrypted connection as a stream of what is said in it: for as long as HTTP is spoken. While it is idle it holds
//! no buffer but for what nobody has read yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;

use super::sealed::{BrokenSeal, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES_MIN, Records, Sealed};

/// Read at a time. Bytes.
const READ_BYTES: usize = RECORD_BYTES_MAX + 1024;
/// What is opened for one unit of a task's budget, which is 128 of them, beside what it holds. Bytes: four records.
const OVERHEAD_BYTES_PER_UNIT: usize = 4 * RECORD_OVERHEAD_BYTES_MIN;

/// A stream of what is said in an encrypted connection.
#[derive(Debug)]
pub struct SealedStream {
    stream: TcpStream,
    sealed: Box<Sealed>,
    /// What was opened and nobody has read yet.
    opened: Bytes,
    has_ended: bool,
}

impl SealedStream {
    /// The stream of a connection whose handshake is over.
    pub fn new(stream: TcpStream, mut sealed: Box<Sealed>) -> SealedStream {
        let opened = std::mem::take(&mut sealed.early).into();
        SealedStream {
            stream,
            sealed,
            opened,
            has_ended: false,
        }
    }

    /// The connection itself, and what was opened of it and not read.
    pub fn into_parts(self) -> (TcpStream, Box<Sealed>, Bytes) {
        (self.stream, self.sealed, self.opened)
    }

    /// What is known of the connection.
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// Waits for something to be read, and takes it out; nothing is the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_fill(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.opened)))
    }

    /// Tells the peer that nothing more comes, if it takes that at once. Whoever is told waits for nothing in vain, and
    /// knows that nobody has cut the connection.
    pub fn say_goodbye(&mut self) {
        let mut records = Records::default();
        if self.sealed.unsent.is_empty() && self.sealed.say_goodbye(&mut records).is_ok() {
            self.send(&records);
        }
    }

    /// Until there is something to read, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.opened.is_empty() && !self.has_ended {
            // Only who has something to say is given a buffer.
            ready!(self.stream.poll_read_ready(cx))?;
            let mut incoming = Vec::with_capacity(self.sealed.partial().len() + READ_BYTES);
            incoming.extend_from_slice(self.sealed.partial());
            match self.stream.try_read_buf(&mut incoming) {
                Ok(0) => self.has_ended = true,
                Ok(_) => {
                    self.open(&mut incoming)?;
                    let sealed = incoming.len() - self.sealed.partial().len();
                    spend(cx, sealed.saturating_sub(self.opened.len()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn open(&mut self, incoming: &mut [u8]) -> io::Result<()> {
        let (mut opened, mut answers) = (Vec::new(), Records::default());
        let done = self.sealed.open(incoming, &mut opened, &mut answers);
        self.opened = opened.into();
        self.has_ended = self.sealed.is_over();
        if !answers.is_empty() {
            // Behind what waits already; if nobody reads it, nobody misses it.
            let mut all = self.sealed.unsent.to_vec();
            all.extend_from_slice(answers.as_bytes());
            let sent = self.stream.try_write(&all).unwrap_or(0);
            self.sealed.unsent = Bytes::from(all).split_off(sent);
        }
        done.map_err(broken)
    }

    /// Until the peer has taken what was sealed.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.sealed.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sealed.unsent.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what was sealed as far as the peer takes it now, and keeps the rest.
    fn send(&mut self, records: &Records) {
        // What is wrong shows when the rest is sent.
        let sent = self.stream.try_write(records.as_bytes()).unwrap_or(0);
        self.sealed.unsent = Bytes::copy_from_slice(&records.as_bytes()[sent..]);
    }
}

/// Charges a task for records: to open one costs, whether it says anything or not. A task whose budget is spent reads
/// no more before others have had their turn.
fn spend(cx: &mut Context<'_>, overhead_bytes: usize) {
    for _ in 0..overhead_bytes / OVERHEAD_BYTES_PER_UNIT {
        match poll_proceed(cx) {
            Poll::Ready(unit) => unit.made_progress(),
            Poll::Pending => return,
        }
    }
}

fn broken(fault: BrokenSeal) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

impl AsyncRead for SealedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx))?;
        let length = self.opened.len().min(buffer.remaining());
        buffer.put_slice(&self.opened.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SealedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let length = bytes.len().min(RECORD_BYTES_MAX);
        let mut records = Records::default();
        self.sealed.seal(&bytes[..length], &mut records).map_err(broken)?;
        self.send(&records);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unsent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        if !self.sealed.has_said_goodbye() {
            let mut records = Records::default();
            self.sealed.say_goodbye(&mut records).map_err(broken)?;
            self.send(&records);
            ready!(self.poll_unsent(cx))?;
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
