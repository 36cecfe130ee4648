//! The operators' own port: health, `/metrics`, `/usage`, and what they have the node do (`/drain`, `/shed`). On the
//! control runtime, never on a shard, so that a scrape delays no broadcast and full shards hide nothing from a probe.
//!
//! There is no authentication: the port is for loopback or the cluster's inner network, and nothing behind
//! it tells a secret; who may have the node do something is in `actions.rs`. It is bounded all the same: connections
//! wait in the listener's backlog while [`Limits::connections_max`] are served, and none is served for longer than
//! [`Limits::connection_max`]. Each carries one request; a scrape or a probe every few seconds gains
//! nothing from keeping it, and idle ones would take the place of others.
//!
//! Not here: the public port's copy of the health paths (its router calls `health::answer` as well).

mod actions;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

pub use self::actions::Action;
use super::health::{self, Health};
use super::memory::Memory;
use crate::app::NotFound;
use crate::metrics::{Metrics, Snapshot, TEXT_CONTENT_TYPE};

const JSON: &str = "application/json";
/// What is under way when the server stops may take so long.
pub(super) const STOP_MAX: Duration = Duration::from_secs(1);

/// Whether the app that is asked for at a path is switched on, as [`health::app_asked_for`] answers it.
pub type AppAsked = dyn Fn(String) -> BoxFuture<'static, Result<bool, NotFound>> + Send + Sync;
/// Does what an operator asks for. The answer is what that comes to, or why it cannot be done now.
pub type Act = dyn Fn(Action) -> Result<serde_json::Value, String> + Send + Sync;

/// What the port shows.
pub struct AdminState {
    /// The figures behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The state behind the probes.
    pub health: Arc<Health>,
    /// For `/up/APP_ID`.
    pub app: Box<AppAsked>,
    /// For `/drain` and `/shed`.
    pub act: Box<Act>,
    /// Whether somebody at this address may have something done.
    pub may_act: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// Counts what is true now, for the gauges; called by each scrape, on a thread that may be held.
    pub snapshot: Box<dyn Fn() -> Snapshot + Send + Sync>,
}

/// What the port bears.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections served at a time.
    pub connections_max: usize,
    /// For the head of the request to arrive.
    pub head_max: Duration,
    /// For the whole of a connection.
    pub connection_max: Duration,
    /// For what is under way when the server stops.
    pub stop_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 64,
            head_max: Duration::from_secs(5),
            connection_max: Duration::from_secs(30),
            stop_max: STOP_MAX,
        }
    }
}

/// Serves until `shutdown` resolves, then finishes what is under way. Let that be the last to stop: during
/// a drain the probes must still hear a no, and the scrapes see the sockets leave.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AdminState>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < limits.connections_max => match accepted {
                Ok((stream, from)) => {
                    connections.spawn(serve_one(stream, from.ip(), state.clone(), limits));
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "the admin port cannot accept; trying again");
                    sleep(Duration::from_millis(500)).await;
                }
            },
        }
    }
    drop(listener);
    // What is not finished by then is aborted with the set.
    let _ = timeout(limits.stop_max, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

/// Gone before it was accepted; the listener itself is well.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn serve_one(stream: TcpStream, from: IpAddr, state: Arc<AdminState>, limits: Limits) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(respond(&request, from, state).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_max)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), service);
    // An error here is a peer that left or babbled; there is nobody to tell.
    let _ = timeout(limits.connection_max, connection).await;
}

/// hyper leaves the body out by itself where the method is HEAD.
async fn respond(request: &Request<Incoming>, from: IpAddr, state: Arc<AdminState>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if let Some(asked) = Action::asked(path, request.uri().query()) {
        return act(request, from, asked, &state);
    }
    let page = match path {
        "/metrics" => Page::Metrics {
            json: wants_json(request.uri().query()),
        },
        "/usage" => Page::Usage,
        _ => match health::answer(path, &state.health, (state.app)(path.to_owned()).await) {
            Some(answer) => Page::Health(answer),
            None => return error(StatusCode::NOT_FOUND, "no such path"),
        },
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("only GET and HEAD", "GET, HEAD");
    }
    match page {
        Page::Health(answer) => response(answer.status, answer.content_type, answer.body.into_owned()),
        Page::Usage => match Memory::read() {
            Ok(memory) => response(StatusCode::OK, JSON, memory.to_json()),
            Err(_) => error(
                StatusCode::NOT_IMPLEMENTED,
                "memory cannot be read on this system",
            ),
        },
        // It counts descriptors and walks all channels: not for a thread that others wait for.
        Page::Metrics { json } => spawn_blocking(move || scrape(&state, json))
            .await
            .unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "the scrape failed")),
    }
}

/// Has the node do what is asked for, if whoever asks may have that done.
fn act(
    request: &Request<Incoming>,
    from: IpAddr,
    asked: Result<Action, String>,
    state: &AdminState,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        return not_allowed("only POST", "POST");
    }
    if actions::is_of_a_page(request.headers()) {
        return error(
            StatusCode::FORBIDDEN,
            "not from a page in a browser: use curl -X POST",
        );
    }
    if actions::is_a_webhook(request.headers()) {
        return error(
            StatusCode::FORBIDDEN,
            "not by a webhook: its URL leads to an admin port",
        );
    }
    if !(state.may_act)(from) {
        let text = format!("not from {from}: admin.actions_from names who may, beside the machine itself");
        return error(StatusCode::FORBIDDEN, &text);
    }
    match asked.map(|action| (state.act)(action)) {
        Ok(Ok(done)) => response(StatusCode::ACCEPTED, JSON, done.to_string()),
        Ok(Err(text)) => error(StatusCode::CONFLICT, &text),
        Err(text) => error(StatusCode::BAD_REQUEST, &text),
    }
}

fn not_allowed(text: &str, allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, text);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

enum Page {
    Health(health::Answer),
    Usage,
    Metrics { json: bool },
}

fn scrape(state: &AdminState, json: bool) -> Response<Full<Bytes>> {
    let snapshot = (state.snapshot)();
    if json {
        return response(StatusCode::OK, JSON, state.metrics.json(&snapshot));
    }
    match state.metrics.text(&snapshot) {
        Ok(text) => response(StatusCode::OK, TEXT_CONTENT_TYPE, text),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the scrape failed"),
    }
}

/// `?json=1`; as with Soketi any value will do, but none.
fn wants_json(query: Option<&str>) -> bool {
    query
        .unwrap_or_default()
        .split('&')
        .any(|pair| pair.strip_prefix("json=").is_some_and(|value| !value.is_empty()))
}

fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    response(status, JSON, serde_json::json!({ "error": message }).to_string())
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
