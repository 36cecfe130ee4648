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
        let first = self.waiting.values().filter_map(|queue| queue.front());
        match first.map(|(deadline, _)| *deadline).min() {
            None => std::future::pending().await,
            Some(deadline) => {
                let applied = peers.applied.notified();
                tokio::select! {
                    () = applied => {}
                    () = tokio::time::sleep_until(deadline.into()) => {}
                }
            }
        }
    }

    /// Takes out what need not wait any longer.
    pub(super) fn released(&mut self, peers: &Peers, now: Instant) -> Vec<(NodeId, Envelope)> {
        let mut released = Vec::new();
        self.waiting.retain(|(sender, _), queue| {
            let number = peers.number(*sender);
            let may_go = |queue: &VecDeque<(Instant, Envelope)>| {
                queue.front().is_some_and(|(deadline, envelope)| {
                    after(envelope) <= number || *deadline <= now || queue.len() > WAITING_MAX
                })
            };
            while may_go(queue) {
                released.extend(queue.pop_front().map(|(_, envelope)| (*sender, envelope)));
            }
            !queue.is_empty()
        });
        released
    }
}
