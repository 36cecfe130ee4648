//! What a delivery costs: a server in a process of its own, real sockets over loopback, and beside it the floor, a bare
//! loop of `send` of the same bytes.
//!
//! A harness of its own: criterion times a function of this process, and what counts here is the CPU time that
//! *another* process spends while this one listens on 10,000 sockets. The terms, and how to read the figures:
//! `benches/README.md`.
//!
//! ```text
//! cargo bench --bench fanout                        # everything, in less than three minutes
//! cargo bench --bench fanout -- lone memory         # lone | sixteen | alone | steady | flood | memory | connect
//! cargo bench --bench fanout -- --repeat 11
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is its result"
)]

mod child;
mod floor;
mod publisher;
mod report;
mod serve;
mod swarm;
mod usage;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use self::child::Child;
use self::publisher::{Pace, Publishers, Rush};
use self::report::{Figures, Unit};
use self::swarm::{Doorstep, Swarm};
use self::usage::Cpu;

/// Before CPU time is read: whoever was woken last goes to sleep again, and is then counted to the end.
const SETTLE: Duration = Duration::from_millis(20);
/// Before memory is read: what handshakes needed is given back.
const SETTLE_MEMORY: Duration = Duration::from_millis(1_000);

#[derive(Parser)]
#[command(
    bin_name = "fanout",
    about = "What a delivery, a connection and an idle socket cost"
)]
struct Arguments {
    /// What to measure; nothing is everything.
    scenarios: Vec<Scenario>,
    /// How often each figure is taken, in turns with the others.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Given by `cargo bench`. Without it, as under `cargo test --benches`, a run is a small trial of the harness.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the server.
    #[arg(long, hide = true)]
    serve: bool,
    /// Be the bare loop of `send`, on so many threads.
    #[arg(long, hide = true)]
    floor: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// One broadcast at a time to 10,000 subscribers of one channel.
    Lone,
    /// Sixteen publications in flight to 1,000 subscribers of one channel.
    Sixteen,
    /// One publication in flight to 1,000 subscribers of one channel.
    Alone,
    /// 500 publications per second to 1,000 subscribers of one channel.
    Steady,
    /// 4,000 publications per second to 1,000 subscribers of one channel.
    Flood,
    /// Resident memory of 10,000 idle subscribed sockets.
    Memory,
    /// Connecting and subscribing 10,000 sockets.
    Connect,
}

/// How much of everything.
struct Sizes {
    crowd: usize,
    audience: usize,
    lone: u64,
    sixteen: u64,
    alone: u64,
    steady: u64,
    flood: u64,
}

const FULL: Sizes = Sizes {
    crowd: 10_000,
    audience: 1_000,
    lone: 30,
    sixteen: 4_000,
    alone: 300,
    steady: 1_000,
    flood: 6_000,
};

/// Enough to see that the harness works.
const TRIAL: Sizes = Sizes {
    crowd: 60,
    audience: 20,
    lone: 3,
    sixteen: 64,
    alone: 10,
    steady: 50,
    flood: 50,
};

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    usage::raise_descriptor_limit()?;
    if arguments.serve {
        return serve::serve();
    }
    if let Some(threads) = arguments.floor {
        return floor::hold_and_send(threads);
    }
    println!("{}", report::headline()?);
    if !arguments.bench {
        println!("A trial of the harness, on a few sockets: these figures say nothing.\n");
    }
    let mut bench = Bench {
        sizes: if arguments.bench { FULL } else { TRIAL },
        scenarios: arguments.scenarios,
        figures: Figures::default(),
        lone: Cpu::default(),
        lone_messages: 0,
    };
    for repetition in 1..=arguments.repeat {
        eprintln!("repetition {repetition} of {}", arguments.repeat);
        bench.repetition()?;
    }
    println!("{}", bench.finish());
    Ok(())
}

struct Bench {
    sizes: Sizes,
    scenarios: Vec<Scenario>,
    figures: Figures,
    /// Of all lone broadcasts: too little of it is spent in user space for one repetition to tell how much.
    lone: Cpu,
    lone_messages: u64,
}

