//! What a publication costs the bus, in messages and bytes, with one, three and ten nodes of which one other has a
//! subscriber; and what a cluster costs it in which nothing happens.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use fanwire::adapter::config::AdapterConfig;
use fanwire::node::Publication;
use fanwire::protocol::EncodedEvent;
use fanwire::protocol::channel_name::ChannelName;

use crate::broker::{Broker, Driver, Traffic};

/// What a publication costs the bus with 1, 3 and 10 nodes.
#[derive(Args)]
pub(crate) struct Options {
    /// What carries it.
    #[arg(long, default_value = "redis")]
    driver: Driver,
    /// Bytes of data in each event.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Events of each case.
    #[arg(long, default_value_t = 1_000)]
    events: u32,
}

/// Between two events: none travels with another.
const APART: Duration = Duration::from_millis(2);

pub(crate) fn run(options: &Options) -> Result<()> {
    let name = ChannelName::parse("orders-000000", 200)?;
    let event = Publication {
        channels: vec![name.clone()],
        event: "order-updated".into(),
        data: "x".repeat(options.payload),
        except: None,
    };
    let frame = EncodedEvent::new(&event.event, &event.data, None).frame(&name);
    let frame = frame.as_bytes().len() as f64;
    println!(
        "A frame of {frame} bytes ({} of data), {:?}.",
        options.payload, options.driver
    );
    println!(
        "| nodes | messages | bytes in | of the frame | bytes out | of the frame | idle: messages/s | bytes out/s |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for nodes in [1, 3, 10] {
        let broker = Broker::start(options.driver)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let _entered = runtime.enter();
        let config = AdapterConfig::default();
        let mut machines: Vec<_> = (0..nodes)
            .map(|_| broker.machine(&config, usize::MAX))
            .collect::<Result<_>>()?;
        for machine in &machines {
            runtime.block_on(machine.node.synced());
        }
        let knows_all = || {
            machines.iter().all(|machine| {
                let snapshot = machine.node.cluster_snapshot();
                snapshot.is_some_and(|snapshot| snapshot.nodes == nodes && snapshot.nodes_unknown == 0)
            })
        };
        let mut looks = 0;
        while !knows_all() {
            looks += 1;
            ensure!(looks < 1_000, "the nodes did not find each other");
            sleep(Duration::from_millis(10));
        }
        // With one node, nobody hears it but itself.
        let last = machines.last_mut().context("there is one")?;
        while !last.hears(name.as_str())? {
            sleep(Duration::from_millis(5));
        }
        last.subscribe(name.as_str(), None)?;
        sleep(Duration::from_secs(2));
        let idle = over(&broker, || (0..options.events).for_each(|_| sleep(APART)))?;
        let busy = over(&broker, || {
            for _ in 0..options.events {
                machines[0].node.publish(&machines[0].app, [&event]);
                sleep(APART);
            }
        })?;
        let events = f64::from(options.events);
        let each = |busy: u64, idle: u64| (busy as f64 - idle as f64) / events;
        let (bytes_in, bytes_out) = (
            each(busy.0.bytes_in, idle.0.bytes_in),
            each(busy.0.bytes_out, idle.0.bytes_out),
        );
        println!(
            "| {nodes} | {:.2} | {bytes_in:.0} | {:.2} | {bytes_out:.0} | {:.2} | {:.0} | {:.0} |",
            each(busy.0.published, idle.0.published),
            bytes_in / frame,
            bytes_out / frame,
            idle.0.published as f64 / idle.1,
            idle.0.bytes_out as f64 / idle.1,
        );
        drop(_entered);
        runtime.shutdown_background();
    }
    Ok(())
}

/// What goes through the broker meanwhile, and the seconds.
fn over(broker: &Broker, work: impl FnOnce()) -> Result<(Traffic, f64)> {
    let (before, began) = (broker.traffic()?, std::time::Instant::now());
    work();
    Ok((broker.traffic()?.since(before), began.elapsed().as_secs_f64()))
}
