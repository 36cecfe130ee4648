//! A receiver in memory, whose clock is the test's: connections are pipes, requests are read as bytes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::Instant;
use tower_service::Service;

/// How a request is answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::webhook) enum Reply {
    /// With this status, at once.
    Status(u16),
    /// Never.
    Hang,
    /// By the end of the connection.
    Close,
    /// By these bytes, and the end of the connection.
    Cut(&'static str),
    /// With a redirect to another host.
    Redirect,
    /// With success, and ten megabytes, a hundred kilobytes a second.
    Slow,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(in crate::webhook) struct Received {
    /// Since the receiver began.
    pub(in crate::webhook) at: Duration,
    pub(in crate::webhook) host: String,
    pub(in crate::webhook) head: String,
    pub(in crate::webhook) body: String,
}

impl Received {
    /// The value of a header, whose name is in lower case.
    pub(in crate::webhook) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(known, _)| *known == name).map(|(_, value)| value);
        values.next()
    }

    /// The channels of its events, in order.
    pub(in crate::webhook) fn channels(&self) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("a body is JSON");
        let events = body["events"].as_array().expect("a body has events").iter();
        events
            .map(|event| event["channel"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// Answers every host by one script.
#[derive(Clone)]
pub(in crate::webhook) struct Receiver {
    begun: Instant,
    script: Arc<Script>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub(in crate::webhook) fn new(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver {
            begun: Instant::now(),
            script: Arc::new(script),
            received: Arc::default(),
        }
    }

    /// When it began.
    pub(in crate::webhook) fn begun(&self) -> Instant {
        self.begun
    }

    /// All that came so far.
    pub(in crate::webhook) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no test panics with it").clone()
    }

    /// Waits until so many have come.
    pub(in crate::webhook) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_secs(1_000);
        while self.received().len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.received());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.received()
    }

    async fn serve(self, host: String, mut pipe: DuplexStream) -> io::Result<()> {
        while let Some((head, body)) = read_request(&mut pipe).await? {
            let received = Received {
                at: self.begun.elapsed(),
                host: host.clone(),
                head,
                body,
            };
            let reply = (self.script)(&received);
            self.received
                .lock()
                .expect("no test panics with it")
                .push(received);
            match reply {
                Reply::Status(status) => {
                    let answer = format!("HTTP/1.1 {status} \r\ncontent-length: 2\r\n\r\nok");
                    pipe.write_all(answer.as_bytes()).await?;
                }
                Reply::Redirect => {
                    let answer = "HTTP/1.1 302 Found\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n";
                    pipe.write_all(answer.as_bytes()).await?;
                }
                Reply::Close => return Ok(()),
                Reply::Cut(bytes) => return pipe.write_all(bytes.as_bytes()).await,
                Reply::Hang => std::future::pending().await,
                Reply::Slow => {
                    pipe.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n")
                        .await?;
                    for _ in 0..1_000 {
                        pipe.write_all(&[b'x'; 10_000]).await?;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The head and the body of the next request; none if the connection ends before it.
async fn read_request(pipe: &mut DuplexStream) -> io::Result<Option<(String, String)>> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if pipe.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < head_end + length {
        if pipe.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((
        head,
        String::from_utf8_lossy(&bytes[head_end..]).into_owned(),
    )))
}

/// The sender's end of a connection.
pub(in crate::webhook) struct Pipe(DuplexStream);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Service<Uri> for Receiver {
    type Response = TokioIo<Pipe>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<Pipe>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let host = url.host().unwrap_or_default().to_owned();
        tokio::spawn(self.clone().serve(host, far));
        std::future::ready(Ok(TokioIo::new(Pipe(near))))
    }
}
