//! Many nodes in one process, joined by the in-memory bus: what a mass join, steady coming and going, a node's death and
//! a newcomer cost, and how long it takes until all views agree.
//!
//! Time is virtual: it stands still while somebody works, and goes on to the next thing that is due when all rest. So the
//! times that are told are those of the protocol (lease, pauses, the bus's own delay), the same on a busy machine. What
//! the work takes is told beside it as CPU time, of all nodes together: each of them has a machine of its own elsewhere.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::memory::{Bus, Link, Member, Traffic, Weather};
use tokio::time::{Instant, sleep};

use crate::machine::{Held, Machine, user_info};
use crate::usage::{cpu, memory};

/// Many nodes of one process, on virtual time: memory, traffic, CPU time, and times until all views agree.
#[derive(Args)]
pub(crate) struct Options {
    /// Nodes at the start.
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// Sockets of each.
    #[arg(long, default_value_t = 20_000)]
    sockets: usize,
    /// The mass join is spread over so long; 0: all in one moment. Seconds.
    #[arg(long, default_value_t = 10)]
    join_s: u64,
    /// Sockets that leave and others that come instead, on each node and second, for ten seconds.
    #[arg(long, default_value_t = 100)]
    churn: usize,
    /// How long a message takes over the bus at most. Milliseconds.
    #[arg(long, default_value_t = 2)]
    delay_ms: u64,
}

/// Channels that everybody is in one of.
const COMMON: usize = 1_000;
/// Members of a presence channel.
const ROOM: usize = 50;
/// How often is looked whether all views agree: the times told are that exact.
const LOOK: Duration = Duration::from_millis(5);
/// Between two batches of a mass join, or of churn.
const STEP: Duration = Duration::from_millis(10);
/// Channels of each node that are looked up on all others.
const SAMPLES: usize = 64;
/// No view takes so long to agree, of virtual time.
const PATIENCE: Duration = Duration::from_secs(120);

/// One socket: what it is in.
type Socket = Vec<Held>;

struct Cluster<'a> {
    options: &'a Options,
    bus: Bus,
    machines: Vec<(Machine, Member)>,
    sockets: Vec<Vec<Socket>>,
    /// Numbers that sockets were given, on each node.
    numbered: usize,
    /// The last one with a channel of its own, and when it came.
    last: (usize, Instant),
}

/// What was used so far.
struct Mark {
    at: Instant,
    cpu: Duration,
    traffic: [Traffic; 2],
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    runtime.block_on(simulate(options))
}

/// What the socket with this number on a node is in: all in a common channel; of ten, four in a channel of their own,
/// two in presence channels, two signed in.
fn come(machine: &mut Machine, node: usize, number: usize, nodes: usize, sockets: usize) -> Result<Socket> {
    let mut held = vec![machine.subscribe(&format!("common-{:04}", number % COMMON), None)?];
    match number % 10 {
        0..4 => held.push(machine.subscribe(&own_channel(node, number), None)?),
        4..6 => {
            let rooms = (nodes * sockets / 5 / ROOM).max(1);
            let room = (node * 7_919 + number / 10 * 2 + number % 2) % rooms;
            let member = (format!("user-{node:03}-{number:08}"), user_info(number));
            held.push(machine.subscribe(&format!("presence-room-{room:06}"), Some(member))?);
        }
        6..8 => held.push(machine.sign_in(&format!("user-{node:03}-{number:08}"))?),
        _ => {}
    }
    Ok(held)
}

fn own_channel(node: usize, number: usize) -> String {
    format!("private-user-{node:03}-{number:08}")
}

/// Entries that one node's sockets of this mix are to all others.
fn entries(sockets: usize) -> usize {
    sockets * 8 / 10 + COMMON.min(sockets)
}

