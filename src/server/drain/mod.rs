//! Sending sockets away without a storm: stock clients come back at once and without jitter, so the server spreads the
//! closes. A *drain* empties the node for good, a *shed* closes a part, which other nodes then get a part of.
//!
//! Those who ask, signals and the admin port, only say what is wanted; one task does it, so that there is one of it at a
//! time. Not here: what else happens when a server leaves (`server/leave.rs`), and how the admin port is asked.

mod pace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use self::pace::Pace;
use super::health::Health;
use crate::config::DrainConfig;
use crate::hub::inbox::{Entry, Inbox};
use crate::metrics::CloseReason;
use crate::node::Node;
use crate::protocol::code::CloseCode;

/// How often some sockets are closed. Short against a second, so that the closes of each second are even.
const STEP: Duration = Duration::from_millis(50);
/// Closes that were held up may come so much later than they should; what is left then goes at once.
pub(super) const OVERRUN_MAX: Duration = Duration::from_secs(1);
/// In a hurry, all that is left is closed over this time, and nothing else is waited for longer.
const HURRIED: Duration = Duration::from_secs(1);

/// How far a node has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It serves.
    Serving,
    /// It serves, and closes some of its sockets.
    Shedding(Shed),
    /// It takes no new sockets, and closes those that it has.
    Draining,
    /// Every socket has been told to go.
    Drained,
}

/// Sockets that are closed while the node serves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shed {
    /// How many are closed.
    pub(super) sockets: usize,
    /// How many there were.
    pub(super) of: usize,
    /// Over which time they are closed evenly. Seconds.
    pub(super) over_s: u32,
}

/// Why no sockets can be shed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoShed {
    /// It is being done already.
    AtWork(Shed),
    /// All sockets are being closed.
    Draining,
}

/// What has been asked of a node about its sockets, and how far that is.
#[derive(Debug)]
pub(super) struct Drain {
    node: Arc<Node>,
    health: Arc<Health>,
    config: DrainConfig,
    stage: watch::Sender<Stage>,
    hurry: watch::Sender<bool>,
}

impl Drain {
    pub(super) fn new(node: Arc<Node>, health: Arc<Health>, config: DrainConfig) -> Drain {
        Drain {
            node,
            health,
            config,
            stage: watch::Sender::new(Stage::Serving),
            hurry: watch::Sender::new(false),
        }
    }

    /// Not ready from now on; new sockets are refused, the others closed evenly. There is no way back. Repeating it
    /// changes nothing. The answer is how many sockets there are to close.
    pub(super) fn begin(&self) -> usize {
        // First, or somebody could be let in whom nobody counts.
        self.health.drain();
        let begins = self.stage.send_if_modified(|stage| {
            let begins = matches!(stage, Stage::Serving | Stage::Shedding(_));
            if begins {
                *stage = Stage::Draining;
            }
            begins
        });
        let sockets = self.node.inboxes().sockets();
        if begins {
            let DrainConfig { delay_s, drain_s, .. } = self.config;
            tracing::info!(sockets, delay_s, drain_s, "draining");
        }
        sockets
    }

    /// Has what is left closed over about a second, and waits for nothing longer than that.
    pub(super) fn hurry(&self) {
        self.hurry.send_replace(true);
    }

    /// Has so many of a hundred sockets closed, evenly over a time, while the node serves on.
    ///
    /// # Errors
    /// Sockets are being closed already.
    pub(super) fn shed(&self, percent: u8, over_s: u32) -> Result<Shed, NoShed> {
        let of = self.node.inboxes().sockets();
        let shed = Shed {
            sockets: (of * usize::from(percent)).div_ceil(100),
            of,
            over_s,
        };
        let mut answer = Ok(shed);
        self.stage.send_if_modified(|stage| {
            match *stage {
                Stage::Serving => *stage = Stage::Shedding(shed),
                Stage::Shedding(other) => answer = Err(NoShed::AtWork(other)),
                Stage::Draining | Stage::Drained => answer = Err(NoShed::Draining),
            }
            answer.is_ok()
        });
        if answer.is_ok() {
            tracing::info!(sockets = shed.sockets, of, over_s, "shedding sockets");
        }
        answer
    }

    /// How sockets are sent away.
    pub(super) fn config(&self) -> &DrainConfig {
        &self.config
    }

