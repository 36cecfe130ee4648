//! Several nodes in one process: a bus without a broker, whose faults come when they are ordered and whose luck comes
//! from a seed. For tests and simulations: on tokio's time, so that paused time makes it virtual.
//!
//! The bus and its post live in `bus`. Here is what stands for the connections of one node.

mod bus;

use std::fmt;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

pub use bus::{Bus, Link, Member, Traffic, Weather};

use super::{Adapter, Event, Lane, LinkHealth, Message, Sink, Topic, WishNumber};

/// A node's way over a [`Bus`]. Leaves it when dropped.
pub struct Memory {
    bus: Bus,
    member: Member,
    channel_lanes: usize,
    /// Carry the post of each lane; end with this.
    _couriers: JoinSet<()>,
}

impl Memory {
    /// Joins the bus, and begins to report into the sink.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub fn join(bus: &Bus, sink: Sink) -> Memory {
        let (member, wakes) = bus.enter(sink.lanes().len(), sink.channel_lanes());
        let mut couriers = JoinSet::new();
        for (lane, wake) in wakes.into_iter().enumerate() {
            let (bus, sink) = (bus.clone(), sink.clone());
            couriers.spawn(async move {
                loop {
                    while let Some(event) = bus.take_due(member, lane) {
                        report(&sink, event).await;
                    }
                    match bus.next_due(member, lane) {
                        Some(due) => tokio::select! {
                            () = sleep_until(due) => {}
                            () = wake.notified() => {}
                        },
                        None => wake.notified().await,
                    }
                }
            });
        }
        Memory {
            bus: bus.clone(),
            member,
            channel_lanes: sink.channel_lanes(),
            _couriers: couriers,
        }
    }

    /// What this node is called on the bus: orders of faults name it.
    pub fn member(&self) -> Member {
        self.member
    }
}

async fn report(sink: &Sink, event: Event) {
    match event {
        Event::Heard(message) => sink.heard(message.topic, message.bytes),
        Event::Confirmed(topic, number) => sink.confirmed(topic, number).await,
        Event::Lost(topic) => sink.lost(topic).await,
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.bus.leave(self.member);
    }
}

impl Adapter for Memory {
    fn publish(&self, lane: Lane, batch: Vec<Message>) -> BoxFuture<'_, Vec<bool>> {
        Box::pin(async move {
            debug_assert!(
                batch
                    .iter()
                    .all(|message| message.topic.lane(self.channel_lanes) == lane)
            );
            let (accepted, after) = self.bus.publish(self.member, batch);
            sleep(after).await;
            accepted
        })
    }

    fn want(&self, topic: Topic, wanted: bool, number: WishNumber) {
        self.bus.want(self.member, topic, wanted, number);
    }

    fn health(&self) -> LinkHealth {
        self.bus.health(self.member)
    }
}
