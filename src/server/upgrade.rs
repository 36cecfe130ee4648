//! From HTTP to a WebSocket: the answer to who asks for one. Whether a client may have a socket is `handshake`'s to
//! decide; a refusal is told inside the socket, which is why whoever asks is upgraded.
//!
//! The answer is not sent as HTTP: it travels in one packet with the first message that follows it, which saves a
//! send and a read for each connection.

use std::borrow::Cow;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Version};
use sha1::{Digest, Sha1};

use super::handshake::{self, Circumstances, Granted};
use super::health::Trouble;
use super::http::{Gate, Peer};
use super::refusals::Refusal;
use super::router::{Route, route};
use crate::address::{Client, Forwarding, Place};
use crate::app::NotFound;
use crate::metrics::{CloseReason, ConnectionError, RefusedFor};
use crate::protocol::code::CloseCode;
use crate::shard::Newcomer;

/// Headers of a first request that is read here; one with more is left to hyper. Browsers send some fifteen.
const FIRST_HEADERS_MAX: usize = 32;

/// What becomes of a connection that has been upgraded.
pub(super) enum Upgraded {
    Socket(Newcomer),
    Refused(Refusal),
}

/// What proves to a client that its handshake was understood.
pub(super) type Proof = [u8; 28];

/// A request that asks for a WebSocket, whoever has read it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    path: &'a str,
    query: &'a str,
    origin: Option<&'a [u8]>,
    /// Who asks, or for whom a trusted proxy does.
    client: Client,
    /// What is to be proved to have been understood. None: it is no handshake of the version that is spoken here.
    nonce: Option<&'a [u8]>,
}

impl<'a> Asked<'a> {
    /// `None`: the request asks for something else.
    pub(super) fn of<B>(request: &'a Request<B>, peer: Client, forwarding: &Forwarding) -> Option<Asked<'a>> {
        let headers = || {
            let headers = request.headers().iter();
            headers.map(|(name, value)| (name.as_str(), value.as_bytes()))
        };
        let is_http_11_get = request.method() == Method::GET && request.version() == Version::HTTP_11;
        let target = (request.uri().path(), request.uri().query().unwrap_or_default());
        let mut asked = Asked::new(is_http_11_get, target, peer, headers())?;
        asked.client = forwarding.client_of(peer, headers());
        Some(asked)
    }

    /// The same for the first bytes of a connection, with the length of the request, if they hold the whole of a plain
    /// and sound one: GET, HTTP/1.1, without a body. Most connections ask for a socket and for nothing else, and need
    /// not be made ready for HTTP: a third less work in user space for each.
    pub(super) fn first(
        bytes: &'a [u8],
        peer: Client,
        forwarding: &Forwarding,
    ) -> Option<(Asked<'a>, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; FIRST_HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else {
            return None;
        };
        let is_plain = request.method == Some("GET") && request.version == Some(1);
        // What hyper would refuse is left to it: how a request is cut into packets must not decide its answer.
        let is_sound = |target: &&str| {
            target.starts_with('/') && !target.contains('#') && PathAndQuery::try_from(*target).is_ok()
        };
        let target = request.path.filter(|_| is_plain).filter(is_sound)?;
        let target = target.split_once('?').unwrap_or((target, ""));
        let headers = request.headers.iter().map(|header| (header.name, header.value));
        let mut asked =
            Asked::new(true, target, peer, headers.clone()).filter(|asked| asked.nonce.is_some())?;
        asked.client = forwarding.client_of(peer, headers);
        Some((asked, length))
    }

    fn new(
        is_http_11_get: bool,
        (path, query): (&'a str, &'a str),
        client: Client,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Option<Asked<'a>> {
        let (mut upgrades, mut to_websocket) = (false, false);
        let (mut key, mut version, mut origin) = (None, None, None);
        let mut has_body = false;
        for (name, value) in headers {
            // Of several the first counts, but for lists.
            if name.eq_ignore_ascii_case("connection") {
                upgrades |= names(value, b"upgrade");
            } else if name.eq_ignore_ascii_case("upgrade") {
                to_websocket |= names(value, b"websocket");
            } else if name.eq_ignore_ascii_case("sec-websocket-key") {
                key.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("sec-websocket-version") {
                version.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("origin") {
                origin.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("content-length") {
                has_body |= value != b"0";
            } else if ["transfer-encoding", "expect"]
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other))
            {
                has_body = true;
            }
        }
        (upgrades && to_websocket).then_some(Asked {
            path,
            query,
            origin,
            client,
            // The bytes of a body would be taken for frames, or not, as they come: to hyper it is an ordinary request.
            nonce: key.filter(|_| is_http_11_get && version == Some(b"13") && !has_body),
        })
    }
}

/// Whether a list of tokens names this one.
fn names(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',')
        .any(|named| named.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether the store has to be asked for the app of who asks: there is one, and the app is not known.
pub(super) fn is_stranger(gate: &Gate, asked: &Asked<'_>) -> bool {
    let apps = gate.node.apps();
    apps.has_store()
        && asked.nonce.is_some()
        && !gate.health.state().is_draining()
        && key_of(gate, asked).is_some_and(|key| apps.by_key(&key).is_none())
}

/// Asks the store for the app of who asks. The answer is whether nobody can say if there is such an app.
pub(super) async fn introduce(gate: &Gate, asked: &Asked<'_>) -> bool {
    if !is_stranger(gate, asked) {
        return false;
    }
    match key_of(gate, asked) {
        Some(key) => gate.node.apps().find_by_key(&key).await.err() == Some(NotFound::Unavailable),
        None => false,
    }
}

fn key_of<'a>(gate: &Gate, asked: &Asked<'a>) -> Option<Cow<'a, str>> {
    match route(asked.path, &gate.config.path_prefix) {
        Route::Socket(key) => Some(handshake::decoded(key)),
        _ => None,
    }
}

