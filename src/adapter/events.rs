//! What an adapter reports: a queue for each lane, bounded in messages and bytes, that refuses instead of waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Lane, Message, Topic, WishNumber};

/// So many messages of a lane may wait to be read.
const WAITING_MAX: usize = 65_536;

/// What an adapter reports.
#[derive(Debug)]
pub enum Event {
    /// The broker delivered something.
    Heard(Message),
    /// The broker confirmed this wish: from now on the topic is heard.
    Confirmed(Topic, WishNumber),
    /// The topic may no longer be heard, or may have missed something; a confirmation follows when it is heard again.
    Lost(Topic),
}

/// Where an adapter puts what it has to report. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink {
    lanes: Arc<[mpsc::Sender<Event>]>,
    channel_lanes: usize,
    counts: Arc<Counts>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    refused: AtomicU64,
}

/// What the adapter reported for one lane.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Event>,
    counts: Arc<Counts>,
    /// Heartbeats are few and small, and nothing else may crowd them out: they are bounded in number only.
    is_heart: bool,
}

/// The queues of all lanes: that of the heartbeats, that of the nodes' own talk, and one for each of `channel_lanes`.
/// What waits in them together is at most `bytes_max`.
pub fn events(channel_lanes: usize, bytes_max: usize) -> (Sink, Vec<Events>) {
    let counts = Arc::new(Counts::default());
    let lanes = super::LANE_DIRECT + 1 + channel_lanes;
    let (senders, queues): (Vec<_>, Vec<_>) = (0..lanes).map(|_| mpsc::channel(WAITING_MAX)).unzip();
    let events = |(lane, queue)| Events {
        queue,
        counts: counts.clone(),
        is_heart: lane == super::LANE_HEART,
    };
    let events = queues.into_iter().enumerate().map(events).collect();
    let sink = Sink {
        lanes: senders.into(),
        channel_lanes,
        counts,
        bytes_max,
    };
    (sink, events)
}

impl Sink {
    /// How many lanes carry channels.
    pub fn channel_lanes(&self) -> usize {
        self.channel_lanes
    }

    /// All lanes.
    pub fn lanes(&self) -> std::ops::Range<Lane> {
        0..self.lanes.len()
    }

    /// Reports a message. One that does not fit is refused and counted: the numbers of the relay will tell that it is
    /// missing. Never waits.
    pub fn heard(&self, topic: Topic, bytes: Bytes) {
        let lane = topic.lane(self.channel_lanes);
        let length = if lane == super::LANE_HEART { 0 } else { bytes.len() };
        let waiting = self.counts.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        let fits = waiting + length <= self.bytes_max || waiting == 0;
        let event = Event::Heard(Message { topic, bytes });
        if !fits || self.lanes[lane].try_send(event).is_err() {
            self.counts.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reports that a wish was confirmed.
    pub async fn confirmed(&self, topic: Topic, number: WishNumber) {
        let lane = topic.lane(self.channel_lanes);
        // Nobody listens any more: the node is going down.
        let _ = self.lanes[lane].send(Event::Confirmed(topic, number)).await;
    }

    /// Reports that a topic may have missed something.
    pub async fn lost(&self, topic: Topic) {
        let lane = topic.lane(self.channel_lanes);
        let _ = self.lanes[lane].send(Event::Lost(topic)).await;
    }

    /// Messages that did not fit, since the start.
    pub fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::Relaxed)
    }
}

impl Events {
    /// The next one. `None` when the adapter is gone.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.queue.recv().await?;
        self.taken(&event);
        Some(event)
    }

    /// The next one, if it is there.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.queue.try_recv().ok()?;
        self.taken(&event);
        Some(event)
    }

    fn taken(&self, event: &Event) {
        if let Event::Heard(message) = event
            && !self.is_heart
        {
            self.counts
                .waiting_bytes
                .fetch_sub(message.bytes.len(), Ordering::Relaxed);
        }
    }
}
