//! The way to the other nodes: a broker that carries bytes by topic.
//!
//! An adapter owns its connections. It is told which topics this node wants, hands batches over to the broker, and
//! reports what it hears into one bounded queue, so that it never calls up into the node and never stops reading the
//! broker. It promises little: at most once, and in order per sender and topic as long as a connection lives. All
//! that is better than that is `relay`'s. Knows nothing of channels, of presence, of what the bytes mean.

mod certificate;
pub mod config;
mod events;
pub mod memory;
pub mod nats;
mod owned;
pub mod redis;
mod tls;
mod topic;
mod wished;
mod wishes;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use events::{Event, Events, Sink, events};
pub use topic::{LANE_DIRECT, LANE_HEART, Lane, NoTopic, NodeId, Topic};

/// One message for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who is to hear it: every node that wants this topic, its sender too if it wants it itself.
    pub topic: Topic,
    /// What the other nodes get, to the byte.
    pub bytes: Bytes,
}

/// Counts the wishes for one topic: a confirmation speaks of the wish with its number, and of those before.
pub type WishNumber = u64;

/// How the connections are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkHealth {
    /// Connections that are up, of all that there should be.
    pub connected: usize,
    /// Connections that there should be.
    pub wanted: usize,
    /// Connections made anew since the start.
    pub reconnects: u64,
}

impl LinkHealth {
    /// Whether every connection is up.
    pub fn is_whole(self) -> bool {
        self.connected == self.wanted
    }
}

/// An adapter at work, and where it reports.
#[derive(Debug)]
pub struct Link {
    /// What carries messages: `redis`, `nats`.
    pub driver: &'static str,
    /// The way out.
    pub adapter: Arc<dyn Adapter>,
    /// What came in, for each lane.
    pub events: Vec<Events>,
    /// Where it was put.
    pub sink: Sink,
}

/// Carries messages between the nodes of one cluster.
///
/// Connections are kept up for ever: after a loss each is made anew with growing, jittered pauses of at most two
/// seconds, and the wishes are applied again. A connection that is up but deaf, or frozen, counts as lost within
/// five seconds.
pub trait Adapter: Send + Sync + fmt::Debug {
    /// Hands messages of one lane over, in their order, and ends when the broker has accepted or refused them, or the
    /// connection is lost, after five seconds at the latest. True for each message that was accepted; one that was
    /// not may have been heard all the same. One that the broker can never take, as too long, is given up, told in the
    /// log, and counts as accepted: it would hold up what comes behind it for ever. The next batch of a lane is not handed over before this one has ended.
    fn publish(&self, lane: Lane, batch: Vec<Message>) -> BoxFuture<'_, Vec<bool>>;

    /// Says whether this node wants to hear a topic: state, not a message. Returns at once; when the broker has
    /// confirmed the topic, [`Event::Confirmed`] carries `number`. Of two wishes for a topic that with the higher
    /// number holds. A wish with a new number for a topic that is wanted already is confirmed anew, by the broker.
    fn want(&self, topic: Topic, wanted: bool, number: WishNumber);

    /// What the connections last reported.
    fn health(&self) -> LinkHealth;
}
