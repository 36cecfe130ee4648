//! A steady load of numbered events: publishers on some nodes, an ear on each.
//!
//! Every publisher counts its events, and an event goes to all channels of the load in one call. So what an ear must
//! have heard is known to the number: each publisher's in order, none twice, none missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::ear::{Ear, TICK, What};
use crate::ledger::{self, Tally};
use crate::node::Node;

/// What carries the load.
#[derive(Debug, Clone)]
pub(crate) struct LoadShape {
    pub(crate) channels: Vec<String>,
    /// Between two events of one publisher.
    pub(crate) pause: Duration,
    /// What makes an event longer, in bytes.
    pub(crate) padding: usize,
}

impl Default for LoadShape {
    /// Small events, on enough channels that every connection of the pool carries some.
    fn default() -> LoadShape {
        LoadShape::with_channels(6)
    }
}

impl LoadShape {
    pub(crate) fn with_channels(count: usize) -> LoadShape {
        LoadShape {
            channels: (0..count).map(|number| format!("load-{number}")).collect(),
            pause: Duration::from_millis(50),
            padding: 100,
        }
    }
}

/// One call of a publisher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    /// When the answer was there, and its status; not for the call that is under way or was cut off.
    pub(crate) answered: Option<(Instant, u16)>,
    /// Whether the answer said that other nodes may hear it later.
    pub(crate) is_behind: bool,
}

/// Somebody who publishes to one node.
pub(crate) struct Publisher {
    pub(crate) number: u32,
    /// The node that it speaks to.
    pub(crate) node: String,
    /// Whether its node was killed: what it said last may have died with it.
    pub(crate) was_cut_off: bool,
    sent: Arc<Mutex<Vec<Sent>>>,
    stops: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// All calls until now; the first has the number 1.
    pub(crate) fn sent(&self) -> MutexGuard<'_, Vec<Sent>> {
        locked(&self.sent)
    }

    /// Ends with the call that is under way.
    pub(crate) fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The load of one case.
pub(crate) struct Load {
    pub(crate) shape: LoadShape,
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) ears: Vec<Ear>,
}

impl Load {
    /// An ear on each node, then a publisher on each of `speaking`.
    pub(crate) async fn begin(shape: LoadShape, nodes: &[Node], speaking: &[usize]) -> Load {
        let mut load = Load {
            shape,
            publishers: Vec::new(),
            ears: Vec::new(),
        };
        for node in nodes {
            load.listen(node).await;
        }
        for index in speaking {
            load.speak(&nodes[*index]).await;
        }
        load
    }

    /// One more ear.
    pub(crate) async fn listen(&mut self, node: &Node) {
        self.ears.push(Ear::open(node, &self.shape.channels).await);
    }

