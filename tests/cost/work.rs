//! What the server is given to do between two quiet points, and what came of it: the figures.

use std::collections::BTreeMap;
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::clients::{Backend, Subscriber};
use crate::server::{Counts, Meter, Server};

const FEW: &str = "private-few";
const MANY: &str = "private-many";
/// Where nobody is.
const NOBODY: &str = "private-nobody";
/// Subscribers of the small channel.
const FEW_SUBSCRIBERS: usize = 10;
/// Events in one call of `batch_events`.
const BATCH: usize = 10;
/// Before the figures are taken: tables and buffers have then the size that they keep.
const WARM_UP: usize = 8;
/// Times that something is done whose cost is looked into.
const WATCHED: usize = 10;
const IDLE: Duration = Duration::from_secs(3);

/// Something that clients do to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Deed {
    /// Nothing, for three seconds.
    Idle,
    /// An event over HTTP, on a channel without subscribers.
    Trigger,
    /// An event over HTTP, to ten.
    BroadcastToFew,
    /// An event over HTTP, to many.
    BroadcastToMany,
    /// Ten events in one call, to many.
    BatchToMany,
    /// A client event, to ten less its sender.
    WhisperToFew,
    /// A client event, to many less its sender.
    WhisperToMany,
    /// A new socket with one subscription.
    Connect,
}

/// What the counts are shared out to. Between ten subscribers and many is only what each of them costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Share {
    Delivery,
    WhisperDelivery,
    BatchDelivery,
    Broadcast,
    Whisper,
    Trigger,
    Connection,
    IdleSecond,
}

impl Share {
    fn deed(self) -> Deed {
        match self {
            Share::Delivery => Deed::BroadcastToMany,
            Share::WhisperDelivery => Deed::WhisperToMany,
            Share::BatchDelivery => Deed::BatchToMany,
            Share::Broadcast => Deed::BroadcastToFew,
            Share::Whisper => Deed::WhisperToFew,
            Share::Trigger => Deed::Trigger,
            Share::Connection => Deed::Connect,
            Share::IdleSecond => Deed::Idle,
        }
    }

    /// The deed to watch where this share is too large, as it is named on the command line.
    pub(crate) fn deed_name(self) -> String {
        let value = self.deed().to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Share::Delivery => "delivered message of a broadcast",
            Share::WhisperDelivery => "delivered message of a client event",
            Share::BatchDelivery => "delivered message of a batch of ten",
            Share::Broadcast => "broadcast, without its deliveries",
            Share::Whisper => "client event, without its deliveries",
            Share::Trigger => "HTTP trigger to nobody",
            Share::Connection => "connection with one subscription",
            Share::IdleSecond => "idle second",
        })
    }
}

/// What each share costs.
pub(crate) type Figures = BTreeMap<Share, Counts>;

/// A server with clients.
pub(crate) struct Stage {
    server: Server,
    backend: Backend,
    few: Vec<Subscriber>,
    many: Vec<Subscriber>,
    newcomers: Vec<Subscriber>,
    times: usize,
}

/// Subscribers of the large channel, and how often everything is done.
fn size(meter: Meter) -> (usize, usize) {
    match meter {
        Meter::Allocations => (1_000, 100),
        Meter::Calls => (1_000, 50),
        // Callgrind is slow, and counts whatever happens meanwhile: many times, for chance to level out.
        Meter::Instructions => (400, 200),
    }
}

impl Stage {
    pub(crate) fn set(meter: Meter) -> Result<Stage> {
        let (many, times) = size(meter);
        let server = Server::start(meter)?;
        let port = server.port();
        let crowd = |channel, size| {
            (0..size)
                .map(|_| Subscriber::connect(port, channel))
                .collect::<Result<Vec<_>>>()
        };
        Ok(Stage {
            backend: Backend::connect(port)?,
            few: crowd(FEW, FEW_SUBSCRIBERS)?,
            many: crowd(MANY, many)?,
            newcomers: Vec::new(),
            times,
            server,
        })
    }