    /// Whom it is told that the node is going down.
    pub(super) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Does what is asked, for as long as the server is there.
    pub(super) async fn work(&self) {
        let mut stages = self.stage.subscribe();
        loop {
            // The sender is here: there is always another stage to wait for.
            let asked = stages
                .wait_for(|stage| *stage != Stage::Serving)
                .await
                .map(|stage| *stage);
            let Ok(Stage::Shedding(shed)) = asked else { break };
            tokio::select! {
                () = self.spread(shed.sockets, shed.over_s, CloseReason::Shed) => {}
                _ = stages.wait_for(|stage| *stage == Stage::Draining) => break,
            }
            self.stage.send_if_modified(|stage| {
                let is_over = *stage == Stage::Shedding(shed);
                if is_over {
                    *stage = Stage::Serving;
                }
                is_over
            });
        }
        let calmly = async {
            sleep(seconds(self.config.delay_s)).await;
            let all = self.node.inboxes().sockets();
            self.spread(all, self.config.drain_s, CloseReason::Drain).await;
        };
        tokio::select! {
            () = calmly => {}
            () = self.is_in_a_hurry() => {
                let rest = self.node.inboxes().sockets();
                self.spread(rest, HURRIED.as_secs() as u32, CloseReason::Drain).await;
            }
        }
        self.close_rest();
        self.stage.send_replace(Stage::Drained);
        // Whoever was in the middle of its handshake when it began.
        loop {
            sleep(STEP).await;
            self.close_rest();
        }
    }

    /// Waits until every socket has been told to go.
    pub(super) async fn drained(&self) {
        // It cannot end sooner: the sender is here.
        let _ = self
            .stage
            .subscribe()
            .wait_for(|stage| *stage == Stage::Drained)
            .await;
    }

    /// Waits for what is to be done in a time; in a hurry for a second more. `None`: it was not done.
    pub(super) async fn in_time<T>(&self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let hurried = async {
            self.is_in_a_hurry().await;
            sleep(HURRIED).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = sleep(time) => None,
            () = hurried => None,
        }
    }

    async fn is_in_a_hurry(&self) {
        // It cannot end sooner: the sender is here.
        let _ = self.hurry.subscribe().wait_for(|hurry| *hurry).await;
    }

    /// Closes so many of the sockets that there are now, evenly over a time, or until none is left. Those not yet closed
    /// keep receiving every event.
    async fn spread(&self, count: usize, over_s: u32, reason: CloseReason) {
        let (begun, over) = (Instant::now(), seconds(over_s));
        let inboxes = self.node.inboxes();
        let mut pace = Pace::new(count, over);
        let mut left: Vec<usize> = inboxes.all().iter().map(Inbox::sockets).collect();
        while !pace.is_over() && inboxes.sockets() > 0 && begun.elapsed() < over + OVERRUN_MAX {
            let mut delivery = inboxes.deliver();
            for (shard, count) in take_evenly(&mut left, pace.due(begun.elapsed())) {
                delivery.push(shard as u16, self.closing(count, reason));
            }
            drop(delivery);
            sleep(STEP.min(over)).await;
        }
    }

    /// Closes the sockets that are left, at once.
    fn close_rest(&self) {
        let mut delivery = self.node.inboxes().deliver();
        for (shard, inbox) in self.node.inboxes().all().iter().enumerate() {
            if inbox.sockets() > 0 {
                delivery.push(shard as u16, self.closing(usize::MAX, CloseReason::Drain));
            }
        }
    }

    fn closing(&self, count: usize, reason: CloseReason) -> Entry {
        let code = match self.config.close_code {
            1001 => CloseCode::GoingAway,
            _ => CloseCode::Reconnect,
        };
        Entry::Shed { count, code, reason }
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// Takes so many, each from whoever has most left. The answer is how many of whom.
fn take_evenly(left: &mut [usize], count: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut taken = vec![0; left.len()];
    for _ in 0..count {
        if let Some((fullest, most)) = left.iter_mut().enumerate().max_by_key(|(_, left)| **left) {
            *most = most.saturating_sub(1);
            taken[fullest] += 1;
        }
    }
    taken.into_iter().enumerate().filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_most_gives_first() {
        let mut left = [1, 5, 3];
        assert_eq!(take_evenly(&mut left, 4).collect::<Vec<_>>(), [(1, 3), (2, 1)]);
        assert_eq!(left, [1, 2, 2]);
    }
}
