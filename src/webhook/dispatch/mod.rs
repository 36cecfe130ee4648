//! All endpoints together: whose turn it is, and the bounds that they share. No clock, no network, no lock.
//!
//! Endpoints whose next batch is known stand in two lines, by the time of that batch: those that answered well last, and
//! those that failed. The second line gets half of all connections at most, so however many endpoints hang, the others
//! do not wait for them. An app that has its share of the connections lets the others pass, see [`shares`].

mod attempt;
mod endpoint;
pub(super) mod history;
mod shares;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::body::Event;
use super::config::WebhooksConfig;
use super::dead::Letter;
use super::endpoint::{EndpointQueue, Settled};
use crate::app::{App, WebhookEndpoint};
use crate::metrics::{WebhookDrop, WebhookMetrics};
pub(super) use attempt::Attempt;
use attempt::letter;
pub(super) use endpoint::Endpoint;
use endpoint::terms;
use history::{History, Outcome};
use shares::Shares;

/// Endpoints that are remembered before it is looked for such as are gone.
const SWEEP_FIRST: usize = 64;

/// An endpoint, for as long as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EndpointId(u64);

/// All endpoints for which something waits, and those that are remembered.
#[derive(Debug)]
pub(super) struct Dispatch {
    endpoint_events_max: usize,
    endpoint_bytes_max: usize,
    connections_max: usize,
    backoff: Backoff,
    give_up: Duration,
    /// By app and name.
    names: HashMap<Arc<str>, Vec<(Arc<str>, EndpointId)>>,
    endpoints: HashMap<EndpointId, Endpoint>,
    /// Those that answered well, and those that failed.
    lines: [BTreeSet<(Instant, EndpointId)>; 2],
    /// What waits and what is on its way, of each app and of all.
    shares: Shares,
    failing_under_way: usize,
    next_id: u64,
    sweep_at: usize,
    /// The process is about to end: nothing waits for company any more.
    is_in_haste: bool,
}

impl Dispatch {
    pub(super) fn new(config: &WebhooksConfig) -> Dispatch {
        Dispatch {
            endpoint_events_max: config.endpoint_events_max,
            endpoint_bytes_max: config.endpoint_bytes_max,
            connections_max: config.connections_max,
            backoff: Backoff::of(config),
            give_up: Duration::from_secs(config.give_up_s.into()),
            names: HashMap::new(),
            endpoints: HashMap::new(),
            lines: Default::default(),
            shares: Shares::new(config),
            failing_under_way: 0,
            next_id: 0,
            sweep_at: SWEEP_FIRST,
            is_in_haste: false,
        }
    }

    /// Events that wait for any endpoint, those on their way included.
    pub(super) fn events(&self) -> usize {
        self.shares.all().events
    }

    /// Whether no endpoint may be given anything more.
    pub(super) fn is_full(&self) -> bool {
        self.shares.is_full()
    }

    /// Requests on their way.
    pub(super) fn under_way(&self) -> usize {
        self.shares.all().under_way
    }

