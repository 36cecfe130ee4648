//! The broker is restarted, frozen, failed over, moved about, cut off, under load: nodes deliver to their own sockets
//! all the time, publishing goes on, and once the broker is back, so is everything that was missed, in order and once.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::brokers::{Broker, Kind, Nats, NatsCluster, Proxy, Redis, RedisCluster, Sentinels, Way};
use crate::case::Case;
use crate::load::{Load, LoadShape};
use crate::stage::Stage;
use crate::{Entry, entry};

pub(crate) fn cases() -> Vec<Entry> {
    vec![
        entry!(redis_restarted_empty, 20),
        entry!(redis_frozen_for_30_s, 50),
        entry!(redis_connections_cut, 25),
        entry!(redis_connections_mute_or_deaf, 60),
        entry!(redis_kills_its_clients, 20),
        entry!(redis_sentinel_fails_over, 35),
        entry!(redis_cluster_loses_a_master, 35),
        entry!(redis_cluster_moves_slots, 30),
        entry!(redis_away_when_subscribed, 20),
        entry!(nats_away_when_subscribed, 20),
        entry!(nats_restarted, 20),
        entry!(nats_frozen_for_30_s, 50),
        entry!(nats_connections_cut, 25),
        entry!(nats_cluster_loses_a_server, 25),
    ]
}

/// A dead broker is noticed within so much, a frozen one when events have waited for a second.
const NOTICED: Duration = Duration::from_secs(3);
/// After its return the broker is used again, and what was missed is there.
const RESUMED: Duration = Duration::from_secs(5);
/// A node that has not heard itself for so long says so.
const DEAF_AFTER: Duration = Duration::from_secs(10);
/// Sockets on the very node that is published to never wait longer.
const LOCAL_GAP_MAX: Duration = Duration::from_secs(1);

/// When the broker was away.
struct Outage {
    down: Instant,
    up: Instant,
}

impl Outage {
    /// The broker is away for so long, by these two deeds.
    async fn of(away: Duration, down: impl AsyncFnOnce(), up: impl AsyncFnOnce()) -> Outage {
        let outage_began = Instant::now();
        down().await;
        sleep(away).await;
        up().await;
        Outage {
            down: outage_began,
            up: Instant::now(),
        }
    }
}

/// Three nodes under load, ready for trouble.
struct Ride<'a> {
    stage: Stage<'a>,
    load: Load,
}