impl Bench {
    fn wants(&self, scenarios: &[Scenario]) -> bool {
        self.scenarios.is_empty() || scenarios.iter().any(|scenario| self.scenarios.contains(scenario))
    }

    /// Takes each figure once, with fresh processes.
    fn repetition(&mut self) -> Result<()> {
        use Scenario::{Alone, Connect, Flood, Lone, Memory, Sixteen, Steady};
        let mut floor_us = None;
        if self.wants(&[Lone, Sixteen, Alone, Steady, Flood]) {
            floor_us = Some(self.floor()?);
        }
        if self.wants(&[Lone, Memory, Connect]) {
            let (mut server, mut swarm) = self.crowd()?;
            if let Some(floor_us) = floor_us.filter(|_| self.wants(&[Lone])) {
                self.lone(&mut server, &mut swarm, floor_us)?;
            }
        }
        if let Some(floor_us) = floor_us.filter(|_| self.wants(&[Sixteen, Alone, Steady, Flood])) {
            self.audience(floor_us)?;
        }
        Ok(())
    }

    /// A server with a smaller audience, at different paces.
    fn audience(&mut self, floor_us: f64) -> Result<()> {
        let mut server = Child::server()?;
        let mut swarm = Swarm::connect(server.port(), self.sizes.audience, Doorstep::Subscribe)?;
        let paces = [
            (
                Scenario::Sixteen,
                "sixteen",
                Pace::InFlight(16),
                self.sizes.sixteen,
            ),
            (Scenario::Alone, "alone", Pace::InFlight(1), self.sizes.alone),
            (
                Scenario::Steady,
                "steady",
                Pace::PerSecond(500),
                self.sizes.steady,
            ),
            (Scenario::Flood, "flood", Pace::PerSecond(4_000), self.sizes.flood),
        ];
        for (scenario, name, pace, publications) in paces {
            if !self.wants(&[scenario]) {
                continue;
            }
            let (rush, spent) = rushed(&mut server, &mut swarm, pace, publications)?;
            let messages = publications * swarm.len() as u64;
            let per_s = messages as f64 / rush.elapsed.as_secs_f64();
            self.figures.add(name, "delivered per second", Unit::Count, per_s);
            self.cpu_figures(name, spent.us_per(messages), floor_us);
            if matches!(pace, Pace::PerSecond(_)) {
                self.latency_figures(name, rush.deliveries);
            }
        }
        Ok(())
    }

    /// What one `send` costs a process that does nothing else. Microseconds.
    fn floor(&mut self) -> Result<f64> {
        let mut child = Child::floor(shards()?)?;
        child.tell(&format!("hold {}", self.sizes.crowd))?;
        let mut swarm = Swarm::connect(child.port(), self.sizes.crowd, Doorstep::None)?;
        child.hear()?;
        let (_, spent) = spent_by(
            &mut child,
            |child, rounds| {
                for _ in 0..rounds {
                    child.tell("send")?;
                    swarm.wait_for_one_more()?;
                    child.hear()?;
                }
                Ok(())
            },
            self.sizes.lone,
        )?;
        let floor_us = spent.us_per(self.sizes.lone * swarm.len() as u64);
        self.figures.add(
            "floor",
            "CPU of a bare loop of send, per send",
            Unit::Micros,
            floor_us,
        );
        Ok(floor_us)
    }

