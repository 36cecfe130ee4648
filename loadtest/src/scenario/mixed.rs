//! One huge channel beside many small ones: what the small ones' events suffer while the huge one is broadcast to without
//! a pause.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::arguments::Common;
use crate::publisher::Pace;
use crate::result::{Better, Run, Unit};
use crate::swarm::crowd::{Audience, Detail};
use crate::target::ChannelKind;

use super::{Field, Offer, Plan, Until, quantile_s, rate, seconds, tell_curve};

/// Publishes to many small channels, first alone, then while one huge channel is being broadcast to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Subscribers of the huge channel.
    #[arg(long, env = "NUM_CLIENTS", default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(1..))]
    huge: u32,
    /// Small channels.
    #[arg(long, env = "NUM_CHANNELS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    small_channels: u32,
    /// Subscribers of each small channel.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    small_clients: u32,
    /// Events per second to the small channels, to each in turn.
    #[arg(long, default_value = "200", value_parser = rate)]
    rate: f64,
    /// Events of the huge channel in flight.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// How long, both alone and together. Seconds.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    duration: Duration,
    /// Public, private or presence channels.
    #[arg(long, value_enum, default_value_t = ChannelKind::Public)]
    kind: ChannelKind,
}

/// The audiences, in this order.
const SMALL: usize = 0;
const HUGE: usize = 1;

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let Options {
        huge, small_channels, ..
    } = *options;
    // This thread publishes, another one has the small channels and the rest the huge one: what a thread has to read for
    // thousands of others must not look like a delay of the server.
    let common = &Common {
        threads: common.threads.max(1) + 2,
        ..common.clone()
    };
    ensure!(
        options.duration > Duration::ZERO,
        "--duration must be more than nothing"
    );
    let small = small_channels * options.small_clients;
    let audiences = [
        Audience {
            clients: small,
            channels: small_channels,
            per_client: 1,
        },
        Audience {
            clients: huge,
            channels: 1,
            per_client: 1,
        },
    ];
    let beside = Plan {
        pace: Pace::PerSecond(options.rate),
        channels: 0..small_channels,
        until: Until::Time(options.duration),
    };
    let broadcast = Plan {
        pace: Pace::InFlight(options.in_flight as usize),
        channels: small_channels..small_channels + 1,
        until: Until::Time(options.duration),
    };
    let connections = beside.pace.connections() + broadcast.pace.connections();
    let mut field = Field::open(
        common,
        "mixed",
        options.kind,
        &audiences,
        Detail::Ends,
        connections,
    )?;
    for (name, value) in [
        ("subscribers of the huge channel", huge),
        ("small channels", small_channels),
        ("subscribers of each small channel", options.small_clients),
        ("in flight to the huge channel", options.in_flight),
    ] {
        field.run.parameter(name, value);
    }
    field
        .run
        .parameter("rate to the small channels (per second)", options.rate);
    let mut tickets = field.tickets();
    let of_huge = tickets.split_off(small as usize);
    // On a full machine those who look at the small channels must not be what is late.
    field.crowd.hurry(0);
    field.crowd.hurry(1);
    field.crowd.admit_on(1..2, tickets);
    field.wait_for(small)?;
    field.bring_on(2..common.threads, of_huge)?;

    let mut warm_up = beside.clone();
    warm_up.until = Until::Time(options.duration.min(Duration::from_secs(1)));
    field.rush(&warm_up, "warming up")?;
    let alone = field.rush(&beside, "the small channels alone")?;
    let together = field.rush_with(&[beside, broadcast], "beside the huge channel", |_| Ok(()))?;

    let of_huge = &together.account.delays[HUGE];
    let (before, during) = (&alone.account.delays[SMALL], &together.account.delays[SMALL]);
    let run = &mut field.run;
    let figures = run.figures.len();
    tell_curve(run, "small", "Small channels beside the huge one", during);
    tell_curve(run, "small_alone", "Small channels alone", before);
    for (quantile, key, title) in [
        (
            0.5,
            "small_p50_ratio",
            "Small channels' p50 beside the huge one to alone",
        ),
        (
            0.99,
            "small_p99_ratio",
            "Small channels' p99 beside the huge one to alone",
        ),
    ] {
        let ratio = quantile_s(during, quantile) / quantile_s(before, quantile);
        run.measured(key, title, ratio, Unit::Ratio, Better::Less);
    }
    tell_curve(run, "huge", "The huge channel", of_huge);
    let per_s = of_huge.len() as f64 / together.elapsed_s;
    run.measured(
        "huge_delivered_per_second",
        "Delivered to the huge channel",
        per_s,
        Unit::PerSecond,
        Better::More,
    );
    let broadcasts = of_huge.len() as f64 / f64::from(huge);
    run.measured(
        "huge_broadcast_time",
        "The huge channel: from one broadcast to the next",
        together.published_s / broadcasts,
        Unit::Seconds,
        Better::Less,
    );
    for (key, title, requests) in [
        (
            "answer",
            "HTTP answer beside the huge channel",
            &together.requests,
        ),
        ("answer_alone", "HTTP answer alone", &alone.requests),
    ] {
        tell_curve(run, key, title, &requests.answers);
    }
    // The answer to the question comes first.
    run.figures.rotate_left(figures);
    run.notes.push(format!(
        "Delays count from when an event was due; this program sent them later than that by {:.2} ms (p99) alone and \
         {:.2} ms beside the huge channel.",
        lateness_ms(&alone.requests.lateness),
        lateness_ms(&together.requests.lateness)
    ));
    alone.count_faults(run);
    field.finish(together, Offer::Closed)
}

fn lateness_ms(lateness: &hdrhistogram::Histogram<u64>) -> f64 {
    quantile_s(lateness, 0.99) * 1e3
}
