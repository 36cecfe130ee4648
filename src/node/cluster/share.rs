//! Saying all that is here to those who ask: one walk for all who asked at once, in paced chunks.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rand::RngExt;
use tokio::sync::mpsc;

use super::collect::Collecting;
use super::{Cluster, now};
use crate::adapter::{LANE_DIRECT, NodeId, Topic};
use crate::node::Node;
use crate::relay::parcel::{Content, Parcel};
use crate::relay::wire::{Malformed, Reader};
use crate::roster::snapshot::Chunk;

/// So long others may join in who ask as well.
const GATHER: Duration = Duration::from_millis(50);
/// Between chunks, so that they do not fill the way.
const PACE: Duration = Duration::from_millis(2);

const ALL: u8 = 0;
const CHUNK: u8 = 1;

/// What nodes say to each other about their shares.
#[derive(Debug)]
pub(super) enum Ask {
    /// Tell me all that you have.
    All,
    /// A part of it.
    Chunk(Chunk),
}

impl Ask {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Ask::All => bytes.put_u8(ALL),
            Ask::Chunk(chunk) => {
                bytes.put_u8(CHUNK);
                bytes.put_slice(&chunk.encode());
            }
        }
        bytes.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Ask, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            ALL => Ok(Ask::All),
            CHUNK => Ok(Ask::Chunk(Chunk::decode(reader.rest())?)),
            _ => Err(Malformed),
        }
    }
}

impl Cluster {
    /// Says something to one node. It may be lost.
    pub(super) fn say(&self, to: NodeId, what: &Ask) -> bool {
        self.say_on(Topic::Node(to), what)
    }

    fn say_on(&self, topic: Topic, what: &Ask) -> bool {
        let parcel = Parcel {
            sender: self.id,
            content: Content::Roster(what.encode()),
        };
        self.lanes[LANE_DIRECT].send(topic, parcel.encode())
    }
}

impl Cluster {
    async fn say_all(&self, topic: Topic, chunks: Vec<Chunk>) {
        for chunk in chunks {
            let part = Ask::Chunk(chunk);
            while !self.say_on(topic, &part) {
                tokio::time::sleep(PACE).await;
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Answers those who ask for all that is here, for ever.
pub(super) async fn answer(node: Arc<Node>, mut asking: mpsc::Receiver<NodeId>) {
    let Some(cluster) = node.cluster() else { return };
    let mut luck = cluster.luck();
    while let Some(first) = asking.recv().await {
        tokio::time::sleep(GATHER).await;
        let mut topic = Topic::Node(first);
        while let Ok(other) = asking.try_recv() {
            if other != first {
                // One answer for all; who did not ask leaves it aside.
                topic = Topic::Roster;
            }
        }
        let mut walk = Collecting::new(&node, luck.random(), node.announce_now());
        let alive = cluster.heart.alive();
        while let Some(chunks) = walk.step(&node, |origin| alive.contains(&origin), now()) {
            cluster.say_all(topic, chunks).await;
            tokio::task::yield_now().await;
        }
        // With all announced that the walk may have seen.
        let last = walk.finish(node.announce_now());
        cluster.say_all(topic, last).await;
    }
}
