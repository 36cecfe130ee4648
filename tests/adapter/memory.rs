//! The bus in this process, and the faults that only it has.

use std::time::Duration;

use bytes::Bytes;
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::memory::{Bus, Link, Memory, Weather};
use fanwire::adapter::{Adapter, Event, Message, Sink, Topic, events};
use tokio::time::Instant;

use crate::node::{CHANNEL_LANES, Ground};
use crate::suite::suite;

const CHANNELS: Topic = Topic::Channels(7);

/// A bus for each prefix, as a broker keeps clusters apart.
struct Memories {
    buses: [(&'static str, Bus); 3],
}

impl Memories {
    fn new() -> Memories {
        Memories {
            buses: ["fanwire", "fanwire.a", "fanwire.b"].map(|prefix| (prefix, Bus::new(7))),
        }
    }

    fn set_links(&self, link: Link) {
        for (_, bus) in &self.buses {
            bus.set_links(link);
        }
    }
}

impl Ground for Memories {
    fn open(&self, config: &AdapterConfig, sink: Sink) -> Box<dyn Adapter> {
        let bus = self.buses.iter().find(|(prefix, _)| *prefix == config.prefix);
        Box::new(Memory::join(&bus.expect("a known prefix").1, sink))
    }

    fn stop(&mut self) {
        self.set_links(Link::Down);
    }

    fn start(&mut self) {
        self.set_links(Link::Up);
    }
}

suite!(Memories::new());

/// What one node hears of 1,000 messages of another, and when, in weather of this seed.
async fn heard_in_weather(seed: u64) -> Vec<(Duration, Bytes)> {
    let begun = Instant::now();
    let bus = Bus::new(seed);
    bus.set_weather(Weather {
        delay: Duration::from_millis(1)..=Duration::from_secs(2),
        loss: 0.1,
        repetition: 0.1,
    });
    let (sink, mut lanes) = events(CHANNEL_LANES, 1 << 20);
    let node = Memory::join(&bus, sink);
    let other = Memory::join(&bus, events(CHANNEL_LANES, 1 << 20).0);
    node.want(CHANNELS, true, 1);
    let lane = CHANNELS.lane(CHANNEL_LANES);
    assert!(matches!(
        lanes[lane].next().await,
        Some(Event::Confirmed(CHANNELS, 1))
    ));
    let message = |number: u32| Message {
        topic: CHANNELS,
        bytes: format!("{number:03}").into(),
    };
    let accepted = other.publish(lane, (0..1000).map(message).collect()).await;
    assert_eq!(accepted, [true; 1000]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut heard = Vec::new();
    while let Some(event) = lanes[lane].try_next() {
        if let Event::Heard(message) = event {
            heard.push((begun.elapsed(), message.bytes));
        }
    }
    assert_eq!(bus.published()[&CHANNELS].messages, 1000);
    assert_eq!(bus.heard_by(node.member()).messages, heard.len() as u64);
    assert_eq!(bus.heard()[&CHANNELS].bytes, 3 * heard.len() as u64);
    heard
}

#[tokio::test(start_paused = true)]
async fn weather_loses_and_repeats_but_keeps_order_and_comes_again_from_the_same_seed() {
    let heard = heard_in_weather(1).await;
    let mut once: Vec<_> = heard.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert!(once.is_sorted());
    let repeated = once.len();
    once.dedup();
    assert!((850..950).contains(&once.len()), "{} came", once.len());
    assert!(repeated > once.len() + 50, "{repeated} of {}", once.len());
    assert_eq!(heard_in_weather(1).await, heard);
    assert_ne!(heard_in_weather(2).await, heard);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_node_is_heard_and_a_parted_one_is_not() {
    let memories = Memories::new();
    let bus = &memories.buses[0].1;
    let mut node = memories.node().await;
    let other = memories.node().await;
    node.want(CHANNELS, 1).await;
    bus.set_link(1, Link::Unanswered);
    assert_eq!(other.publish(CHANNELS, ["taken".into()]).await, [false]);
    assert_eq!(node.hear(CHANNELS).await, "taken");
    bus.set_link(1, Link::Up);
    bus.part(&[&[0]]);
    other.say(CHANNELS, "across the gap").await;
    bus.part(&[]);
    other.say(CHANNELS, "healed").await;
    assert_eq!(node.hear(CHANNELS).await, "healed");
}
