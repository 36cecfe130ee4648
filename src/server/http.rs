//! HTTP on a shard: every connection begins here. It is answered here for as long as it stays HTTP; an upgrade hands
//! the raw stream to the shard and nothing of HTTP is left behind.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_VERSION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::demo;
use super::health::{self, Health};
use super::reread::Reread;
use super::router::{Route, route};
use super::upgrade::{self, Asked, Upgraded, upgrade};
use crate::address::Client;
use crate::api::Api;
use crate::app::NotFound;
use crate::config::ServerConfig;
use crate::hub::inbox::Arrival;
use crate::metrics::ConnectionError;
use crate::node::Node;
use crate::shard::{Newcomer, Shard};

/// What is left of the patience with idle connections while there are too many.
const CROWDED_PATIENCE: Duration = Duration::from_secs(1);
/// Read of a connection before it is known who reads on: room for a browser's handshake with some cookies.
const FIRST_BYTES_MAX: usize = 4096;
/// While the server leaves, who has connected and not yet asked has this long to do so.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

type Answered = Response<Full<Bytes>>;

/// What every connection is served with.
pub(super) struct Gate {
    pub(super) node: Arc<Node>,
    pub(super) api: Api,
    pub(super) health: Arc<Health>,
    pub(super) config: ServerConfig,
    /// Whether the demo page stands at `/`.
    pub(super) development: bool,
    /// Connections that the process bears.
    pub(super) sockets_max: usize,
    /// Set when connections are to end after the request in hand.
    pub(super) closing: watch::Receiver<bool>,
}

/// Stands for the answer to an upgrade, which is not hyper's to send: it lets go of the connection instead. What it
/// answered before has left by then, since it reads no request sooner.
#[derive(Debug, thiserror::Error)]
#[error("the connection has been upgraded")]
struct LetGo;

/// Serves one connection, on the shard's thread.
pub(super) fn serve(gate: Arc<Gate>, shard: Rc<Shard>, arrival: Arrival<TcpStream>) {
    tokio::task::spawn_local(async move {
        let place = Place { shard: Some(shard) };
        // Boxed, so that what HTTP needs is given back before a socket begins its life.
        if let Some((stream, early, newcomer)) = Box::pin(open(gate, arrival)).await {
            place.keep().adopt(stream, &early, newcomer);
        }
    });
}

/// The connection's place in the shard's count, given back unless a socket takes it over.
struct Place {
    shard: Option<Rc<Shard>>,
}

impl Place {
    fn keep(mut self) -> Rc<Shard> {
        self.shard.take().expect("a place is kept or given back once")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shard) = &self.shard {
            shard.connection_gone();
        }
    }
}

/// All that comes before a socket. `None`: the connection is over.
async fn open(gate: Arc<Gate>, arrival: Arrival<TcpStream>) -> Option<(TcpStream, Bytes, Newcomer)> {
    let Arrival { stream, client } = arrival;
    let patience = Patience::new(gate.patience(gate.config.header_timeout_s));
    let first = first_bytes(&gate, &stream, &patience).await;
    let asked = Asked::first(&first);
    let at_once = match asked {
        Some((asked, length)) => {
            // Almost always there is nothing to wait for, and nothing is allocated for it.
            let is_unanswered = match upgrade::is_stranger(&gate, &asked) {
                true => Box::pin(upgrade::introduce(&gate, &asked)).await,
                false => false,
            };
            upgrade(&gate, &asked, &client, is_unanswered).map(|upgraded| (upgraded, length))
        }
        None => None,
    };
    let (stream, early, upgraded) = match at_once {
        Some((upgraded, length)) => (stream, first.slice(length..), upgraded),
        None => Box::pin(speak_http(gate, Reread { first, stream }, client, patience)).await?,
    };
    match upgraded {
        Upgraded::Socket(newcomer) => Some((stream, early, newcomer)),
        Upgraded::Refused(words) => {
            upgrade::refuse(stream, &words).await;
            None
        }
    }
}

