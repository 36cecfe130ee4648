//! Takes the header of the PROXY protocol off a connection, and nothing of what follows it.

use std::io;

use tokio::io::AsyncReadExt;

use super::visitor::Visitor;
use crate::address::proxy_header::{Broken, HEADER_BYTES_MAX, Header, Parsed, Source, parse};
use crate::address::{Client, TrustedProxies};

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderFault {
    /// The connection ended before anything was said: nothing is wrong, somebody looked whether we listen.
    #[error("nothing was said")]
    Nothing,
    /// It begins with something else.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It broke off in the middle.
    #[error("the header has no end: {0}")]
    Lost(#[from] io::Error),
}

/// Reads a header. What follows it stays in the kernel, for TLS or HTTP: bytes are looked at before they are taken.
pub(super) async fn read(visitor: &mut Visitor) -> Result<Header, HeaderFault> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let mut taken = 0;
    loop {
        let there = taken + visitor.peek(&mut bytes[taken..]).await?;
        if there == taken {
            return Err(match taken {
                0 => HeaderFault::Nothing,
                _ => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            });
        }
        match parse(&bytes[..there])? {
            // All of it belongs to the header. Left where it is, it would be looked at over and over.
            Parsed::Incomplete => {
                visitor.read_exact(&mut bytes[taken..there]).await?;
                taken = there;
            }
            Parsed::Complete(header, length) => {
                visitor.read_exact(&mut bytes[taken..length]).await?;
                return Ok(header);
            }
        }
    }
}

/// Who is at the other end of a connection with this header, which this proxy has sent.
pub(super) fn client(header: &Header, proxy: Client, trusted: &TrustedProxies) -> Client {
    let (address, is_proxy) = match header.source {
        Source::Proxy => return proxy,
        Source::Unknown => (None, false),
        Source::Client(address) => {
            let address = address.to_canonical();
            // There may be one more proxy behind it.
            (Some(address), trusted.trusts(address))
        }
    };
    Client {
        address,
        is_proxy,
        is_tls: header.is_tls,
    }
}
