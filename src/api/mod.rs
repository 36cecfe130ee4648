//! An HTTP call's way in: what an app's own servers ask, signed with its secret.
//!
//! Each call's reading and answering is pure and has its file; here they are joined to the node. Not here:
//! health and metrics, which nobody signs, and the way of an event from the node to the sockets.

mod auth;
mod body;
mod channels;
mod error;
mod event;
mod events;
mod idempotency;
mod info;
mod query;
mod route;
mod users;

use crate::app::{App, Limits};
use crate::node::{Busy, Node};
use auth::Signed;
use bytes::Bytes;
use channels::{ChannelQuery, ListQuery};
use error::ApiError;
use events::Trigger;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{EXPECT, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use idempotency::{Begun, Idempotency};
use route::Call;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use users::UsersQuery;

/// A body up to this size is parsed where it was read; a larger one would hold a shard too long.
const PARSE_HERE_BYTES_MAX: usize = 64 * 1024;

/// How long the rest of a refused request is waited for, so that its sender can read why it was refused.
const DISCARD_FOR: Duration = Duration::from_secs(2);

const DONE: Bytes = Bytes::from_static(b"{}");

/// What the HTTP API needs to know of the server it is part of.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// What stands before `/apps/…` in the paths of this server: empty, or like `/chat`.
    pub path_prefix: String,
    /// Largest body of a request.
    pub body_bytes_max: usize,
    /// Time in which the body of a request must have come.
    pub body_timeout_s: u64,
}

/// The HTTP API. One for all shards: each of them answers on it the requests that came in there.
#[derive(Debug)]
pub struct Api {
    node: Arc<Node>,
    config: ApiConfig,
    /// Where work goes that would hold a shard.
    control: Handle,
    /// Locked for a look-up or an entry at a time, by calls that bring a key.
    idempotency: Mutex<Idempotency>,
}

impl Api {
    /// The API of a node. `control` is a multi-thread runtime for what a shard has no time for.
    pub fn new(node: Arc<Node>, config: ApiConfig, control: Handle) -> Api {
        Api {
            node,
            config,
            control,
            idempotency: Mutex::default(),
        }
    }

    /// Whether a path is the API's to answer, if only by a refusal.
    pub fn serves(&self, path: &str) -> bool {
        route::is_served(route::below_prefix(path, &self.config.path_prefix))
    }

    /// Answers one request, always. To be called where [`tokio::task::spawn_local`] may be.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let (head, mut body) = request.into_parts();
        match self.call(&head, &mut body).await {
            Ok(answer) => error::json(answer),
            Err(refusal) => {
                tracing::debug!(status = %refusal.status(), text = refusal.text(), "API call refused");
                // Who expects a "100 Continue" has not begun to send.
                if !body.is_end_stream() && !head.headers.contains_key(EXPECT) {
                    tokio::task::spawn_local(body::discard(body, DISCARD_FOR));
                }
                refusal.response()
            }
        }
    }

    async fn call<B>(&self, head: &Parts, body: &mut B) -> Result<Bytes, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        let prefix = self.config.path_prefix.as_str();
        let (target, call) = route::route(&head.method, route::below_prefix(path, prefix))?;
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let signed = Signed {
            method: head.method.as_str(),
            path,
            query,
            prefix,
        };
        let (app, auth) = auth::authenticate(self.node.apps(), &target, signed, unix_s())?;
        let received = body::receive(body, self.config.body_bytes_max, self.config.body_timeout_s).await?;
        auth.check_body(received.md5, received.bytes.is_empty())?;
        match call {
            Call::Event => {
                self.publish(&app, head, received.bytes, events::parse_event)
                    .await
            }
            Call::Batch => {
                self.publish(&app, head, received.bytes, events::parse_batch)
                    .await
            }
            Call::Channels => {
                let (query, node) = (ListQuery::parse(query)?, Arc::clone(&self.node));
                self.aside(move || query.answer(&node.channels(&app, &query.prefix)))
                    .await
            }
            Call::Channel(name) => {
                let query = ChannelQuery::parse(&name, query, &app.limits)?;
                Ok(query.answer(&self.node.channel(&app, &query.name)))
            }
            Call::ChannelUsers(name) => {
                let (query, node) = (
                    UsersQuery::parse(&name, query, &app.limits)?,
                    Arc::clone(&self.node),
                );
                self.aside(move || query.answer(&node.members(&app, &query.name)))
                    .await
            }
            Call::Connections => Ok(connections_answer(self.node.connections(&app))),
            Call::TerminateUser(id) => {
                self.node.terminate_user(&app, &id);
                Ok(DONE)
            }
            Call::ReconnectUser(id) => {
                self.node.reconnect_user(&app, &id);
                Ok(DONE)
            }
        }
    }

    /// Publishes the events of a body in their order, all or none.
    async fn publish(
        &self,
        app: &Arc<App>,
        head: &Parts,
        body: Bytes,
        parse: fn(&[u8], &Limits) -> Result<Trigger, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let trigger = if body.len() > PARSE_HERE_BYTES_MAX {
            let app = Arc::clone(app);
            self.aside(move || parse(&body, &app.limits)).await??
        } else {
            parse(&body, &app.limits)?
        };
        let key = idempotency_key(&head.headers, &trigger)?;
        self.node
            .permission_to_publish()
            .await
            .map_err(|Busy| ApiError::Busy)?;
        // Nothing is awaited from here on: a caller who hangs up leaves no half of a batch behind.
        let publish = || {
            for event in &trigger.events {
                self.node.publish(app, &event.publication);
            }
            trigger.answer(|name| self.node.channel(app, name))
        };
        match key {
            None => Ok(publish()),
            Some(key) => self.once(&format!("{}/{key}", app.id()), publish),
        }
    }

    /// Does the work of a call unless it has been done, and keeps the answer.
    fn once(&self, key: &str, work: impl FnOnce() -> Bytes) -> Result<Bytes, ApiError> {
        let calls = || self.idempotency.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = calls().begin(key, Instant::now());
        match begun {
            Begun::Answered(answer) => Ok(answer),
            Begun::AtWork => Err(ApiError::AtWork),
            Begun::First => {
                let answer = work();
                calls().finish(key, answer.clone());
                Ok(answer)
            }
        }
    }

    /// Has work done off the shard, and waits for it.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.control
            .spawn_blocking(work)
            .await
            .map_err(|_| ApiError::Internal)
    }
}

/// The key by which a repeated call is recognised: of the header, else of the body.
fn idempotency_key(headers: &HeaderMap, trigger: &Trigger) -> Result<Option<String>, ApiError> {
    const MAX: usize = 128;
    let key = match headers.get("x-idempotency-key") {
        Some(key) => Some(String::from_utf8_lossy(key.as_bytes()).into_owned()),
        None => trigger.idempotency_key.clone(),
    };
    match key {
        Some(key) if key.is_empty() || key.chars().nth(MAX).is_some() => Err(ApiError::bad(format!(
            "An idempotency key has 1 to {MAX} characters."
        ))),
        key => Ok(key),
    }
}

fn connections_answer(connections: usize) -> Bytes {
    #[derive(Serialize)]
    struct Answer {
        connections: usize,
    }
    channels::rendered(&Answer { connections })
}

/// Seconds since 1970. A clock before that is as wrong as one that stands at it.
fn unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
