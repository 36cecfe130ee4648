//! Two nodes and a real broker, without sockets and HTTP: how many events a second the relay carries and who spends the
//! time, and how much later an event comes on another node than on its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use fanwire::adapter::config::AdapterConfig;
use fanwire::hub::inbox::{Entry, Inbox};
use fanwire::node::{Node, Publication};
use fanwire::protocol::channel_name::ChannelName;
use tokio::runtime::{Builder, Runtime};

use crate::broker::{Broker, Driver};
use crate::machine::Machine;
use crate::usage::{cpu, quantile, spread};

/// How many events a second go from one node to another, who spends the time on it, and how much later they come.
#[derive(Args)]
pub(crate) struct Options {
    /// What carries them.
    #[arg(long, default_value = "redis")]
    driver: Driver,
    /// Threads that publish.
    #[arg(long, default_value_t = 2)]
    publishers: usize,
    /// Events that are published together, as by a call to `/batch_events`.
    #[arg(long, default_value_t = 10)]
    batch: usize,
    /// Channels, in turn.
    #[arg(long, default_value_t = 1_000)]
    channels: usize,
    /// Bytes of data in each event.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// How long is published in each run. Seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Single events whose delay is measured in each run.
    #[arg(long, default_value_t = 1_000)]
    delays: usize,
    /// Runs, each with a fresh broker and fresh nodes.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The setting adapter.connections.
    #[arg(long, default_value_t = 2)]
    connections: u16,
}

/// The server's own mark.
const INBOX_BYTES_MAX: usize = 16 << 20;
/// What is waited for comes sooner, or not at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose CPU time it is: threads whose names begin so.
const PARTS: [(&str, &str); 4] = [
    ("publishers", "publisher"),
    ("sending node", "a-control"),
    ("receiving node", "b-control"),
    ("receiving shard", "b-shard"),
];

#[derive(Debug, Default)]
struct Outcome {
    per_s: f64,
    /// CPU time per event of each part, then of the broker. Microseconds.
    cpu_us: Vec<f64>,
    bytes_per_event: f64,
    messages_per_event: f64,
    delays_ms: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut outcomes = Vec::new();
    for number in 1..=options.runs {
        let outcome = measure(options)?;
        println!(
            "run {number}: {:.0} events/s, added delay p50 {:.3} ms, p99 {:.3} ms",
            outcome.per_s,
            quantile(&outcome.delays_ms, 0.5),
            quantile(&outcome.delays_ms, 0.99),
        );
        outcomes.push(outcome);
    }
    let tell = |what: &str, unit: &str, figure: &dyn Fn(&Outcome) -> f64| {
        let (median, least, most) = spread(outcomes.iter().map(figure).collect());
        println!("| {what} | {median:.3} ({least:.3} .. {most:.3}) {unit} |");
    };
    println!(
        "\n| {:?}, {} runs | median (least .. most) |\n| --- | ---: |",
        options.driver, options.runs
    );
    tell("events from node to node", "/s", &|outcome| outcome.per_s);
    for (index, (part, _)) in PARTS.iter().chain([&("broker", "")]).enumerate() {
        tell(&format!("CPU per event, {part}"), "µs", &|outcome| {
            outcome.cpu_us[index]
        });
    }
    tell("CPU per event, all", "µs", &|outcome| {
        outcome.cpu_us.iter().sum()
    });
    tell("bytes into the broker per event", "B", &|outcome| {
        outcome.bytes_per_event
    });
    tell("messages per event", "", &|outcome| outcome.messages_per_event);
    tell("added delay, p50", "ms", &|outcome| {
        quantile(&outcome.delays_ms, 0.5)
    });
    tell("added delay, p99", "ms", &|outcome| {
        quantile(&outcome.delays_ms, 0.99)
    });
    Ok(())
}

/// A control runtime as the server has it.
fn runtime(name: &'static str) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    Ok(builder.worker_threads(2).thread_name(name).enable_all().build()?)
}

