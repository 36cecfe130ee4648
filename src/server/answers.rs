//! What requests are answered with that do not become sockets: where they lead, and what is said of paths that are
//! nobody's. What the API answers is its own business.

use std::cell::OnceCell;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION};
use hyper::{Method, Request, Response, StatusCode};

use super::callers::Caller;
use super::demo;
use super::health;
use super::http::{Gate, Peer};
use super::router::{Route, route};
use super::upgrade::{self, Asked, Upgraded, upgrade};
use crate::hub::inbox::ShardIndex;
use crate::metrics::{ConnectionError, RefusedFor};

type Answered = Response<Full<Bytes>>;

/// What becomes of a request.
pub(super) enum Answer {
    Http(Answered),
    Upgrade(Upgraded),
}

/// Answers one request. `stay` says how long its connection may speak HTTP; it is asked unless that becomes a socket.
pub(super) async fn answer(
    gate: &Gate,
    peer: &Peer,
    request: Request<Incoming>,
    stay: impl FnOnce() -> Stay,
) -> Answer {
    let asked = Asked::of(&request, peer.client, &gate.forwarding);
    if let Some(asked) = &asked {
        let by_address = upgrade::by_address(gate, asked, peer);
        let is_unanswered = by_address.is_ok() && upgrade::introduce(gate, asked).await;
        if let Some(upgraded) = upgrade(gate, asked, by_address, is_unanswered) {
            return Answer::Upgrade(upgraded);
        }
    } else if peer.is_beyond {
        let error = ConnectionError::AddressLimit;
        gate.node.metrics().connection_errors(error).inc();
        return Answer::Http(too_many_connections());
    }
    let (is_broken, stay) = (asked.is_some(), stay());
    // Shares its bytes with the request, which the API takes.
    let uri = request.uri().clone();
    let mut answer = match route(uri.path(), &gate.config.path_prefix) {
        _ if is_broken => upgrade_required(),
        Route::Socket(_) => upgrade_required(),
        Route::Api if stay == Stay::Unwelcome => crowded(gate),
        Route::Api if !peer.may_call => {
            tracing::debug!(client = %peer.client, "an API call came without a client certificate");
            json(
                StatusCode::FORBIDDEN,
                r#"{"error":"calls need a client certificate here, signed by an authority of tls.client_ca_file","code":403}"#,
            )
        }
        Route::Api => {
            let client_of = |headers: &HeaderMap| {
                let headers = headers.iter();
                let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
                gate.forwarding.client_of(peer.client, headers)
            };
            gate.api.answer(request, client_of).await
        }
        Route::Other(path) => other(gate, request.method(), path).await,
    };
    if stay != Stay::Welcome {
        answer
            .headers_mut()
            .append(CONNECTION, HeaderValue::from_static("close"));
    }
    Answer::Http(answer)
}

/// How long a connection may speak HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    Welcome,
    /// Until this request is answered.
    Once,
    /// The same, and it is to ask for little: there is no room for it.
    Unwelcome,
}

impl Stay {
    /// A request has come, perhaps the first one.
    pub(super) fn of(caller: &OnceCell<Caller>, gate: &Gate, shard: ShardIndex) -> Stay {
        if let Some(caller) = caller.get() {
            return match caller.work() {
                true => Stay::Welcome,
                false => Stay::Once,
            };
        }
        let (entered, has_room) = gate.callers.enter(shard.into());
        caller.get_or_init(|| entered);
        match has_room {
            true => Stay::Welcome,
            false => Stay::Unwelcome,
        }
    }
}

fn crowded(gate: &Gate) -> Answered {
    gate.node.metrics().refused(RefusedFor::HttpConnections).inc();
    let text = r#"{"error":"This node has as many HTTP connections at work as it bears (`server.http_connections_max`). Nothing was done. Ask again in a second.","code":503}"#;
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, text);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn too_many_connections() -> Answered {
    let text = r#"{"error":"too many connections from this address","code":429}"#;
    let mut response = json(StatusCode::TOO_MANY_REQUESTS, text);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
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
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

async fn other(gate: &Gate, method: &Method, path: &str) -> Answered {
    if gate.development
        && let Some(page) = demo::page(path)
    {
        return page;
    }
    let app = health::app_asked_for(path, gate.node.apps()).await;
    let Some(health::Answer {
        status,
        body,
        content_type,
    }) = health::answer(path, &gate.health, app)
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