/// The address of who asks has had its share.
pub(super) struct Limited;

/// Whether the address of who asks may have one more socket now; to be called once for each that is asked for. A place is
/// there only behind a trusted proxy: who comes by itself has one from its connection.
pub(super) fn by_address(gate: &Gate, asked: &Asked<'_>, peer: &Peer) -> Result<Option<Place>, Limited> {
    let Gate { limits, .. } = gate;
    let may_shake_hands = || peer.has_shaken_hands || limits.may_shake_hands(&asked.client, Instant::now);
    if peer.is_beyond || !may_shake_hands() {
        return Err(Limited);
    }
    if !peer.client.is_proxy {
        return Ok(None);
    }
    match limits.enter(&asked.client, Instant::now) {
        Ok(place) if !place.as_ref().is_some_and(Place::is_beyond) => Ok(place),
        _ => Err(Limited),
    }
}

/// Completes the WebSocket handshake whoever asks, after they were introduced. `None`: it is not to be completed.
pub(super) fn upgrade(
    gate: &Gate,
    asked: &Asked<'_>,
    by_address: Result<Option<Place>, Limited>,
    is_unanswered: bool,
) -> Option<Upgraded> {
    let Some(nonce) = asked.nonce else {
        gate.node
            .metrics()
            .connection_errors(ConnectionError::Upgrade)
            .inc();
        return None;
    };
    let key = match route(asked.path, &gate.config.path_prefix) {
        Route::Socket(key) => Some(key),
        _ => None,
    };
    let against = gate.marks.against_another(gate.node.inboxes().sockets());
    let decided = match (key, by_address) {
        (_, Err(Limited)) => Err((CloseCode::OverCapacity, CloseReason::AddressLimit)),
        (None, Ok(_)) => Err((CloseCode::NoSuchPath, CloseReason::NoSuchPath)),
        (Some(key), Ok(place)) => {
            let words = handshake::Request {
                key,
                query: asked.query,
                // One that cannot be read is not absent: it is none of those that may be allowed.
                origin: asked.origin.map(|origin| str::from_utf8(origin).unwrap_or("?")),
                is_tls: asked.client.is_tls,
            };
            let circumstances = Circumstances {
                is_draining: gate.health.state().is_draining(),
                is_full: against.is_some(),
                is_unanswered,
                strict: gate.config.strict_protocol,
            };
            handshake::decide(&words, gate.node.apps(), circumstances)
                .map(|granted| (granted, place))
                .map_err(|code| (code, CloseReason::from(code)))
        }
    };
    let proof = proof(nonce);
    Some(match decided {
        Ok((Granted { admission, protocol }, place)) => Upgraded::Socket(Newcomer {
            admission,
            protocol,
            strict: gate.config.strict_protocol,
            answer: switching_protocols(&proof),
            client: asked.client,
            place,
        }),
        Err((code, counted_as)) => {
            tracing::debug!(
                client = %asked.client,
                code = code.number(),
                reason = counted_as.as_str(),
                key,
                "a socket is refused"
            );
            let metrics = gate.node.metrics();
            metrics.closed(counted_as).inc();
            if let Some(reason) = not_its_fault(code, counted_as, against) {
                metrics.refused(reason).inc();
            }
            Upgraded::Refused(Refusal {
                proof,
                code,
                place: None,
            })
        }
    })
}

/// What about this node stands against a client, if it is that and nothing about the client.
fn not_its_fault(code: CloseCode, counted_as: CloseReason, against: Option<Trouble>) -> Option<RefusedFor> {
    match (code, against) {
        (CloseCode::Draining, _) => Some(RefusedFor::Draining),
        _ if counted_as != CloseReason::OverCapacity => None,
        (_, Some(Trouble::Sockets)) => Some(RefusedFor::Sockets),
        (_, Some(Trouble::Memory)) => Some(RefusedFor::Memory),
        (_, None) => Some(RefusedFor::Store),
    }
}