impl<'a> Ride<'a> {
    async fn begin(case: &'a Case, brokers: &[Value], shape: LoadShape) -> Ride<'a> {
        let stage = Stage::set(case, brokers).await;
        let load = Load::begin(shape, &stage.nodes, &[0, 1, 2]).await;
        let ride = Ride { stage, load };
        let began = Instant::now();
        ride.resumes(began, "the load runs").await;
        sleep(Duration::from_secs(1)).await;
        ride
    }

    /// All hear all again, soon after this moment.
    async fn resumes(&self, moment: Instant, what: &str) {
        let bound = self.stage.case.bound(RESUMED);
        match self.load.caught_up(moment, bound).await {
            Ok(took) => self.stage.case.say(format!(
                "{what}: heard everywhere {:.2} s later",
                took.as_secs_f64()
            )),
            Err(waits) => panic!("{what}, and {bound:?} later {waits}"),
        }
    }

    /// While the broker was away, triggers said so, and long after it nodes did.
    fn said_so(&self, outage: &Outage) {
        let away = outage.up.duration_since(outage.down);
        let (behind, of) = self.load.behind(outage.down + NOTICED, outage.up);
        if away > NOTICED {
            assert!(of > 0, "triggers were answered while the broker was away");
            assert_eq!(
                behind, of,
                "of the triggers while the broker was away so many said so"
            );
        }
        for node in &self.stage.nodes {
            let late = outage.down + DEAF_AFTER + NOTICED;
            for probe in self.stage.readiness.between(&node.name, late, outage.up) {
                assert!(
                    !probe.body.contains("\"bus\":\"up\""),
                    "node {} has been deaf for 10 s: {probe:?}",
                    node.name
                );
            }
        }
    }

    /// Nothing speaks of the trouble any more.
    async fn is_over(&self) {
        sleep(Duration::from_secs(2)).await;
        let quiet = Instant::now();
        sleep(Duration::from_secs(1)).await;
        let (behind, of) = self.load.behind(quiet, Instant::now());
        assert!(
            of > 0 && behind == 0,
            "{behind} of {of} triggers after the trouble say that the relay is behind"
        );
        for node in &self.stage.nodes {
            let body = node.admin("/ready").await.body;
            assert!(
                body.contains("\"bus\":\"up\""),
                "node {} is well again: {body}",
                node.name
            );
        }
    }

    /// Everything is there, and local delivery never paused.
    async fn end(self) {
        let case = self.stage.case;
        self.load.ends_complete().await;
        let (gap, ear) = self.load.largest_local_gap();
        case.say(format!(
            "complete; local delivery paused {} ms at most",
            gap.as_millis()
        ));
        assert!(
            gap < case.bound(LOCAL_GAP_MAX),
            "{ear} heard nothing of its own node for {gap:?}"
        );
        self.stage.readiness.never_failed();
        assert_eq!(self.load.strange(), [], "ears hear nothing else");
    }

    /// One outage from begin to end.
    async fn through(self, outage: Outage) {
        self.resumes(outage.up, "the broker is back").await;
        self.said_so(&outage);
        self.is_over().await;
        self.end().await;
    }
}

fn thrice(broker: Value) -> [Value; 3] {
    [broker.clone(), broker.clone(), broker]
}

async fn redis_restarted_empty(case: &Case) {
    let mut redis = Redis::start();
    let ride = Ride::begin(case, &thrice(redis.config()), LoadShape::default()).await;
    let down = Instant::now();
    redis.kill();
    sleep(Duration::from_secs(5)).await;
    redis.start_again();
    let up = Instant::now();
    ride.through(Outage { down, up }).await;
}

async fn nats_restarted(case: &Case) {
    let mut nats = Nats::start();
    let ride = Ride::begin(case, &thrice(nats.config()), LoadShape::default()).await;
    let down = Instant::now();
    nats.kill();
    sleep(Duration::from_secs(5)).await;
    nats.start_again();
    let up = Instant::now();
    ride.through(Outage { down, up }).await;
}

async fn redis_away_when_subscribed(case: &Case) {
    away_when_subscribed(case, Kind::Redis).await;
}

async fn nats_away_when_subscribed(case: &Case) {
    away_when_subscribed(case, Kind::Nats).await;
}

/// Who subscribes while the broker is away, to channels that nobody had on that node, hears of the other nodes what is
/// published from then on.
async fn away_when_subscribed(case: &Case, kind: Kind) {
    let mut broker = Broker::start(kind);
    let stage = Stage::set(case, &thrice(broker.config())).await;
    let mut load = Load::begin(LoadShape::default(), &stage.nodes[..1], &[0]).await;
    load.speak(&stage.nodes[2]).await;
    // All nodes have told each other by then what they have come to.
    sleep(Duration::from_secs(3)).await;
    broker.kill();
    sleep(Duration::from_secs(3)).await;
    load.listen(&stage.nodes[1]).await;
    load.listen(&stage.nodes[2]).await;
    case.say("subscribed while the broker is away");
    sleep(Duration::from_secs(2)).await;
    broker.start_again();
    let bound = case.bound(RESUMED);
    let took = load.caught_up(Instant::now(), bound).await;
    let took = took.unwrap_or_else(|waits| panic!("the broker is back, and {bound:?} later {waits}"));
    case.say(format!(
        "heard everywhere {:.2} s after its return",
        took.as_secs_f64()
    ));
    load.ends_complete().await;
    stage.readiness.never_failed();
}

async fn redis_frozen_for_30_s(case: &Case) {
    let redis = Redis::start();
    let ride = Ride::begin(case, &thrice(redis.config()), LoadShape::default()).await;
    let outage = Outage::of(
        Duration::from_secs(30),
        async || redis.freeze(),
        async || redis.thaw(),
    )
    .await;
    ride.through(outage).await;
}

async fn nats_frozen_for_30_s(case: &Case) {
    let nats = Nats::start();
    let ride = Ride::begin(case, &thrice(nats.config()), LoadShape::default()).await;
    let outage = Outage::of(
        Duration::from_secs(30),
        async || nats.freeze(),
        async || nats.thaw(),
    )
    .await;
    ride.through(outage).await;
}

async fn redis_connections_cut(case: &Case) {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.address()).await;
    let ride = Ride::begin(
        case,
        &thrice(redis.config_at(proxy.address())),
        LoadShape::default(),
    )
    .await;
    connections_cut(ride, &proxy).await;
}

async fn nats_connections_cut(case: &Case) {
    let nats = Nats::start();
    let proxy = Proxy::to(nats.address()).await;
    let ride = Ride::begin(
        case,
        &thrice(nats.config_at(proxy.address())),
        LoadShape::default(),
    )
    .await;
    connections_cut(ride, &proxy).await;
}

