//! One request, from the moment it is to be made until it is known what became of it.

use std::sync::Arc;

use super::EndpointId;
use crate::app::{App, WebhookEndpoint};
use crate::metrics::WebhookMetrics;
use crate::webhook::body::{Event, body_id};
use crate::webhook::dead::Letter;
use crate::webhook::endpoint::Batch;

/// A request to be made.
#[derive(Debug)]
pub(in crate::webhook) struct Attempt {
    pub(in crate::webhook) endpoint: EndpointId,
    pub(in crate::webhook) app: Arc<App>,
    pub(in crate::webhook) target: Arc<WebhookEndpoint>,
    pub(in crate::webhook) metrics: Arc<WebhookMetrics>,
    pub(in crate::webhook) batch: Batch,
}

impl Attempt {
    /// The id of its body.
    pub(in crate::webhook) fn body_id(&self) -> u128 {
        body_id(self.app.id(), &self.target.name, &self.batch.events)
    }
}

/// What is kept of a request that was given up. `failed_ms` is when, in milliseconds since 1970.
pub(super) fn letter(
    app: &App,
    target: &WebhookEndpoint,
    batch: Batch,
    error: String,
    failed_ms: u64,
) -> Letter {
    let id = body_id(app.id(), &target.name, &batch.events);
    // A letter is done as far as a durable queue goes.
    let events = batch.events.into_iter().map(|event| Event {
        ticket: None,
        ..event
    });
    Letter {
        id,
        app_id: app.id().into(),
        endpoint: target.name.clone(),
        events: events.collect(),
        time_ms: failed_ms,
        attempts: batch.failed,
        error,
    }
}
