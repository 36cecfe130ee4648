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

/// Closes all sockets evenly over the configured time, or until none is left. Those not yet closed keep receiving every
/// event.
pub(super) async fn close_sockets(node: &Node, config: &DrainConfig) {
    let code = code(config);
    let length = Duration::from_secs(config.drain_s.into());
    let begun = Instant::now();
    let mut left: Vec<usize> = node.inboxes().all().iter().map(Inbox::sockets).collect();
    let total: usize = left.iter().sum();
    if total > 0 {
        tracing::info!(
            sockets = total,
            seconds = config.drain_s,
            "closing sockets evenly"
        );
    }
    while node.inboxes().sockets() > 0 {
        let elapsed = begun.elapsed();
        let closed = total - left.iter().sum::<usize>();
        let mut delivery = node.inboxes().deliver();
        for (shard, count) in take_evenly(&mut left, share(total, elapsed, length) - closed) {
            delivery.push(shard as u16, Entry::Shed { count, code });
        }
        drop(delivery);
        if elapsed >= length {
            return;
        }
        tokio::time::sleep(STEP.min(length)).await;
    }
}

/// Takes so many, each from whoever has most left. The answer is how many of whom.
fn take_evenly(left: &mut [usize], count: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut taken = vec![0; left.len()];
    for _ in 0..count {
        if let Some((fullest, most)) = left.iter_mut().enumerate().max_by_key(|(_, left)| **left) {
            *most -= 1;
            taken[fullest] += 1;
        }
    }
    taken.into_iter().enumerate().filter(|(_, count)| *count > 0)
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

    #[test]
    fn whoever_has_most_gives_first() {
        let mut left = [1, 5, 3];
        assert_eq!(take_evenly(&mut left, 4).collect::<Vec<_>>(), [(1, 3), (2, 1)]);
        assert_eq!(left, [1, 2, 2]);
    }
}