    /// One more publisher.
    pub(crate) async fn speak(&mut self, node: &Node) {
        let number = self.publishers.len() as u32;
        let mut backend = node.backend().await;
        let sent = Arc::new(Mutex::new(Vec::<Sent>::new()));
        let stops = Arc::new(AtomicBool::new(false));
        let (into, stop, shape) = (sent.clone(), stops.clone(), self.shape.clone());
        let task = tokio::spawn(async move {
            let padding = "x".repeat(shape.padding);
            let mut ticks = interval(shape.pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for event in 1_u32.. {
                ticks.tick().await;
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let data = format!("{number} {event} {padding}");
                let body = json!({ "name": TICK, "channels": shape.channels, "data": data });
                let call = backend.call("POST", "/events", &body.to_string());
                locked(&into).push(Sent {
                    at: Instant::now(),
                    answered: None,
                    is_behind: false,
                });
                backend.http.write(call).await;
                let Some(answer) = backend.http.answer().await else {
                    return;
                };
                let mut sent = locked(&into);
                let last = sent.last_mut().expect("this very call");
                last.answered = Some((Instant::now(), answer.status));
                last.is_behind = answer.header("x-fanwire-relay") == Some("behind");
            }
        });
        self.publishers.push(Publisher {
            number,
            node: node.name.clone(),
            was_cut_off: false,
            sent,
            stops,
            task,
        });
    }

    /// A node was killed: its ears hear nothing more, and what its publishers said last may have died with it.
    pub(crate) fn node_died(&mut self, name: &str) {
        self.ears.retain(|ear| ear.node != name);
        for publisher in &mut self.publishers {
            publisher.was_cut_off |= publisher.node == name;
        }
    }

    /// How long after `moment` everybody had heard something of each publisher that was published after it. Waits for
    /// that, but not beyond `within`.
    pub(crate) async fn caught_up(&self, moment: Instant, within: Duration) -> Result<Duration, String> {
        loop {
            let waits = match self.last_first_heard(moment) {
                Ok(at) => return Ok(at.saturating_duration_since(moment)),
                Err(waits) => waits,
            };
            if moment.elapsed() > within {
                return Err(waits);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// When the last of all ears, over all publishers and channels, first heard something published after a moment.
    fn last_first_heard(&self, moment: Instant) -> Result<Instant, String> {
        let mut latest = moment;
        for publisher in self.publishers.iter().filter(|publisher| !publisher.was_cut_off) {
            let before = publisher.sent().partition_point(|sent| sent.at < moment) as u32;
            for ear in &self.ears {
                let heard = ear.heard();
                let first = ledger::first_beyond(&heard, publisher.number, before);
                for channel in &self.shape.channels {
                    let Some(at) = first.get(channel) else {
                        return Err(format!(
                            "{} waits for what was published on {} to {channel} after number {before}",
                            ear.name, publisher.node
                        ));
                    };
                    latest = latest.max(*at);
                }
            }
        }
        Ok(latest)
    }

    /// The largest pause between two events that an ear heard of a publisher on its own node, and whose it was.
    pub(crate) fn largest_local_gap(&self) -> (Duration, String) {
        let mut largest = (Duration::ZERO, String::new());
        for ear in &self.ears {
            let own = self
                .publishers
                .iter()
                .filter(|publisher| publisher.node == ear.node && !publisher.was_cut_off);
            for publisher in own {
                let gap = ledger::largest_gap(&ear.heard(), publisher.number);
                largest = largest.max((gap, ear.name.clone()));
            }
        }
        largest
    }

    /// Every trigger was answered with 200 while it had a node to answer.
    pub(crate) fn all_answered(&self) {
        for publisher in &self.publishers {
            let sent = publisher.sent();
            for (number, sent) in (1..).zip(sent.iter()) {
                let is_well = match sent.answered {
                    Some((_, status)) => status == 200,
                    None => publisher.was_cut_off || !publisher.task.is_finished(),
                };
                assert!(
                    is_well,
                    "trigger {number} of the publisher on {}: {sent:?}",
                    publisher.node
                );
            }
        }
    }

    /// Of the triggers between two moments: how many said that the relay is behind, and how many there were.
    pub(crate) fn behind(&self, from: Instant, to: Instant) -> (usize, usize) {
        let mut counts = (0, 0);
        for publisher in &self.publishers {
            for sent in publisher.sent().iter() {
                if sent.at >= from && sent.answered.is_some_and(|(at, _)| at < to) {
                    counts.0 += usize::from(sent.is_behind);
                    counts.1 += 1;
                }
            }
        }
        counts
    }

    /// The publishers stop. When every ear has heard every publisher's last event, or `within` is over, the answer is
    /// what each ear missed. An event out of order, or heard twice, fails.
    pub(crate) async fn end(&self, within: Duration) -> BTreeMap<String, Tally> {
        self.publishers.iter().for_each(Publisher::stop);
        let stopped = Instant::now();
        while stopped.elapsed() < within {
            let is_done = self
                .publishers
                .iter()
                .all(|publisher| publisher.task.is_finished());
            if is_done && self.tallies().values().all(|tally| tally.unfinished == 0) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        for ear in &self.ears {
            assert_eq!(ear.end(), None, "{} stays connected", ear.name);
        }
        self.tallies()
    }

    fn tallies(&self) -> BTreeMap<String, Tally> {
        let mut tallies = BTreeMap::new();
        for (index, ear) in self.ears.iter().enumerate() {
            let heard = ear.heard();
            let numbers = ledger::numbers(&heard);
            let mut tally = Tally::default();
            for publisher in &self.publishers {
                let sent = publisher.sent();
                let first_sure = sent.partition_point(|sent| sent.at < ear.since) as u32 + 1;
                for channel in &self.shape.channels {
                    let heard = numbers
                        .get(&(publisher.number, channel))
                        .map_or(&[][..], |numbers| numbers);
                    let one = ledger::tally(heard, first_sure, sent.len() as u32).unwrap_or_else(|fault| {
                        panic!("{}, {channel} from {}: {fault}", ear.name, publisher.node)
                    });
                    if !publisher.was_cut_off {
                        tally.add(one, &format!("{channel} of publisher {}", publisher.number));
                    }
                }
            }
            tallies.insert(format!("{} ({index})", ear.name), tally);
        }
        tallies
    }

    /// [`Load::end`], after which nothing may be missing.
    pub(crate) async fn ends_complete(&self) {
        let tallies = self.end(Duration::from_secs(15)).await;
        for (ear, tally) in tallies {
            assert!(tally.heard > 0, "{ear} heard something");
            assert!(tally.missing.is_empty(), "{ear} missed {tally}");
        }
        self.all_answered();
    }

    /// What the ears heard beside numbers since their subscriptions: nothing, if all is well.
    pub(crate) fn strange(&self) -> Vec<What> {
        let strange = |ear: &Ear| -> Vec<What> {
            let heard = ear.heard();
            let strange = heard.iter().filter(|heard| matches!(heard.what, What::Other(_)));
            strange.map(|heard| heard.what.clone()).collect()
        };
        self.ears.iter().flat_map(strange).collect()
    }
}
