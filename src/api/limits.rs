//! What an app may ask per second and publish per day. Who is over it is refused whole, and told when to come again; of
//! an app that has a limit every answer tells how much of it is left.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::error::ApiError;
use super::route::Call;
use crate::app::{App, Rated};
use crate::node::Node;

/// How many may be asked for at once, and each second.
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
/// How many are left now.
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// Whole seconds until as many are left as there can be, if nobody asks.
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl Call<'_> {
    /// Which rate it falls under.
    pub(super) fn rated(&self) -> Rated {
        match self {
            Call::Event | Call::Batch => Rated::Publishes,
            _ => Rated::Queries,
        }
    }
}

/// Takes so many of what the app may do per second; none if they are not left.
pub(super) fn charge_rate(node: &Node, app: &Arc<App>, rated: Rated, count: usize) -> Result<(), ApiError> {
    let Some(rate) = app.settings().limits.rate(rated) else {
        return Ok(());
    };
    let metrics = &node.namespace(app).metrics;
    metrics.rate_limit_checks_total.inc();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let taken = app.bucket(rated).take_many(count, rate, node.now_ns());
    taken.map_err(|wait| {
        metrics.rate_limit_triggered_total.inc();
        ApiError::OverRate {
            setting: rated.setting(),
            per_s: rate.burst(),
            wait_s: whole_seconds(wait).max(1),
        }
    })
}

/// Counts messages that are published now; none if the day does not allow all of them.
pub(super) fn charge_messages(node: &Node, app: &Arc<App>, count: usize) -> Result<(), ApiError> {
    app.charge_messages(count as u64, Timestamp::now).map_err(|over| {
        node.namespace(app).metrics.quota_refused_total.inc();
        let wait = over.until.duration_since(Timestamp::now());
        ApiError::OverQuota {
            max: over.max,
            left: over.left,
            needed: count,
            until: over.until,
            wait_s: whole_seconds(wait.try_into().unwrap_or_default()).max(1),
        }
    })
}

/// Writes how much is left of what the app may do per second, if that is limited.
pub(super) fn tell(node: &Node, app: &App, rated: Rated, headers: &mut HeaderMap) {
    let Some(rate) = app.settings().limits.rate(rated) else {
        return;
    };
    let (bucket, now_ns) = (app.bucket(rated).get(), node.now_ns());
    for (name, number) in [
        (LIMIT, rate.burst()),
        (REMAINING, bucket.tokens(rate, now_ns)),
        (RESET, whole_seconds(bucket.full_in(now_ns))),
    ] {
        headers.insert(name, HeaderValue::from(number));
    }
}

/// Rounded up: who waits so long has waited long enough.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
