//! Three hundred users of a presence channel, a hundred of them on two nodes: what everybody is told when a node is
//! killed, frozen, told to leave, cut off from the broker, or comes late.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::brokers::{Broker, Kind, Proxy, Way};
use crate::case::Case;
use crate::ear::{Ear, What};
use crate::load::{Load, LoadShape};
use crate::stage::{CROWD, LEASE, Stage, difference};
use crate::support::http::Backend;
use crate::{Entry, entry};

pub(crate) fn cases() -> Vec<Entry> {
    vec![
        entry!(redis_node_killed, 45),
        entry!(nats_node_killed, 45),
        entry!(redis_node_frozen_for_60_s, 95),
        entry!(nats_node_frozen_for_60_s, 95),
        entry!(redis_node_told_to_leave, 20),
        entry!(nats_node_told_to_leave, 20),
        entry!(redis_node_comes_late, 25),
        entry!(nats_node_comes_late, 25),
        entry!(redis_node_cut_off, 45),
        entry!(nats_node_cut_off, 45),
        entry!(redis_away_under_a_crowd, 50),
        entry!(nats_away_under_a_crowd, 50),
    ]
}

const USERS: usize = 300;
/// So many of them have a socket on one of the other nodes, too.
const ELSEWHERE: usize = 100;
/// Sockets that connect at a time.
const AT_A_TIME: usize = 16;
/// The node that things are done to.
const VICTIM: usize = 1;

/// A stranded member has left everywhere within so much.
const LOST_MAX: Duration = Duration::from_secs(15);
/// All views are the same again within so much.
const AGREED_MAX: Duration = Duration::from_secs(5);
/// A node that starts holds the full view within so much.
const FULL_VIEW_MAX: Duration = Duration::from_secs(2);
/// A node that has not heard itself for ten seconds has said so within this.
const DEAF_AFTER: Duration = Duration::from_secs(13);
/// An HTTP query is answered at once, also while a node is missed. Generous: the machine is busy.
const QUERY_MAX: Duration = Duration::from_millis(500);
/// So long nothing more may come.
const SETTLED: Duration = Duration::from_secs(3);

/// The sockets of a presence channel, each of which hears of all others.
struct Crowd {
    ears: Vec<Ear>,
    /// Everybody who is there.
    all: BTreeSet<String>,
    /// Those who are only on the victim.
    stranded: BTreeSet<String>,
}

impl Crowd {
    /// Everybody joins; the answer comes when every socket was told of everybody.
    async fn gather(stage: &Stage<'_>) -> Crowd {
        let elsewhere: Vec<usize> = (0..stage.nodes.len()).filter(|index| *index != VICTIM).collect();
        let mut seats = Vec::new();
        for user in 0..USERS {
            seats.push((VICTIM, format!("user-{user}")));
            if user < ELSEWHERE {
                seats.push((elsewhere[user % elsewhere.len()], format!("user-{user}")));
            }
        }
        for index in &elsewhere {
            seats.push((*index, format!("only-on-{}", stage.nodes[*index].name)));
        }
        let all: BTreeSet<String> = seats.iter().map(|(_, user)| user.clone()).collect();
        let stranded = (ELSEWHERE..USERS).map(|user| format!("user-{user}")).collect();
        let ears = stream::iter(seats)
            .map(|(index, user)| async move { Ear::join(&stage.nodes[index], CROWD, &user).await })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let crowd = Crowd { ears, all, stranded };
        let took = crowd.sees(stage, &crowd.all, Duration::from_secs(20)).await;
        let text = format!("{} sockets see all {} members", crowd.ears.len(), crowd.all.len());
        stage.case.say(format!(
            "{text}, {:.2} s after the last joined",
            took.as_secs_f64()
        ));
        let everywhere: Vec<usize> = (0..stage.nodes.len()).collect();
        stage.agree_on(&everywhere, CROWD, &crowd.all, AGREED_MAX).await;
        crowd
    }

    /// Those who are not only on the victim.
    fn remaining(&self) -> BTreeSet<String> {
        self.all.difference(&self.stranded).cloned().collect()
    }

