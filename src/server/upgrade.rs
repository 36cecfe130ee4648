//! From HTTP to a WebSocket: the answer to who asks for one. Whether a client may have a socket is `handshake`'s to
//! decide; a refusal is told inside the socket, which is why whoever asks is upgraded.
//!
//! The answer is not sent as HTTP: it travels in one packet with the first message that follows it, which saves a
//! send and a read for each connection.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{
    AsHeaderName, CONNECTION, HeaderMap, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Version};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::handshake::{self, Circumstances, Granted};
use super::health::Trouble;
use super::http::Gate;
use crate::metrics::{CloseReason, ConnectionError};
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::protocol::server;
use crate::shard::Newcomer;

/// How long a refused client has to answer the close frame.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What becomes of a connection that has been upgraded.
pub(super) enum Upgraded {
    Socket(Newcomer),
    /// The words that it is sent before it is closed.
    Refused(Vec<u8>),
}

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, "upgrade") && has_token(headers, UPGRADE, "websocket")
}

/// Whether a header, a list as it may be, names this.
fn has_token(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    let lists = headers.get_all(name).into_iter();
    lists
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .any(|named| named.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Completes the WebSocket handshake whoever asks. `None`: it is no handshake of the version that is spoken here.
/// `key` is the app's, unless the path names none.
pub(super) fn upgrade<B>(gate: &Gate, request: &Request<B>, key: Option<&str>) -> Option<Upgraded> {
    let headers = request.headers();
    let nonce = headers.get(SEC_WEBSOCKET_KEY).filter(|_| {
        request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && headers
                .get(SEC_WEBSOCKET_VERSION)
                .is_some_and(|version| version == "13")
    });
    let Some(nonce) = nonce else {
        gate.node
            .metrics()
            .connection_errors(ConnectionError::Upgrade)
            .inc();
        return None;
    };
    let decided = match key {
        None => Err(CloseCode::NoSuchPath),
        Some(key) => {
            let words = handshake::Request {
                key,
                query: request.uri().query().unwrap_or_default(),
                origin: headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()),
                is_tls: false,
            };
            let health = gate.health.state();
            let circumstances = Circumstances {
                is_draining: health.is_draining(),
                is_full: health.has(Trouble::Memory) || gate.node.inboxes().sockets() >= gate.sockets_max,
                strict: gate.config.strict_protocol,
            };
            handshake::decide(&words, gate.node.apps(), circumstances)
        }
    };
    let answer = switching_protocols(nonce.as_bytes());
    Some(match decided {
        Ok(Granted { admission, protocol }) => Upgraded::Socket(Newcomer {
            admission,
            protocol,
            strict: gate.config.strict_protocol,
            answer,
        }),
        Err(code) => {
            tracing::debug!(
                code = code.number(),
                reason = code.reason(),
                key,
                "a socket is refused"
            );
            gate.node.metrics().closed(CloseReason::from(code)).inc();
            let mut words = answer;
            words.extend_from_slice(server::closing_error(code).as_bytes());
            words.extend_from_slice(Frame::close(code).as_bytes());
            Upgraded::Refused(words)
        }
    })
}

/// The answer that proves to a client that its handshake was understood: RFC 6455, 4.2.2.
fn switching_protocols(nonce: &[u8]) -> Vec<u8> {
    const HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: ";
    /// Also for the first message, which is put behind it.
    const ROOM_BYTES: usize = 320;
    let proof = Sha1::new()
        .chain_update(nonce)
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    let mut encoded = [0; 28];
    let length = BASE64_STANDARD
        .encode_slice(proof, &mut encoded)
        .expect("20 bytes are 28 in Base64");
    let mut answer = Vec::with_capacity(ROOM_BYTES);
    answer.extend_from_slice(HEAD.as_bytes());
    answer.extend_from_slice(&encoded[..length]);
    answer.extend_from_slice(b"\r\n\r\n");
    answer
}

/// Says why, inside the socket, and ends it cleanly: pusher-js counts unclean ends against the transport.
pub(super) async fn refuse(mut stream: TcpStream, words: &[u8]) {
    let closing = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut answer = [0; 256];
        while stream.read(&mut answer).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whatever happens, the client is gone afterwards.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, closing).await;
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let answer = switching_protocols(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            String::from_utf8_lossy(&answer),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn a_websocket_is_asked_for_in_lists_and_any_case() {
        for (connection, upgrade, is_asked) in [
            (&["Upgrade"][..], &["websocket"][..], true),
            (&["keep-alive, Upgrade"], &["WebSocket"], true),
            (&["keep-alive", "upgrade"], &["h2c", "websocket"], true),
            (&["upgrade"], &["h2c,\twebsocket "], true),
            (&["upgrade"], &["websocket/13"], false),
            (&["upgrade"], &["h2c"], false),
            (&["keep-alive"], &["websocket"], false),
            (&[], &["websocket"], false),
            (&["upgrade"], &[], false),
        ] {
            let mut headers = HeaderMap::new();
            let mut append = |name: HeaderName, values: &[&'static str]| {
                for value in values {
                    headers.append(&name, HeaderValue::from_static(value));
                }
            };
            append(CONNECTION, connection);
            append(UPGRADE, upgrade);
            assert_eq!(is_asked_for(&headers), is_asked, "{connection:?} {upgrade:?}");
        }
    }
}
