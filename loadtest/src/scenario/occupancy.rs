//! What it costs a busy channel that other channels become occupied and vacated all the time, and that a back end is told
//! of each by a webhook: the same happens in two apps in turn, one with webhooks and one without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;

use crate::arguments::Common;
use crate::publisher::Pace;
use crate::receiver::{Manner, Received, Receiver};
use crate::result::{Better, Run, Unit};
use crate::swarm::account::delays;
use crate::swarm::crowd::Detail;
use crate::target::ChannelKind;
use crate::turnover::{STAY, Turnover, Turns};

use super::{Attendance, Field, KEPT, Measured, Offer, Plan, Until, quantile_s, rate, seconds, tell_curve};

/// From one app's turn to the other's: until the channels of the one are vacated, and its back end was told.
const REST: Duration = Duration::from_millis(400);

/// Broadcasts while other channels become occupied and vacated, with webhooks and without.
///
/// Both apps are on one server, and broadcasts go to the first one. Its webhooks go to http://127.0.0.1:PORT/ of this
/// machine, and are counted there (--receiver). Should they wait for a grace before a channel counts as vacated, then for
/// 100 ms at most (Fanwire: "webhook_grace_ms": 100).
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    attendance: Attendance,
    /// Events published per second.
    #[arg(long, default_value = "20", value_parser = rate)]
    rate: f64,
    /// Channels that become occupied per second; as many become vacated.
    #[arg(long, default_value = "833", value_parser = rate)]
    turnover: f64,
    /// The key of the other app, which has no webhooks.
    #[arg(long, default_value = "app-key-2", value_name = "KEY")]
    without: String,
    /// The port where webhooks are received.
    #[arg(long, value_name = "PORT")]
    receiver: u16,
    /// No webhook is ever answered.
    #[arg(long)]
    hangs: bool,
    /// How often both apps have their turn.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How long each turn is. Seconds.
    #[arg(long, default_value = "3s", value_parser = seconds)]
    turn: Duration,
}

/// The apps, in this order.
const WITH: usize = 0;
const WITHOUT: usize = 1;

/// What the turns of one app came to.
#[derive(Default)]
struct Share {
    /// From when a broadcast was due until each subscriber had it, of each turn.
    delays: Vec<Histogram<u64>>,
    /// Channels that became occupied, and that were vacated.
    changes: u64,
    received: Received,
    /// The server's, if its process is known.
    cpu_s: f64,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let attendance = &options.attendance;
    ensure!(
        attendance.kind != ChannelKind::Presence,
        "--kind presence would tell the back end of members as well: say public or private"
    );
    let manner = if options.hangs {
        Manner::Hangs
    } else {
        Manner::Answers
    };
    let pace = Pace::PerSecond(options.rate);
    let receiver = Receiver::start(options.receiver, manner)?;
    let mut field = Field::open(
        common,
        "occupancy",
        attendance.kind,
        &[attendance.audience()],
        Detail::Ends,
        pace.connections(),
    )?;
    let run = &mut field.run;
    run.parameter("rate (per second)", options.rate);
    run.parameter("occupied, and vacated (per second)", options.turnover);
    run.parameter("webhooks", if options.hangs { "hang" } else { "are answered" });
    run.parameter("turns of each app", options.pairs);
    run.parameter("turn (s)", options.turn.as_secs_f64());
    let other = Common {
        key: options.without.clone(),
        ..common.clone()
    };
    let other = other.target(ChannelKind::Public, 1)?;
    let turnover = Turnover::start(&[&field.target, &other], options.turnover)?;
    field.gather()?;

    let mut plan = Plan {
        pace,
        channels: 0..attendance.channels,
        until: Until::Time(options.turn.min(Duration::from_secs(1))),
    };
    for app in [WITHOUT, WITH] {
        turnover.turn(app);
        field.rush(&plan, "warming up")?;
    }
    plan.until = Until::Time(options.turn);
    let mut shares = [Share::default(), Share::default()];
    let (mut last, mut is_kept): (Option<Measured>, bool) = (None, true);
    for pair in 0..options.pairs {
        // A B B A: what drifts meanwhile is the same for both.
        let order = match pair % 2 {
            0 => [WITHOUT, WITH],
            _ => [WITH, WITHOUT],
        };
        for app in order {
            if field.is_stopped() {
                break;
            }
            turnover.turn(app);
            let mut watch = field.begin()?;
            field.idle_for(STAY + REST, &mut watch)?;
            let (turns, received) = (turnover.turns(), receiver.received());
            let phase = match app {
                WITH => "with webhooks",
                _ => "without webhooks",
            };
            let measured = field.rush(&plan, phase)?;
            shares[app].add(
                &measured,
                turnover.turns().since(turns),
                receiver.received().since(received),
            );
            is_kept &= measured.requests.sent as f64 >= options.rate * measured.published_s * KEPT
                && measured.account.lost + measured.requests.refused == 0;
            if let Some(before) = last.replace(measured) {
                before.count_faults(&mut field.run);
            }
        }
    }
    let last = last.context("it was ended before anything was measured")?;
    let turns = turnover.end()?;
    let run = &mut field.run;
    run.faults.lost += turns.occupied.saturating_sub(turns.acknowledged);
    let figures = run.figures.len();
    tell(run, &shares);
    // The answer to the question comes first.
    run.figures.rotate_left(figures);
    if common.pid.is_some() {
        tell_cpu(run, &shares);
    }
    field.finish(last, Offer::open(is_kept))
}