    /// Waits until every socket was told that these are there; the answer is how long that took. Whoever is told
    /// something against what it was told before fails.
    async fn sees(&self, stage: &Stage<'_>, expected: &BTreeSet<String>, within: Duration) -> Duration {
        let begun = Instant::now();
        for ear in &self.ears {
            loop {
                let seen = ear.members().unwrap_or_else(|fault| panic!("{fault}"));
                if seen == *expected {
                    break;
                }
                assert_eq!(ear.end(), None, "{} stays connected", ear.name);
                assert!(
                    begun.elapsed() < stage.case.bound(within),
                    "after {within:?} {} sees {} members, not {}: {}",
                    ear.name,
                    seen.len(),
                    expected.len(),
                    difference(&seen, expected)
                );
                sleep(Duration::from_millis(10)).await;
            }
        }
        begun.elapsed()
    }

    /// Each socket on these nodes has heard of exactly these departures and arrivals since a moment, once each.
    fn heard_exactly(
        &self,
        stage: &Stage<'_>,
        indices: &[usize],
        since: Instant,
        gone: &BTreeSet<String>,
        come: &BTreeSet<String>,
    ) {
        let mut expected: Vec<String> = gone.iter().map(|user| format!("-{user}")).collect();
        expected.extend(come.iter().map(|user| format!("+{user}")));
        expected.sort();
        let on_these = |ear: &&Ear| indices.iter().any(|index| stage.nodes[*index].name == ear.node);
        for ear in self.ears.iter().filter(on_these) {
            let news = ear.news_since(since).into_iter().map(|what| match what {
                What::Added(user) => format!("+{user}"),
                What::Removed(user) => format!("-{user}"),
                other => panic!("{other:?} is no news of a user"),
            });
            let mut news: Vec<String> = news.collect();
            news.sort();
            assert!(
                news == expected,
                "{} heard {} news, not {}: {}",
                ear.name,
                news.len(),
                expected.len(),
                difference(&news.into_iter().collect(), &expected.iter().cloned().collect())
            );
        }
    }

    /// On the victim somebody leaves and somebody else comes; the answer is who.
    async fn changes_on_the_victim(&mut self, stage: &Stage<'_>) -> (BTreeSet<String>, BTreeSet<String>) {
        let node = &stage.nodes[VICTIM];
        let gone = self.stranded.pop_last().expect("somebody");
        self.ears
            .retain(|ear| ear.name != format!("{gone} on {}", node.name));
        self.all.remove(&gone);
        let come = "came-meanwhile".to_owned();
        self.ears.push(Ear::join(node, CROWD, &come).await);
        self.all.insert(come.clone());
        (BTreeSet::from([gone]), BTreeSet::from([come]))
    }

    /// Leaves out those who were told of earlier changes by their acknowledgement.
    fn forget_who_came_after(&mut self, moment: Instant) {
        self.ears.retain(|ear| ear.since < moment);
    }

    /// The sockets of a node that was killed are gone, for the test too.
    fn forget(&mut self, node: &str) {
        self.ears.retain(|ear| ear.node != node);
    }
}

fn nobody() -> BTreeSet<String> {
    BTreeSet::new()
}

async fn three_nodes<'a>(case: &'a Case, broker: &Broker) -> Stage<'a> {
    let config = broker.config();
    Stage::set(case, &[config.clone(), config.clone(), config]).await
}

async fn redis_node_killed(case: &Case) {
    node_killed(case, Kind::Redis).await;
}

async fn nats_node_killed(case: &Case) {
    node_killed(case, Kind::Nats).await;
}