/// All connections at once, three times; then they stay away for a while.
async fn connections_cut(ride: Ride<'_>, proxy: &Proxy) {
    for time in 1..=3 {
        let cut = proxy.cut();
        assert!(cut >= 9, "three nodes had {cut} connections");
        ride.resumes(
            Instant::now(),
            &format!("{cut} connections cut for the {time}. time"),
        )
        .await;
    }
    let outage = Outage::of(
        Duration::from_secs(5),
        async || {
            proxy.refuse(true);
            proxy.cut();
        },
        async || proxy.refuse(false),
    )
    .await;
    ride.through(outage).await;
}

/// Connections that stay up and carry nothing, in one direction or in both: of one node only.
async fn redis_connections_mute_or_deaf(case: &Case) {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.address()).await;
    let (straight, through) = (redis.config(), redis.config_at(proxy.address()));
    let ride = Ride::begin(case, &[straight.clone(), through, straight], LoadShape::default()).await;
    for (what, ways) in [
        ("mute", &[Way::ToBroker][..]),
        ("deaf", &[Way::FromBroker]),
        ("mute and deaf", &[Way::ToBroker, Way::FromBroker]),
    ] {
        ways.iter().for_each(|way| proxy.hold(*way, true));
        sleep(Duration::from_secs(8)).await;
        ways.iter().for_each(|way| proxy.hold(*way, false));
        ride.resumes(Instant::now(), &format!("node B was {what} for 8 s"))
            .await;
    }
    ride.is_over().await;
    ride.end().await;
}

/// As an operator's `CLIENT KILL`, or an output buffer that overflows.
async fn redis_kills_its_clients(case: &Case) {
    let redis = Redis::start();
    let ride = Ride::begin(case, &thrice(redis.config()), LoadShape::default()).await;
    for kind in ["pubsub", "normal", "pubsub", "normal"] {
        let killed = redis.ask(&["CLIENT", "KILL", "TYPE", kind]).await;
        ride.resumes(Instant::now(), &format!("CLIENT KILL TYPE {kind} ({killed:?})"))
            .await;
    }
    ride.is_over().await;
    ride.end().await;
}

async fn redis_sentinel_fails_over(case: &Case) {
    let mut sentinels = Sentinels::start();
    let ride = Ride::begin(case, &thrice(sentinels.config()), LoadShape::default()).await;
    let down = Instant::now();
    sentinels.kill_master();
    sentinels.wait_for_another_master().await;
    let up = Instant::now();
    case.say(format!("another master after {:.1} s", (up - down).as_secs_f64()));
    ride.through(Outage { down, up }).await;
}

async fn redis_cluster_loses_a_master(case: &Case) {
    let mut cluster = RedisCluster::start();
    let ride = Ride::begin(case, &thrice(cluster.config()), LoadShape::with_channels(12)).await;
    let down = Instant::now();
    cluster.kill_a_master();
    cluster.wait_until_whole().await;
    let up = Instant::now();
    case.say(format!(
        "the cluster is whole after {:.1} s",
        (up - down).as_secs_f64()
    ));
    // Two thirds of the topics were never away, so not every trigger was behind.
    ride.resumes(up, "the replica took over").await;
    ride.is_over().await;
    ride.end().await;
}

async fn redis_cluster_moves_slots(case: &Case) {
    let cluster = RedisCluster::start();
    let ride = Ride::begin(case, &thrice(cluster.config()), LoadShape::with_channels(12)).await;
    for time in 1..=3 {
        let moved = cluster.move_slots_in_use().await;
        assert!(moved > 0, "some master had topics");
        ride.resumes(
            Instant::now(),
            &format!("{moved} slots moved for the {time}. time"),
        )
        .await;
    }
    ride.is_over().await;
    ride.end().await;
}

async fn nats_cluster_loses_a_server(case: &Case) {
    let mut cluster = NatsCluster::start(3).await;
    let ride = Ride::begin(case, &cluster.configs(), LoadShape::default()).await;
    // The first node's own server goes, comes back, and the next one's goes.
    for server in [0, 1] {
        cluster.kill(server);
        ride.resumes(Instant::now(), &format!("server {server} was killed"))
            .await;
        cluster.start_again(server).await;
        ride.resumes(Instant::now(), &format!("server {server} is back"))
            .await;
    }
    ride.is_over().await;
    ride.end().await;
}
