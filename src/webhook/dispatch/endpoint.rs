//! One endpoint as the dispatch knows it: what waits for it, where it stands, and how it has been.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::history::History;
use crate::app::{App, WebhookEndpoint};
use crate::metrics::WebhookMetrics;
use crate::webhook::endpoint::{EndpointQueue, Terms};

/// One endpoint: what waits for it, and how it has been.
#[derive(Debug)]
pub(in crate::webhook) struct Endpoint {
    pub(super) app_id: Arc<str>,
    pub(super) app: Weak<App>,
    /// While something waits, the app must not go away.
    pub(super) held: Option<Arc<App>>,
    pub(super) target: Arc<WebhookEndpoint>,
    pub(super) terms: Terms,
    pub(in crate::webhook) queue: EndpointQueue,
    pub(in crate::webhook) history: History,
    pub(super) metrics: Arc<WebhookMetrics>,
    pub(super) is_failing: bool,
    /// Where it stands in its line.
    pub(super) due: Option<Instant>,
}

impl Endpoint {
    /// Has it be what the settings say now.
    pub(super) fn aim(&mut self, target: &Arc<WebhookEndpoint>, is_in_haste: bool) {
        if !Arc::ptr_eq(&self.target, target) {
            self.target = target.clone();
            self.terms = terms(target, is_in_haste);
        }
    }

    /// Whether its last request failed.
    pub(in crate::webhook) fn is_failing(&self) -> bool {
        self.is_failing
    }
}

/// What the settings of an endpoint say about the way to it. In haste no event waits for others.
pub(super) fn terms(target: &WebhookEndpoint, is_in_haste: bool) -> Terms {
    let config = &target.config;
    let max_delay_ms = if is_in_haste { 0 } else { config.batch.max_delay_ms };
    Terms {
        max_events: usize::from(config.batch.max_events).max(1),
        max_delay: Duration::from_millis(max_delay_ms.into()),
        concurrency: usize::from(config.concurrency).max(1),
        timeout: Duration::from_millis(config.timeout_ms.into()),
    }
}
