//! The handshake of one connection, from its first byte to the first that is encrypted. How long it may take is for
//! the caller to say.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::acceptor::Acceptor;
use super::sealed::{BrokenSeal, Records, Sealed};

/// Read at a time. A handshake of the usual kind needs two or three reads.
const READ_BYTES: usize = 4096;
/// The first byte of a TLS connection: a record of its handshake.
const HANDSHAKE_RECORD: u8 = 22;
/// What is read of one who was turned away, so that it can read why before the connection is gone. Bytes.
const PARTING_BYTES_MAX: usize = 64 * 1024;
/// The answer to who speaks HTTP where TLS is spoken.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 68\r\n\
                          Connection: close\r\n\r\n\
                          This port speaks TLS only: use https:// here, or wss:// for sockets\n";

/// Why there is no encrypted connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFault {
    /// The client left before it had said anything: nothing is wrong, somebody looked whether we listen.
    #[error("nothing was said")]
    Nothing,
    /// A service of ACME has come to see the answer to its challenge, and has seen it: nothing is wrong.
    #[error("a challenge of ACME was answered")]
    Challenge,
    /// The client speaks something else; if it is HTTP, it was told so.
    #[error("it is not TLS")]
    NotTls,
    /// The client and we did not come to terms.
    #[error(transparent)]
    Seal(#[from] BrokenSeal),
    /// The connection broke off.
    #[error(transparent)]
    Lost(#[from] io::Error),
}

/// Makes an encrypted connection of one that was just accepted. If it fails, the client has been told why and has had
/// the time to read it.
///
/// # Errors
/// There is none: the stream is of no use any more.
pub async fn handshake<S>(stream: &mut S, acceptor: &Acceptor) -> Result<Box<Sealed>, HandshakeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let kept_max = acceptor.handshake_bytes_max();
    let mut sealed = Box::new(Sealed::new(acceptor.server())?);
    let mut opened = Vec::new();
    let mut is_first = true;
    while sealed.is_handshaking() {
        // What came before is taken out of it and goes back with what comes next: it may be long, and is there once.
        let mut incoming = sealed.take_partial();
        incoming.reserve_exact(READ_BYTES);
        if stream.read_buf(&mut incoming).await? == 0 {
            return Err(match is_first {
                true => HandshakeFault::Nothing,
                false => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            });
        }
        if std::mem::take(&mut is_first) && incoming.first() != Some(&HANDSHAKE_RECORD) {
            let is_http = incoming.first().is_some_and(u8::is_ascii_uppercase);
            let parting = if is_http { PLAIN_HTTP.as_bytes() } else { &[] };
            part(stream, parting).await?;
            return Err(HandshakeFault::NotTls);
        }
        let mut answers = Records::default();
        let answered = sealed.open(&mut incoming, &mut opened, &mut answers);
        drop(incoming);
        let answered = answered.and_then(|()| match sealed.partial().len() > kept_max {
            true => Err(BrokenSeal::TooLong),
            false => Ok(()),
        });
        if let Err(fault) = answered {
            part(stream, answers.as_bytes()).await?;
            return Err(fault.into());
        }
        stream.write_all(answers.as_bytes()).await?;
    }
    stream.flush().await?;
    if sealed.is_challenge() {
        let mut answers = Records::default();
        // Who has seen enough may be gone before it hears more, which is nobody's fault.
        if sealed.say_goodbye(&mut answers).is_ok() {
            let _ = part(stream, answers.as_bytes()).await;
        }
        return Err(HandshakeFault::Challenge);
    }
    sealed.early = opened.into();
    Ok(sealed)
}

/// Says a last word and waits for the client to go: whoever closes on bytes that were not read takes back what he said.
async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), word: &[u8]) -> io::Result<()> {
    stream.write_all(word).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    let mut left = PARTING_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut unread).await? {
            0 => break,
            bytes => left = left.saturating_sub(bytes),
        }
    }
    Ok(())
}
