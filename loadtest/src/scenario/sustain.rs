//! Publishing for a time, at a rate or with so many events in flight: what is delivered, and how late.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::arguments::Common;
use crate::publisher::Pace;
use crate::result::{Better, Run, Unit};
use crate::swarm::account::delays;
use crate::swarm::crowd::Detail;

use super::{
    Attendance, Field, KEPT, Measured, Offer, Plan, Until, quantile_s, seconds, tell_curve, tell_series,
};

/// An open loop whose events are later than that in the median has not kept its rate: they only pile up. Nanoseconds.
const KEPT_DELAY_NS: u64 = 1_000_000_000;

/// A stall as long as that is worth a word. Nanoseconds.
const STALL_TOLD_NS: u64 = 50_000_000;

/// Publishes for a time, at a rate or with so many events in flight.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    attendance: Attendance,
    /// Events published per second, come what may: each one's delay counts from when it was due.
    #[arg(long, conflicts_with = "in_flight", value_parser = super::rate)]
    rate: Option<f64>,
    /// Events in flight: the next is published when every subscriber has one of them. Without --rate: 16.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: Option<u32>,
    /// How long. Seconds.
    #[arg(long, default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// How long is published before that, at the same pace, uncounted. Seconds.
    #[arg(long, default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// So many of the clients stop reading when it begins. The server has to give them up; before that, the same is published
    /// for as long while everybody reads.
    #[arg(long, default_value_t = 0, value_name = "CLIENTS")]
    stalled: u32,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let Options {
        ref attendance, rate, ..
    } = *options;
    let clients = attendance.clients;
    ensure!(
        options.stalled < clients,
        "with --stalled {} of {clients} clients nobody would read",
        options.stalled
    );
    let pace = match rate {
        Some(rate) => Pace::PerSecond(rate),
        None => Pace::InFlight(options.in_flight.unwrap_or(16) as usize),
    };
    let mut field = Field::open(
        common,
        "sustain",
        attendance.kind,
        &[attendance.audience()],
        Detail::Ends,
        pace.connections(),
    )?;
    match pace {
        Pace::InFlight(events) => field.run.parameter("in flight", events),
        Pace::PerSecond(per_s) => field.run.parameter("rate (per second)", per_s),
    }
    field
        .run
        .parameter("duration (s)", options.duration.as_secs_f64());
    if options.stalled > 0 {
        field.run.parameter("stalled", options.stalled);
    }
    let reading = clients - options.stalled;
    let mut tickets = field.tickets();
    for ticket in tickets.iter_mut().skip(reading as usize) {
        // Nobody waits for those who will not read.
        ticket.is_awaited = false;
    }
    field.bring(tickets)?;
    let mut plan = Plan {
        pace,
        channels: 0..attendance.channels,
        until: Until::Time(options.warm_up),
    };
    if !options.warm_up.is_zero() {
        field.rush(&plan, "warming up")?;
    }
    plan.until = Until::Time(options.duration);
    let mut before = None;
    if options.stalled > 0 {
        before = Some(field.rush(&plan, "while everybody reads")?);
        field.stalled = reading..clients;
        field.crowd.stall(&(reading..clients))?;
    }
    let measured = field.rush(&plan, "measuring")?;

    let (account, requests) = (&measured.account, &measured.requests);
    let all = account.all_delays();
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
    run.measured(
        "delivered_bytes_per_second",
        "Data delivered",
        per_s * common.payload_bytes() as f64,
        Unit::BytesPerSecond,
        Better::More,
    );
    tell_curve(run, "delivery", "Delivery", &all);
    run.measured(
        "longest_stall",
        "Longest time without a delivery while one was due",
        account.stall_ns as f64 / 1e9,
        Unit::Seconds,
        Better::Less,
    );
    if account.stall_ns > STALL_TOLD_NS {
        let at_s = account.stalled_at_ns.saturating_sub(measured.began_ns) as f64 / 1e9;
        run.notes.push(format!(
            "The longest stall ended {at_s:.2} s after the beginning."
        ));
    }
    tell_series(
        run,
        "delay_max",
        "Longest delay in every 100 ms",
        Unit::Seconds,
        account.peaks_since(measured.began_ns),
    );
    tell_curve(
        run,
        "last",
        "Until the last subscriber has it",
        &account.until_last(),
    );
    tell_curve(run, "answer", "HTTP answer", &requests.answers);
    let offer = rate.map_or(Offer::Closed, |rate| {
        let is_kept = published_per_s >= rate * KEPT
            && account.lost + requests.refused == 0
            && all.value_at_quantile(0.5) < KEPT_DELAY_NS;
        Offer::open(is_kept)
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
    if let Some(before) = before {
        tell_stalled(&mut field, options, &before, &measured)?;
        before.count_faults(&mut field.run);
    }
    field.finish(measured, offer)
}

/// What became of those who did not read, and of the others meanwhile.
fn tell_stalled(
    field: &mut Field<'_>,
    options: &Options,
    before: &Measured,
    measured: &Measured,
) -> Result<()> {
    let endured = field.crowd.endured()?;
    let mut times = delays();
    endured
        .iter()
        .for_each(|lasted_ns| times.saturating_record(*lasted_ns));
    let run = &mut field.run;
    run.measured(
        "stalled_closed",
        "Of those who did not read, closed by the server",
        endured.len() as f64 / f64::from(options.stalled),
        Unit::Share,
        Better::More,
    );
    tell_curve(
        run,
        "stalled",
        "From when they stopped reading until closed",
        &times,
    );
    let (earlier, during) = (before.account.all_delays(), measured.account.all_delays());
    tell_curve(run, "delivery_before", "Delivery while everybody read", &earlier);
    run.measured(
        "delivery_p99_ratio",
        "The others' p99 meanwhile to before",
        quantile_s(&during, 0.99) / quantile_s(&earlier, 0.99),
        Unit::Ratio,
        Better::Less,
    );
    for (key, title, seen) in [
        (
            "memory_peak_before",
            "Server memory while everybody read, at most",
            &before.seen,
        ),
        ("memory_peak", "Server memory meanwhile, at most", &measured.seen),
    ] {
        let series = seen.series.iter().find(|series| series.key == "server_memory");
        if let Some(series) = series {
            let peak = series.points.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
            run.measured(key, title, peak, Unit::Bytes, Better::Less);
        }
    }
    if (endured.len() as u32) < options.stalled {
        run.notes.push(
            "Not all of those who did not read were closed: more must be published (--rate, --payload, --duration) until \
             the buffers of the system and the server's limit for a socket are full."
                .to_owned(),
        );
    }
    Ok(())
}
