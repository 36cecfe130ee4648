//! From the rings to the broker: one task for each lane, which hands over what waits and goes on when the broker has
//! accepted it. What it has not accepted stays in the ring and is handed over again.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter;
use crate::node::Node;

/// So much is handed over at a time. More would only make what comes behind it wait. Bytes.
const BATCH_BYTES: usize = 256 * 1024;
/// The pause after nothing was accepted: the broker is away.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after a part was: one of several servers is away, and the topics of the others are not to wait for it.
const PAUSE_OF_A_PART: Duration = Duration::from_millis(10);

/// Sends what one lane's ring holds, for ever.
pub(super) async fn send(node: Arc<Node>, index: adapter::Lane) {
    let Some(cluster) = node.cluster() else { return };
    let lane = &cluster.lanes[index];
    loop {
        let batch = lane.ring().next_batch(BATCH_BYTES);
        if batch.is_empty() {
            lane.to_send.notified().await;
            continue;
        }
        let count = batch.len();
        let batch = batch.into_iter().map(|parcel| parcel.into_message(cluster.id));
        let accepted = cluster.adapter.publish(index, batch.collect()).await;
        lane.settle(&accepted);
        cluster.room.notify_waiters();
        match accepted.iter().filter(|accepted| **accepted).count() {
            0 => tokio::time::sleep(PAUSE).await,
            part if part < count => tokio::time::sleep(PAUSE_OF_A_PART).await,
            _ => {}
        }
    }
}
