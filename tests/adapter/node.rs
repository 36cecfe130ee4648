//! A node as far as an adapter goes: the adapter, and what it reports.

use std::time::Duration;

use bytes::Bytes;
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::{Adapter, Event, Events, Message, Sink, Topic, WishNumber, events};
use tokio::time::{Instant, sleep, timeout};

/// Nothing that is waited for takes longer, on the busiest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const CHANNEL_LANES: usize = 2;

/// A broker of one kind, as the suite sees it.
pub(crate) trait Ground {
    /// A node's way over it.
    fn open(&self, config: &AdapterConfig, sink: Sink) -> Box<dyn Adapter>;

    /// Kills the broker.
    fn stop(&mut self);

    /// Starts it again.
    fn start(&mut self);

    /// The longest message that it carries, if that is short.
    fn message_bytes_max(&self) -> Option<usize> {
        None
    }

    /// A node of the cluster `fanwire`, with all its connections up.
    async fn node(&self) -> Node {
        self.node_of("fanwire", 64 << 20).await
    }

    async fn node_of(&self, prefix: &str, queue_bytes_max: usize) -> Node {
        let node = self.opened(prefix, queue_bytes_max);
        node.whole().await;
        node
    }

    /// A node that has just begun to connect.
    fn opened(&self, prefix: &str, queue_bytes_max: usize) -> Node {
        let config = AdapterConfig {
            prefix: prefix.into(),
            ..AdapterConfig::default()
        };
        let (sink, lanes) = events(CHANNEL_LANES, queue_bytes_max);
        Node {
            adapter: self.open(&config, sink.clone()),
            lanes,
            sink,
        }
    }
}

/// A broker that is a process of its own.
pub(crate) trait Process: Ground {
    /// Stops it in its tracks.
    fn freeze(&mut self);

    /// Lets it go on.
    fn thaw(&mut self);
}

pub(crate) struct Node {
    pub(crate) adapter: Box<dyn Adapter>,
    pub(crate) lanes: Vec<Events>,
    pub(crate) sink: Sink,
}

impl Node {
    /// Waits until all connections are up.
    pub(crate) async fn whole(&self) {
        self.healthy("all connections up", |connected, wanted| connected == wanted)
            .await;
    }

    /// Waits until no connection is up.
    pub(crate) async fn cut_off(&self) {
        self.healthy("all connections down", |connected, _| connected == 0)
            .await;
    }

    async fn healthy(&self, what: &str, is_it: impl Fn(usize, usize) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let health = self.adapter.health();
            if is_it(health.connected, health.wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "not {what}: {health:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The next event of the topic's lane.
    pub(crate) async fn next(&mut self, topic: Topic, what: &str) -> Event {
        let event = timeout(DEADLINE, self.lanes[topic.lane(CHANNEL_LANES)].next()).await;
        event
            .unwrap_or_else(|_| panic!("{what} of {topic} did not come"))
            .expect("the adapter lives")
    }

    /// Wants a topic, and waits for the confirmation of this very wish.
    pub(crate) async fn want(&mut self, topic: Topic, number: WishNumber) {
        self.adapter.want(topic, true, number);
        self.confirmed(topic, number).await;
    }

    pub(crate) async fn confirmed(&mut self, topic: Topic, number: WishNumber) {
        loop {
            let event = self.next(topic, "the confirmation").await;
            if matches!(event, Event::Confirmed(t, n) if (t, n) == (topic, number)) {
                return;
            }
        }
    }

    /// Passes over all else until the topic is told to be lost.
    pub(crate) async fn lost(&mut self, topic: Topic) {
        loop {
            match self.next(topic, "the loss").await {
                Event::Lost(lost) if lost == topic => return,
                Event::Confirmed(confirmed, _) if confirmed == topic => {
                    panic!("confirmed before it was lost")
                }
                _ => {}
            }
        }
    }

    /// The next message of the topic.
    pub(crate) async fn hear(&mut self, topic: Topic) -> Bytes {
        loop {
            match self.next(topic, "a message").await {
                Event::Heard(message) if message.topic == topic => return message.bytes,
                _ => {}
            }
        }
    }

    /// Publishes messages of one topic, once.
    pub(crate) async fn publish(&self, topic: Topic, messages: impl IntoIterator<Item = Bytes>) -> Vec<bool> {
        let message = |bytes| Message { topic, bytes };
        let batch = messages.into_iter().map(message).collect();
        let published = self.adapter.publish(topic.lane(CHANNEL_LANES), batch);
        // Five seconds are promised; a busy machine may be late to see that they are over.
        let limit = Duration::from_secs(8);
        timeout(limit, published).await.expect("a batch ends in time")
    }

    /// Publishes one message, which must be accepted.
    pub(crate) async fn say(&self, topic: Topic, text: &str) {
        let accepted = self
            .publish(topic, [Bytes::copy_from_slice(text.as_bytes())])
            .await;
        assert_eq!(accepted, [true], "{text} on {topic}: {:?}", self.adapter.health());
    }

    /// Publishes one message again until it is accepted.
    pub(crate) async fn pass(&self, topic: Topic, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        let message = Bytes::copy_from_slice(text.as_bytes());
        while self.publish(topic, [message.clone()]).await != [true] {
            assert!(
                Instant::now() < deadline,
                "{text} is not accepted on {topic}: {:?}",
                self.adapter.health()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Publishes one message until it is heard: one that comes before the topic is subscribed to is not.
    pub(crate) async fn passes(&mut self, topic: Topic, text: &str) {
        let deadline = Instant::now() + DEADLINE;
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
