//! A node as far as the way over Redis goes: an adapter, and what it reports.

use std::time::Duration;

use bytes::Bytes;
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::redis::{RedisAdapter, RedisConfig};
use fanwire::adapter::{Adapter, Event, Message, Topic, WishNumber, events};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Nothing that is waited for takes longer, on the busiest machine.
const SOON: Duration = Duration::from_secs(30);

const CHANNEL_LANES: usize = 2;

pub(crate) struct Node {
    pub(crate) adapter: RedisAdapter,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Node {
    pub(crate) fn open(config: &RedisConfig) -> Node {
        let (sink, lanes) = events(CHANNEL_LANES, 64 << 20);
        let adapter =
            RedisAdapter::open(config, &AdapterConfig::default(), sink).expect("a valid configuration");
        let (all, events) = mpsc::unbounded_channel();
        for mut lane in lanes {
            let all = all.clone();
            tokio::spawn(async move {
                while let Some(event) = lane.next().await {
                    let _ = all.send(event);
                }
            });
        }
        Node { adapter, events }
    }

    /// Opens one, and waits until all its connections are up.
    pub(crate) async fn connected(config: &RedisConfig) -> Node {
        let node = Node::open(config);
        node.whole().await;
        node
    }

    pub(crate) async fn whole(&self) {
        let deadline = Instant::now() + SOON;
        while !self.adapter.health().is_whole() {
            assert!(
                Instant::now() < deadline,
                "not connected: {:?}",
                self.adapter.health()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for an event that is looked for, and gives it, with all that came before it.
    pub(crate) async fn until(&mut self, what: &str, mut is_it: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut told = Vec::new();
        let found = timeout(SOON, async {
            while let Some(event) = self.events.recv().await {
                let found = is_it(&event);
                told.push(event);
                if found {
                    return;
                }
            }
        });
        if found.await.is_err() {
            panic!("{what} did not come, but {told:?}");
        }
        told
    }

    pub(crate) async fn want(&mut self, topic: Topic, number: WishNumber) -> Vec<Event> {
        self.adapter.want(topic, true, number);
        self.confirmed(topic, number).await
    }

    pub(crate) async fn confirmed(&mut self, topic: Topic, number: WishNumber) -> Vec<Event> {
        let is_it = |event: &Event| matches!(event, Event::Confirmed(t, n) if (*t, *n) == (topic, number));
        self.until(&format!("the confirmation of {topic}"), is_it).await
    }

    pub(crate) async fn lost(&mut self, topic: Topic) {
        let is_it = |event: &Event| matches!(event, Event::Lost(lost) if *lost == topic);
        self.until(&format!("the loss of {topic}"), is_it).await;
    }

    /// The next message of the topic.
    pub(crate) async fn hear(&mut self, topic: Topic) -> Bytes {
        let is_it = |event: &Event| matches!(event, Event::Heard(message) if message.topic == topic);
        match self.until(&format!("a message of {topic}"), is_it).await.pop() {
            Some(Event::Heard(message)) => message.bytes,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes messages of one lane, once.
    pub(crate) async fn publish(&self, topic: Topic, texts: impl IntoIterator<Item = String>) -> Vec<bool> {
        let message = |text: String| Message {
            topic,
            bytes: text.into(),
        };
        let batch = texts.into_iter().map(message).collect();
        let published = self.adapter.publish(topic.lane(CHANNEL_LANES), batch);
        let limit = Duration::from_secs(6);
        timeout(limit, published).await.expect("a batch ends in time")
    }

    /// Publishes a message again until it is accepted.
    pub(crate) async fn pass(&self, topic: Topic, text: &str) {
        let deadline = Instant::now() + SOON;
        while self.publish(topic, [text.to_owned()]).await != [true] {
            assert!(
                Instant::now() < deadline,
                "{topic} is not accepted: {:?}",
                self.adapter.health()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Publishes a message until it is heard: one that comes before the topic is subscribed to is not.
    pub(crate) async fn passes(&mut self, topic: Topic, text: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            self.pass(topic, text).await;
            let heard = async { while self.hear(topic).await != text.as_bytes() {} };
            if timeout(Duration::from_millis(500), heard).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "{text} is not heard on {topic}");
        }
    }
}
