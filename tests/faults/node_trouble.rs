//! Nodes come and go while others publish to each other.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::brokers::{Broker, Kind};
use crate::case::Case;
use crate::load::{Load, LoadShape};
use crate::stage::Stage;
use crate::{Entry, entry};

pub(crate) fn cases() -> Vec<Entry> {
    vec![
        entry!(redis_bystander_killed_five_times, 35),
        entry!(nats_bystander_killed_five_times, 35),
    ]
}

const LIVES: u32 = 5;

async fn redis_bystander_killed_five_times(case: &Case) {
    bystander_killed_five_times(case, Kind::Redis).await;
}

async fn nats_bystander_killed_five_times(case: &Case) {
    bystander_killed_five_times(case, Kind::Nats).await;
}

/// Nodes A and C publish and listen; B is killed and started again, listens to the same channels, and publishes. What A
/// and C tell each other is complete; each life of B hears all that was published since it was subscribed.
async fn bystander_killed_five_times(case: &Case, kind: Kind) {
    let broker = Broker::start(kind);
    let config = broker.config();
    let mut stage = Stage::set(case, &[config.clone(), config.clone(), config]).await;
    let mut load = Load::begin(LoadShape::default(), &stage.nodes, &[0, 2, 1]).await;
    for life in 1..=LIVES {
        sleep(Duration::from_secs(1)).await;
        load.caught_up(Instant::now(), case.bound(Duration::from_secs(5)))
            .await
            .unwrap_or_else(|waits| panic!("in life {life} of node B {waits}"));
        load.node_died("B");
        stage.kill(1);
        sleep(Duration::from_millis(500)).await;
        stage.start_again(1).await;
        load.listen(&stage.nodes[1]).await;
        load.speak(&stage.nodes[1]).await;
        case.say(format!("node B lives for the {}. time", life + 1));
    }
    load.caught_up(Instant::now(), case.bound(Duration::from_secs(5)))
        .await
        .unwrap_or_else(|waits| panic!("in the last life of node B {waits}"));
    load.ends_complete().await;
    let (gap, ear) = load.largest_local_gap();
    assert!(
        gap < case.bound(Duration::from_secs(1)),
        "{ear} heard nothing of its own node for {gap:?}"
    );
    stage.readiness.never_failed();
}
