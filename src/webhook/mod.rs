//! News to an app's own back end: from an event to a signed POST request.
//!
//! [`Webhooks::send`] queues an event for each endpoint of the app that asked for such; what runs on the control runtime
//! delivers it. Knows nothing of the hub, of other nodes or of what makes a channel occupied: who calls knows that an
//! event has come to pass.

mod config;
mod event;
pub mod queue;

use std::sync::Arc;

pub use config::{WebhookQueue, WebhooksConfig};
pub use event::WebhookEvent;

use crate::app::{App, WebhookKind};
use crate::metrics::Metrics;
use crate::protocol::ChannelName;

/// What became of an event that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Every endpoint that asked for it will be sent it, or it will be counted why not.
    Queued,
    /// There was no room for it with at least one endpoint, for which it is dropped, and counted.
    Full,
    /// No endpoint of the app asks for such events of this channel.
    Unwanted,
}

/// The way of all apps' events to their endpoints. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct Webhooks {
    #[expect(dead_code, reason = "the queues and their delivery come next")]
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    #[allow(dead_code, reason = "the queues and their delivery come next")]
    config: WebhooksConfig,
    #[allow(dead_code, reason = "the queues and their delivery come next")]
    metrics: Arc<Metrics>,
}

impl Webhooks {
    /// Queues with these bounds. Nothing is delivered before its tasks run.
    pub fn new(config: WebhooksConfig, metrics: Arc<Metrics>) -> Webhooks {
        let shared = Shared { config, metrics };
        Webhooks {
            shared: Arc::new(shared),
        }
    }

    /// Whether the app wants to hear of such an event of this channel: to be asked before anything is done for one. An
    /// app without webhooks answers by one comparison.
    pub fn wants(&self, app: &App, kind: WebhookKind, channel: &ChannelName) -> bool {
        let _ = (app, kind, channel);
        false
    }

    /// Queues an event for the endpoints of the app that ask for it. Never waits, and may be called under a channel's
    /// lock; in the order of the calls the events of one channel arrive. `time_ms` is when it happened, in milliseconds
    /// since 1970.
    pub fn send(&self, app: &Arc<App>, event: WebhookEvent, time_ms: u64) -> Sent {
        if !self.wants(app, event.kind(), event.channel()) {
            return Sent::Unwanted;
        }
        let _ = time_ms;
        Sent::Full
    }
}
