//! One request to an endpoint: signed, sent, and its answer judged.
//!
//! Knows nothing of queues: what a failure leads to is not decided here.

pub(super) mod address;
mod dial;

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::config::WebhooksConfig;
use crate::app::{ID_HEADER, KEY_HEADER, SIGNATURE_HEADER};
use crate::pem;
use crate::protocol::auth;
use address::Guard;
pub(super) use dial::Dialer;

/// The official libraries compare it letter by letter: no charset.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NAME: HeaderValue = HeaderValue::from_static(concat!("fanwire/", env!("CARGO_PKG_VERSION")));
/// An unused connection is closed after this time, before the receiver does it: Node's servers do so after 5 seconds,
/// and a request that meets that moment would fail.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Unused connections to one host.
const IDLE_PER_HOST_MAX: usize = 8;
/// So much of an answer is read, so that the connection can be used again; nobody looks at it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// And for so long.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// A pool of connections to endpoints, over whatever connects.
pub(super) type Pool<C> = Client<C, Full<Bytes>>;

/// The pool of a server: plain and TLS connections, to addresses that the settings allow. Certificates may be signed by
/// whom the system trusts, and by these authorities.
pub(super) fn pool(config: &WebhooksConfig, authorities: RootCertStore) -> Pool<HttpsConnector<Dialer>> {
    let mut roots = authorities;
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!(
            errors = ?found.errors,
            "this system has no store of trusted certificates: webhooks to https endpoints will fail"
        );
    }
    let tls = ClientConfig::builder_with_provider(pem::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(Dialer::new(Guard::of(config)));
    pool_over(connector)
}

/// A pool over any connector.
pub(super) fn pool_over<C: Connect + Clone>(connector: C) -> Pool<C> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .build(connector)
}

/// What is sent.
pub(super) struct Letterhead<'a> {
    pub(super) url: &'a Uri,
    /// What the endpoint's settings add.
    pub(super) headers: &'a HeaderMap,
    /// The key that the body is signed with: its name, and its secret.
    pub(super) key: &'a str,
    pub(super) secret: &'a str,
    /// That of the body.
    pub(super) id: u128,
}

/// How a request was answered, if it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status, if there was an answer.
    pub(super) status: Option<u16>,
    /// Why it counts as failed.
    pub(super) error: Option<String>,
}

impl Answer {
    pub(super) fn failed(error: impl Into<String>) -> Answer {
        Answer {
            status: None,
            error: Some(error.into()),
        }
    }
}

/// The request with this body, or what is wrong with its headers.
fn request(head: &Letterhead<'_>, body: String) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let signature = auth::sign(head.secret, &body);
    let mut request = Request::builder().method(Method::POST).uri(head.url.clone());
    if let Some(headers) = request.headers_mut() {
        headers.insert(USER_AGENT, NAME);
        for (name, value) in head.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
    let mut request = request.body(Full::new(Bytes::from(body)))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(KEY_HEADER, HeaderValue::from_str(head.key)?);
    headers.insert(SIGNATURE_HEADER, HeaderValue::from_str(&signature)?);
    headers.insert(ID_HEADER, HeaderValue::from_str(&format!("{:032x}", head.id))?);
    Ok(request)
}

/// Sends a body and waits for the answer, for so long at most. Any 2xx is a success, nothing else is.
pub(super) async fn post<C>(pool: &Pool<C>, head: &Letterhead<'_>, body: String, timeout: Duration) -> Answer
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let request = match request(head, body) {
        Ok(request) => request,
        Err(error) => return Answer::failed(format!("cannot be sent: {error}")),
    };
    let deadline = tokio::time::Instant::now() + timeout;
    let answer = match tokio::time::timeout_at(deadline, pool.request(request)).await {
        Err(_) => return Answer::failed(format!("no answer within {} ms", timeout.as_millis())),
        Ok(Err(error)) => return Answer::failed(cause(&error)),
        Ok(Ok(answer)) => answer,
    };
    let status = answer.status();
    let enough = deadline.min(tokio::time::Instant::now() + ANSWER_TIME_MAX);
    // What is left unread closes its connection when it is dropped.
    let _ = tokio::time::timeout_at(enough, discard(answer.into_body())).await;
    Answer {
        status: Some(status.as_u16()),
        error: error_of(status),
    }
}

fn error_of(status: StatusCode) -> Option<String> {
    if status.is_success() {
        None
    } else if status.is_redirection() {
        Some(format!(
            "answered {status}: redirects are not followed, `url` must be where the request ends"
        ))
    } else {
        Some(format!("answered {status}"))
    }
}

/// Reads an answer to its end, or as much as anybody can be bothered to.
async fn discard(mut body: Incoming) {
    let mut left = ANSWER_BYTES_MAX;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// What is at the bottom of an error: the layers above only say that there is one.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    match (error.to_string(), bottom.to_string()) {
        (top, bottom) if top == bottom => bottom,
        (_, bottom) => format!("not sent, or not answered: {bottom}"),
    }
}
