//! Random faults under load, for as long as one likes. The dice are printed, so that a run can be had again.

use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::brokers::{Broker, Kind, Proxy, Way};
use crate::case::Case;
use crate::load::{Load, LoadShape};
use crate::stage::Stage;
use crate::{Entry, entry};

pub(crate) fn cases(seconds: u64) -> Vec<Entry> {
    vec![entry!(redis_soak, seconds + 15), entry!(nats_soak, seconds + 15)]
}

async fn redis_soak(case: &Case) {
    soak(case, Kind::Redis).await;
}

async fn nats_soak(case: &Case) {
    soak(case, Kind::Nats).await;
}

/// Nodes A and B are never killed: what they tell each other must be complete. C dies and comes back at random.
async fn soak(case: &Case, kind: Kind) {
    let mut dice = case.soak.dice();
    case.say(format!(
        "--seconds {} --seed {}",
        case.soak.length.as_secs(),
        case.soak.seed
    ));
    let mut broker = Broker::start(kind);
    let proxy = Proxy::to(broker.address()).await;
    let (straight, through) = (broker.config(), broker.config_at(proxy.address()));
    let mut stage = Stage::set(case, &[straight.clone(), through, straight]).await;
    let mut load = Load::begin(LoadShape::default(), &stage.nodes, &[0, 1, 2]).await;
    while case.elapsed() < case.soak.length {
        let length = Duration::from_millis(dice.random_range(100..4000));
        match dice.random_range(0..7) {
            0 => {
                case.say(format!("the broker is dead for {length:?}"));
                broker.kill();
                sleep(length).await;
                broker.start_again();
            }
            1 => {
                case.say(format!("the broker is frozen for {length:?}"));
                broker.freeze();
                sleep(length).await;
                broker.thaw();
            }
            2 => {
                case.say("the connections of B are cut");
                proxy.cut();
            }
            3 => {
                let way = [Way::ToBroker, Way::FromBroker][dice.random_range(0..2)];
                case.say(format!("B is held {way:?} for {length:?}"));
                proxy.hold(way, true);
                sleep(length).await;
                proxy.hold(way, false);
            }
            4 => {
                case.say(format!("B has no broker for {length:?}"));
                proxy.refuse(true);
                proxy.cut();
                sleep(length).await;
                proxy.refuse(false);
            }
            5 => {
                case.say(format!("A is frozen for {length:?}"));
                stage.readiness.forget("A");
                stage.nodes[0].signal(Signal::STOP);
                sleep(length).await;
                stage.nodes[0].signal(Signal::CONT);
                stage.readiness.watch(&stage.nodes[0]);
            }
            _ => {
                case.say(format!("C is dead for {length:?}"));
                load.node_died("C");
                stage.kill(2);
                sleep(length).await;
                stage.start_again(2).await;
                load.listen(&stage.nodes[2]).await;
                load.speak(&stage.nodes[2]).await;
            }
        }
        let bound = case.bound(Duration::from_secs(5));
        let caught_up = load.caught_up(Instant::now(), bound).await;
        let took = caught_up.unwrap_or_else(|waits| panic!("{bound:?} later {waits}"));
        case.say(format!("heard everywhere {:.2} s later", took.as_secs_f64()));
        sleep(Duration::from_millis(dice.random_range(0..1000))).await;
    }
    load.ends_complete().await;
    stage.readiness.never_failed();
}
