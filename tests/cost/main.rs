//! The guard of the hot path: what a delivery, a call, a connection and an idle second cost, in counts that are the
//! same on a busy machine: heap allocations, system calls, instructions in user space. Never time; that is what the
//! load harness is for.
//!
//! The server runs in a process of its own (this same program, started as a child), on a port of loopback, with real
//! sockets. What it costs is counted between two points at which it rests, and compared with `budget.rs`.
//!
//! ```text
//! make cost                                                    everything, against the budgets
//! make cost COST="allocations"                                 allocations | calls | instructions
//! make cost COST="allocations --watch trigger"                 which call stacks allocate
//! make cost COST="instructions --watch broadcast-to-many"      which functions they are spent in
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its result"
)]

mod allocations;
mod budget;
mod clients;
mod profile;
mod serve;
mod server;
mod work;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use self::server::Meter;
use self::work::{Deed, Stage};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

#[derive(Parser)]
struct Arguments {
    /// What to count; nothing is everything.
    meters: Vec<Meter>,
    /// Look into one thing instead of comparing everything with its budget.
    #[arg(long)]
    watch: Option<Deed>,
    /// Be the server.
    #[arg(long, hide = true)]
    serve: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.serve {
        return serve::serve();
    }
    let all = [Meter::Allocations, Meter::Calls, Meter::Instructions];
    let is_wanted = |meter: &Meter| arguments.meters.is_empty() || arguments.meters.contains(meter);
    let mut faults = Vec::new();
    for meter in all.into_iter().filter(is_wanted) {
        if let Some(tool) = meter.missing() {
            println!("!! NOT COUNTED: {meter:?}, for want of {tool}");
            continue;
        }
        let began = Instant::now();
        let mut stage = Stage::set(meter)?;
        if let Some(deed) = arguments.watch {
            stage.watch(deed)?;
            continue;
        }
        println!("  {:<53} {:>11} {:>11}", "per", "counted", "budget");
        faults.extend(budget::compare(meter, &stage.figures()?));
        println!("  ({:.0} s)", began.elapsed().as_secs_f64());
    }
    for fault in &faults {
        println!("FAILED {fault}");
    }
    if !faults.is_empty() {
        println!(
            "Do without it; or, if it is worth its cost, raise the budget in tests/cost/budget.rs and say why in the \
             commit."
        );
    }
    Ok(ExitCode::from(u8::from(!faults.is_empty())))
}
