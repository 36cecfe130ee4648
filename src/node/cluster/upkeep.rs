//! What is done again and again: announcing what changed here, and looking after rings and interests.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::announce::Pacing;
use super::{Cluster, now};
use crate::adapter::Topic;
use crate::metrics::ClusterSnapshot;
use crate::node::Node;

/// How often rings and interests are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Each so many looks all is announced that nobody has marked.
const LOOKS_PER_ANNOUNCEMENT: u32 = 4;

/// Tells the other nodes what has changed here, for ever.
pub(super) async fn announce(node: Arc<Node>) {
    let Some(announcer) = &node.announcer else { return };
    let mut pacing = Pacing::default();
    loop {
        announcer.news().await;
        tokio::time::sleep_until(pacing.due(now()).into()).await;
        node.announce_now();
        pacing.told(now());
    }
}

/// Looks after rings and interests, for ever.
pub(super) async fn keep_up(node: Arc<Node>) {
    let Some(cluster) = node.cluster() else { return };
    cluster.adapter.want(Topic::Roster, true, 1);
    cluster.adapter.want(Topic::Node(cluster.id), true, 1);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_up = true;
    for look in 0_u32.. {
        looks.tick().await;
        cluster.is_behind.store(cluster.looks_behind(), Ordering::Relaxed);
        if look.is_multiple_of(LOOKS_PER_ANNOUNCEMENT) {
            // Connections are no news of their own.
            node.announce_now();
        }
        let is_up = cluster.is_up();
        if is_up != was_up {
            was_up = is_up;
            // What was missed meanwhile gets its full time from now on.
            cluster
                .lanes
                .iter()
                .for_each(|lane| lane.positions().renew(now()));
            cluster.heart.compare_heads();
        }
        cluster.lanes.iter().for_each(|lane| lane.ring().trim(now()));
        let forget = |topic: Topic| cluster.lane_of(topic).positions().forget(topic);
        let unconfirmed = |topic: Topic| cluster.lane_of(topic).positions().listened_to_unconfirmed(topic);
        let (admitted, wishes) = cluster
            .interests
            .tick(now(), !cluster.is_reachable(), unconfirmed, forget);
        node.admit(admitted);
        wishes.into_iter().for_each(|wish| cluster.tell(wish));
        cluster.peers.forget_lost(now());
        let alive = cluster.heart.alive();
        for lane in &cluster.lanes {
            lane.positions()
                .only_alive(|sender| alive.contains(&sender), now());
        }
    }
}

impl Node {
    /// Waits until all is known that the nodes have which are heard.
    pub async fn synced(&self) {
        let Some(cluster) = &self.cluster else { return };
        // Those that live have answered the first beat by then.
        let answered = Duration::from_millis(300);
        let mut looks = interval(Duration::from_millis(20));
        let mut since = None;
        loop {
            looks.tick().await;
            if !cluster.is_synced() {
                continue;
            }
            let since = *since.get_or_insert(now());
            if now().saturating_duration_since(since) >= answered {
                return;
            }
        }
    }

    /// What this node knows of its cluster, for metrics and probes. None: it is alone.
    pub fn cluster_snapshot(&self) -> Option<ClusterSnapshot> {
        let snapshot = self.cluster.as_ref()?.snapshot();
        Some(ClusterSnapshot {
            roster_channels: self.shares.load(Ordering::Relaxed) as u64,
            announced: self.announced().number,
            ..snapshot
        })
    }
}

impl Cluster {
    fn snapshot(&self) -> ClusterSnapshot {
        let health = self.adapter.health();
        let (round_trip, since_heard) = self.heart.times();
        let alive = self.heart.alive();
        let unknown = alive.iter().filter(|peer| !self.peers.is_whole(**peer)).count();
        let mut snapshot = ClusterSnapshot {
            driver: self.driver,
            node_id: self.id.to_string(),
            connected: health.connected as u64,
            connections: health.wanted as u64,
            reconnects: health.reconnects,
            is_behind: self.is_behind(),
            is_deaf: self.heart.is_deaf(),
            round_trip_s: round_trip.map(|time| time.as_secs_f64()),
            last_heard_s: since_heard.as_secs_f64(),
            nodes: alive.len() as u64 + 1,
            nodes_unknown: unknown as u64,
            nodes_lost: self.heart.lost(),
            topics: self.interests.wanted() as u64,
            dropped_busy: self.dropped_busy.load(Ordering::Relaxed),
            refused: self.sink.refused(),
            snapshots: self.peers.asked(),
            roster_age_s: self.peers.age().as_secs_f64(),
            ..ClusterSnapshot::default()
        };
        for lane in &self.lanes {
            {
                let ring = lane.ring();
                let counts = ring.counts();
                snapshot.relayed += counts.accepted;
                snapshot.unsent_gaps += counts.gaps;
                snapshot.unsent_bytes += ring.unaccepted_bytes() as u64;
                snapshot.ring_bytes += ring.bytes() as u64;
            }
            let positions = lane.positions();
            let counts = positions.counts();
            snapshot.received += counts.received;
            snapshot.repaired += counts.repaired;
            snapshot.duplicates += counts.duplicates;
            // Of a break nobody knows how much was missed: it counts as one.
            let gaps = counts.gaps.saturating_add(counts.breaks);
            snapshot.gaps = snapshot.gaps.saturating_add(gaps);
            snapshot.held_back_bytes += positions.held_bytes() as u64;
        }
        snapshot
    }
}