    /// Everything, first to warm up and then to be counted.
    pub(crate) fn figures(&mut self) -> Result<Figures> {
        let few = FEW_SUBSCRIBERS as f64;
        let more = self.many.len() as f64 - few;
        self.server.counted()?;
        let idle = self.counted(Deed::Idle, 1)?;
        let times = self.times;
        let mut share = |deed, times| -> Result<Counts> {
            self.warm_up(deed)?;
            let began = Instant::now();
            let counts = self.counted(deed, times)?;
            // What happens every second happens while the server is busy, too.
            let idle_share = began.elapsed().as_secs_f64() / IDLE.as_secs_f64();
            Ok(counts.less(&idle, idle_share).over(times as f64))
        };
        let trigger = share(Deed::Trigger, times)?;
        let to_few = share(Deed::BroadcastToFew, times)?;
        let to_many = share(Deed::BroadcastToMany, times)?;
        let batch = share(Deed::BatchToMany, times / BATCH)?;
        let whisper_to_few = share(Deed::WhisperToFew, times)?;
        let whisper_to_many = share(Deed::WhisperToMany, times)?;
        let connect = share(Deed::Connect, times)?;
        let delivery = to_many.less(&to_few, 1.0).over(more);
        let whisper_delivery = whisper_to_many.less(&whisper_to_few, 1.0).over(more);
        Ok(BTreeMap::from([
            (Share::IdleSecond, idle.over(IDLE.as_secs_f64())),
            (Share::Trigger, trigger),
            (Share::Broadcast, to_few.less(&delivery, few)),
            (Share::Delivery, delivery),
            (
                Share::BatchDelivery,
                batch.over(self.many.len() as f64 * BATCH as f64),
            ),
            (Share::Whisper, whisper_to_few.less(&whisper_delivery, few)),
            (Share::WhisperDelivery, whisper_delivery),
            (Share::Connection, connect),
        ]))
    }

    /// Does one thing, and says where its cost comes from.
    pub(crate) fn watch(&mut self, deed: Deed) -> Result<()> {
        self.warm_up(deed)?;
        let counts = self.counted(deed, WATCHED)?.over(WATCHED as f64);
        println!("{WATCHED} times; each time {counts:.2?}");
        if self.server.watch()? {
            // To watch is to allocate, so it is done once more.
            self.counted(deed, WATCHED)?;
        }
        self.server.tell_watched()
    }

    fn warm_up(&mut self, deed: Deed) -> Result<()> {
        for _ in 0..WARM_UP {
            self.act(deed)?;
        }
        self.server.counted().map(drop)
    }

    fn counted(&mut self, deed: Deed, times: usize) -> Result<Counts> {
        for _ in 0..times {
            self.act(deed)?;
        }
        self.server.counted()
    }

    /// Does it once, until every client has what it waits for.
    fn act(&mut self, deed: Deed) -> Result<()> {
        match deed {
            Deed::Idle => sleep(IDLE),
            Deed::Trigger => self.backend.call("events", &event(NOBODY))?,
            Deed::BroadcastToFew => {
                self.backend.call("events", &event(FEW))?;
                hear(&mut self.few, 1)?;
            }
            Deed::BroadcastToMany => {
                self.backend.call("events", &event(MANY))?;
                hear(&mut self.many, 1)?;
            }
            Deed::BatchToMany => {
                let batch = vec![event(MANY); BATCH].join(",");
                self.backend
                    .call("batch_events", &format!(r#"{{"batch":[{batch}]}}"#))?;
                hear(&mut self.many, BATCH)?;
            }
            Deed::WhisperToFew => whisper(&mut self.few, FEW)?,
            Deed::WhisperToMany => whisper(&mut self.many, MANY)?,
            Deed::Connect => self
                .newcomers
                .push(Subscriber::connect(self.server.port(), "private-new")?),
        }
        Ok(())
    }
}

fn event(channel: &str) -> String {
    let data = "x".repeat(200);
    format!(r#"{{"name":"news","channel":"{channel}","data":"{data}"}}"#)
}

fn hear(subscribers: &mut [Subscriber], times: usize) -> Result<()> {
    for subscriber in subscribers {
        for _ in 0..times {
            subscriber.hear("news")?;
        }
    }
    Ok(())
}

/// The first one tells all the others.
fn whisper(subscribers: &mut [Subscriber], channel: &str) -> Result<()> {
    let [teller, others @ ..] = subscribers else {
        ensure!(false, "nobody is there");
        return Ok(());
    };
    let data = "x".repeat(100);
    teller.say(&format!(
        r#"{{"event":"client-news","channel":"{channel}","data":"{data}"}}"#
    ))?;
    hear(others, 1)
}

impl Counts {
    /// Without so many times the other.
    fn less(&self, other: &Counts, times: f64) -> Counts {
        let mut calls = self.calls.clone();
        for (name, count) in &other.calls {
            *calls.entry(name.clone()).or_default() -= count * times;
        }
        Counts {
            allocations: self.allocations - other.allocations * times,
            bytes: self.bytes - other.bytes * times,
            kept_bytes: self.kept_bytes - other.kept_bytes * times,
            instructions: self.instructions - other.instructions * times,
            calls,
        }
    }

    fn over(&self, share: f64) -> Counts {
        Counts::default().less(self, -1.0 / share)
    }
}
