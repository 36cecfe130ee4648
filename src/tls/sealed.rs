//! The state of one encrypted connection, over buffers of the caller: bytes that came in are opened, bytes that are to
//! go out are sealed. Pure; who reads and writes them is not known here.
//!
//! It keeps no more than it must: the beginning of a record whose end has not come, and records that the peer has not
//! taken yet. While nothing is under way it keeps neither.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, HandshakeKind};
use rustls_acme::acme::ACME_TLS_ALPN_NAME;

/// The most that one record holds. Bytes.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What a record is longer than what it holds, at least: header and tag. Bytes.
pub const RECORD_OVERHEAD_BYTES_MIN: usize = 5 + 16;
/// What a record is longer than what it holds, generously: header, nonce, content type and tag. Bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// The longest record that a peer may send: RFC 5246, 6.2.3. Bytes.
pub(super) const SEALED_BYTES_MAX: usize = 5 + RECORD_BYTES_MAX + 2048;
/// The longest message of a handshake, in records: a chain of client certificates. Bytes.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 64 * 1024 + 4 * SEALED_BYTES_MAX;

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BrokenSeal {
    /// What came is not TLS, was changed on its way, or is against the rules.
    #[error(transparent)]
    Tls(#[from] Error),
    /// More came of one message than any may have.
    #[error("a message without end")]
    TooLong,
    /// So much was sealed with one key that it must not be used any more.
    #[error("the key is used up")]
    UsedUp,
}

/// Where records are written to before they are sent: the buffer of many connections, one after the other.
#[derive(Default)]
pub struct Records {
    bytes: Vec<u8>,
    filled: usize,
}

impl Records {
    /// The records, as they are to be sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Forgets them: they were sent, or are kept elsewhere. The buffer stays.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.bytes.len() < self.filled + bytes {
            self.bytes.resize(self.filled + bytes, 0);
        }
        &mut self.bytes[self.filled..]
    }
}

/// What follows a step of opening what came in.
enum Next {
    GoOn,
    End(Result<(), BrokenSeal>),
}

/// One encrypted connection.
pub struct Sealed {
    connection: UnbufferedServerConnection,
    /// What came in and is not whole yet: it goes before what comes next.
    partial: Box<[u8]>,
    /// Records that are to be sent before all others: the rest of what the peer did not take.
    pub unsent: Bytes,
    /// What was said before the handshake was over on this side, and has not been read.
    pub(super) early: Box<[u8]>,
    /// The peer has said that it has nothing more to say.
    is_over: bool,
    is_broken: bool,
    has_said_goodbye: bool,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("version", &self.connection.protocol_version())
            .field("partial", &self.partial.len())
            .field("unsent", &self.unsent.len())
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl Sealed {
    /// A connection whose handshake has not begun.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(config: Arc<ServerConfig>) -> Result<Sealed, BrokenSeal> {
        Ok(Sealed {
            connection: UnbufferedServerConnection::new(config)?,
            partial: Box::default(),
            unsent: Bytes::new(),
            early: Box::default(),
            is_over: false,
            is_broken: false,
            has_said_goodbye: false,
        })
    }

    /// Whether the peer has more to say before anything can be sealed.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether an earlier session goes on, if the handshake is over.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the peer has only come to see the answer to a challenge of ACME, if the handshake is over.
    pub(super) fn is_challenge(&self) -> bool {
        self.connection.alpn_protocol() == Some(ACME_TLS_ALPN_NAME)
    }

    /// Whether the peer has shown a certificate. One that was not signed by who was asked for has ended the handshake.
    pub fn has_client_certificate(&self) -> bool {
        self.connection
            .peer_certificates()
            .is_some_and(|chain| !chain.is_empty())
    }

