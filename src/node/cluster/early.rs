//! Client events that came before their sender's join was known here: they are on another way than the announcement.
//! Each waits for it, and what follows on its way waits behind it; a quarter of a second at most.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::peers::Peers;
use crate::adapter::{NodeId, Topic};
use crate::relay::envelope::{Body, Envelope};

/// So long an event waits for the announcement of its sender.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// So many wait of one topic of one sender. More, and they do not wait any longer.
const WAITING_MAX: usize = 1_024;

/// What waits, by sender and topic, in order.
#[derive(Debug, Default)]
pub(super) struct Early {
    waiting: HashMap<(NodeId, Topic), VecDeque<(Instant, Envelope)>>,
}

/// The announcement that an event must not overtake.
fn after(envelope: &Envelope) -> u64 {
    match envelope.body {
        Body::Event { after, .. } => after,
        _ => 0,
    }
}

impl Early {
    /// Gives an envelope back that may be carried out, and keeps one that has to wait.
    pub(super) fn hold_back(
        &mut self,
        sender: NodeId,
        topic: Topic,
        envelope: Envelope,
        peers: &Peers,
        now: Instant,
    ) -> Option<Envelope> {
        let queue = self.waiting.get_mut(&(sender, topic));
        let is_early = after(&envelope) > 0 && after(&envelope) > peers.number(sender);
        match queue {
            None if !is_early => Some(envelope),
            None => {
                let queue = VecDeque::from([(now + WAIT_MAX, envelope)]);
                self.waiting.insert((sender, topic), queue);
                None
            }
            Some(queue) => {
                queue.push_back((now + WAIT_MAX, envelope));
                None
            }
        }
    }

    /// When to look again: when something was announced, or the first has waited long enough. Never, if nothing waits.
    pub(super) async fn due(&self, peers: &Peers) {
        // Made before the look, so that an announcement between the two is not missed.
        let applied = peers.applied.notified();
        let now = super::now();
        let mut first = None;
        for ((sender, _), queue) in &self.waiting {
            let number = peers.number(*sender);
            match queue.front() {
                Some(next) if may_go(next, queue.len(), number, now) => return,
                Some((deadline, _)) => {
                    first = Some(first.map_or(*deadline, |first: Instant| first.min(*deadline)))
                }
                None => {}
            }
        }
        match first {
            None => std::future::pending().await,
            Some(deadline) => tokio::select! {
                () = applied => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            },
        }
    }

    /// Takes out what need not wait any longer.
    pub(super) fn released(&mut self, peers: &Peers, now: Instant) -> Vec<(NodeId, Envelope)> {
        let mut released = Vec::new();
        self.waiting.retain(|(sender, _), queue| {
            let number = peers.number(*sender);
            while let Some(next) = queue.front()
                && may_go(next, queue.len(), number, now)
            {
                released.extend(queue.pop_front().map(|(_, envelope)| (*sender, envelope)));
            }
            !queue.is_empty()
        });
        released
    }
}

/// Whether the first of so many that wait may go, where the sender's announcements are known up to this number.
fn may_go((deadline, envelope): &(Instant, Envelope), waiting: usize, number: u64, now: Instant) -> bool {
    after(envelope) <= number || *deadline <= now || waiting > WAITING_MAX
}