async fn simulate(options: &Options) -> Result<()> {
    let bus = Bus::new(1);
    bus.set_weather(Weather {
        delay: Duration::from_micros(200)..=Duration::from_millis(options.delay_ms.max(1)),
        ..Weather::default()
    });
    let empty = memory()?;
    let mut cluster = Cluster {
        options,
        bus,
        machines: Vec::new(),
        sockets: Vec::new(),
        numbered: 0,
        last: (0, Instant::now()),
    };
    for _ in 0..options.nodes {
        cluster.start()?;
    }
    let all = entries(options.sockets) * options.nodes;
    println!(
        "{} nodes of {} sockets: {} sockets, {all} entries on each node",
        options.nodes,
        options.sockets,
        options.nodes * options.sockets
    );
    println!(
        "| | until all agree | CPU, all nodes | of one | bus: messages | bytes | heard: messages | bytes |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");

    let mark = cluster.mark()?;
    cluster
        .settle("all nodes know each other", |cluster| Ok(cluster.is_known()))
        .await?;
    cluster.tell("start of all at once", &mark)?;
    sleep(Duration::from_secs(3)).await;
    let idle = memory()?;

    let mark = cluster.mark()?;
    sleep(Duration::from_secs(10)).await;
    cluster.tell("10 s of rest, empty", &mark)?;

    cluster.mass_join().await?;
    let taken = memory()?.saturating_sub(idle);
    let last_minute = Duration::from_secs(61);
    sleep(last_minute).await;
    cluster.clear();
    let kept = memory()?.saturating_sub(idle);

    let mark = cluster.mark()?;
    sleep(Duration::from_secs(10)).await;
    cluster.tell("10 s of rest, full", &mark)?;

    cluster.churn().await?;

    let mark = cluster.mark()?;
    let (_, member) = cluster.machines[0];
    cluster.bus.set_link(member, Link::Down);
    let is_gone = |cluster: &Cluster<'_>| cluster.agree(1, 0, false);
    cluster.settle("the views without a dead node", is_gone).await?;
    cluster.tell("death of a node (lease 10 s)", &mark)?;

    let mark = cluster.mark()?;
    let newcomer = cluster.start()?;
    let has_all =
        |cluster: &Cluster<'_>| Ok(cluster.is_known() && cluster.agree_on(newcomer, 1..newcomer, true)?);
    cluster.settle("the newcomer's view", has_all).await?;
    cluster.tell("start of a newcomer", &mark)?;

    let of_entry = |bytes: usize| bytes / (all * options.nodes);
    println!(
        "\nmemory: {} MiB for a node with nothing; all nodes full {} MiB, {} B for an entry on a node right after the join, \
         {} B a minute later",
        ((idle - empty) / options.nodes) >> 20,
        kept >> 20,
        of_entry(taken),
        of_entry(kept)
    );
    Ok(())
}

