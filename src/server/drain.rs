//! Leaving without a storm: stock clients come back at once and without jitter, so the server spreads the closes.

use std::time::{Duration, Instant};

use crate::config::DrainConfig;
use crate::hub::inbox::{Entry, Inbox};
use crate::node::Node;
use crate::protocol::code::CloseCode;

/// How often some sockets are closed. Short against a second, so that the closes of each second are even.
const STEP: Duration = Duration::from_millis(50);

/// How many of `total` sockets are to be closed once `elapsed` of `length` has passed.
fn share(total: usize, elapsed: Duration, length: Duration) -> usize {
    if elapsed >= length {
        return total;
    }
    (total as f64 * elapsed.as_secs_f64() / length.as_secs_f64()).ceil() as usize
}

fn code(config: &DrainConfig) -> CloseCode {
    if config.close_code == 1001 {
        CloseCode::GoingAway
    } else {
        CloseCode::Reconnect
    }
}

/// Closes the sockets that are left, at once.
pub(super) fn close_rest(node: &Node, config: &DrainConfig) {
    let mut delivery = node.inboxes().deliver();
    for (shard, inbox) in node.inboxes().all().iter().enumerate() {
        if inbox.sockets() > 0 {
            delivery.push(
                shard as u16,
                Entry::Shed {
                    count: usize::MAX,
                    code: code(config),
                },
            );
        }
    }
}

/// Closes all sockets evenly over the configured time. Those not yet closed keep receiving every event.
pub(super) async fn close_sockets(node: &Node, config: &DrainConfig) {
    let code = code(config);
    let length = Duration::from_secs(config.drain_s.into());
    let begun = Instant::now();
    let totals: Vec<usize> = node.inboxes().all().iter().map(Inbox::sockets).collect();
    let total: usize = totals.iter().sum();
    if total > 0 {
        tracing::info!(
            sockets = total,
            seconds = config.drain_s,
            "closing sockets evenly"
        );
    }
    let mut closed = vec![0; totals.len()];
    loop {
        let elapsed = begun.elapsed();
        let mut delivery = node.inboxes().deliver();
        for (shard, (&total, closed)) in totals.iter().zip(&mut closed).enumerate() {
            let due = share(total, elapsed, length);
            let count = due - std::mem::replace(closed, due);
            if count > 0 {
                delivery.push(shard as u16, Entry::Shed { count, code });
            }
        }
        drop(delivery);
        if elapsed >= length || total == 0 {
            return;
        }
        tokio::time::sleep(STEP.min(length)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_evenly_and_ends_whole() {
        let length = Duration::from_secs(10);
        let at = |s: u64| share(1_000, Duration::from_secs(s), length);
        assert_eq!([at(0), at(1), at(5), at(10), at(11)], [0, 100, 500, 1_000, 1_000]);
        assert_eq!(share(3, Duration::ZERO, Duration::ZERO), 3);
    }
}
