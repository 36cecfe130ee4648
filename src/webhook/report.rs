//! What an app's own servers may see of its webhooks: how each endpoint is, and what was given up. Neither secrets nor
//! header values, and of a URL nothing behind the path.

use serde::Serialize;

use super::dead::Letter;
use super::dispatch::Endpoint;
use crate::app::WebhookConfig;

/// Dead letters that are listed, the newest first.
pub(super) const LETTERS_MAX: usize = 1_000;

/// How the webhooks of one app are, on the node that is asked.
#[derive(Debug, Serialize)]
pub struct WebhookReport {
    /// Every endpoint in the settings.
    pub endpoints: Vec<EndpointReport>,
    /// What was given up and is kept, the newest first.
    pub dead_letters: Vec<LetterReport>,
}

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It is not enabled.
    Disabled,
    /// Nothing waits for it.
    Idle,
    /// Something is on its way to it, or waits for others to go with it.
    Delivering,
    /// Its last request failed, and something waits for it.
    Failing,
}

/// One endpoint. Times are in milliseconds since 1970; what has not come to pass is null.
#[derive(Debug, Serialize)]
pub struct EndpointReport {
    /// What it is called.
    pub name: String,
    /// Where requests go, without a query.
    pub url: String,
    /// How it is.
    pub state: EndpointState,
    /// Events that wait, those on their way and those to be tried again included.
    pub queue_events: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Requests on their way.
    pub in_flight: usize,
    /// Requests that failed and will be tried again.
    pub retrying: usize,
    /// Requests that failed since the last one that did not.
    pub failed_in_a_row: u32,
    /// The status of the last answer; null if the last request had none.
    pub last_status: Option<u16>,
    /// Why the last request failed that did.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_ms: Option<u64>,
    /// When a request was last answered with success.
    pub last_success_ms: Option<u64>,
    /// How long the last requests took that were.
    pub latency_ms: Option<LatencyReport>,
}

/// Milliseconds that so many percent of the last requests took at most.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the percentiles")]
pub struct LatencyReport {
    pub p50: u32,
    pub p90: u32,
    pub p99: u32,
    pub max: u32,
    /// How many requests these are of.
    pub requests: usize,
}

/// A request that was given up.
#[derive(Debug, Serialize)]
pub struct LetterReport {
    /// The id of its body: `X-Fanwire-Webhook-Id` of every attempt.
    pub id: String,
    /// The endpoint that it was for.
    pub endpoint: String,
    /// When it was given up, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many events it holds.
    pub events: usize,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: String,
}

impl EndpointReport {
    pub(super) fn of(config: &WebhookConfig, name: String, endpoint: Option<&Endpoint>) -> EndpointReport {
        let queue = endpoint.map(|endpoint| &endpoint.queue);
        let history = endpoint.map(|endpoint| &endpoint.history);
        let queue_events = queue.map_or(0, |queue| queue.events());
        EndpointReport {
            state: match queue_events {
                _ if !config.enabled => EndpointState::Disabled,
                0 => EndpointState::Idle,
                _ if endpoint.is_some_and(Endpoint::is_failing) => EndpointState::Failing,
                _ => EndpointState::Delivering,
            },
            name,
            url: config.url.shown(),
            queue_events,
            queue_bytes: queue.map_or(0, |queue| queue.bytes()),
            in_flight: queue.map_or(0, |queue| queue.under_way()),
            retrying: queue.map_or(0, |queue| queue.retries()),
            failed_in_a_row: history.map_or(0, |history| history.failed_in_a_row),
            last_status: history.and_then(|history| history.last_status),
            last_error: history.and_then(|history| history.last_error.clone()),
            last_error_ms: history.and_then(|history| history.last_error_ms),
            last_success_ms: history.and_then(|history| history.last_success_ms),
            latency_ms: history.and_then(|history| {
                let [p50, p90, p99, max] = history.percentiles([50, 90, 99, 100])?;
                Some(LatencyReport {
                    p50,
                    p90,
                    p99,
                    max,
                    requests: history.measured(),
                })
            }),
        }
    }
}

impl LetterReport {
    pub(super) fn of(letter: &Letter) -> LetterReport {
        LetterReport {
            id: format!("{:032x}", letter.id),
            endpoint: letter.endpoint.to_string(),
            time_ms: letter.time_ms,
            events: letter.events.len(),
            attempts: letter.attempts,
            error: letter.error.clone(),
        }
    }
}
