//! What it costs a full server, and those who are on it, that others come again and again and find no room: the same
//! broadcasts with them and without them, in turn.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;

use crate::arguments::Common;
use crate::publisher::Pace;
use crate::result::{Better, Run, Unit};
use crate::siege::{Attempts, Siege};
use crate::swarm::account::delays;
use crate::swarm::crowd::Detail;

use super::{Attendance, Field, KEPT, Measured, Offer, Plan, Until, quantile_s, rate, seconds, tell_curve};

/// From one turn to the other's: until the last of those who are refused has been told, and has left.
const REST: Duration = Duration::from_millis(2500);

/// Broadcasts on a full server, while others come back every second and are refused, and while they do not.
///
/// The server must have room for the clients and for nobody else (Fanwire: "sockets_max", as many as --clients).
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    attendance: Attendance,
    /// Clients that find no room. Each comes back a second after it was refused, as pusher-js does.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    refused: u32,
    /// Events published per second.
    #[arg(long, default_value = "100", value_parser = rate)]
    rate: f64,
    /// How often there is a turn with them and one without.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How long each turn is. Seconds.
    #[arg(long, default_value = "5s", value_parser = seconds)]
    turn: Duration,
}

/// What the turns of one kind came to.
#[derive(Default)]
struct Share {
    /// From when a broadcast was due until each subscriber had it.
    delays: Vec<Histogram<u64>>,
    refused: u64,
    /// The server's, if its process is known.
    cpu_s: f64,
    lasted_s: f64,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let attendance = &options.attendance;
    let pace = Pace::PerSecond(options.rate);
    let mut field = Field::open(
        common,
        "overload",
        attendance.kind,
        &[attendance.audience()],
        Detail::Ends,
        pace.connections(),
    )?;
    let run = &mut field.run;
    run.parameter("refused clients", options.refused);
    run.parameter("rate (per second)", options.rate);
    run.parameter("turns of each kind", options.pairs);
    run.parameter("turn (s)", options.turn.as_secs_f64());
    // Their descriptors come on top, and their addresses are those of a crowd of their size.
    crate::process::raise_descriptor_limit(u64::from(options.refused + attendance.clients))?;
    let target = Arc::new(common.target(attendance.kind, options.refused)?);
    let siege = Siege::start(target, options.refused as usize)?;
    field.gather()?;

    let mut plan = Plan {
        pace,
        channels: 0..attendance.channels,
        until: Until::Time(options.turn.min(Duration::from_secs(1))),
    };
    field.rush(&plan, "warming up")?;
    plan.until = Until::Time(options.turn);
    let mut shares = [Share::default(), Share::default()];
    let (mut last, mut is_kept): (Option<Measured>, bool) = (None, true);
    for pair in 0..options.pairs {
        // A B B A: what drifts meanwhile is the same for both.
        let order = match pair % 2 {
            0 => [false, true],
            _ => [true, false],
        };
        for comes in order {
            if field.is_stopped() {
                break;
            }
            siege.come(comes);
            let mut watch = field.begin()?;
            field.idle_for(REST, &mut watch)?;
            let before = siege.attempts();
            let phase = if comes { "others are refused" } else { "alone" };
            let measured = field.rush(&plan, phase)?;
            let attempts = siege.attempts().since(before);
            ensure!(
                attempts.let_in == 0,
                "{} of those who were to be refused were let in: the server must have room for --clients and nobody else",
                attempts.let_in
            );
            shares[usize::from(comes)].add(&measured, attempts);
            is_kept &= measured.requests.sent as f64 >= options.rate * measured.published_s * KEPT
                && measured.account.lost + measured.requests.refused == 0;
            if let Some(before) = last.replace(measured) {
                before.count_faults(&mut field.run);
            }
        }
    }
    let last = last.context("it was ended before anything was measured")?;
    let attempts = siege.end()?;
    let run = &mut field.run;
    let figures = run.figures.len();
    tell(run, &shares, attempts);
    // The answer to the question comes first.
    run.figures.rotate_left(figures);
    field.finish(last, Offer::open(is_kept))
}

fn tell(run: &mut Run, shares: &[Share; 2], attempts: Attempts) {
    let [alone, besieged] = shares;
    let (calm, during) = (sum(&alone.delays), sum(&besieged.delays));
    tell_curve(run, "delivery", "Delivery, while others are refused", &during);
    tell_curve(run, "delivery_alone", "Delivery, alone", &calm);
    let mut measured = |key, title, value, unit, better| run.measured(key, title, value, unit, better);
    for (key, title, quantile) in [
        ("p50_ratio", "p50 while others are refused, to alone", 0.5),
        ("p99_ratio", "p99 while others are refused, to alone", 0.99),
    ] {
        let ratio = quantile_s(&during, quantile) / quantile_s(&calm, quantile);
        measured(key, title, ratio, Unit::Ratio, Better::Less);
    }
    measured(
        "refused_per_second",
        "Refused",
        besieged.refused as f64 / besieged.lasted_s,
        Unit::PerSecond,
        Better::Neither,
    );
    if besieged.cpu_s > 0.0 {
        let cores = besieged.cpu_s / besieged.lasted_s - alone.cpu_s / alone.lasted_s;
        measured(
            "server_cpu_of_refusals",
            "Server CPU of refusals, share of a core",
            cores,
            Unit::Share,
            Better::Less,
        );
        measured(
            "server_cpu_per_refusal",
            "Server CPU per refusal",
            cores * besieged.lasted_s / besieged.refused as f64,
            Unit::Seconds,
            Better::Less,
        );
    }
    measured(
        "told_late",
        "Refused so late that pusher-js would have hung up",
        attempts.late as f64 / attempts.refused as f64,
        Unit::Share,
        Better::Less,
    );
    measured(
        "ended_untold",
        "Attempts that ended without a word",
        attempts.failed as f64 / attempts.begun as f64,
        Unit::Share,
        Better::Less,
    );
}

fn sum(all: &[Histogram<u64>]) -> Histogram<u64> {
    let mut sum = delays();
    for one in all {
        sum.add(one).expect("both have the same limits");
    }
    sum
}

impl Share {
    fn add(&mut self, measured: &Measured, attempts: Attempts) {
        self.delays.push(measured.account.all_delays());
        self.refused += attempts.refused;
        self.cpu_s += measured.seen.server.map_or(0.0, |cpu| cpu.exact.as_secs_f64());
        self.lasted_s += measured.published_s;
    }
}
