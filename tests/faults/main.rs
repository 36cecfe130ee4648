//! The cluster under faults: real processes of the built binary, joined by private brokers, with sockets on all of them
//! and a steady load, while brokers and nodes are killed, frozen and cut off.
//!
//! ```text
//! make test-cluster                                        every case
//! make test-cluster FAULTS="redis nats_frozen"             those whose names hold one of these words
//! make test-cluster FAULTS="soak --seconds 600 --seed 7"   random faults for longer; the seed is printed
//! make test-cluster FAULTS="--list"                        what there is
//! ```
//!
//! Not part of a plain `cargo test`: it takes minutes, and wants the machine for itself. Each case has a thread, a
//! runtime and brokers of its own, so some run at a time; most of their time is waiting.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its progress and its verdict are for a person"
)]

mod broker_trouble;
mod brokers;
mod case;
mod crowd;
mod ear;
mod ledger;
mod load;
mod logbook;
mod node;
mod node_trouble;
mod readiness;
mod ring;
mod rollout;
mod soak;
mod stage;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the other tests use what these do not")]
mod support;
mod swarm;
mod webhook_trouble;
mod webhooks;

use std::collections::VecDeque;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use self::case::{Case, Soak};
use self::logbook::Logbook;

/// A case, by the name it is chosen with.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// About how long it takes: the longest begin first. Seconds.
    pub(crate) length_s: u64,
    pub(crate) run: for<'a> fn(&'a Case) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// An entry that is named as its function is.
macro_rules! entry {
    ($run:ident, $length_s:expr) => {
        $crate::Entry {
            name: stringify!($run),
            length_s: $length_s,
            run: |case| Box::pin($run(case)),
        }
    };
}
pub(crate) use entry;

#[derive(Parser)]
struct Arguments {
    /// Words of which a case's name must hold one; none is every case.
    words: Vec<String>,
    /// How long the soak goes on.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The soak's dice; drawn, if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Cases that run at a time.
    #[arg(long, default_value_t = 5)]
    jobs: usize,
    /// Only tell what there is.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_wanted = |entry: &Entry| {
        arguments.words.is_empty() || arguments.words.iter().any(|word| entry.name.contains(&**word))
    };
    let mut entries: Vec<Entry> = [
        broker_trouble::cases(),
        ring::cases(),
        node_trouble::cases(),
        crowd::cases(),
        rollout::cases(),
        webhooks::cases(),
        webhook_trouble::cases(),
        soak::cases(arguments.seconds),
    ]
    .into_iter()
    .flatten()
    .filter(is_wanted)
    .collect();
    if arguments.list {
        entries
            .iter()
            .for_each(|entry| println!("{:<50} about {:>3} s", entry.name, entry.length_s));
        return ExitCode::SUCCESS;
    }
    if entries.is_empty() {
        eprintln!("no case has such a name; --list tells them all");
        return ExitCode::FAILURE;
    }
    ledger::judge_known_cases();
    // The thread is the case. The processes' logs say more than a backtrace of the test.
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let what = panic.payload_as_str().unwrap_or("something else than a text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        println!("  panics  {}: {what} ({place})", thread.name().unwrap_or("?"));
    }));

    let soak = Soak {
        length: Duration::from_secs(arguments.seconds),
        seed: arguments.seed.unwrap_or_else(rand::random),
    };
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.length_s));
    let (count, began) = (entries.len(), Instant::now());
    let waiting = Mutex::new(VecDeque::from(entries));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(entry) = next() {
                    if !passes(&entry, soak) {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(entry.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let passed = count - failed.len();
    println!(
        "{passed} of {count} cases passed in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    for name in &failed {
        println!("FAILED {name}");
    }
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// Runs a case on a thread of its name, which a panic then tells.
fn passes(entry: &Entry, soak: Soak) -> bool {
    let (logbook, began) = (Logbook::default(), Instant::now());
    println!("  begins  {}", entry.name);
    let (logs, name, run) = (logbook.clone(), entry.name, entry.run);
    let case = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let case = Case::begin(name, logs, soak);
            run(&case).await;
        });
    });
    let has_passed = case.expect("a thread").join().is_ok();
    let took = began.elapsed().as_secs_f64();
    match has_passed {
        true => println!("  passed  {name} in {took:.1} s"),
        false => println!("  FAILED  {name} after {took:.1} s\n{}", logbook.tails()),
    }
    has_passed
}
