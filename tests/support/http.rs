//! HTTP/1.1 over a socket, so that what is sent is exactly what the test says; and the signed calls of a back end.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use super::answer::Answer;
use super::{eventually, sign, soon};

/// One connection, kept from answer to answer.
pub(crate) struct Http<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Http {
        let stream = soon("a connection", TcpStream::connect(address))
            .await
            .expect("the server listens");
        stream.set_nodelay(true).expect("a socket takes options");
        Http::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http<S> {
    pub(crate) fn over(stream: S) -> Http<S> {
        Http {
            stream,
            unread: Vec::new(),
        }
    }

    /// Writes bytes as they are.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        // A server that has refused already may have hung up; its answer says so, or the end does.
        let _ = soon("the server to read", self.stream.write_all(bytes)).await;
    }

    /// Ends our side of the connection.
    pub(crate) async fn end(&mut self) {
        self.stream.shutdown().await.expect("the connection holds");
    }

    /// The next answer; `None` is the end of the connection, orderly or not.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..head_end).collect()).expect("a head in ASCII");
        let mut answer = Answer {
            status: head[9..12].parse().expect("a status line"),
            head,
            body: String::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a length"));
        while self.unread.len() < length {
            assert!(self.fill().await, "the body ends early: {answer:?}");
        }
        answer.body = String::from_utf8(self.unread.drain(..length).collect()).expect("a body in UTF-8");
        Some(answer)
    }

    /// Whether more came before the end.
    async fn fill(&mut self) -> bool {
        let read = soon("an HTTP answer", self.stream.read_buf(&mut self.unread)).await;
        matches!(read, Ok(bytes) if bytes > 0)
    }

    /// Sends a request with a body of known length, and reads the answer.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, body: &str) -> Answer {
        self.write(request(method, target, body)).await;
        self.answer().await.expect("an answer")
    }
}

/// The text of a request.
pub(crate) fn request(method: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An app's back end, with one kept connection.
pub(crate) struct Backend<S = TcpStream> {
    pub(crate) http: Http<S>,
    pub(crate) app_id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Backend<S> {
    /// The text of a signed call; `path` is below `/apps/ID`.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> String {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = format!("/apps/{}{path}", self.app_id);
        let query = sign::signed_query(&self.key, &self.secret, method, &path, query, body);
        request(method, &format!("{path}?{query}"), body)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let call = self.call("GET", path, "");
        self.http.write(call).await;
        self.http.answer().await.expect("an answer")
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        let call = self.call("POST", path, &body.to_string());
        self.http.write(call).await;
        self.http.answer().await.expect("an answer")
    }

    /// Triggers an event, which must succeed.
    pub(crate) async fn publish(&mut self, channel: &str, event: &str, data: &str) {
        self.trigger(&json!({ "name": event, "channel": channel, "data": data }))
            .await;
    }

    /// Triggers an event given by its whole body, which must succeed.
    pub(crate) async fn trigger(&mut self, body: &Value) -> Answer {
        let answer = self.post("/events", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// Channels that are occupied, with their counts of subscribers.
    pub(crate) async fn channels(&mut self) -> Value {
        self.get("/channels?info=subscription_count").await.json()["channels"].take()
    }

    /// Waits until a channel has so many subscribers; 0 is a vacated one.
    pub(crate) async fn wait_for_subscribers(&mut self, channel: &str, count: u64) {
        eventually(&format!("{count} subscribers of {channel}"), async || {
            let path = format!("/channels/{channel}?info=subscription_count");
            (self.get(&path).await.json()["subscription_count"] == count).then_some(())
        })
        .await;
    }

    /// Closes all of a user's connections.
    pub(crate) async fn terminate(&mut self, user_id: &str) {
        let answer = self
            .post(&format!("/users/{user_id}/terminate_connections"), &json!({}))
            .await;
        assert_eq!((answer.status, &*answer.body), (200, "{}"), "{answer:?}");
    }
}
