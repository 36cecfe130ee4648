//! An app's back end as webhooks find it: an HTTP server that keeps all it gets, and answers as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::eventually;

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The events of the body.
    pub(crate) fn events(&self) -> Vec<Value> {
        let body = self.json();
        body["events"].as_array().expect("a list of events").clone()
    }
}

/// What requests are answered with.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A status and no body.
    Status(u16),
    /// A status with these headers and this body.
    Whole(u16, Vec<(&'static str, String)>, Bytes),
    /// Nothing, ever.
    Hang,
}

#[derive(Debug)]
struct Shared {
    received: Mutex<Vec<Received>>,
    reply: Mutex<Reply>,
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Receiver {
    /// One on a free port, which answers 200.
    pub(crate) async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            reply: Mutex::new(Reply::Status(200)),
        });
        let listening = tokio::spawn(listen(listener, shared.clone()));
        Receiver {
            address,
            shared,
            listening,
        }
    }

    /// Where it is; `path` begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on it answers so.
    pub(crate) fn answer(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }

    /// All requests up to now, as they came.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received().clone()
    }

    /// All events up to now, as they came.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.shared.received().iter().flat_map(Received::events).collect()
    }

    /// The events that came of a channel up to now.
    pub(crate) fn events_of(&self, channel: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["channel"] == channel);
        events
    }

    /// Waits until exactly these events of a channel have come, and in this order.
    pub(crate) async fn expect(&self, channel: &str, expected: &[Value]) {
        let what = format!("the webhooks of {channel} to be {expected:#?}");
        eventually(&what, async || {
            let events = self.events_of(channel);
            let is_prefix = expected.starts_with(&events);
            assert!(is_prefix, "expected {expected:#?}, and not {events:#?}");
            (events.len() == expected.len()).then_some(())
        })
        .await;
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let serve = service_fn(move |request| answer(request, shared.clone()));
            // How a connection ends is the sender's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), serve)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        // Half a request is none.
        return Ok(Response::new(Full::default()));
    };
    shared.received().push(Received {
        at: Instant::now(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: body.to_bytes(),
    });
    let reply = shared
        .reply
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let (status, headers, body) = match reply {
        Reply::Status(status) => (status, Vec::new(), Bytes::new()),
        Reply::Whole(status, headers, body) => (status, headers, body),
        Reply::Hang => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(body)).expect("a sound answer"))
}
