//! The other end: blocking sockets that read as many bytes as are due. They cost the server's process nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use fanwire::protocol::auth;
use md5::{Digest, Md5};

use crate::serve::{APP_ID, KEY, SECRET};

/// So long without anything is a fault of server or harness.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The first byte of a frame that holds a whole text.
const TEXT: u8 = 0x81;

/// A subscriber of one channel.
pub(crate) struct Subscriber {
    stream: TcpStream,
    /// For frames.
    buffer: Vec<u8>,
}

impl Subscriber {
    /// From the first `connect` until the subscription is acknowledged.
    pub(crate) fn connect(port: u16, channel: &str) -> Result<Subscriber> {
        let stream = connect(port)?;
        let mut subscriber = Subscriber {
            stream,
            buffer: Vec::new(),
        };
        let upgrade = format!(
            "GET /app/{KEY}?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        subscriber.stream.write_all(upgrade.as_bytes())?;
        let head = read_head(&mut subscriber.stream)?;
        ensure!(head.starts_with("HTTP/1.1 101"), "no upgrade: {head}");
        let greeting = subscriber.text()?;
        let socket_id = greeting
            .split_once(r#"socket_id\":\""#)
            .and_then(|(_, rest)| rest.split('\\').next())
            .with_context(|| format!("no greeting: {greeting}"))?;
        let signature = auth::sign(SECRET, &format!("{socket_id}:{channel}"));
        let subscribe = format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{KEY}:{signature}"}}}}"#
        );
        subscriber.say(&subscribe)?;
        let answer = subscriber.text()?;
        ensure!(
            answer.contains("subscription_succeeded"),
            "not subscribed: {answer}"
        );
        Ok(subscriber)
    }

    /// Sends a text.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        let mut frame = vec![TEXT];
        match text.len() {
            length @ ..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(length)?.to_be_bytes());
            }
        }
        // Masked, but with zeros.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        Ok(self.stream.write_all(&frame)?)
    }

    /// Waits for a frame with this event.
    pub(crate) fn hear(&mut self, event: &str) -> Result<()> {
        let text = self.text()?;
        ensure!(text.contains(event), "{event} was expected: {text}");
        Ok(())
    }

    fn text(&mut self) -> Result<&str> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        ensure!(head[0] == TEXT, "a text was expected, not {head:x?}");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                u16::from_be_bytes(length).into()
            }
            length => usize::from(length),
        };
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer)?;
        Ok(std::str::from_utf8(&self.buffer)?)
    }
}

/// A back end with one connection, kept from call to call.
pub(crate) struct Backend {
    stream: TcpStream,
    port: u16,
}

impl Backend {
    pub(crate) fn connect(port: u16) -> Result<Backend> {
        Ok(Backend {
            stream: connect(port)?,
            port,
        })
    }

    /// Makes one signed call and waits for its answer.
    pub(crate) fn call(&mut self, call: &str, body: &str) -> Result<()> {
        let body_md5 = hex::encode(Md5::digest(body));
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let path = format!("/apps/{APP_ID}/{call}");
        let query = format!("auth_key={KEY}&auth_timestamp={now_s}&auth_version=1.0&body_md5={body_md5}");
        let signature = auth::sign(SECRET, &format!("POST\n{path}\n{query}"));
        let request = format!(
            "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        let head = read_head(&mut self.stream)?;
        ensure!(head.starts_with("HTTP/1.1 200"), "refused: {head}");
        let mut body = [0; 2];
        self.stream.read_exact(&mut body)?;
        ensure!(&body == b"{}", "an empty object is answered");
        Ok(())
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

fn read_head(stream: &mut TcpStream) -> Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}
