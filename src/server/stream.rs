//! A connection for as long as HTTP is spoken on it: plain, or encrypted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{Sealed, SealedStream};

/// Read of a connection before it is known who reads on: room for a browser's handshake with some cookies.
const FIRST_BYTES_MAX: usize = 4096;

pub(super) enum Stream {
    Plain(TcpStream),
    Sealed(SealedStream),
}

impl Stream {
    pub(super) fn new(stream: TcpStream, sealed: Option<Box<Sealed>>) -> Stream {
        match sealed {
            None => Stream::Plain(stream),
            Some(sealed) => Stream::Sealed(SealedStream::new(stream, sealed)),
        }
    }

    /// The connection, what it is encrypted with, and what was decrypted and not read.
    pub(super) fn into_parts(self) -> (TcpStream, Option<Box<Sealed>>, Bytes) {
        match self {
            Stream::Plain(stream) => (stream, None, Bytes::new()),
            Stream::Sealed(stream) => {
                let (stream, sealed, unread) = stream.into_parts();
                (stream, Some(sealed), unread)
            }
        }
    }

    /// Ends a connection in good order, as far as that needs no waiting.
    pub(super) fn end(mut self) {
        if let Stream::Sealed(stream) = &mut self {
            stream.say_goodbye();
        }
    }

    /// What is encrypted, if the connection is.
    pub(super) fn sealed(&self) -> Option<&Sealed> {
        match self {
            Stream::Plain(_) => None,
            Stream::Sealed(stream) => Some(stream.sealed()),
        }
    }

    /// What is said first, as far as one read brings it. Nothing: whoever reads on waits on, or meets what is wrong.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        match self {
            Stream::Plain(stream) => {
                let _ = ready!(stream.poll_read_ready(cx));
                let mut first = Vec::with_capacity(FIRST_BYTES_MAX);
                let _ = stream.try_read_buf(&mut first);
                Poll::Ready(first.into())
            }
            Stream::Sealed(stream) => stream.poll_next(cx).map(Result::unwrap_or_default),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Sealed(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Sealed(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Stream::Sealed(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            // What makes up a record is better put together before.
            Stream::Sealed(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Sealed(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Sealed(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
