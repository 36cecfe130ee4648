//! Single broadcasts, one at a time: how long until the HTTP answer, and until the first, the median, 99 % and the last of
//! the subscribers have it. Or several channels' broadcasts at the same moment: how long until all have all.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use clap::Args;

use crate::arguments::Common;
use crate::progress::Extent;
use crate::result::{Better, Run, Unit};
use crate::swarm::account::{Broadcast, delays};
use crate::swarm::crowd::Detail;

use super::{Attendance, Field, Measured, Offer, TICK, tell_curve};

/// Publishes single broadcasts, one at a time.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    attendance: Attendance,
    /// How many broadcasts, or how many times several at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    broadcasts: u32,
    /// Broadcasts at the same moment, each to a channel of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
}

/// The sequences of one volley: what was published at the same moment.
type Volley = Vec<(u32, u32)>;

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let Options {
        ref attendance,
        broadcasts,
        at_once,
    } = *options;
    let channels = attendance.channels;
    ensure!(
        at_once <= channels,
        "--at-once {at_once} needs as many channels, and there are {channels} (--channels)"
    );
    let mut field = Field::open(
        common,
        "fanout",
        attendance.kind,
        &[attendance.audience()],
        Detail::Every,
        at_once as usize,
    )?;
    field.run.parameter("broadcasts", broadcasts);
    if at_once > 1 {
        field.run.parameter("at once", at_once);
    }
    field.gather()?;
    volleys(&mut field, "warming up", broadcasts.div_ceil(20), options)?;
    let (measured, volleys) = volleys(&mut field, "measuring", broadcasts, options)?;
    tell(&mut field.run, measured, &volleys).and_then(|measured| field.finish(measured, Offer::Closed))
}

/// Broadcasts so many times, each time when everybody has what was before.
fn volleys(
    field: &mut Field<'_>,
    phase: &str,
    count: u32,
    options: &Options,
) -> Result<(Measured, Vec<Volley>)> {
    let mut watch = field.begin()?;
    field
        .progress
        .phase(phase, Extent::Things(u64::from(count)), std::time::Instant::now());
    let began_ns = field.board.now_ns();
    let mut volleys = Vec::new();
    let mut next = 0;
    while (volleys.len() as u32) < count && !field.is_stopped() {
        let mut volley = Volley::new();
        for _ in 0..options.at_once {
            let channel = next % options.attendance.channels;
            volley.push((channel, field.board.published(channel)));
            field.publisher.publish(channel, None)?;
            next += 1;
        }
        volleys.push(volley);
        while (field.publisher.in_flight() > 0 || field.publisher.unanswered() > 0) && !field.is_stopped() {
            field.step(TICK, &mut watch, volleys.len() as u64)?;
        }
    }
    Ok((field.end(watch, began_ns)?, volleys))
}

/// Puts what came of it into the run.
fn tell(run: &mut Run, mut measured: Measured, volleys: &[Volley]) -> Result<Measured> {
    let (mut first, mut median, mut late, mut last) = (delays(), delays(), delays(), delays());
    let account = &mut measured.account;
    for broadcast in account
        .broadcasts
        .iter_mut()
        .filter(|broadcast| broadcast.is_whole())
    {
        let since_ns = |at_ns: u64| at_ns.saturating_sub(broadcast.sent_ns);
        first.saturating_record(since_ns(broadcast.first_ns));
        last.saturating_record(since_ns(broadcast.last_ns));
        for (share, curve) in [(0.5, &mut median), (0.99, &mut late)] {
            if let Some(after_ns) = broadcast.until(share) {
                curve.saturating_record(after_ns);
            }
        }
    }
    let figures = run.figures.len();
    if volleys.iter().any(|volley| volley.len() > 1) {
        tell_curve(
            run,
            "all",
            "Until all subscribers have all that was broadcast at once",
            &until_all(&account.broadcasts, volleys),
        );
    }
    tell_curve(run, "last", "Until the last subscriber has it", &last);
    tell_curve(run, "answer", "HTTP answer", &measured.requests.answers);
    tell_curve(run, "first", "Until the first subscriber has it", &first);
    tell_curve(run, "median", "Until half of the subscribers have it", &median);
    tell_curve(run, "late", "Until 99 % of the subscribers have it", &late);
    tell_curve(run, "delivery", "Delivery", &account.all_delays());
    let per_s = account.delivered as f64 / measured.elapsed_s;
    run.measured(
        "delivered_per_second",
        "Delivered",
        per_s,
        Unit::PerSecond,
        Better::More,
    );
    // The answer to the question comes first.
    run.figures.rotate_left(figures);
    Ok(measured)
}

/// From the first request of each volley until everybody has all of it. Nanoseconds.
fn until_all(broadcasts: &[Broadcast], volleys: &[Volley]) -> hdrhistogram::Histogram<u64> {
    let by_key: HashMap<(u32, u32), &Broadcast> = broadcasts
        .iter()
        .map(|broadcast| ((broadcast.channel, broadcast.sequence), broadcast))
        .collect();
    let mut until_all = delays();
    for volley in volleys {
        let of_volley: Vec<&Broadcast> = volley.iter().filter_map(|key| by_key.get(key).copied()).collect();
        let is_whole =
            of_volley.len() == volley.len() && of_volley.iter().all(|broadcast| broadcast.is_whole());
        let sent_ns = of_volley.iter().map(|broadcast| broadcast.sent_ns).min();
        let last_ns = of_volley.iter().map(|broadcast| broadcast.last_ns).max();
        if let Some((sent_ns, last_ns)) = sent_ns.zip(last_ns).filter(|_| is_whole) {
            until_all.saturating_record(last_ns.saturating_sub(sent_ns));
        }
    }
    until_all
}
