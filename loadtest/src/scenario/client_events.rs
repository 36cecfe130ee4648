//! Client events from socket to socket: one of a pair says something on a private channel, the other says it back, and how
//! long that took.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::arguments::Common;
use crate::progress::Extent;
use crate::result::{Better, Run, Unit};
use crate::swarm::crowd::{Audience, Detail};
use crate::swarm::rally::{Role, Trips};
use crate::target::ChannelKind;

use super::{Field, GRACE, Measured, Offer, TICK, rate, seconds, tell_cpu_per, tell_curve};

/// What a client event carries, unless it is told otherwise.
const PAYLOAD_BYTES: usize = 100;

/// Plays client events back and forth between pairs of sockets.
///
/// The app on the server has to allow client events, and so many of them per second and socket as are played: without --rate
/// that is some ten thousand (Fanwire: "client_events": true, "client_events_per_s": 1000000).
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Pairs that play at the same time, each on a private channel of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Round trips that each pair begins per second. Without it, each begins when the one before it has ended.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How long. Seconds.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    duration: Duration,
    /// How long is played before that, uncounted. Seconds.
    #[arg(long, default_value = "1s", value_parser = seconds)]
    warm_up: Duration,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let pairs = options.pairs;
    let common = &Common {
        payload: common.payload.or(Some(PAYLOAD_BYTES)),
        ..common.clone()
    };
    let audiences = [Audience {
        clients: pairs * 2,
        channels: pairs,
        per_client: 1,
    }];
    let kind = ChannelKind::Private;
    let mut field = Field::open(common, "client-events", kind, &audiences, Detail::Ends, 1)?;
    field.run.parameter("pairs", pairs);
    if let Some(per_s) = options.rate {
        field.run.parameter("rate of each pair (per second)", per_s);
    }
    field
        .run
        .parameter("duration (s)", options.duration.as_secs_f64());
    let mut tickets = field.tickets();
    for ticket in &mut tickets {
        // The channels are dealt out in turn: the second half has the same ones again.
        ticket.role = if ticket.client < pairs {
            Role::Asks
        } else {
            Role::Answers
        };
    }
    field.bring(tickets)?;
    if !options.warm_up.is_zero() {
        play(&mut field, options.warm_up, options.rate, "warming up")?;
    }
    let (measured, trips) = play(&mut field, options.duration, options.rate, "measuring")?;

    let run = &mut field.run;
    let figures = run.figures.len();
    tell_curve(
        run,
        "round_trip",
        "Round trip from socket to socket and back",
        &trips.took,
    );
    let per_s = trips.took.len() as f64 / measured.elapsed_s;
    run.measured(
        "round_trips_per_second",
        "Round trips",
        per_s,
        Unit::PerSecond,
        Better::More,
    );
    tell_cpu_per(
        run,
        &measured.seen,
        trips.took.len(),
        "server_cpu_per_round_trip",
        "Server CPU per round trip, which is two events",
    );
    // The answer to the question comes first.
    run.figures.rotate_left(figures);
    run.faults.lost += trips.open;
    run.faults.foreign += trips.foreign;
    if trips.open > 0 {
        run.faults
            .examples
            .push(format!("lost: {} round trips never ended", trips.open));
    }
    let is_kept = trips.open + trips.foreign == 0;
    let offer = options.rate.map_or(Offer::Closed, |_| Offer::open(is_kept));
    field.finish(measured, offer)
}

/// Plays for a while, and waits for the last answers.
fn play(field: &mut Field<'_>, time: Duration, rate: Option<f64>, phase: &str) -> Result<(Measured, Trips)> {
    let every_ns = rate.map(|per_s| (1e9 / per_s) as u64);
    let mut watch = field.begin()?;
    let (began, began_ns) = (Instant::now(), field.board.now_ns());
    field.progress.phase(phase, Extent::Lasting(time), began);
    field.crowd.begin_rally(every_ns, field.common.payload_bytes())?;
    while began.elapsed() < time && !field.is_stopped() {
        field.step(TICK.min(time.saturating_sub(began.elapsed())), &mut watch, 0)?;
    }
    field.crowd.end_rally()?;
    let ended_s = began.elapsed().as_secs_f64();
    while field.crowd.trips()?.open > 0 && began.elapsed() < time + GRACE {
        field.step(Duration::from_millis(1), &mut watch, 0)?;
    }
    let trips = field.crowd.trips()?;
    let mut measured = field.end(watch, began_ns)?;
    measured.elapsed_s = ended_s;
    Ok((measured, trips))
}