    /// Takes an event in for one endpoint. `false`: there is no room, and it is counted.
    pub(super) fn push(
        &mut self,
        app: &Arc<App>,
        target: &Arc<WebhookEndpoint>,
        metrics: impl FnOnce() -> Arc<WebhookMetrics>,
        event: Event,
        now: Instant,
    ) -> bool {
        let id = self.find_or_add(app, target, metrics);
        let bytes = event.bytes();
        let has_room = self.has_room_for(app.id(), &target.name, 1, bytes);
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return false;
        };
        if !has_room {
            endpoint.metrics.dropped(WebhookDrop::Full).inc();
            return false;
        }
        endpoint.metrics.queued_total.inc();
        endpoint.held = Some(app.clone());
        endpoint.app = Arc::downgrade(app);
        endpoint.aim(target, self.is_in_haste);
        endpoint.queue.push(event, now);
        self.shares.queued(app.id(), 1, bytes);
        self.line_up(id);
        true
    }

    /// Takes in what was given up before. `false`: there is no room.
    pub(super) fn redeliver(
        &mut self,
        app: &Arc<App>,
        target: &Arc<WebhookEndpoint>,
        metrics: impl FnOnce() -> Arc<WebhookMetrics>,
        events: Vec<Event>,
        now: Instant,
    ) -> bool {
        let id = self.find_or_add(app, target, metrics);
        let (count, bytes) = (events.len(), events.iter().map(Event::bytes).sum());
        if !self.has_room_for(app.id(), &target.name, count, bytes) {
            return false;
        }
        let expires = now + self.give_up;
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return false;
        };
        endpoint.held = Some(app.clone());
        endpoint.app = Arc::downgrade(app);
        endpoint.queue.redeliver(events, expires, now);
        self.shares.queued(app.id(), count, bytes);
        self.line_up(id);
        true
    }

    /// Whether an endpoint of an app may be given so much more.
    pub(super) fn has_room_for(&self, app_id: &str, name: &str, events: usize, bytes: usize) -> bool {
        let queue = self.find(app_id, name).map(|endpoint| &endpoint.queue);
        let (has_events, has_bytes) = queue.map_or((0, 0), |queue| (queue.events(), queue.bytes()));
        has_events + events <= self.endpoint_events_max
            && has_bytes + bytes <= self.endpoint_bytes_max
            && self.shares.has_room(app_id, events, bytes)
    }

    /// Whether it may be given much more: a quarter of what one may have.
    pub(super) fn has_much_room_for(&self, app_id: &str, name: &str) -> bool {
        let (events, bytes) = (self.endpoint_events_max / 4, self.endpoint_bytes_max / 4);
        self.has_room_for(app_id, name, events.max(1), bytes)
    }

    /// The endpoint of an app that goes by this name, if it is remembered.
    pub(super) fn find(&self, app_id: &str, name: &str) -> Option<&Endpoint> {
        let id = self.id(app_id, name)?;
        self.endpoints.get(&id)
    }

    /// How many requests to an endpoint failed since the last one that did not.
    pub(super) fn failed_in_a_row(&self, id: EndpointId) -> u32 {
        self.endpoints
            .get(&id)
            .map_or(0, |endpoint| endpoint.history.failed_in_a_row)
    }

    fn id(&self, app_id: &str, name: &str) -> Option<EndpointId> {
        let named = self.names.get(app_id)?.iter();
        named
            .clone()
            .find(|(known, _)| &**known == name)
            .map(|(_, id)| *id)
    }

    fn find_or_add(
        &mut self,
        app: &Arc<App>,
        target: &Arc<WebhookEndpoint>,
        metrics: impl FnOnce() -> Arc<WebhookMetrics>,
    ) -> EndpointId {
        if let Some(id) = self.id(app.id(), &target.name) {
            return id;
        }
        if self.endpoints.len() >= self.sweep_at {
            self.sweep();
        }
        self.next_id += 1;
        let id = EndpointId(self.next_id);
        let app_id: Arc<str> = app.id().into();
        let endpoint = Endpoint {
            app_id: app_id.clone(),
            app: Arc::downgrade(app),
            held: None,
            target: target.clone(),
            terms: terms(target, self.is_in_haste),
            queue: EndpointQueue::default(),
            history: History::default(),
            metrics: metrics(),
            is_failing: false,
            due: None,
        };
        self.endpoints.insert(id, endpoint);
        let named = self.names.entry(app_id).or_default();
        named.push((target.name.clone(), id));
        id
    }

    /// Forgets the endpoints that are in no app's settings any more and have nothing left to be sent.
    fn sweep(&mut self) {
        self.endpoints.retain(|_, endpoint| {
            let app = endpoint.app.upgrade();
            let is_configured =
                app.is_some_and(|app| app.settings().webhooks.find(&endpoint.target.name).is_some());
            is_configured || endpoint.queue.events() > 0
        });
        for named in self.names.values_mut() {
            named.retain(|(_, id)| self.endpoints.contains_key(id));
        }
        self.names.retain(|_, named| !named.is_empty());
        self.sweep_at = (self.endpoints.len() * 2).max(SWEEP_FIRST);
    }

    /// Puts an endpoint where it belongs now.
    fn line_up(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return;
        };
        let line = usize::from(endpoint.is_failing);
        let due = endpoint.queue.due(&endpoint.terms);
        if endpoint.due != due {
            if let Some(before) = endpoint.due {
                self.lines[line].remove(&(before, id));
            }
            if let Some(due) = due {
                self.lines[line].insert((due, id));
            }
            endpoint.due = due;
        }
        if endpoint.queue.events() == 0 {
            endpoint.held = None;
        }
    }

    /// What stands first in the lines from which something may be sent: of the apps that have less than their share of
    /// the connections, and, as far as there are connections to spare, of all apps.
    fn first(&self) -> [Option<(Instant, EndpointId)>; 2] {
        if self.under_way() >= self.connections_max {
            return [None; 2];
        }
        let [well, failing] = &self.lines;
        let may_fail = self.failing_under_way < self.connections_max / 2;
        let open = || std::iter::once(well).chain(may_fail.then_some(failing));
        // No more than a few apps can have their share, so not many endpoints are passed over.
        let is_within = |id: &EndpointId| {
            let endpoint = self.endpoints.get(id);
            endpoint.is_some_and(|it| self.shares.is_within_share(&it.app_id))
        };
        let within = open().filter_map(|line| line.iter().find(|(_, id)| is_within(id)));
        let any = open().filter_map(|line| line.first());
        let any = any.filter(|_| self.shares.has_connections_to_spare());
        [within.min().copied(), any.min().copied()]
    }

    /// When [`Dispatch::take`] has something to give. None: not before something else happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.first().iter().flatten().map(|(due, _)| *due).min()
    }

    /// The request that is to be made now, to be given back by [`Dispatch::settle`].
    pub(super) fn take(&mut self, now: Instant) -> Option<Attempt> {
        loop {
            let mut first = self.first().into_iter().flatten();
            let (_, id) = first.find(|(due, _)| *due <= now)?;
            let endpoint = self.endpoints.get_mut(&id)?;
            let taken = endpoint.queue.take(&endpoint.terms, now);
            let taken = taken.zip(endpoint.held.clone());
            let failing = usize::from(endpoint.is_failing);
            let attempt = taken.map(|(batch, app)| Attempt {
                endpoint: id,
                app,
                target: endpoint.target.clone(),
                metrics: endpoint.metrics.clone(),
                batch,
            });
            if attempt.is_some() {
                self.shares.departed(&endpoint.app_id);
                self.failing_under_way += failing;
            }
            self.line_up(id);
            if attempt.is_some() {
                return attempt;
            }
        }
    }

    /// Has an endpoint be what the settings say now.
    pub(super) fn aim(&mut self, id: EndpointId, target: &Arc<WebhookEndpoint>) {
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            endpoint.aim(target, self.is_in_haste);
        }
        self.line_up(id);
    }

    /// Has all that waits go as soon as there is a connection: for company and for the time of a retry it waits no more,
    /// those included that are taken in from now on.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.is_in_haste = true;
        let ids: Vec<_> = self.endpoints.keys().copied().collect();
        for id in ids {
            if let Some(endpoint) = self.endpoints.get_mut(&id) {
                endpoint.terms.max_delay = Duration::ZERO;
                endpoint.queue.hurry(now);
            }
            self.line_up(id);
        }
    }

    /// Takes a request back that was made. What was given up on is the answer. `random` is in `0.0..1.0`.
    pub(super) fn settle(
        &mut self,
        attempt: Attempt,
        outcome: &Outcome,
        random: f64,
        now: Instant,
    ) -> Option<Letter> {
        let Attempt {
            endpoint: id,
            app,
            target,
            metrics,
            batch,
        } = attempt;
        let is_delivered = outcome.is_delivered();
        match is_delivered {
            true => {
                metrics.sent_total.inc();
                metrics.latency_ms.observe(f64::from(outcome.took_ms));
            }
            false => metrics.failed_total.inc(),
        }
        self.shares.returned(app.id());
        let count = batch.events.len() as u64;
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            // Retired meanwhile.
            match is_delivered {
                true => metrics.delivered_total.inc_by(count),
                false => metrics.dropped(WebhookDrop::Retired).inc_by(count),
            }
            return None;
        };
        endpoint.history.note(outcome);
        self.failing_under_way -= usize::from(endpoint.is_failing);
        let before = (endpoint.queue.events(), endpoint.queue.bytes());
        let terms = endpoint.terms;
        let settled = endpoint
            .queue
            .settle(batch, is_delivered, self.backoff, &terms, random, now);
        let after = (endpoint.queue.events(), endpoint.queue.bytes());
        self.shares
            .left(&endpoint.app_id, before.0 - after.0, before.1 - after.1);
        self.judge(id, !is_delivered);
        self.line_up(id);
        match settled {
            Settled::Delivered => {
                metrics.delivered_total.inc_by(count);
                None
            }
            Settled::Retried => {
                metrics.retried_total.inc();
                None
            }
            Settled::GivenUp(batch) => {
                metrics.dropped(WebhookDrop::GivenUp).inc_by(count);
                let error = outcome.error.clone().unwrap_or_default();
                Some(letter(&app, &target, batch, error, outcome.time_ms))
            }
        }
    }

    /// Takes a request back that was not made, since what it was to tell is too old.
    pub(super) fn expire(&mut self, attempt: Attempt, time_ms: u64, now: Instant) -> Option<Letter> {
        self.shares.returned(attempt.app.id());
        let id = attempt.endpoint;
        let endpoint = self.endpoints.get_mut(&id)?;
        self.failing_under_way -= usize::from(endpoint.is_failing);
        let before = (endpoint.queue.events(), endpoint.queue.bytes());
        let batch = endpoint.queue.give_up(attempt.batch, now);
        let after = (endpoint.queue.events(), endpoint.queue.bytes());
        self.shares
            .left(&endpoint.app_id, before.0 - after.0, before.1 - after.1);
        let error = match (batch.failed, &endpoint.history.last_error) {
            (0, Some(error)) => {
                format!("waited for earlier requests until it was too old; the last failed: {error}")
            }
            (0, None) => "waited for earlier requests until it was too old".to_owned(),
            (_, error) => error.clone().unwrap_or_default(),
        };
        self.line_up(id);
        let count = batch.events.len() as u64;
        attempt.metrics.dropped(WebhookDrop::GivenUp).inc_by(count);
        Some(letter(&attempt.app, &attempt.target, batch, error, time_ms))
    }

    /// Puts an endpoint into the line of those that answer well, or of those that fail.
    fn judge(&mut self, id: EndpointId, is_failing: bool) {
        let Some(endpoint) = self
            .endpoints
            .get_mut(&id)
            .filter(|it| it.is_failing != is_failing)
        else {
            return;
        };
        if let Some(due) = endpoint.due.take() {
            self.lines[usize::from(endpoint.is_failing)].remove(&(due, id));
        }
        endpoint.is_failing = is_failing;
        match is_failing {
            true => self.failing_under_way += endpoint.queue.under_way(),
            false => self.failing_under_way -= endpoint.queue.under_way(),
        }
    }

    /// Takes a request back that was not made, since its endpoint is gone or disabled, and drops all that waits for it.
    pub(super) fn retire(&mut self, attempt: Attempt, now: Instant) {
        self.shares.returned(attempt.app.id());
        attempt
            .metrics
            .dropped(WebhookDrop::Retired)
            .inc_by(attempt.batch.events.len() as u64);
        if let Some(endpoint) = self.endpoints.get_mut(&attempt.endpoint) {
            self.failing_under_way -= usize::from(endpoint.is_failing);
            let before = (endpoint.queue.events(), endpoint.queue.bytes());
            endpoint.queue.give_up(attempt.batch, now);
            let after = (endpoint.queue.events(), endpoint.queue.bytes());
            self.shares
                .left(&endpoint.app_id, before.0 - after.0, before.1 - after.1);
            self.drop_endpoint(attempt.endpoint, WebhookDrop::Retired);
        }
    }

    /// Drops what waits for the endpoints of an app that is gone.
    pub(super) fn forget_app(&mut self, app_id: &str) {
        for (_, id) in self.names.remove(app_id).unwrap_or_default() {
            self.drop_endpoint(id, WebhookDrop::Retired);
        }
    }

    /// Drops all that waits. The answer is how many events that were.
    pub(super) fn abandon(&mut self, reason: WebhookDrop) -> usize {
        let ids: Vec<_> = self.endpoints.keys().copied().collect();
        ids.into_iter().map(|id| self.drop_endpoint(id, reason)).sum()
    }

    /// Forgets an endpoint and what waits for it; what is under way goes on and is settled by itself.
    fn drop_endpoint(&mut self, id: EndpointId, reason: WebhookDrop) -> usize {
        let Some(endpoint) = self.endpoints.remove(&id) else {
            return 0;
        };
        if let Some(due) = endpoint.due {
            self.lines[usize::from(endpoint.is_failing)].remove(&(due, id));
        }
        if endpoint.is_failing {
            self.failing_under_way -= endpoint.queue.under_way();
        }
        self.shares
            .left(&endpoint.app_id, endpoint.queue.events(), endpoint.queue.bytes());
        if let Some(named) = self.names.get_mut(&endpoint.app_id) {
            named.retain(|(_, known)| *known != id);
        }
        let dropped = endpoint.queue.events() - endpoint.queue.events_under_way();
        endpoint.metrics.dropped(reason).inc_by(dropped as u64);
        dropped
    }

    /// All endpoints that are remembered, with the ids of their apps.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Endpoint)> {
        self.names.iter().flat_map(|(app_id, named)| {
            let known = named.iter().filter_map(|(_, id)| self.endpoints.get(id));
            known.map(move |endpoint| (app_id, endpoint))
        })
    }
}

#[cfg(test)]
mod tests;
