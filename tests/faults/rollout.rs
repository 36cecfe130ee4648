//! Sockets sent away on purpose: ten thousand of a node that is told to leave, and those that are shed after a scale-up.
//! How evenly they are closed, what those hear who are not yet closed, and how long each is without a connection.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::brokers::{Broker, Kind};
use crate::case::Case;
use crate::stage::Stage;
use crate::support::http::Http;
use crate::support::raw::Raw;
use crate::swarm::{Balancer, Choice, Life, Swarm, Ticker};
use crate::{Entry, entry};

pub(crate) fn cases() -> Vec<Entry> {
    vec![
        entry!(drain_of_10_000_sockets, 60),
        entry!(shed_after_a_scale_up, 60),
        entry!(drain_while_redis_is_frozen, 15),
    ]
}

const SOCKETS: usize = 10_000;
/// Time for the balancer to hear of it before the first close.
const DELAY_S: u32 = 2;
const DRAIN_S: u32 = 20;
/// Between two events.
const PAUSE: Duration = Duration::from_millis(500);
/// What was published so long before a socket was closed has reached it, however busy the machine is.
const DELIVERED: Duration = Duration::from_secs(1);

fn leaving(broker: &Broker, delay_s: u32, drain_s: u32) -> Value {
    let mut config = broker.config();
    config["drain"] = json!({ "delay_s": delay_s, "drain_s": drain_s });
    config
}

