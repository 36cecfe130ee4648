//! Memory: what a subscribed socket weighs that does nothing; what remains of a burst after a rest, and of those who left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::arguments::Common;
use crate::process::Memory;
use crate::publisher::Pace;
use crate::result::{Better, Run, Unit};
use crate::swarm::crowd::Detail;

use super::{Attendance, Field, Measured, Offer, Plan, Until, seconds, share, tell_curve, tell_series};

/// What a burst's events carry, unless it is told otherwise.
const BURST_PAYLOAD_BYTES: usize = 10_000;
/// Events of a burst in flight: readers keep up.
const BURST_IN_FLIGHT: usize = 2;
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Tells what idle sockets weigh on the server: needs --pid.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    attendance: Attendance,
    /// Then so many bytes of events are published, in events of --payload (10000), as fast as readers keep up.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    burst: u64,
    /// Then that share of the clients leaves, 0 to 1.
    #[arg(long, default_value = "0", value_parser = share)]
    leave: f64,
    /// How long nothing happens before memory is read, each time. Seconds.
    #[arg(long, default_value = "5s", value_parser = seconds)]
    rest: Duration,
}

/// The server's memory over the run.
struct Scale {
    pid: u32,
    began: Instant,
    looked: Option<Instant>,
    points: Vec<(f64, f64)>,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let pid = common.pid.context(
        "idle needs the server's process on this machine: --pid (for instance --pid $(pidof fanwire))",
    )?;
    let attendance = &options.attendance;
    let clients = attendance.clients;
    let leaving = (f64::from(clients) * options.leave) as u32;
    let common = &Common {
        payload: common.payload.or(Some(BURST_PAYLOAD_BYTES)),
        ..common.clone()
    };
    let empty = Memory::of(pid)?.resident as f64;
    let audiences = [attendance.audience()];
    let mut field = Field::open(common, "idle", attendance.kind, &audiences, Detail::Ends, 1)?;
    field.run.parameter("rest (s)", options.rest.as_secs_f64());
    let mut tickets = field.tickets();
    for ticket in tickets.iter_mut().skip((clients - leaving) as usize) {
        ticket.is_awaited = false;
    }
    field.bring(tickets)?;
    let mut scale = Scale {
        pid,
        began: Instant::now(),
        looked: None,
        points: Vec::new(),
    };
    let mut measured = scale.rest(&mut field, options.rest, "resting")?;
    let (full, live) = (scale.weigh()?, f64::from(field.board.totals().live));
    let weight = |bytes: f64, live: f64| (bytes - empty).max(0.0) / live.max(1.0);
    let run = &mut field.run;
    let mut tell = |key: &str, title: &str, bytes: f64| {
        run.measured(key, title, bytes, Unit::Bytes, Better::Less);
    };
    tell(
        "idle_memory_per_socket",
        "Server memory per idle subscribed socket",
        weight(full, live),
    );
    tell("memory_before", "Server memory before the first socket", empty);
    tell("memory_idle", "Server memory with all sockets idle", full);
    // The answer to the question comes first.
    run.figures.rotate_right(3);
    if options.burst > 0 && !field.is_stopped() {
        measured = burst(&mut field, options, &mut scale, full)?;
    }
    if leaving > 0 && !field.is_stopped() {
        field.crowd.dismiss(&(clients - leaving..clients))?;
        scale
            .rest(&mut field, options.rest, "resting when they have left")?
            .count_faults(&mut field.run);
        let (bytes, live) = (scale.weigh()?, f64::from(field.board.totals().live));
        let run = &mut field.run;
        run.parameter("share that leaves", options.leave);
        run.measured(
            "memory_after_leaving",
            "Server memory when they have left, and after a rest",
            bytes,
            Unit::Bytes,
            Better::Less,
        );
        run.measured(
            "memory_per_socket_after_leaving",
            "  of it per socket that stayed",
            weight(bytes, live),
            Unit::Bytes,
            Better::Less,
        );
    }
    tell_series(
        &mut field.run,
        "memory",
        "Server memory, the whole run",
        Unit::Bytes,
        scale.points,
    );
    field.run.notes.push(
        "What an earlier load left behind in the server's memory counts as there before: measure one that was just \
         started."
            .to_owned(),
    );
    // Nothing was offered that could have reached a limit.
    let kept = measured.account.lost == 0;
    field.finish(measured, Offer::open(kept))
}

/// A burst, and a rest.
fn burst(field: &mut Field<'_>, options: &Options, scale: &mut Scale, idle: f64) -> Result<Measured> {
    let payload = field.common.payload_bytes() as u64;
    let plan = Plan {
        pace: Pace::InFlight(BURST_IN_FLIGHT),
        channels: 0..options.attendance.channels,
        until: Until::Count(options.burst.div_ceil(payload)),
    };
    field.run.parameter("burst (bytes)", options.burst);
    let mut peak: f64 = 0.0;
    let measured = field.rush_with(&[plan], "bursting", |_| {
        peak = peak.max(scale.look(Instant::now())?);
        Ok(())
    })?;
    scale
        .rest(field, options.rest, "resting after the burst")?
        .count_faults(&mut field.run);
    let after = scale.weigh()?;
    let run = &mut field.run;
    run.measured(
        "memory_peak",
        "Server memory in the burst, at most",
        peak,
        Unit::Bytes,
        Better::Less,
    );
    run.measured(
        "memory_after_burst",
        "Server memory after the burst and a rest",
        after,
        Unit::Bytes,
        Better::Less,
    );
    run.measured(
        "memory_after_burst_ratio",
        "  of what it was before the burst",
        after / idle,
        Unit::Ratio,
        Better::Less,
    );
    tell_curve(
        run,
        "delivery",
        "Delivery in the burst",
        &measured.account.all_delays(),
    );
    Ok(measured)
}

impl Scale {
    fn weigh(&self) -> Result<f64> {
        Ok(Memory::of(self.pid)?.resident as f64)
    }

    /// Looks, if it is time to. The answer is what was seen last.
    fn look(&mut self, now: Instant) -> Result<f64> {
        if self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            self.looked = Some(now);
            let point = ((now - self.began).as_secs_f64(), self.weigh()?);
            self.points.push(point);
        }
        Ok(self.points.last().map_or(0.0, |(_, bytes)| *bytes))
    }

    /// Looks on while nothing happens.
    fn rest(&mut self, field: &mut Field<'_>, time: Duration, phase: &str) -> Result<Measured> {
        let mut watch = field.begin()?;
        let began_ns = field.board.now_ns();
        let slices = time.as_secs_f64() / LOOK_EVERY.as_secs_f64();
        for slice in 0..slices.ceil() as u32 {
            // One phase to look at, however many slices.
            let left = time.saturating_sub(LOOK_EVERY * slice);
            if slice == 0 {
                field
                    .progress
                    .phase(phase, crate::progress::Extent::Lasting(time), Instant::now());
            }
            field.idle_for(left.min(LOOK_EVERY), &mut watch)?;
            self.look(Instant::now())?;
        }
        field.end(watch, began_ns)
    }
}