impl Cluster<'_> {
    /// Starts a node. The answer is its place.
    fn start(&mut self) -> Result<usize> {
        let machine = Machine::on_bus(&self.bus, &AdapterConfig::default())?;
        self.machines.push(machine);
        self.sockets.push(Vec::new());
        Ok(self.machines.len() - 1)
    }

    fn mark(&self) -> Result<Mark> {
        Ok(Mark {
            at: Instant::now(),
            cpu: cpu("self", "")?,
            traffic: [self.bus.published(), self.bus.heard()].map(|topics| {
                topics.values().fold(Traffic::default(), |sum, more| Traffic {
                    messages: sum.messages + more.messages,
                    bytes: sum.bytes + more.bytes,
                })
            }),
        })
    }

    fn tell(&self, what: &str, before: &Mark) -> Result<()> {
        let now = self.mark()?;
        let took = (now.cpu - before.cpu).as_secs_f64();
        let [published, heard] = [0, 1].map(|index| {
            let (now, before) = (now.traffic[index], before.traffic[index]);
            format!(
                "{} | {:.1} KiB",
                now.messages - before.messages,
                (now.bytes - before.bytes) as f64 / 1024.0
            )
        });
        println!(
            "| {what} | {:.2} s | {took:.2} s | {:.0} ms | {published} | {heard} |",
            (now.at - before.at).as_secs_f64(),
            took * 1e3 / self.machines.len() as f64,
        );
        Ok(())
    }

    /// Waits until something holds.
    async fn settle(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !holds(self)? {
            ensure!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            sleep(LOOK).await;
            self.clear();
        }
        Ok(())
    }

    fn clear(&self) {
        self.machines
            .iter()
            .for_each(|(machine, _)| machine.clear_inbox());
    }

    /// Whether every node that is up has the share of every other one.
    fn is_known(&self) -> bool {
        let up = self.machines.iter().filter(|(machine, _)| !machine.is_down());
        let count = up.clone().count() as u64;
        up.filter_map(|(machine, _)| machine.node.cluster_snapshot())
            .all(|snapshot| snapshot.nodes == count && snapshot.nodes_unknown == 0)
    }

    /// Whether all nodes from that one on have the sockets of a node, or have nothing of it.
    fn agree(&self, from: usize, of: usize, is_there: bool) -> Result<bool> {
        for at in from..self.machines.len() {
            if !self.agree_on(at, of..of + 1, is_there)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a node has the sockets of these nodes, judged by some of their own channels.
    fn agree_on(&self, at: usize, of: std::ops::Range<usize>, is_there: bool) -> Result<bool> {
        for node in of {
            let numbers = self.numbered - self.sockets[node].len()..self.numbered;
            let step = (numbers.len() / SAMPLES / 10).max(1) * 10;
            let own = numbers
                .filter(|number| number % 10 < 4)
                .step_by(step)
                .chain([self.last.0]);
            for number in own {
                if (self.machines[at].0.count(&own_channel(node, number))? > 0) != is_there {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn come(&mut self, many: usize) -> Result<()> {
        let Options { nodes, sockets, .. } = *self.options;
        for number in self.numbered..self.numbered + many {
            for (node, (machine, _)) in self.machines.iter_mut().enumerate() {
                self.sockets[node].push(come(machine, node, number, nodes, sockets)?);
            }
            if number % 10 < 4 {
                self.last = (number, Instant::now());
            }
        }
        self.numbered += many;
        Ok(())
    }

    fn all_agree(&self) -> Result<bool> {
        for node in 0..self.machines.len() {
            if !self.agree(0, node, true)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn mass_join(&mut self) -> Result<()> {
        let Options { sockets, join_s, .. } = *self.options;
        let mark = self.mark()?;
        let steps = (join_s * 1_000 / STEP.as_millis() as u64).max(1) as usize;
        for step in 0..steps {
            self.come(sockets * (step + 1) / steps - sockets * step / steps)?;
            if step + 1 < steps {
                sleep(STEP).await;
                self.clear();
            }
        }
        self.settle("the views after a mass join", Self::all_agree)
            .await?;
        let agreed = self.last.1.elapsed();
        self.tell(
            &format!(
                "mass join over {join_s} s (agreed {} ms after it)",
                agreed.as_millis()
            ),
            &mark,
        )?;
        self.verify()
    }

    /// Every view counts every socket once.
    fn verify(&self) -> Result<()> {
        let expected = self.machines.len() * self.numbered / COMMON.min(self.numbered.max(1));
        for (at, (machine, _)) in self.machines.iter().enumerate() {
            for number in (0..COMMON).step_by(97) {
                let count = machine.count(&format!("common-{number:04}"))?;
                let is_near = count.abs_diff(expected) <= self.machines.len();
                ensure!(
                    is_near,
                    "node {at} counts {count} in common channel {number}, not {expected}"
                );
            }
        }
        Ok(())
    }

    /// Sockets go and others come, on every node.
    async fn churn(&mut self) -> Result<()> {
        let (churn, seconds) = (self.options.churn, 10);
        if churn == 0 {
            return Ok(());
        }
        let mark = self.mark()?;
        let steps = seconds * 1_000 / STEP.as_millis() as usize;
        for step in 0..steps {
            let many = churn * seconds * (step + 1) / steps - churn * seconds * step / steps;
            for (node, (machine, _)) in self.machines.iter().enumerate() {
                for socket in self.sockets[node].drain(..many) {
                    socket.iter().for_each(|held| machine.leave(held));
                }
            }
            self.come(many)?;
            sleep(STEP).await;
            self.clear();
        }
        self.settle("the views after coming and going", Self::all_agree)
            .await?;
        let agreed = self.last.1.elapsed().as_millis();
        let what =
            format!("{churn} sockets/s go and come on each node for 10 s (agreed {agreed} ms after it)");
        self.tell(&what, &mark)?;
        let gone = self
            .machines
            .last()
            .context("there is one")?
            .0
            .count(&own_channel(0, 0))?;
        ensure!(gone == 0, "who went is still known");
        Ok(())
    }
}
