//! What each app has of what all share, so that no app gets in the way of the others, however many endpoints it has.
//! Pure sums: knows nothing of endpoints.
//!
//! An app may always have a quarter of the connections. It gets more as long as a quarter of them stays free for the
//! others, which an app that is slow to answer could otherwise hold for as long as its requests may take.

use std::collections::HashMap;
use std::sync::Arc;

use crate::webhook::config::WebhooksConfig;

/// What somebody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Events that wait, those on their way included.
    pub(super) events: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Requests on their way.
    pub(super) under_way: usize,
}

/// What all have together, and what each app that has anything has of it.
#[derive(Debug)]
pub(super) struct Shares {
    all: Share,
    apps: HashMap<Arc<str>, Share>,
    /// Each as a whole: requests are at most as many as there are connections.
    most: Share,
    /// `under_way` is what an app may always have, and what is kept from those that have more.
    most_of_app: Share,
}

impl Shares {
    pub(super) fn new(config: &WebhooksConfig) -> Shares {
        Shares {
            all: Share::default(),
            apps: HashMap::new(),
            most: Share {
                events: config.queue_events_max,
                bytes: config.queue_bytes_max,
                under_way: config.connections_max,
            },
            most_of_app: Share {
                events: (config.queue_events_max / 2).max(config.endpoint_events_max),
                bytes: (config.queue_bytes_max / 2).max(config.endpoint_bytes_max),
                under_way: (config.connections_max / 4).max(1),
            },
        }
    }

    /// What all have together.
    pub(super) fn all(&self) -> Share {
        self.all
    }

    /// What one app has.
    pub(super) fn of_app(&self, app_id: &str) -> Share {
        self.apps.get(app_id).copied().unwrap_or_default()
    }

    /// Whether no app may be given anything more.
    pub(super) fn is_full(&self) -> bool {
        self.all.events >= self.most.events || self.all.bytes >= self.most.bytes
    }

    /// Whether there is room for so much more of an app.
    pub(super) fn has_room(&self, app_id: &str, events: usize, bytes: usize) -> bool {
        let fits =
            |has: Share, most: Share| has.events + events <= most.events && has.bytes + bytes <= most.bytes;
        fits(self.all, self.most) && fits(self.of_app(app_id), self.most_of_app)
    }

    /// Whether an app has fewer connections than it may always have.
    pub(super) fn is_within_share(&self, app_id: &str) -> bool {
        self.of_app(app_id).under_way < self.most_of_app.under_way
    }

    /// Whether there are connections for apps that have their share.
    pub(super) fn has_connections_to_spare(&self) -> bool {
        self.all.under_way + self.most_of_app.under_way < self.most.under_way
    }

    /// So much of an app waits from now on.
    pub(super) fn queued(&mut self, app_id: &str, events: usize, bytes: usize) {
        self.change(app_id, |share| {
            share.events += events;
            share.bytes += bytes;
        });
    }

    /// So much of an app is delivered or dropped.
    pub(super) fn left(&mut self, app_id: &str, events: usize, bytes: usize) {
        self.change(app_id, |share| {
            share.events -= events;
            share.bytes -= bytes;
        });
    }

    /// A request of an app is on its way.
    pub(super) fn departed(&mut self, app_id: &str) {
        self.change(app_id, |share| share.under_way += 1);
    }

    /// A request of an app is over.
    pub(super) fn returned(&mut self, app_id: &str) {
        self.change(app_id, |share| share.under_way -= 1);
    }

    fn change(&mut self, app_id: &str, change: impl Fn(&mut Share)) {
        change(&mut self.all);
        let Some(share) = self.apps.get_mut(app_id) else {
            let mut share = Share::default();
            change(&mut share);
            if share != Share::default() {
                self.apps.insert(app_id.into(), share);
            }
            return;
        };
        change(share);
        if *share == Share::default() {
            self.apps.remove(app_id);
        }
    }
}