async fn node_killed(case: &Case, kind: Kind) {
    let broker = Broker::start(kind);
    let mut stage = three_nodes(case, &broker).await;
    let mut crowd = Crowd::gather(&stage).await;
    let id = stage.nodes[VICTIM].id().await;
    assert!(
        !broker.traces_of(&id).await.is_empty(),
        "node {id} is known at the broker while it lives"
    );

    let killed = Instant::now();
    stage.kill(VICTIM);
    crowd.forget("B");
    let remaining = crowd.remaining();
    let queries = tokio::spawn(slowest_query(stage.nodes[0].backend().await, LEASE));
    crowd.sees(&stage, &remaining, LOST_MAX).await;
    let took = killed.elapsed();
    let slowest = queries.await.expect("the queries are answered");
    case.say(format!(
        "the slowest of the queries meanwhile took {} ms",
        slowest.as_millis()
    ));
    assert!(
        slowest < case.bound(QUERY_MAX),
        "no answer waits for a node that is gone"
    );
    case.say(format!(
        "all stranded members have left after {:.1} s",
        took.as_secs_f64()
    ));
    assert!(took < case.bound(LOST_MAX), "it took {took:?}");
    stage
        .agree_on(&[0, 2], CROWD, &remaining, Duration::from_secs(1))
        .await;
    sleep(SETTLED).await;
    crowd.heard_exactly(&stage, &[0, 2], killed, &crowd.stranded, &nobody());
    stage.newcomers_see(&[0, 2], CROWD, &remaining).await;
    assert_eq!(
        broker.traces_of(&id).await,
        Vec::<String>::new(),
        "what is left of node {id}"
    );
    stage.readiness.never_failed();
}

