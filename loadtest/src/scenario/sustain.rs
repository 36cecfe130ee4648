//! Publishing for a time, at a rate or with so many events in flight: what is delivered, and how late.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::arguments::Common;
use crate::publisher::Pace;
use crate::result::{Better, Run, Unit};
use crate::swarm::crowd::{Audience, Detail};
use crate::target::ChannelKind;

use super::{Field, Plan, Until, tell_curve};

/// An open loop that has sent that share of what was due has kept its rate.
const KEPT: f64 = 0.99;
/// And whose events are at most that late in the median: else they only pile up. Nanoseconds.
const KEPT_DELAY_NS: u64 = 1_000_000_000;

/// Publishes for a time, at a rate or with so many events in flight.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Clients.
    #[arg(long, env = "NUM_CLIENTS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Channels that they share.
    #[arg(long, env = "NUM_CHANNELS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// To how many of them each client subscribes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    per_client: u32,
    /// Events published per second, come what may: each one's delay counts from when it was due.
    #[arg(long, conflicts_with = "in_flight")]
    rate: Option<f64>,
    /// Events in flight: the next is published when every subscriber has one of them. Without --rate: 16.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: Option<u32>,
    /// How long. Seconds.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// How long is published before that, at the same pace, uncounted. Seconds.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Public, private or presence channels.
    #[arg(long, value_enum, default_value_t = ChannelKind::Public)]
    kind: ChannelKind,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let Options {
        clients,
        channels,
        per_client,
        rate,
        ..
    } = *options;
    ensure!(
        rate.is_none_or(|rate| rate > 0.0),
        "--rate must be more than nothing"
    );
    let pace = match rate {
        Some(rate) => Pace::PerSecond(rate),
        None => Pace::InFlight(options.in_flight.unwrap_or(16) as usize),
    };
    let audiences = [Audience {
        clients,
        channels,
        per_client,
    }];
    let mut field = Field::open(
        common,
        "sustain",
        options.kind,
        &audiences,
        Detail::Ends,
        pace.connections(),
    )?;
    match pace {
        Pace::InFlight(events) => field.run.parameter("in flight", events),
        Pace::PerSecond(per_s) => field.run.parameter("rate (per second)", per_s),
    }
    field.run.parameter("duration (s)", options.duration);
    field.gather()?;
    let mut plan = Plan {
        pace,
        channels: 0..channels,
        until: Until::Time(Duration::from_secs_f64(options.warm_up)),
    };
    if options.warm_up > 0.0 {
        field.rush(&plan, "warming up")?;
    }
    plan.until = Until::Time(Duration::from_secs_f64(options.duration));
    let measured = field.rush(&plan, "measuring")?;

    let (account, requests) = (&measured.account, &measured.requests);
    let delays = account.all_delays();
    let run = &mut field.run;
    let per_s = account.delivered as f64 / measured.elapsed_s;
    run.measured(
        "delivered_per_second",
        "Delivered",
        per_s,
        Unit::PerSecond,
        Better::More,
    );
    let published_per_s = requests.sent as f64 / measured.published_s;
    run.measured(
        "published_per_second",
        "Published",
        published_per_s,
        Unit::PerSecond,
        Better::More,
    );
    // The answer to the question comes first.
    run.figures.rotate_right(2);
    tell_curve(run, "delivery", "Delivery", &delays);
    tell_curve(
        run,
        "last",
        "Until the last subscriber has it",
        &account.until_last(),
    );
    tell_curve(run, "answer", "HTTP answer", &requests.answers);
    let kept = rate.is_some_and(|rate| {
        published_per_s >= rate * KEPT
            && account.lost + requests.refused == 0
            && delays.value_at_quantile(0.5) < KEPT_DELAY_NS
    });
    if rate.is_some() {
        let late_s = requests.lateness.value_at_quantile(0.99) as f64 / 1e9;
        run.measured(
            "lateness_p99",
            "Sent later than due, p99",
            late_s,
            Unit::Seconds,
            Better::Less,
        );
    }
    field.finish(measured, kept)
}
