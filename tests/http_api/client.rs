//! A caller of the HTTP API that shares no code with the server: raw HTTP/1.1 over a socket, so that what is
//! sent is exactly what the test says, and signatures made by the book.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use crate::answer::Answer;

/// One connection, kept alive between requests.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes options");
        let reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Connection { stream, reader }
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Sends a request with a body of known length, and reads the answer.
    pub(crate) fn ask(&mut self, method: &str, target: &str, body: &str) -> Answer {
        self.write(request(method, target, body));
        self.read(method)
    }

    /// Reads one answer to a request of this method.
    pub(crate) fn read(&mut self, method: &str) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.reader.read_line(&mut head).expect("an answer comes in time");
            assert!(read > 0, "the server closed after {head:?}");
        }
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status line");
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let length = answer
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        if method != "HEAD" && status != 100 {
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body).expect("the body comes in time");
            answer.body = String::from_utf8(body).expect("a body is text");
        }
        answer
    }
}

/// A request with a body of known length; none at all if it is empty.
pub(crate) fn request(method: &str, target: &str, body: &str) -> String {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{length}\r\n{body}")
}

/// What signs requests: an app's key and secret.
#[derive(Clone, Copy)]
pub(crate) struct Signer<'a> {
    pub(crate) key: &'a str,
    pub(crate) secret: &'a str,
}

impl Signer<'_> {
    /// A target signed now. `query` has the further parameters, `a=1&b=2`, or is empty.
    pub(crate) fn target(&self, method: &str, path: &str, query: &str, body: &str) -> String {
        let md5 = if body.is_empty() {
            String::new()
        } else {
            format!("body_md5={}", md5(body))
        };
        let pairs = [md5.as_str(), query].join("&");
        self.target_at(unix_s(), method, path, pairs.trim_matches('&'))
    }

    /// A target signed at a time, with exactly these further parameters.
    pub(crate) fn target_at(&self, timestamp_s: u64, method: &str, path: &str, query: &str) -> String {
        let own = format!(
            "auth_key={}&auth_timestamp={timestamp_s}&auth_version=1.0",
            self.key
        );
        let query = [&own, query].join("&");
        let query = query.trim_end_matches('&');
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.sort_unstable();
        let signature = hmac(self.secret, &format!("{method}\n{path}\n{}", pairs.join("&")));
        format!("{path}?{query}&auth_signature={signature}")
    }
}

pub(crate) fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is right")
        .as_secs()
}

pub(crate) fn md5(text: &str) -> String {
    hex::encode(Md5::digest(text))
}

fn hmac(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}