/// Asks for the members again and again.
async fn slowest_query(mut backend: Backend, length: Duration) -> Duration {
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < length {
        let asked = Instant::now();
        backend.get(&format!("/channels/{CROWD}/users")).await;
        slowest = slowest.max(asked.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    slowest
}

async fn redis_node_frozen_for_60_s(case: &Case) {
    node_frozen_for_60_s(case, Kind::Redis).await;
}

async fn nats_node_frozen_for_60_s(case: &Case) {
    node_frozen_for_60_s(case, Kind::Nats).await;
}

async fn node_frozen_for_60_s(case: &Case, kind: Kind) {
    let broker = Broker::start(kind);
    let mut stage = three_nodes(case, &broker).await;
    let crowd = Crowd::gather(&stage).await;
    let load = Load::begin(LoadShape::default(), &stage.nodes, &[0, 2]).await;

    let frozen = Instant::now();
    stage.readiness.forget("B");
    stage.nodes[VICTIM].signal(Signal::STOP);
    let survivors = [0, 2];
    stage
        .agree_on(&survivors, CROWD, &crowd.remaining(), LOST_MAX)
        .await;
    case.say(format!(
        "its members have left after {:.1} s",
        frozen.elapsed().as_secs_f64()
    ));
    sleep(Duration::from_secs(60).saturating_sub(frozen.elapsed())).await;
    crowd.heard_exactly(&stage, &survivors, frozen, &crowd.stranded, &nobody());

    let resumed = Instant::now();
    stage.nodes[VICTIM].signal(Signal::CONT);
    stage.readiness.watch(&stage.nodes[VICTIM]);
    stage.agree_on(&[0, 1, 2], CROWD, &crowd.all, AGREED_MAX).await;
    crowd.sees(&stage, &crowd.all, AGREED_MAX).await;
    case.say(format!(
        "all are back after {:.2} s",
        resumed.elapsed().as_secs_f64()
    ));
    sleep(LEASE + SETTLED).await;
    stage
        .agree_on(&[0, 1, 2], CROWD, &crowd.all, Duration::from_secs(1))
        .await;
    crowd.heard_exactly(&stage, &survivors, frozen, &crowd.stranded, &crowd.stranded);
    crowd.heard_exactly(&stage, &[VICTIM], frozen, &nobody(), &nobody());
    // Also what was published while it stood still, to the last number.
    load.ends_complete().await;
    stage.readiness.never_failed();
}

async fn redis_node_told_to_leave(case: &Case) {
    node_told_to_leave(case, Kind::Redis).await;
}

async fn nats_node_told_to_leave(case: &Case) {
    node_told_to_leave(case, Kind::Nats).await;
}

async fn node_told_to_leave(case: &Case, kind: Kind) {
    let broker = Broker::start(kind);
    let mut stage = three_nodes(case, &broker).await;
    let mut crowd = Crowd::gather(&stage).await;
    let id = stage.nodes[VICTIM].id().await;

    let told = Instant::now();
    stage.readiness.forget("B");
    stage.nodes[VICTIM].signal(Signal::TERM);
    crowd.forget("B");
    let remaining = crowd.remaining();
    crowd.sees(&stage, &remaining, Duration::from_secs(3)).await;
    case.say(format!(
        "its members have left after {:.2} s",
        told.elapsed().as_secs_f64()
    ));
    let status = stage.nodes[VICTIM]
        .leaves(case.bound(Duration::from_secs(10)))
        .await;
    assert!(status.success(), "{status:?}");
    case.say(format!("it has left after {:.2} s", told.elapsed().as_secs_f64()));
    // Longer than the lease: who said goodbye is not lost once more.
    sleep(LEASE + SETTLED).await;
    crowd.heard_exactly(&stage, &[0, 2], told, &crowd.stranded, &nobody());
    stage
        .agree_on(&[0, 2], CROWD, &remaining, Duration::from_secs(1))
        .await;
    for index in [0, 2] {
        assert_eq!(
            stage.nodes[index].metric("cluster_nodes_lost_total").await,
            0.0,
            "a goodbye is no loss"
        );
    }
    assert_eq!(
        broker.traces_of(&id).await,
        Vec::<String>::new(),
        "what is left of node {id}"
    );
    stage.readiness.never_failed();
}

async fn redis_node_comes_late(case: &Case) {
    node_comes_late(case, Kind::Redis).await;
}

async fn nats_node_comes_late(case: &Case) {
    node_comes_late(case, Kind::Nats).await;
}

async fn node_comes_late(case: &Case, kind: Kind) {
    let broker = Broker::start(kind);
    let config = broker.config();
    let mut stage = Stage::set(case, &[config.clone(), config.clone()]).await;
    let crowd = Crowd::gather(&stage).await;
    let begun = Instant::now();
    let late = stage.add(&config).await;
    holds_the_full_view(&stage, late, &crowd, "a new node").await;
    stage.newcomers_see(&[late], CROWD, &crowd.all).await;
    // Without a goodbye, and back before anybody has missed it.
    stage.kill(late);
    stage.start_again(late).await;
    holds_the_full_view(&stage, late, &crowd, "a node that was killed and started again").await;
    stage.nodes[late].signal(Signal::TERM);
    stage.readiness.forget("C");
    stage.nodes[late]
        .leaves(case.bound(Duration::from_secs(10)))
        .await;
    stage.start_again(late).await;
    holds_the_full_view(&stage, late, &crowd, "a node that left and came again").await;
    // The newcomer of this test aside, none of it is news to anybody.
    let newcomer = BTreeSet::from(["newcomer-C".to_owned()]);
    crowd.heard_exactly(&stage, &[0, 1], begun, &newcomer, &newcomer);
    stage.readiness.never_failed();
}

async fn holds_the_full_view(stage: &Stage<'_>, index: usize, crowd: &Crowd, which: &str) {
    // Ready is what load balancers wait for: from then on nobody may be told half of it.
    let users = stage.users(index, CROWD).await;
    let took = stage.nodes[index].started.elapsed();
    assert!(
        users == crowd.all,
        "{which} is ready and lacks some: {}",
        difference(&users, &crowd.all)
    );
    stage.case.say(format!(
        "{which} holds the full view {:.2} s after its start",
        took.as_secs_f64()
    ));
    assert!(took < stage.case.bound(FULL_VIEW_MAX), "{which} took {took:?}");
}

async fn redis_node_cut_off(case: &Case) {
    node_cut_off(case, Kind::Redis).await;
}

async fn nats_node_cut_off(case: &Case) {
    node_cut_off(case, Kind::Nats).await;
}

async fn node_cut_off(case: &Case, kind: Kind) {
    let broker = Broker::start(kind);
    let proxy = Proxy::to(broker.address()).await;
    let (straight, through): (Value, Value) = (broker.config(), broker.config_at(proxy.address()));
    let stage = Stage::set(case, &[straight.clone(), through, straight]).await;
    let mut crowd = Crowd::gather(&stage).await;
    let survivors = [0, 2];

    let cut_off = Instant::now();
    proxy.hold(Way::ToBroker, true);
    proxy.hold(Way::FromBroker, true);
    stage
        .agree_on(&survivors, CROWD, &crowd.remaining(), LOST_MAX)
        .await;
    case.say(format!(
        "its members have left after {:.1} s",
        cut_off.elapsed().as_secs_f64()
    ));
    // On the island life goes on.
    let (gone, come) = crowd.changes_on_the_victim(&stage).await;
    sleep(Duration::from_secs(20).saturating_sub(cut_off.elapsed())).await;
    stage
        .agree_on(&[VICTIM], CROWD, &crowd.all, Duration::from_secs(1))
        .await;
    let lost: BTreeSet<String> = crowd.stranded.union(&gone).cloned().collect();
    crowd.heard_exactly(&stage, &survivors, cut_off, &lost, &nobody());

    let healed = Instant::now();
    proxy.hold(Way::ToBroker, false);
    proxy.hold(Way::FromBroker, false);
    stage.agree_on(&[0, 1, 2], CROWD, &crowd.all, AGREED_MAX).await;
    crowd.sees(&stage, &crowd.all, AGREED_MAX).await;
    case.say(format!(
        "all agree {:.2} s after healing",
        healed.elapsed().as_secs_f64()
    ));
    sleep(LEASE + SETTLED).await;
    stage
        .agree_on(&[0, 1, 2], CROWD, &crowd.all, Duration::from_secs(1))
        .await;
    let back: BTreeSet<String> = crowd.stranded.union(&come).cloned().collect();
    crowd.heard_exactly(&stage, &survivors, cut_off, &lost, &back);
    crowd.forget_who_came_after(cut_off);
    crowd.heard_exactly(&stage, &[VICTIM], cut_off, &gone, &come);
    // Load balancers keep it, and operators are told.
    let told = stage.readiness.between("B", cut_off + DEAF_AFTER, healed);
    assert!(!told.is_empty(), "node B was probed");
    let silent = told.iter().find(|probe| probe.body.contains("\"bus\":\"up\""));
    assert!(silent.is_none(), "node B says that it hears nothing: {silent:?}");
    stage.readiness.never_failed();
}

async fn redis_away_under_a_crowd(case: &Case) {
    away_under_a_crowd(case, Kind::Redis).await;
}

async fn nats_away_under_a_crowd(case: &Case) {
    away_under_a_crowd(case, Kind::Nats).await;
}

/// Nobody is taken for lost because nobody can be heard.
async fn away_under_a_crowd(case: &Case, kind: Kind) {
    let mut broker = Broker::start(kind);
    let stage = three_nodes(case, &broker).await;
    let mut crowd = Crowd::gather(&stage).await;
    let before = crowd.all.clone();

    let away = Instant::now();
    broker.kill();
    let (gone, come) = crowd.changes_on_the_victim(&stage).await;
    sleep(2 * LEASE).await;
    crowd.heard_exactly(&stage, &[0, 2], away, &nobody(), &nobody());
    stage
        .agree_on(&[0, 2], CROWD, &before, Duration::from_secs(1))
        .await;
    stage
        .agree_on(&[VICTIM], CROWD, &crowd.all, Duration::from_secs(1))
        .await;

    broker.start_again();
    let back = Instant::now();
    stage.agree_on(&[0, 1, 2], CROWD, &crowd.all, AGREED_MAX).await;
    crowd.sees(&stage, &crowd.all, AGREED_MAX).await;
    case.say(format!(
        "all agree {:.2} s after its return",
        back.elapsed().as_secs_f64()
    ));
    sleep(LEASE + SETTLED).await;
    stage
        .agree_on(&[0, 1, 2], CROWD, &crowd.all, Duration::from_secs(1))
        .await;
    crowd.forget_who_came_after(away);
    crowd.heard_exactly(&stage, &[0, 1, 2], away, &gone, &come);
    for node in &stage.nodes {
        assert_eq!(
            node.metric("cluster_nodes_lost_total").await,
            0.0,
            "node {} has lost nobody",
            node.name
        );
    }
    stage.readiness.never_failed();
}
