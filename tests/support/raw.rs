//! A client that can send any bytes, and sees every byte that comes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::soon;

/// The final bit of a frame's first byte.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// One frame of the server: first byte and payload. The server's frames carry no mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl RawFrame {
    /// The message in a text frame.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.first, FIN | TEXT, "{self:?}");
        serde_json::from_slice(&self.payload).expect("the server speaks JSON")
    }

    /// Code and reason of a close frame.
    pub(crate) fn close(&self) -> (u16, String) {
        assert_eq!(
            self.first,
            FIN | CLOSE,
            "{}",
            String::from_utf8_lossy(&self.payload)
        );
        let (code, reason) = self.payload.split_at(2);
        (
            u16::from_be_bytes([code[0], code[1]]),
            String::from_utf8(reason.to_vec()).expect("a reason in UTF-8"),
        )
    }
}

/// The bytes of a masked frame, as a client sends them.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = head(first, 0x80, payload.len() as u64);
    bytes.extend_from_slice(&mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// A frame's first bytes, with the shortest form of its length.
pub(crate) fn head(first: u8, mask_bit: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask_bit | length as u8),
        126..=0xffff => {
            bytes.push(mask_bit | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes
}

/// A connection that may become a WebSocket.
pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
    unread: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        Raw::of(soon("a connection", TcpStream::connect(address)).await)
    }

    /// Connects with a receive buffer so small that a stalled reader is felt soon. Bytes.
    pub(crate) async fn connect_with_buffer(address: SocketAddr, bytes: u32) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(bytes)
            .expect("a socket takes options");
        Raw::of(soon("a connection", socket.connect(address)).await)
    }

    /// Speaks over a connection that was made elsewhere.
    pub(crate) fn of(stream: std::io::Result<TcpStream>) -> Raw {
        let stream = stream.expect("the server listens");
        stream.set_nodelay(true).expect("a socket takes options");
        Raw::over(stream)
    }

    /// The text of an upgrade request; each of `headers` ends with a line end.
    pub(crate) fn upgrade(target: &str, headers: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }

    /// Connects, upgrades and reads the greeting; the answer is the socket id.
    pub(crate) async fn greeted(address: SocketAddr) -> (Raw, String) {
        let mut raw = Raw::connect(address)
            .await
            .upgraded("/app/key?protocol=7", "")
            .await;
        let id = raw.greeting().await;
        (raw, id)
    }

    /// Waits, for as long as it takes, until there is something to read.
    #[allow(dead_code, reason = "not every test has all the time there is")]
    pub(crate) async fn listen(&self) {
        if self.unread.is_empty() {
            let _ = self.stream.readable().await;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn over(stream: S) -> Raw<S> {
        Raw {
            stream,
            unread: Vec::new(),
        }
    }

    /// Upgrades, and leaves all that follows to the test.
    pub(crate) async fn upgraded(mut self, target: &str, headers: &str) -> Raw<S> {
        self.send(Raw::upgrade(target, headers)).await;
        let head = self.http_head().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self
    }

    /// The greeting, which must come next; the answer is the socket id.
    pub(crate) async fn greeting(&mut self) -> String {
        let greeting = self.frame().await.expect("a greeting").json();
        assert_eq!(greeting["event"], "pusher:connection_established");
        super::client::data(&greeting)["socket_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// Sends bytes as they are. A server that hung up is no error: what it said before is still to be read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("the server to read", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends as much as the server takes within a time.
    pub(crate) async fn send_what_is_taken(&mut self, bytes: &[u8], within: Duration) {
        let _ = tokio::time::timeout(within, self.stream.write_all(bytes)).await;
    }

    /// Sends a text frame.
    pub(crate) async fn say(&mut self, message: &Value) {
        self.send(frame(FIN | TEXT, message.to_string().as_bytes())).await;
    }

    /// The next frame; `None` is the end, orderly or not.
    pub(crate) async fn frame(&mut self) -> Option<RawFrame> {
        let first = self.bytes(2).await?;
        assert_eq!(first[1] & 0x80, 0, "a server does not mask");
        let length = match first[1] {
            126 => u64::from(u16::from_be_bytes(self.bytes(2).await?.try_into().expect("two"))),
            127 => u64::from_be_bytes(self.bytes(8).await?.try_into().expect("eight")),
            length => u64::from(length),
        };
        Some(RawFrame {
            first: first[0],
            payload: self.bytes(length as usize).await?,
        })
    }

    /// The next message, which must be a text.
    pub(crate) async fn next(&mut self) -> Value {
        self.frame().await.expect("a message").json()
    }

    /// The server closes next; then, once we have answered, so does the connection.
    pub(crate) async fn expect_close(&mut self) -> (u16, String) {
        let close = self.frame().await.expect("a close frame before the end").close();
        self.send(frame(FIN | CLOSE, &close.0.to_be_bytes())).await;
        assert_eq!(self.frame().await, None, "nothing follows a close frame");
        close
    }

    /// The head of an HTTP answer.
    pub(crate) async fn http_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.bytes(at + 4).await?).ok();
            }
            self.fill().await?;
        }
    }

    /// So many bytes as they come; `None` is the end.
    pub(crate) async fn bytes(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.unread.len() < bytes {
            self.fill().await?;
        }
        Some(self.unread.drain(..bytes).collect())
    }

    async fn fill(&mut self) -> Option<()> {
        match soon("bytes", self.stream.read_buf(&mut self.unread)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}