/// Wakes a shard's thread.
struct Bell(Thread);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A thread that takes what a shard would, and tells of each broadcast.
fn shard(
    name: &'static str,
    node: &Arc<Node>,
    stop: &Arc<AtomicBool>,
    mut told: impl FnMut(Instant) + Send + 'static,
) -> Result<thread::JoinHandle<()>> {
    let (node, stop) = (node.clone(), stop.clone());
    let work = move || {
        let waker = Waker::from(Arc::new(Bell(thread::current())));
        let (inbox, mut entries) = (node.inboxes().of(0), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            inbox.take(&waker, &mut entries);
            if entries.is_empty() {
                thread::park_timeout(Duration::from_millis(100));
                continue;
            }
            let now = Instant::now();
            let mut served = 0;
            for entry in entries.drain(..) {
                if let Entry::Broadcast(broadcast) = entry {
                    served += Inbox::charge(&broadcast.frame);
                    told(now);
                }
            }
            inbox.release(served);
        }
    };
    Ok(thread::Builder::new().name(name.into()).spawn(work)?)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        ensure!(began.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Nodes that know each other, and broker.
struct Pair {
    broker: Broker,
    runtimes: [Runtime; 2],
    sending: Machine,
    receiving: Machine,
}

impl Pair {
    fn start(options: &Options) -> Result<Pair> {
        let broker = Broker::start(options.driver)?;
        let config = AdapterConfig {
            connections: options.connections,
            ..AdapterConfig::default()
        };
        let runtimes = [runtime("a-control")?, runtime("b-control")?];
        let start = |runtime: &Runtime| {
            let _entered = runtime.enter();
            broker.machine(&config, INBOX_BYTES_MAX)
        };
        let (sending, receiving) = (start(&runtimes[0])?, start(&runtimes[1])?);
        for (runtime, machine) in runtimes.iter().zip([&sending, &receiving]) {
            let synced = async { tokio::time::timeout(PATIENCE, machine.node.synced()).await };
            runtime.block_on(synced).context("the nodes find each other")?;
        }
        Ok(Pair {
            broker,
            runtimes,
            sending,
            receiving,
        })
    }
}

fn channel(number: usize) -> String {
    format!("orders-{number:06}")
}

fn measure(options: &Options) -> Result<Outcome> {
    let mut pair = Pair::start(options)?;
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let (arrival_here, here) = mpsc::channel();
    let (arrival_there, there) = mpsc::channel();
    let is_timed = Arc::new(AtomicBool::new(false));
    let (counts, timed) = (received.clone(), is_timed.clone());
    let shards = [
        shard("a-shard", &pair.sending.node, &stop, move |at| {
            let _ = arrival_here.send(at);
        })?,
        shard("b-shard", &pair.receiving.node, &stop, move |at| {
            counts.fetch_add(1, Ordering::Relaxed);
            if timed.load(Ordering::Relaxed) {
                let _ = arrival_there.send(at);
            }
        })?,
    ];
    for number in 0..options.channels {
        let name = channel(number);
        pair.receiving.hears(&name)?;
        pair.receiving.subscribe(&name, None)?;
    }
    for number in 0..options.channels {
        wait_for("a topic's confirmation", || {
            pair.receiving.hears(&channel(number))
        })?;
    }

    let mut outcome = rush(options, &pair, &received)?;

    // Single events, one after the other, to a channel with a subscriber on each node.
    pair.sending.subscribe(&channel(0), None)?;
    is_timed.store(true, Ordering::Relaxed);
    let event = publications(options, &[0])?;
    for _ in 0..options.delays {
        pair.sending.node.publish(&pair.sending.app, &event);
        let [here, there] = [&here, &there].map(|arrivals| arrivals.recv_timeout(PATIENCE));
        let added = there?.saturating_duration_since(here?);
        outcome.delays_ms.push(added.as_secs_f64() * 1e3);
        thread::sleep(Duration::from_millis(1));
    }
    outcome.delays_ms.sort_by(f64::total_cmp);
    stop.store(true, Ordering::Relaxed);
    for shard in shards {
        shard.join().map_err(|_| anyhow::anyhow!("a shard panicked"))?;
    }
    for runtime in pair.runtimes {
        runtime.shutdown_background();
    }
    Ok(outcome)
}

fn publications(options: &Options, channels: &[usize]) -> Result<Vec<Publication>> {
    let publication = |number: &usize| {
        Ok(Publication {
            channels: vec![ChannelName::parse(&channel(*number), 200)?],
            event: "order-updated".into(),
            data: "x".repeat(options.payload),
            except: None,
        })
    };
    channels.iter().map(publication).collect()
}

/// Publishes as fast as it is let for a time, and waits until all of it has come.
fn rush(options: &Options, pair: &Pair, received: &Arc<AtomicU64>) -> Result<Outcome> {
    let own = std::process::id().to_string();
    let usage = || -> Result<Vec<Duration>> {
        let mut usage: Vec<_> = PARTS
            .iter()
            .map(|(_, name)| cpu(&own, name))
            .collect::<Result<_>>()?;
        usage.push(cpu(&pair.broker.process(), "")?);
        Ok(usage)
    };
    let handle = pair.runtimes[0].handle();
    let (before, traffic) = (usage()?, pair.broker.traffic()?);
    let began = Instant::now();
    let until = began + Duration::from_secs(options.seconds);
    let done = AtomicU64::new(0);
    let (published, publishing) = thread::scope(|scope| -> Result<(u64, Vec<Duration>)> {
        let publish = |number: usize| {
            let batches: Vec<usize> = (number..options.channels).step_by(options.publishers).collect();
            let batches: Result<Vec<_>> = batches
                .chunks(options.batch)
                .map(|channels| publications(options, channels))
                .collect();
            let (node, app) = (&pair.sending.node, &pair.sending.app);
            let mut published = 0;
            for batch in batches?.iter().cycle() {
                if Instant::now() >= until {
                    break;
                }
                let names = batch.iter().flat_map(|publication| &publication.channels);
                if handle.block_on(node.permission_to_publish(app, names)).is_ok() {
                    node.publish(app, batch);
                    published += batch.len() as u64;
                }
            }
            done.fetch_add(1, Ordering::Release);
            // Its account would be gone with it.
            while done.load(Ordering::Acquire) <= options.publishers as u64 {
                thread::park_timeout(Duration::from_millis(10));
            }
            Ok(published)
        };
        let publishers: Vec<_> = (0..options.publishers)
            .map(|number| {
                let name = thread::Builder::new().name(format!("publisher-{number}"));
                name.spawn_scoped(scope, move || publish(number))
            })
            .collect::<std::io::Result<_>>()?;
        while done.load(Ordering::Acquire) < options.publishers as u64 {
            thread::sleep(Duration::from_millis(5));
        }
        let publishing = usage()?;
        done.fetch_add(1, Ordering::Release);
        let mut published = 0;
        for publisher in publishers {
            let result: Result<u64> = publisher
                .join()
                .map_err(|_| anyhow::anyhow!("a publisher panicked"))?;
            published += result?;
        }
        Ok((published, publishing))
    })?;
    let came = wait_for("the last event", || {
        Ok(received.load(Ordering::Relaxed) >= published)
    });
    let took = began.elapsed();
    let snapshot = pair
        .receiving
        .node
        .cluster_snapshot()
        .context("it is in a cluster")?;
    came.with_context(|| {
        let received = received.load(Ordering::Relaxed);
        let sending = pair.sending.node.cluster_snapshot();
        format!("{published} published, {received} received: {snapshot:?} of {sending:?}")
    })?;
    ensure!(
        received.load(Ordering::Relaxed) == published && snapshot.gaps == 0,
        "each event once: {snapshot:?}"
    );
    let (mut after, traffic) = (usage()?, pair.broker.traffic()?.since(traffic));
    after[0] = publishing[0];
    let events = published as f64;
    let per_event = |(after, before): (&Duration, &Duration)| (*after - *before).as_secs_f64() * 1e6 / events;
    Ok(Outcome {
        per_s: events / took.as_secs_f64(),
        cpu_us: after.iter().zip(&before).map(per_event).collect(),
        bytes_per_event: traffic.bytes_in as f64 / events,
        messages_per_event: traffic.published as f64 / events,
        delays_ms: Vec::new(),
    })
}