async fn drain_of_10_000_sockets(case: &Case) {
    let broker = Broker::start(Kind::Redis);
    let config = leaving(&broker, DELAY_S, DRAIN_S);
    let mut stage = Stage::set(case, &[config.clone(), config]).await;
    stage.readiness.forget("A");
    let balancer = Balancer::new(Choice::Fewest);
    balancer.add(&stage.nodes[0]);
    let began = Instant::now();
    let swarm = Swarm::gather(SOCKETS, &balancer).await;
    case.say(format!(
        "{SOCKETS} sockets are on A after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    balancer.add(&stage.nodes[1]);
    let probe = balancer.probe(&stage.nodes[0]);
    let ticker = Ticker::begin(&stage.nodes[1], PAUSE).await;
    // Until now all of them are there, and would stay.
    sleep(4 * PAUSE).await;

    case.is_set_up();
    let told = Instant::now();
    stage.nodes[0].signal(Signal::TERM);
    is_refused_once_it_is_unready(&stage).await;
    let longest = Duration::from_secs(u64::from(DELAY_S + DRAIN_S + fanwire::config::LEAVING_S));
    let status = stage.nodes[0].leaves(longest).await;
    let left = told.elapsed();
    assert_eq!(status.code(), Some(0), "it leaves in good order");
    probe.abort();
    case.say(format!("A has left after {:.1} s", left.as_secs_f64()));

    let sent = ticker.end(SOCKETS).await;
    let lives = swarm.lives().await;
    assert_eq!(lives.len(), SOCKETS);
    all_came_back_once(&lives);
    no_second_has_twice_its_part(case, told, &lives);
    everybody_heard_all(&sent, &lives);
    let refused: usize = lives.iter().map(|life| life.refused).sum();
    let mut without: Vec<Duration> = lives.iter().flat_map(Life::without_connection).collect();
    let mut delays: Vec<Duration> = Vec::new();
    for stay in lives.iter().flat_map(|life| &life.stays) {
        let since = |(number, at): &(u32, Instant)| *at - sent[*number as usize].0;
        delays.extend(stay.heard.iter().map(since));
    }
    case.say(format!("without a connection: {}", spread(&mut without)));
    case.say(format!(
        "{} deliveries meanwhile: {}; {refused} handshakes refused",
        delays.len(),
        spread(&mut delays)
    ));
}

/// From the moment that the node is unready, new sockets are refused by a code that sends them on.
async fn is_refused_once_it_is_unready(stage: &Stage<'_>) {
    let node = &stage.nodes[0];
    let began = Instant::now();
    while node.admin("/ready").await.status != 503 {
        assert!(began.elapsed() < Duration::from_secs(10), "it is unready at once");
    }
    let mut late = Raw::connect(node.address)
        .await
        .upgraded("/app/key?protocol=7", "")
        .await;
    assert_eq!(late.frame().await.expect("an error").json()["data"]["code"], 4100);
    assert_eq!(late.expect_close().await.0, 4100);
}

fn all_came_back_once(lives: &[Life]) {
    for life in lives {
        let nodes: Vec<usize> = life.stays.iter().map(|stay| stay.node).collect();
        assert_eq!(nodes, [0, 1], "each was on A, then on B, and nowhere else");
    }
}

fn no_second_has_twice_its_part(case: &Case, told: Instant, lives: &[Life]) {
    let closes = lives.iter().filter_map(|life| life.stays[0].closed);
    let mut seconds = vec![0_usize; (DELAY_S + DRAIN_S) as usize + 8];
    for (_, at) in closes {
        let second = (at - told).as_secs() as usize;
        seconds[second.min(DELAY_S as usize + DRAIN_S as usize + 7)] += 1;
    }
    case.say(format!("closes per second: {seconds:?}"));
    let mean = SOCKETS as f64 / f64::from(DRAIN_S);
    // What this test was held up shows as closes of one second that it hears in the next.
    let most = 2.0 * mean * case.bound(Duration::from_secs(1)).as_secs_f64();
    for (second, count) in seconds.iter().enumerate() {
        assert!(
            *count as f64 <= most,
            "{count} closes in second {second}, at a mean of {mean}"
        );
    }
    assert!(
        seconds[..DELAY_S as usize - 1].iter().all(|count| *count == 0),
        "{seconds:?}"
    );
}

/// Each heard every event from its first to its last on a node: all that were published from its subscription until shortly
/// before its close.
fn everybody_heard_all(sent: &[(Instant, Instant)], lives: &[Life]) {
    for (number, life) in lives.iter().enumerate() {
        for stay in &life.stays {
            let heard: Vec<usize> = stay.heard.iter().map(|(number, _)| *number as usize).collect();
            let first = heard.first().copied().unwrap_or(sent.len());
            let is_whole = heard.iter().copied().eq(first..first + heard.len());
            let from = sent.partition_point(|(at, _)| *at <= stay.subscribed);
            let until = match stay.closed {
                Some((_, at)) => sent.partition_point(|(_, answered)| *answered + DELIVERED < at),
                None => sent.len(),
            };
            assert!(
                is_whole && (from >= until || (first <= from && until <= first + heard.len())),
                "client {number} on node {} was to hear {from} to {until}, and heard {heard:?}",
                stay.node
            );
        }
    }
}

/// The middle, the last hundredth and the longest.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

/// Two nodes have all sockets, two more come, and the first two shed: how even it is then depends on who balances.
async fn shed_after_a_scale_up(case: &Case) {
    const CROWD: usize = 2_000;
    const OVER_S: u32 = 5;
    for (choice, percent) in [(Choice::Fewest, 50), (Choice::InTurn, 100)] {
        let broker = Broker::start(Kind::Redis);
        let config = leaving(&broker, 0, 0);
        let mut stage = Stage::set(case, &[config.clone(), config.clone()]).await;
        let balancer = Balancer::new(choice);
        stage.nodes.iter().for_each(|node| balancer.add(node));
        let swarm = Swarm::gather(CROWD, &balancer).await;
        for _ in 0..2 {
            let index = stage.add(&config).await;
            balancer.add(&stage.nodes[index]);
        }
        stage.everybody_knows_everybody().await;
        let ticker = Ticker::begin(&stage.nodes[2], PAUSE).await;
        let asked = Instant::now();
        for node in &stage.nodes[..2] {
            let path = format!("/shed?percent={percent}&over_s={OVER_S}");
            let answer = Http::connect(node.admin_address)
                .await
                .ask("POST", &path, "")
                .await;
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        let expected = CROWD / 4;
        loop {
            let counts: Vec<usize> = balancer.places().iter().map(|place| place.connections).collect();
            let is_even = counts
                .iter()
                .all(|count| count.abs_diff(expected) <= expected / 10);
            if is_even && asked.elapsed() > Duration::from_secs(u64::from(OVER_S) + 1) {
                case.say(format!(
                    "{choice:?}: {percent} % shed over {OVER_S} s, then they have {counts:?} sockets"
                ));
                break;
            }
            assert!(
                asked.elapsed() < Duration::from_secs(u64::from(OVER_S) + 20),
                "{choice:?}: {counts:?} sockets"
            );
            sleep(Duration::from_millis(100)).await;
        }
        let sent = ticker.end(CROWD).await;
        let lives = swarm.lives().await;
        everybody_heard_all(&sent, &lives);
        let mut without: Vec<Duration> = lives.iter().flat_map(Life::without_connection).collect();
        case.say(format!(
            "{choice:?}: {} sockets moved; without a connection: {}",
            without.len(),
            spread(&mut without)
        ));
        assert!(lives.iter().all(|life| life.refused == 0), "every node has room");
        stage.readiness.never_failed();
    }
}

/// A broker that does not answer holds nobody up.
async fn drain_while_redis_is_frozen(case: &Case) {
    let broker = Broker::start(Kind::Redis);
    let config = leaving(&broker, 0, 1);
    let mut stage = Stage::set(case, std::slice::from_ref(&config)).await;
    stage.readiness.forget("A");
    let mut client = stage.nodes[0].connect().await;
    client.join("presence-a", "1").await;
    broker.freeze();
    let told = Instant::now();
    stage.nodes[0].signal(Signal::TERM);
    assert_eq!(client.expect_close().await.0, 4200);
    drop(client);
    let longest = Duration::from_secs(1 + u64::from(fanwire::config::LEAVING_S));
    assert_eq!(stage.nodes[0].leaves(longest).await.code(), Some(0));
    case.say(format!("it has left after {:.1} s", told.elapsed().as_secs_f64()));
    broker.thaw();
}