    /// A server with a crowd on one channel: how fast it came, and what it weighs.
    fn crowd(&mut self) -> Result<(Child, Swarm)> {
        let server = Child::server()?;
        std::thread::sleep(SETTLE);
        let (cpu, memory) = (server.cpu()?, server.memory()?);
        let swarm = Swarm::connect(server.port(), self.sizes.crowd, Doorstep::Subscribe)?;
        let sockets = swarm.len() as f64;
        std::thread::sleep(SETTLE);
        if self.wants(&[Scenario::Connect]) {
            let cpu = server.cpu()?.since(cpu);
            let per_s = sockets / swarm.connected_in().as_secs_f64();
            self.figures.add(
                "connect",
                "connected and subscribed, per second",
                Unit::Count,
                per_s,
            );
            self.figures.add(
                "connect",
                "server CPU per socket",
                Unit::Micros,
                cpu.us_per(swarm.len() as u64),
            );
        }
        if self.wants(&[Scenario::Memory]) {
            std::thread::sleep(SETTLE_MEMORY);
            let now = server.memory()?;
            let per_socket = |before: u64, now: u64| now.saturating_sub(before) as f64 / sockets;
            self.figures.add(
                "memory",
                "resident per idle subscribed socket",
                Unit::Bytes,
                per_socket(memory.resident, now.resident),
            );
            self.figures.add(
                "memory",
                "  of it anonymous (heap, stacks)",
                Unit::Bytes,
                per_socket(memory.anonymous, now.anonymous),
            );
            self.figures.add(
                "memory",
                "resident before the first socket",
                Unit::Bytes,
                memory.resident as f64,
            );
        }
        Ok((server, swarm))
    }

    fn lone(&mut self, server: &mut Child, swarm: &mut Swarm, floor_us: f64) -> Result<()> {
        let (rush, spent) = rushed(server, swarm, Pace::InFlight(1), self.sizes.lone)?;
        let messages = self.sizes.lone * swarm.len() as u64;
        self.lone = self.lone.plus(spent);
        self.lone_messages += messages;
        self.cpu_figures("lone", spent.us_per(messages), floor_us);
        self.latency_figures("lone", rush.deliveries);
        let (answer_ms, _) = middle_and_late(rush.answers);
        self.figures
            .add("lone", "HTTP answer, p50", Unit::Millis, answer_ms);
        Ok(())
    }

    fn latency_figures(&mut self, scenario: &'static str, deliveries: Vec<Duration>) {
        let (middle_ms, late_ms) = middle_and_late(deliveries);
        for (name, ms) in [("p50", middle_ms), ("p99", late_ms)] {
            let name = format!("until the last subscriber has it, {name}");
            self.figures.add(scenario, &name, Unit::Millis, ms);
        }
    }

    fn cpu_figures(&mut self, scenario: &'static str, us: f64, floor_us: f64) {
        self.figures
            .add(scenario, "server CPU per delivered message", Unit::Micros, us);
        self.figures.add(
            scenario,
            "  the same as a multiple of the floor",
            Unit::Ratio,
            us / floor_us,
        );
    }

    /// The table, after the last repetition.
    fn finish(mut self) -> String {
        if self.lone_messages > 0 {
            let (us, error_us) = self.lone.user_us_per(self.lone_messages);
            self.figures.note(
                "lone",
                format!(
                    "  of it in user space: {us:.3} µs ± {error_us:.3} (sampled; all repetitions together)"
                ),
            );
        }
        self.figures.to_string()
    }
}

/// Publishes and waits until all have it: with the server's CPU time.
fn rushed(server: &mut Child, swarm: &mut Swarm, pace: Pace, publications: u64) -> Result<(Rush, Cpu)> {
    let mut publishers = Publishers::connect(server.port(), pace.connections(), swarm)?;
    let rush = |_: &mut Child, publications| publishers.rush(swarm, pace, publications);
    spent_by(server, rush, publications)
}

/// Does something a few times to warm up and then so many times, with the CPU time that a child spends on those.
fn spent_by<T>(
    child: &mut Child,
    mut work: impl FnMut(&mut Child, u64) -> Result<T>,
    times: u64,
) -> Result<(T, Cpu)> {
    work(child, times.div_ceil(20))?;
    std::thread::sleep(SETTLE);
    let before = child.cpu()?;
    let answer = work(child, times)?;
    std::thread::sleep(SETTLE);
    Ok((answer, child.cpu()?.since(before)))
}

/// The median and the 99th percentile. Milliseconds.
fn middle_and_late(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort_unstable();
    let at = |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)));
    let ms = |took: Option<&Duration>| took.map_or(f64::NAN, |took| took.as_secs_f64() * 1e3);
    (ms(at(50)), ms(at(99)))
}

/// As many as the server has by default; the floor sends from as many threads.
fn shards() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}