/// What a connection says first, as far as one read brings it. Nothing: hyper waits on, or meets what is wrong.
async fn first_bytes(gate: &Gate, stream: &TcpStream, patience: &Patience) -> Bytes {
    let mut closing = gate.closing.clone();
    let mut first = Vec::new();
    tokio::select! {
        biased;
        _ = stream.readable() => {
            first.reserve_exact(FIRST_BYTES_MAX);
            let _ = stream.try_read_buf(&mut first);
        }
        () = tokio::time::sleep_until(patience.until()) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    first.into()
}

/// Speaks HTTP until the connection ends (`None`) or is upgraded.
async fn speak_http(
    gate: Arc<Gate>,
    stream: Reread,
    client: Client,
    patience: Patience,
) -> Option<(TcpStream, Bytes, Upgraded)> {
    let upgraded = Rc::new(RefCell::new(None));
    let patience = Rc::new(patience);
    let service = service_fn({
        let (gate, upgraded, patience) = (gate.clone(), upgraded.clone(), patience.clone());
        move |request: Request<Incoming>| {
            let (gate, upgraded, patience) = (gate.clone(), upgraded.clone(), patience.clone());
            Box::pin(async move {
                patience.deadline.set(None);
                let answer = match answer(&gate, &client, request).await {
                    Answer::Http(answer) => answer,
                    Answer::Upgrade(answer) => {
                        *upgraded.borrow_mut() = Some(answer);
                        return Err(LetGo);
                    }
                };
                patience.has_answered.set(true);
                patience
                    .deadline
                    .set(Some(Instant::now() + gate.patience(gate.config.keep_alive_s)));
                Ok(answer)
            })
        }
    });
    let mut connection = http1::Builder::new()
        .half_close(true)
        .max_buf_size(gate.config.header_bytes_max)
        .serve_connection(TokioIo::new(stream), service);

    let mut closing = gate.closing.clone();
    let sleep = tokio::time::sleep_until(patience.until());
    tokio::pin!(sleep);
    let asked_to_close = closing.wait_for(|closing| *closing);
    tokio::pin!(asked_to_close);
    let (mut is_closing, mut is_last) = (false, false);
    let ended = poll_fn(|cx| {
        if !is_closing && asked_to_close.as_mut().poll(cx).is_ready() {
            is_closing = true;
            patience.wait_at_most(LAST_REQUESTS);
        }
        loop {
            // Who has just come is answered once: a client that is not told to come again later comes at once.
            if is_closing && patience.has_answered.get() && !is_last {
                is_last = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Some(ended));
            }
            if is_last || !is_closing || !patience.has_answered.get() {
                break;
            }
        }
        // An answer may have brought the deadline nearer than it was.
        if let Some(at) = patience.deadline.get().filter(|at| *at < sleep.deadline()) {
            sleep.as_mut().reset(at);
        }
        // While a request is answered its own limits hold; they end within this time too.
        while sleep.as_mut().poll(cx).is_ready() {
            match patience.deadline.get() {
                Some(at) if at <= Instant::now() => return Poll::Ready(None),
                Some(at) => sleep.as_mut().reset(at),
                None => sleep
                    .as_mut()
                    .reset(Instant::now() + seconds(gate.config.request_timeout_s)),
            }
        }
        Poll::Pending
    })
    .await;
    let upgraded = upgraded.take();
    match ended {
        Some(Ok(())) => return None,
        Some(Err(_)) if upgraded.is_some() => {}
        Some(Err(error)) => {
            tracing::debug!(%error, "an HTTP connection failed");
            gate.node.metrics().connection_errors(ConnectionError::Http).inc();
            return None;
        }
        None => {
            if !patience.has_answered.get() {
                gate.node
                    .metrics()
                    .connection_errors(ConnectionError::Timeout)
                    .inc();
            }
            return None;
        }
    }
    let parts = connection.into_parts();
    Some((parts.io.into_inner().stream, parts.read_buf, upgraded?))
}

impl Gate {
    /// How long a connection may be idle. Less while connections eat up the descriptors kept in reserve.
    fn patience(&self, usual_s: u32) -> Duration {
        let is_crowded = self.node.inboxes().connections() > self.sockets_max;
        if is_crowded {
            seconds(usual_s).min(CROWDED_PATIENCE)
        } else {
            seconds(usual_s)
        }
    }
}

/// How long one connection is waited for.
struct Patience {
    /// Until when the next request must have come; none while one is answered.
    deadline: Cell<Option<Instant>>,
    has_answered: Cell<bool>,
}

impl Patience {
    fn new(first: Duration) -> Patience {
        Patience {
            deadline: Cell::new(Some(Instant::now() + first)),
            has_answered: Cell::new(false),
        }
    }

    /// The deadline, or what is as good as one while a request is answered: now.
    fn until(&self) -> Instant {
        self.deadline.get().unwrap_or_else(Instant::now)
    }

    fn wait_at_most(&self, time: Duration) {
        let latest = Instant::now() + time;
        self.deadline.set(self.deadline.get().map(|at| at.min(latest)));
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

enum Answer {
    Http(Answered),
    Upgrade(Upgraded),
}

async fn answer(gate: &Gate, client: &Client, request: Request<Incoming>) -> Answer {
    if let Some(asked) = Asked::of(&request) {
        let is_unanswered = upgrade::introduce(gate, &asked).await;
        let upgraded = upgrade(gate, &asked, client, is_unanswered);
        return upgraded.map_or_else(|| Answer::Http(upgrade_required()), Answer::Upgrade);
    }
    // Shares its bytes with the request, which the API takes.
    let uri = request.uri().clone();
    let route = route(uri.path(), &gate.config.path_prefix);
    Answer::Http(match route {
        Route::Socket(_) => upgrade_required(),
        Route::Api => gate.api.answer(request).await,
        Route::Other(path) => {
            if let Some(id) = health::app_asked_for(path)
                && gate.node.apps().find_by_id(&id).await.err() == Some(NotFound::Unavailable)
            {
                let text = r#"{"causes":["store_unavailable"],"health":"ERROR"}"#;
                return Answer::Http(json(StatusCode::SERVICE_UNAVAILABLE, text));
            }
            other(gate, request.method(), path)
        }
    })
}

fn upgrade_required() -> Answered {
    let text =
        r#"{"error":"this path speaks WebSocket (version 13): connect with a Pusher client","code":426}"#;
    let mut response = json(StatusCode::UPGRADE_REQUIRED, text);
    response
        .headers_mut()
        .insert(hyper::header::UPGRADE, HeaderValue::from_static("websocket"));
    response
        .headers_mut()
        .insert(hyper::header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

fn other(gate: &Gate, method: &Method, path: &str) -> Answered {
    if gate.development
        && let Some(page) = demo::page(path)
    {
        return page;
    }
    let app_enabled = |id: &str| {
        gate.node
            .apps()
            .by_id(id)
            .map(|app| app.settings().config.enabled)
    };
    let Some(health::Answer {
        status,
        body,
        content_type,
    }) = health::answer(path, &gate.health, app_enabled)
    else {
        return json(StatusCode::NOT_FOUND, r#"{"error":"no such path","code":404}"#);
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = json(
            StatusCode::METHOD_NOT_ALLOWED,
            r#"{"error":"use GET","code":405}"#,
        );
        response
            .headers_mut()
            .insert(hyper::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let mut response = Response::new(Full::from(body.into_owned()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json(status: StatusCode, text: &'static str) -> Answered {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
