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
mod limits;
mod query;
mod route;
mod usage;
mod users;
mod webhooks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{EXPECT, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::address::Client;
use crate::app::{App, AppStore, Rated};
use crate::node::{Busy, Cluster, Node};
use crate::protocol::path::below_prefix;
use crate::wall;
use crate::webhook::Letters;
use auth::Signed;
use channels::{ChannelQuery, ListQuery};
use error::ApiError;
use events::{Form, Trigger};
use idempotency::{Begun, Idempotency};
use route::Call;
use usage::UsageQuery;
use users::UsersQuery;

/// A body up to this size is parsed where it was read; a larger one would hold a shard too long.
const PARSE_HERE_BYTES_MAX: usize = 64 * 1024;

/// How long the rest of a refused request is waited for, so that its sender can read why it was refused.
const DISCARD_FOR: Duration = Duration::from_secs(2);

/// Told to who publishes while other nodes hear of it later than they should.
const RELAY: HeaderName = HeaderName::from_static("x-fanwire-relay");
/// See [`RELAY`].
const BEHIND: HeaderValue = HeaderValue::from_static("behind");

/// How often is looked for answers that need not be kept any more.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

const DONE: Bytes = Bytes::from_static(b"{}");

/// What the HTTP API needs to know of the server it is part of.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// What stands before `/apps/…` in the paths of this server: empty, or like `/chat`, without a slash behind it.
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
    idempotency: Idempotency,
    /// Where usage is kept, if anywhere.
    store: Option<Arc<dyn AppStore>>,
}

impl Api {
    /// The API of a node. `control` is a multi-thread runtime for what a shard has no time for.
    pub fn new(node: Arc<Node>, config: ApiConfig, control: Handle) -> Api {
        Api {
            node,
            config,
            control,
            idempotency: Idempotency::default(),
            store: None,
        }
    }