/// How soon broadcasts came with webhooks and without, and how many of these did.
fn tell(run: &mut Run, shares: &[Share; 2]) {
    let [with, without] = shares;
    let (during, alone) = (sum(&with.delays), sum(&without.delays));
    tell_curve(run, "delivery", "Delivery, with webhooks", &during);
    tell_curve(run, "delivery_without", "Delivery, without", &alone);
    // One half of the turns without webhooks against the other: as far apart as the machine makes them.
    let half = |odd| without.delays.iter().skip(odd).step_by(2);
    let (even, odd) = (sum(half(0)), sum(half(1)));
    for (key, title, quantile, one, other) in [
        ("p50_ratio", "p50 with webhooks to without", 0.5, &during, &alone),
        ("p99_ratio", "p99 with webhooks to without", 0.99, &during, &alone),
        (
            "p99_ratio_of_nothing",
            "p99 of one half without to the other",
            0.99,
            &even,
            &odd,
        ),
    ] {
        let ratio = quantile_s(one, quantile) / quantile_s(other, quantile);
        run.measured(key, title, ratio, Unit::Ratio, Better::Less);
    }
    let mut pairs: Vec<f64> = (with.delays.iter().zip(&without.delays))
        .map(|(with, without)| quantile_s(with, 0.99) / quantile_s(without, 0.99))
        .filter(|ratio| ratio.is_finite())
        .collect();
    pairs.sort_unstable_by(f64::total_cmp);
    run.measured(
        "p99_ratio_of_pairs",
        "p99 with webhooks to without, in the median of all pairs of turns",
        pairs.get(pairs.len() / 2).copied().unwrap_or(f64::NAN),
        Unit::Ratio,
        Better::Less,
    );
    let Received {
        requests,
        events,
        changes,
    } = with.received;
    for (key, title, count) in [
        (
            "told_share",
            "Channels occupied or vacated, of which the back end was told",
            changes,
        ),
        (
            "events_per_change",
            "Events that it was told, for each of them",
            events,
        ),
        ("requests_per_change", "Requests, for each of them", requests),
    ] {
        let (unit, better) = match key {
            "told_share" => (Unit::Share, Better::More),
            _ => (Unit::Ratio, Better::Neither),
        };
        run.measured(key, title, count as f64 / with.changes as f64, unit, better);
    }
}

/// What the server spent on webhooks: on channels that become occupied and vacated it spends the same in both apps.
fn tell_cpu(run: &mut Run, shares: &[Share; 2]) {
    let [with, without] = shares;
    let per_change = |share: &Share| share.cpu_s / share.changes as f64;
    let webhooks_s = per_change(with) - per_change(without);
    let mut measured = |key, title, cpu_s| run.measured(key, title, cpu_s, Unit::Seconds, Better::Less);
    measured(
        "server_cpu_per_change",
        "Server CPU of webhooks for each channel occupied or vacated",
        webhooks_s,
    );
    if with.received.events > 0 {
        measured(
            "server_cpu_per_webhook",
            "Server CPU of webhooks for each event that was told",
            webhooks_s * with.changes as f64 / with.received.events as f64,
        );
    }
}

fn sum<'a>(all: impl IntoIterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut sum = delays();
    for one in all {
        sum.add(one).expect("both have the same limits");
    }
    sum
}

impl Share {
    fn add(&mut self, measured: &Measured, turns: Turns, received: Received) {
        self.delays.push(measured.account.all_delays());
        self.changes += turns.occupied + turns.vacated;
        self.received = self.received.and(received);
        self.cpu_s += measured.seen.server.map_or(0.0, |cpu| cpu.exact.as_secs_f64());
    }
}
