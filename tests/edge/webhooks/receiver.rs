//! An app's back end that webhooks are sent to: a real HTTP server on a free port, which answers as the test says.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{eventually, sign};

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// With this status.
    Status(u16),
    /// Never.
    Hang,
    /// By the end of the connection.
    Close,
    /// With a redirect to this URL.
    Redirect(String),
    /// With success, and ten megabytes that take a minute.
    Slow,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Since the receiver was started.
    pub(crate) at: Duration,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    /// The only value of a header, whose name is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values: Vec<_> = self.headers.iter().filter(|(known, _)| known == name).collect();
        assert!(values.len() <= 1, "{name} stands there {} times", values.len());
        values.first().map(|(_, value)| value.as_str())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("x-fanwire-webhook-id").expect("every body has an id")
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).expect("a body is JSON");
        body["events"].as_array().expect("a body has events").clone()
    }

    /// Checks what every official library checks.
    pub(crate) fn is_signed_by(&self, key: &str, secret: &str) {
        assert_eq!(self.method, "POST");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("x-pusher-key"), Some(key));
        assert_eq!(
            self.header("x-pusher-signature"),
            Some(&*sign::hmac(secret, &self.body))
        );
        let body: Value = serde_json::from_str(&self.body).expect("a body is JSON");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("after 1970").as_millis() as u64;
        let time_ms = body["time_ms"].as_u64().expect("a whole number");
        assert!(now.abs_diff(time_ms) < 300_000, "{time_ms}");
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// The receiver. It lives as long as the test's runtime.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub(crate) async fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver::over(script, |stream| std::future::ready(Ok(stream))).await
    }

    /// One that speaks TLS.
    pub(crate) async fn sealed(
        acceptor: TlsAcceptor,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Receiver {
        Receiver::over(script, move |stream| acceptor.accept(stream)).await
    }

    async fn over<S, F>(
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
        accept: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Receiver
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let received = Arc::new(Mutex::new(Vec::new()));
        let (seen, script, begun): (_, Arc<Script>, _) = (received.clone(), Arc::new(script), Instant::now());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, script) = (seen.clone(), script.clone());
                let answer = move |request| answer(request, begun, seen.clone(), script.clone());
                let accepting = accept(stream);
                tokio::spawn(async move {
                    let Ok(stream) = accepting.await else { return };
                    // A connection that the script ends is an error of it.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
        });
        Receiver { address, received }
    }

    /// One that is content with everything.
    pub(crate) async fn content() -> Receiver {
        Receiver::start(|_| Reply::Status(200)).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no test panics with it").clone()
    }

    /// All events so far, in the order in which they came.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.received().iter().flat_map(Received::events).collect()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually(&format!("{count} webhooks"), async || {
            Some(self.received()).filter(|received| received.len() >= count)
        })
        .await
    }
}

async fn answer(
    request: Request<Incoming>,
    begun: Instant,
    seen: Arc<Mutex<Vec<Received>>>,
    script: Arc<Script>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    let received = Received {
        at: begun.elapsed(),
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers.iter().map(header).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let reply = script(&received);
    seen.lock().expect("no test panics with it").push(received);
    let plain = |text: &'static str| Full::new(Bytes::from(text)).boxed_unsync();
    let answer = match reply {
        Reply::Status(status) => Response::builder().status(status).body(plain("ok")),
        Reply::Hang => std::future::pending().await,
        Reply::Close => return Err(io::Error::other("as the test says")),
        Reply::Redirect(to) => Response::builder()
            .status(307)
            .header("location", to)
            .body(plain("")),
        Reply::Slow => {
            let chunks = stream::iter(0..600).then(|_| async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(Frame::data(Bytes::from_static(&[b'x'; 17_000])))
            });
            Response::builder().body(StreamBody::new(chunks).boxed_unsync())
        }
    };
    Ok(answer.expect("a sound answer"))
}