    /// The same, where usage is kept in a store.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn AppStore>) -> Api {
        Api {
            store: Some(store),
            ..self
        }
    }

    /// Gives back what is remembered of calls that are long over, for as long as it is polled.
    pub async fn forget_old_calls(&self) {
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        loop {
            sweeps.tick().await;
            self.idempotency.sweep(Instant::now());
        }
    }

    /// Answers one request, always. To be called where [`tokio::task::spawn_local`] may be. `client_of` tells by the
    /// headers who has sent it; it is asked only for the log.
    pub async fn answer<B>(
        &self,
        request: Request<B>,
        client_of: impl Fn(&HeaderMap) -> Client,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let (head, mut body) = request.into_parts();
        let refused = |refusal: ApiError| {
            tracing::debug!(
                client = %client_of(&head.headers),
                status = %refusal.status(),
                text = refusal.text(),
                "API call refused"
            );
            refusal.response()
        };
        let answer = match self.find(&head).await {
            Ok((app, call)) => {
                let received = self.receive(&app, &head, &mut body).await;
                let is_its_own = received.is_ok();
                let received_bytes = received.as_ref().map_or(0, Bytes::len);
                let answered = match received {
                    Ok(body) => self.call(&app, &call, &head, body).await,
                    Err(refusal) => Err(refusal),
                };
                let mut answer = answered.map_or_else(refused, error::json);
                if call.is_relayed() && self.node.cluster().is_some_and(Cluster::is_behind) {
                    answer.headers_mut().insert(RELAY, BEHIND);
                }
                if is_its_own {
                    limits::tell(&self.node, &app, call.rated(), answer.headers_mut());
                }
                let sent_bytes = answer.body().size_hint().lower();
                self.node
                    .namespace(&app)
                    .metrics
                    .http_call(received_bytes, sent_bytes as usize);
                answer
            }
            Err(refusal) => refused(refusal),
        };
        // Who expects a "100 Continue" and was not told to go on has not begun to send.
        let is_coming = !body.is_end_stream() && !head.headers.contains_key(EXPECT);
        if is_coming && answer.status() != StatusCode::OK {
            tokio::task::spawn_local(body::discard(body, DISCARD_FOR));
        }
        answer
    }

    /// What is asked, and of which app.
    async fn find<'a>(&self, head: &'a Parts) -> Result<(Arc<App>, Call<'a>), ApiError> {
        let path = below_prefix(head.uri.path(), &self.config.path_prefix);
        let (target, call) = route::route(&head.method, path)?;
        let app = auth::find(self.node.apps(), &target, head.uri.query().unwrap_or_default()).await?;
        Ok((app, call))
    }

    /// The whole body, of a request that is the app's own.
    async fn receive<B>(&self, app: &App, head: &Parts, body: &mut B) -> Result<Bytes, ApiError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let signed = Signed {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            prefix: &self.config.path_prefix,
        };
        let auth = auth::authenticate(app, signed, wall::unix_s())?;
        let received = body::receive(body, self.config.body_bytes_max, self.config.body_timeout_s).await?;
        auth.check_body(received.md5, received.bytes.is_empty())?;
        Ok(received.bytes)
    }

    /// Does what is asked.
    async fn call(
        &self,
        app: &Arc<App>,
        call: &Call<'_>,
        head: &Parts,
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        let query = head.uri.query().unwrap_or_default();
        if call.rated() == Rated::Queries {
            limits::charge_rate(&self.node, app, Rated::Queries, 1)?;
        }
        match call {
            Call::Event => self.publish(app, &head.headers, body, Form::Event).await,
            Call::Batch => self.publish(app, &head.headers, body, Form::Batch).await,
            Call::Channels => {
                let query = ListQuery::parse(query)?;
                let (node, app) = (Arc::clone(&self.node), Arc::clone(app));
                self.aside(move || query.answer(&node.channels(&app, &query.prefix)))
                    .await
            }
            Call::Channel(name) => {
                let query = ChannelQuery::parse(name, query, &app.settings().limits)?;
                Ok(query.answer(&self.node.channel(app, &query.name)))
            }
            Call::ChannelUsers(name) => {
                let query = UsersQuery::parse(name, query, &app.settings().limits)?;
                let (node, app) = (Arc::clone(&self.node), Arc::clone(app));
                self.aside(move || query.answer(&node.members(&app, &query.name)))
                    .await
            }
            Call::Webhooks => {
                let (node, app) = (Arc::clone(&self.node), Arc::clone(app));
                self.aside(move || webhooks::report(&node.webhooks().report(&app)))
                    .await
            }
            Call::RedeliverLetter(id) => {
                let letter = webhooks::letter(id)?;
                let (node, app) = (self.node.clone(), app.clone());
                self.aside(move || webhooks::redeliver(node.webhooks(), &app, letter))
                    .await?
            }
            Call::RedeliverEndpoint(name) => {
                let (node, app, name) = (self.node.clone(), app.clone(), name.to_string());
                self.aside(move || webhooks::redeliver(node.webhooks(), &app, Letters::Endpoint(&name)))
                    .await?
            }
            Call::Usage => self.usage(app, UsageQuery::parse(query)?).await,
            Call::Connections => Ok(connections_answer(app.connections_everywhere())),
            Call::TerminateUser(id) => {
                self.node.terminate_user(app, id);
                Ok(DONE)
            }
            Call::ReconnectUser(id) => {
                self.node.reconnect_user(app, id);
                Ok(DONE)
            }
        }
    }

    /// Publishes the events of a body in their order, all or none.
    async fn publish(
        &self,
        app: &Arc<App>,
        headers: &HeaderMap,
        body: Bytes,
        form: Form,
    ) -> Result<Bytes, ApiError> {
        let trigger = if body.len() > PARSE_HERE_BYTES_MAX {
            let app = Arc::clone(app);
            self.aside(move || form.parse(&body, &app.settings())).await??
        } else {
            form.parse(&body, &app.settings())?
        };
        let turn = match idempotency_key(headers, &trigger)? {
            None => None,
            Some(key) => match self
                .idempotency
                .begin(app.id(), (form, key.into()), Instant::now())
            {
                Begun::First(turn) => Some(turn),
                Begun::UnderWay => return Err(ApiError::UnderWay),
                Begun::Answered(answer) => return Ok(answer),
            },
        };
        limits::charge_rate(&self.node, app, Rated::Publishes, trigger.events.len())?;
        let channels = || {
            let events = trigger.events.iter();
            events.flat_map(|event| &event.publication.channels)
        };
        self.node
            .permission_to_publish(app, channels())
            .await
            .map_err(|Busy| ApiError::Busy)?;
        limits::charge_messages(&self.node, app, channels().count())?;
        // Nothing is awaited from here on: a caller who hangs up leaves no half of a batch behind.
        let publications = trigger.events.iter().map(|event| &event.publication);
        self.node.publish(app, publications);
        let answer = trigger.answer(|name| self.node.channel(app, name));
        if let Some(turn) = turn {
            turn.finish(answer.clone());
        }
        Ok(answer)
    }

    /// What the app used: as the store has it, and what it does not have yet of this node.
    async fn usage(&self, app: &Arc<App>, query: UsageQuery) -> Result<Bytes, ApiError> {
        let today = self.node.usage_today(app, Timestamp::now()).day;
        let mut used = Vec::new();
        if let Some(store) = self.store.clone() {
            let id = app.id().to_owned();
            // The store's connections are at home there.
            let asked = self
                .control
                .spawn(async move { store.usage(&id, query.days).await });
            let asked = asked.await.map_err(|_| ApiError::Internal)?;
            used = asked.map_err(|_| {
                ApiError::StoreAway(
                    "The store that keeps usage does not answer. What was used meanwhile is kept. Ask again in a second.",
                )
            })?;
        }
        used.extend(app.unsaved_usage());
        Ok(query.answer(today, used, &app.settings().config))
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::app::{AppConfig, Apps};
    use crate::hub::inbox::{Inboxes, SocketKey};
    use crate::metrics::Metrics;
    use crate::node::Joiner;
    use crate::protocol::ChannelName;

    /// The API of a node with the demo app and one shard, in front of which this much may wait. The channel `a` has a
    /// subscriber there.
    fn api(inbox_bytes_max: usize) -> Api {
        let apps = Apps::new([AppConfig::demo()]).expect("the demo app is valid");
        let metrics = Arc::new(Metrics::new("", 0).expect("no prefix is a good one"));
        let node = Node::new(apps, Inboxes::new(1, inbox_bytes_max), metrics);
        let namespace = node.namespace(&node.apps().by_id("1").expect("the demo app is there"));
        let joiner = Joiner {
            shard: 0,
            socket: SocketKey::unpack(0),
            place: 0,
            token: 0,
        };
        let name = ChannelName::parse("a", 200).expect("a legal name");
        node.subscribe(&namespace, &name, joiner, None)
            .expect("no presence channel");
        let config = ApiConfig {
            path_prefix: String::new(),
            body_bytes_max: 1024,
            body_timeout_s: 1,
        };
        Api::new(Arc::new(node), config, Handle::current())
    }

    async fn publish(api: &Api, form: Form, body: &str) -> Result<String, ApiError> {
        let app = api.node.apps().by_id("1").expect("the demo app is there");
        let body = Bytes::from(body.to_owned());
        let answer = api.publish(&app, &HeaderMap::new(), body, form).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    const EVENT: &str = r#"{"name":"e","data":"","channel":"a","idempotency_key":"k"}"#;

    #[tokio::test]
    async fn a_known_answer_waits_for_nobody() {
        let api = api(0);
        let key = (Form::Event, Arc::from("k"));
        let Begun::First(turn) = api.idempotency.begin("1", key, Instant::now()) else {
            panic!("nobody called before");
        };
        let at_once = || publish(&api, Form::Event, EVENT).now_or_never();
        assert_eq!(at_once(), Some(Err(ApiError::UnderWay)));
        turn.finish("known".into());
        assert_eq!(at_once(), Some(Ok("known".into())));
    }

    #[tokio::test]
    async fn who_hangs_up_while_the_server_is_busy_may_ask_again() {
        let api = api(0);
        for _ in 0..2 {
            let waits = publish(&api, Form::Event, EVENT).now_or_never();
            assert_eq!(waits, None, "for room, not for the first call");
        }
    }

    #[tokio::test]
    async fn an_event_does_not_answer_for_a_batch() {
        let api = api(1024);
        let batch = r#"{"batch":[{"name":"e","data":"","channel":"a","info":"subscription_count"}],"idempotency_key":"k"}"#;
        let counted = r#"{"batch":[{"subscription_count":1}]}"#;
        assert_eq!(publish(&api, Form::Event, EVENT).await, Ok("{}".into()));
        assert_eq!(publish(&api, Form::Batch, batch).await, Ok(counted.into()));
    }

    #[test]
    fn the_header_names_the_call_before_the_body_does() {
        let settings = crate::app::Settings::new(AppConfig::demo()).expect("the demo app is valid");
        for (header, in_body, key) in [
            (None, None, Ok(None)),
            (None, Some("b"), Ok(Some("b"))),
            (Some("h"), Some("b"), Ok(Some("h"))),
            (Some(&"é".repeat(128)[..]), None, Ok(Some(&"é".repeat(128)[..]))),
            (None, Some(&"é".repeat(129)[..]), Err(())),
            (Some(""), None, Err(())),
            (None, Some(""), Err(())),
        ] {
            let body =
                serde_json::json!({"name": "e", "data": "", "channel": "a", "idempotency_key": in_body});
            let body = body.to_string();
            let trigger = Form::Event
                .parse(body.as_bytes(), &settings)
                .expect("a valid event");
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                let value = HeaderValue::from_bytes(header.as_bytes()).expect("a legal value");
                headers.insert("x-idempotency-key", value);
            }
            let found = idempotency_key(&headers, &trigger);
            assert_eq!(
                found.as_ref().map(Option::as_deref).map_err(drop),
                key,
                "{header:?} {in_body:?}"
            );
        }
    }
}