/// RFC 6455, 4.2.2.
fn proof(nonce: &[u8]) -> Proof {
    let hash = Sha1::new()
        .chain_update(nonce)
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    let mut encoded = [0; 28];
    BASE64_STANDARD
        .encode_slice(hash, &mut encoded)
        .expect("20 bytes are 28 in Base64");
    encoded
}

/// The answer to a handshake that was understood.
pub(super) fn switching_protocols(proof: &Proof) -> Vec<u8> {
    const HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: ";
    /// Also for the first message, which is put behind it.
    const ROOM_BYTES: usize = 320;
    let mut answer = Vec::with_capacity(ROOM_BYTES);
    answer.extend_from_slice(HEAD.as_bytes());
    answer.extend_from_slice(proof);
    answer.extend_from_slice(b"\r\n\r\n");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let answer = switching_protocols(&proof(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(
            String::from_utf8_lossy(&answer),
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    fn read_first(bytes: &str) -> Option<(Asked<'_>, usize)> {
        Asked::first(bytes.as_bytes(), Client::default(), &Forwarding::default())
    }

    /// Reads bytes both ways, here and with the types of hyper.
    fn read(bytes: &str) -> (Option<Asked<'_>>, bool) {
        let mut headers = [httparse::EMPTY_HEADER; FIRST_HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let _ = parsed.parse(bytes.as_bytes()).expect("a request");
        let mut request = Request::builder()
            .method(parsed.method.expect("a method"))
            .uri(parsed.path.expect("a path"))
            .version(match parsed.version {
                Some(0) => Version::HTTP_10,
                _ => Version::HTTP_11,
            });
        for header in parsed.headers {
            request = request.header(header.name, header.value);
        }
        let request = request.body(()).expect("a request");
        let first = read_first(bytes);
        let (of, first) = (
            Asked::of(&request, Client::default(), &Forwarding::default()),
            first.map(|(asked, _)| asked),
        );
        if let Some(first) = &first {
            assert_eq!(of.as_ref(), Some(first), "{bytes}");
        }
        (first, of.is_some())
    }

    #[test]
    fn a_websocket_is_asked_for_in_lists_and_any_case() {
        for (headers, is_asked) in [
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
            ("connection: keep-alive, upgrade\r\nUPGRADE: WebSocket\r\n", true),
            (
                "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
                true,
            ),
            ("Connection: upgrade\r\nUpgrade: h2c,\twebsocket \r\n", true),
            ("Connection: upgrade\r\nUpgrade: websocket/13\r\n", false),
            ("Connection: upgrade\r\nUpgrade: h2c\r\n", false),
            ("Connection: keep-alive\r\nUpgrade: websocket\r\n", false),
            ("Upgrade: websocket\r\n", false),
            ("Connection: upgrade\r\n", false),
        ] {
            let handshake = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a\r\n";
            let request = format!("GET /app/a HTTP/1.1\r\n{headers}{handshake}\r\n");
            let (first, of) = read(&request);
            assert_eq!((first.is_some(), of), (is_asked, is_asked), "{headers}");
        }
    }

    #[test]
    fn only_what_is_plain_and_whole_is_read_before_hyper() {
        const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                               Sec-WebSocket-Key: first\r\nSec-WebSocket-Key: second\r\n";
        let plain = format!("GET /app/a?b=c?d HTTP/1.1\r\nOrigin: e\r\n{UPGRADE}\r\n");
        let asked = Asked {
            path: "/app/a",
            query: "b=c?d",
            origin: Some(b"e"),
            client: Client::default(),
            nonce: Some(b"first"),
        };
        let early = format!("{plain}early");
        assert_eq!(read_first(&early), Some((asked, plain.len())));
        for length in 0..plain.len() {
            assert_eq!(read_first(&plain[..length]), None, "{length}");
        }
        for (line, more) in [
            ("POST /app/a HTTP/1.1", ""),
            ("GET /app/a HTTP/1.0", ""),
            ("GET http://host/app/a HTTP/1.1", ""),
            ("GET /app/a HTTP/1.1", "Content-Length: 5\r\n"),
            ("GET /app/a HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
        ] {
            let request = format!("{line}\r\n{UPGRADE}{more}\r\n");
            let (first, of) = read(&request);
            assert_eq!((first, of), (None, true), "{line} {more}");
        }
        for target in ["/app/a?b=<", "/app/a`", "/app/a?b=\"", "/app/a#b", "*", ""] {
            let request = format!("GET {target} HTTP/1.1\r\n{UPGRADE}\r\n");
            assert_eq!(read_first(&request), None, "{target}");
        }
        let many = "A: b\r\n".repeat(FIRST_HEADERS_MAX);
        let many = format!("GET /app/a HTTP/1.1\r\n{many}{UPGRADE}\r\n");
        assert_eq!(read_first(&many), None);
    }
}
