//! The operators' own port: health, `/metrics`, `/usage`. On the control runtime, never on a shard, so that
//! a scrape delays no broadcast and full shards hide nothing from a probe.
//!
//! There is no authentication: the port is for loopback or the cluster's inner network, and nothing behind
//! it tells a secret or changes anything. It is bounded all the same: connections wait in the listener's
//! backlog while [`Limits::connections_max`] are served, and none is served for longer than
//! [`Limits::connection_max`]. Each carries one request; a scrape or a probe every few seconds gains
//! nothing from keeping it, and idle ones would take the place of others.
//!
//! Not here: the public port's copy of the health paths (its router calls `health::answer` as well).

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

use super::health::{self, Health};
use super::usage::Memory;
use crate::metrics::{Metrics, Snapshot, TEXT_CONTENT_TYPE};

const JSON: &str = "application/json";

/// Looks an app up by id, without I/O: whether it is switched on, or `None` if there is none.
pub type AppEnabled = dyn Fn(&str) -> Option<bool> + Send + Sync;

/// What the port shows.
pub struct AdminState {
    /// The figures behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The state behind the probes.
    pub health: Arc<Health>,
    /// For `/up/APP_ID`.
    pub app_enabled: Box<AppEnabled>,
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
            stop_max: Duration::from_secs(1),
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
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, state.clone(), limits));
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

async fn serve_one(stream: TcpStream, state: Arc<AdminState>, limits: Limits) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(respond(&request, state).await) }
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
async fn respond(request: &Request<Incoming>, state: Arc<AdminState>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let page = match path {
        "/metrics" => Page::Metrics {
            json: wants_json(request.uri().query()),
        },
        "/usage" => Page::Usage,
        _ => match health::answer(path, &state.health, &state.app_enabled) {
            Some(answer) => Page::Health(answer),
            None => return error(StatusCode::NOT_FOUND, "no such path"),
        },
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
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
