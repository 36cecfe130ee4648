//! Mass disconnects and reconnects while events are broadcast: nothing may be lost for those who stay, and nothing from the
//! acknowledgement on for those who come back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::arguments::Common;
use crate::publisher::Pace;
use crate::result::{Better, Run, Unit};
use crate::swarm::account::delays;
use crate::swarm::crowd::{Audience, Detail};
use crate::target::ChannelKind;

use super::{Field, KEPT, Offer, Plan, Until, quantile_s, rate, seconds, share, tell_curve};

/// Lets a share of the clients drop and come back, again and again, while events are broadcast.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Clients.
    #[arg(long, env = "NUM_CLIENTS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..))]
    clients: u32,
    /// Channels that they share.
    #[arg(long, env = "NUM_CHANNELS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// The share of them that drops and comes back at once, 0 to 1.
    #[arg(long, default_value = "0.3", value_parser = share)]
    share: f64,
    /// How often. Seconds.
    #[arg(long, default_value = "2s", value_parser = seconds)]
    every: Duration,
    /// Events published per second, come what may.
    #[arg(long, default_value = "100", value_parser = rate)]
    rate: f64,
    /// How long. Before that the same is published for half of it while everybody stays. Seconds.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    duration: Duration,
    /// How many may be on their way back at a time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    on_their_way: u32,
    /// Public, private or presence channels.
    #[arg(long, value_enum, default_value_t = ChannelKind::Public)]
    kind: ChannelKind,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let clients = options.clients;
    let leaving = (f64::from(clients) * options.share) as u32;
    ensure!(
        leaving > 0 && leaving < clients,
        "with --share {} of {clients} clients {leaving} drop: some have to drop, and some have to stay",
        options.share
    );
    let pace = Pace::PerSecond(options.rate);
    let audiences = [Audience {
        clients,
        channels: options.channels,
        per_client: 1,
    }];
    let mut field = Field::open(
        common,
        "churn",
        options.kind,
        &audiences,
        Detail::Ends,
        pace.connections(),
    )?;
    field.run.parameter("rate (per second)", options.rate);
    field.run.parameter("drop and come back", leaving);
    field.run.parameter("every (s)", options.every.as_secs_f64());
    field
        .run
        .parameter("duration (s)", options.duration.as_secs_f64());
    field.run.parameter("on their way", options.on_their_way);
    let mut tickets = field.tickets();
    let stay = clients - leaving;
    for ticket in tickets.iter_mut().skip(stay as usize) {
        ticket.is_awaited = false;
    }
    let visitors = tickets[stay as usize..].to_vec();
    field.bring(tickets)?;
    field.crowd.set_connecting_max(options.on_their_way as usize);

    let mut plan = Plan {
        pace,
        channels: 0..options.channels,
        until: Until::Time(options.duration / 2),
    };
    let alone = field.rush(&plan, "while everybody stays")?;
    plan.until = Until::Time(options.duration);
    let (mut times, mut dropped) = (delays(), 0_u32);
    let mut away: Option<Away> = None;
    let mut next = Instant::now() + options.every / 2;
    let measured = field.rush_with(&[plan], "while some drop and come back", |field| {
        let (now, totals) = (Instant::now(), field.board.totals());
        let ended = totals.failed + totals.closed;
        if let Some(Away { since, ended: before }) = away
            && totals.live + (ended - before) >= clients
        {
            times.saturating_record((now - since).as_nanos() as u64);
            away = None;
        }
        if away.is_none() && now >= next {
            away = Some(Away { since: now, ended });
            dropped += 1;
            next = now + options.every;
            field.crowd.dismiss(&(stay..clients))?;
            field.crowd.admit(visitors.clone());
        }
        Ok(())
    })?;
    let arrivals = field.crowd.arrivals()?;

    let (before, during) = (alone.account.all_delays(), measured.account.all_delays());
    let published_per_s = measured.requests.sent as f64 / measured.published_s;
    let run = &mut field.run;
    let figures = run.figures.len();
    tell_curve(
        run,
        "stay",
        "Delivery to those who stay, while others drop",
        &during,
    );
    tell_curve(run, "stay_before", "Delivery to them before that", &before);
    let ratio = quantile_s(&during, 0.99) / quantile_s(&before, 0.99);
    run.measured(
        "stay_p99_ratio",
        "Their p99 while others drop to before",
        ratio,
        Unit::Ratio,
        Better::Less,
    );
    tell_curve(
        run,
        "return",
        "From coming back until subscribed",
        &arrivals.handshakes,
    );
    tell_curve(run, "all_back", "From a drop until everybody is back", &times);
    tell_curve(
        run,
        "returned_delivery",
        "Delivery to those who drop and come back",
        &measured.account.visitors,
    );
    run.measured("drops", "Drops", f64::from(dropped), Unit::Count, Better::Neither);
    run.measured(
        "returns",
        "Sockets that came back",
        arrivals.handshakes.len() as f64,
        Unit::Count,
        Better::Neither,
    );
    run.measured(
        "delivered_per_second",
        "Delivered",
        measured.account.delivered as f64 / measured.elapsed_s,
        Unit::PerSecond,
        Better::More,
    );
    // The answer to the question comes first.
    run.figures.rotate_left(figures);
    if f64::from(dropped) < options.duration.as_secs_f64() / options.every.as_secs_f64() - 1.0 {
        run.notes.push(format!(
            "Not everybody was back before the next drop was due: there were {dropped} drops only."
        ));
    }
    run.notes.push(
        "Those who come back are owed everything that is published from the acknowledgement of their subscription on."
            .to_owned(),
    );
    run.faults.examples.extend(arrivals.ends);
    alone.count_faults(run);
    let kept =
        published_per_s >= options.rate * KEPT && measured.account.lost + measured.requests.refused == 0;
    field.finish(measured, Offer::open(kept))
}

/// A share of the clients has dropped.
struct Away {
    since: Instant,
    /// Sockets that had failed or been closed until then.
    ended: u32,
}