    /// Whether the peer has said that nothing more comes.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// What came before and is not whole yet: what is opened next has to begin with it.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Takes that out, for who waits for more of it: it is to be given back at the beginning of what is opened next.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial).into_vec()
    }

    /// Opens what came in: [`Sealed::partial`] and what was read behind it. What it says is put behind `opened`, and
    /// what is to be answered, by the rules of TLS, behind `answers`; both count in case of an error, too.
    ///
    /// # Errors
    /// The connection is over. The last of `answers` tells the peer why.
    pub fn open(
        &mut self,
        incoming: &mut [u8],
        opened: &mut Vec<u8>,
        answers: &mut Records,
    ) -> Result<(), BrokenSeal> {
        if self.is_broken {
            return Err(Error::HandshakeNotComplete.into());
        }
        let mut at = 0;
        let ended = loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut incoming[at..]);
            let next = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        None => break Next::GoOn,
                        Some(Ok(record)) => {
                            discard += record.discard;
                            opened.extend_from_slice(record.payload);
                        }
                        Some(Err(error)) => break Next::End(Err(error.into())),
                    }
                },
                Ok(ConnectionState::EncodeTlsData(mut answer)) => {
                    match encode(answers, |room| answer.encode(room)) {
                        true => Next::GoOn,
                        false => Next::End(Err(BrokenSeal::UsedUp)),
                    }
                }
                // It is the caller who sends; nothing depends on when.
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    Next::GoOn
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.is_over = true;
                    Next::GoOn
                }
                Ok(
                    ConnectionState::BlockedHandshake
                    | ConnectionState::WriteTraffic(_)
                    | ConnectionState::Closed,
                ) => Next::End(Ok(())),
                // Early data were not asked for, and what rustls may know some day was not either.
                Ok(_) => Next::End(Err(Error::HandshakeNotComplete.into())),
                Err(error) => Next::End(Err(error.into())),
            };
            at += discard;
            match next {
                Next::GoOn => {}
                Next::End(ended) => break ended,
            }
        };
        if ended.is_err() {
            self.explain(&mut incoming[at..], answers);
        }
        let rest = &incoming[at..];
        let bytes_max = match self.connection.is_handshaking() {
            true => HANDSHAKE_BYTES_MAX,
            false => SEALED_BYTES_MAX,
        };
        let ended = ended.and_then(|()| match rest.len() > bytes_max {
            true => Err(BrokenSeal::TooLong),
            false => Ok(()),
        });
        self.is_broken = ended.is_err();
        // What follows the end is nobody's.
        self.partial = match self.is_over || self.is_broken {
            true => Box::default(),
            false => rest.into(),
        };
        ended
    }

    /// Puts what tells the peer of an error behind `answers`.
    fn explain(&mut self, incoming: &mut [u8], answers: &mut Records) {
        // Not once more than there is something to say: what came would be looked at again.
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut alert)) =
                self.connection.process_tls_records(incoming).state
            else {
                return;
            };
            if !encode(answers, |room| alert.encode(room)) {
                return;
            }
        }
    }

    /// Seals [`RECORD_BYTES_MAX`] bytes at most in one record, behind what is in `records`.
    ///
    /// # Errors
    /// Nothing can be sealed any more.
    pub fn seal(&mut self, bytes: &[u8], records: &mut Records) -> Result<(), BrokenSeal> {
        debug_assert!(bytes.len() <= RECORD_BYTES_MAX, "one record at a time");
        records.room(bytes.len() + RECORD_OVERHEAD_BYTES);
        self.write(records, |connection, room| connection.encrypt(bytes, room))
    }

    /// Tells the peer that nothing more comes. Once; nothing may be sealed behind it.
    ///
    /// # Errors
    /// Nothing can be sealed any more.
    pub fn say_goodbye(&mut self, records: &mut Records) -> Result<(), BrokenSeal> {
        if std::mem::replace(&mut self.has_said_goodbye, true) {
            return Ok(());
        }
        records.room(RECORD_OVERHEAD_BYTES);
        self.write(records, |connection, room| connection.queue_close_notify(room))
    }

    /// Whether the peer was told that nothing more comes.
    pub fn has_said_goodbye(&self) -> bool {
        self.has_said_goodbye
    }

    fn write(
        &mut self,
        records: &mut Records,
        mut write: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), BrokenSeal> {
        if self.is_broken {
            return Err(Error::HandshakeNotComplete.into());
        }
        loop {
            // With what has come before and is not whole, always: rustls remembers where in it a message begins.
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.partial);
            debug_assert_eq!(discard, 0, "what can be opened has been opened");
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let room = &mut records.bytes[records.filled..];
                    match write(&mut traffic, room) {
                        Ok(written) => {
                            records.filled += written;
                            return Ok(());
                        }
                        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                            records.room(required_size);
                        }
                        Err(EncryptError::EncryptExhausted) => return Err(BrokenSeal::UsedUp),
                    }
                }
                ConnectionState::EncodeTlsData(mut answer) => {
                    if !encode(records, |room| answer.encode(room)) {
                        return Err(BrokenSeal::UsedUp);
                    }
                }
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed => self.is_over = true,
                _ => return Err(Error::HandshakeNotComplete.into()),
            }
        }
    }
}

type Traffic<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::server::ServerConnectionData>;

/// Has something written behind what is in `records`, however long it is. False: it cannot be.
fn encode(records: &mut Records, mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> bool {
    loop {
        match write(&mut records.bytes[records.filled..]) {
            Ok(written) => {
                records.filled += written;
                return true;
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                records.room(required_size);
            }
            Err(EncodeError::AlreadyEncoded) => return false,
        }
    }
}
