//! More than the ring can hold: what is lost is counted to the last event, told, and everything else is in order.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::brokers::{Broker, Kind};
use crate::case::Case;
use crate::load::{Load, LoadShape};
use crate::stage::Stage;
use crate::{Entry, entry};

pub(crate) fn cases() -> Vec<Entry> {
    vec![
        entry!(redis_away_for_longer_than_the_ring, 40),
        entry!(nats_away_for_longer_than_the_ring, 40),
    ]
}

/// The smallest that the configuration takes.
const RING_BYTES: u64 = 1 << 20;
const AWAY: Duration = Duration::from_secs(12);

async fn redis_away_for_longer_than_the_ring(case: &Case) {
    away_for_longer_than_the_ring(case, Kind::Redis).await;
}

async fn nats_away_for_longer_than_the_ring(case: &Case) {
    away_for_longer_than_the_ring(case, Kind::Nats).await;
}

async fn away_for_longer_than_the_ring(case: &Case, kind: Kind) {
    let mut broker = Broker::start(kind);
    let mut config = broker.config();
    config["adapter"]["ring_bytes_max"] = RING_BYTES.into();
    let stage = Stage::set(case, &[config.clone(), config.clone(), config]).await;
    // Half a megabyte each second from every node: six times the ring while the broker is away.
    let shape = LoadShape {
        padding: 4000,
        ..LoadShape::default()
    };
    let load = Load::begin(shape, &stage.nodes, &[0, 1, 2]).await;
    sleep(Duration::from_secs(2)).await;
    broker.kill();
    sleep(AWAY).await;
    broker.start_again();
    let up = Instant::now();
    let took = load.caught_up(up, case.bound(Duration::from_secs(5))).await;
    let took = took.unwrap_or_else(|waits| panic!("the broker is back, and 5 s later {waits}"));
    case.say(format!(
        "heard everywhere {:.2} s after the broker's return",
        took.as_secs_f64()
    ));
    sleep(Duration::from_secs(3)).await;

    let tallies = load.end(Duration::from_secs(15)).await;
    load.all_answered();
    for (node, (ear, tally)) in stage.nodes.iter().zip(&tallies) {
        let missing = tally.missing_count();
        let gaps = async |reason: &str| {
            let label = format!("reason=\"{reason}\"");
            node.metric_of("cluster_gaps_total", &label).await as u64
        };
        let (unsent, given_up, busy) = (gaps("unsent").await, gaps("given_up").await, gaps("busy").await);
        case.say(format!(
            "{ear} missed {missing}; counted: {given_up} given up, {busy} busy; {unsent} never left here"
        ));
        assert!(
            missing > 0 && tally.heard > 0,
            "{ear} missed some and heard the rest: {tally}"
        );
        assert_eq!(
            given_up + busy,
            missing,
            "{ear}: every event that is missing is counted, and no other"
        );
        assert!(unsent > 0, "node {} says what it could not keep", node.name);
        let body = node.admin("/ready").await.body;
        let told = serde_json::from_str::<serde_json::Value>(&body).expect("JSON")["cluster"]["gaps"].clone();
        assert_eq!(
            told,
            unsent + given_up + busy,
            "node {} tells of its gaps: {body}",
            node.name
        );
    }
    let (gap, ear) = load.largest_local_gap();
    assert!(
        gap < case.bound(Duration::from_secs(1)),
        "{ear} heard nothing of its own node for {gap:?}"
    );
    stage.readiness.never_failed();
}
