//! TLS on the main port: the certificate and what may replace or bring it, the handshake, and the state of one encrypted
//! connection.
//!
//! A connection owns no buffers: whoever reads and writes for it lends theirs, so that thousands which are idle cost
//! little more than their keys. Only `stream.rs` knows what they are lent to, a TCP connection while HTTP is spoken on it;
//! all else is bytes in and bytes out, but for `acme/`, which calls out and keeps files. Not here: threads and deadlines of
//! connections, WebSockets, what is said inside.

mod acceptor;
pub mod acme;
mod certificate;
mod config;
mod handshake;
mod sealed;
mod stream;

pub use acceptor::{Acceptor, Reloaded};
pub use certificate::{Credentials, TlsFault, Validity};
pub use config::{TlsConfig, TlsVersion};
pub use handshake::{HandshakeFault, handshake};
pub use sealed::{BrokenSeal, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES_MIN, Records, Sealed};
pub use stream::SealedStream;

#[cfg(test)]
#[path = "../../tests/support/certificates.rs"]
pub(crate) mod certificates;
#[cfg(test)]
mod tests;
