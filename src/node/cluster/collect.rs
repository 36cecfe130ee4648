//! Saying all that is here to a node that does not know it yet.
//!
//! The walk goes over the directory in steps, so that it can be paced, while everything goes on changing. What makes it
//! exact is in [`crate::roster::snapshot`].

use std::sync::Arc;
use std::time::Instant;

use super::announce::cached_entry;
use crate::adapter::NodeId;
use crate::hub::channel::{Channel, ChannelState};
use crate::hub::namespace::{Namespace, STRIPES};
use crate::node::Node;
use crate::roster::delta::{Entry, MemberEntry, Pieces};
use crate::roster::snapshot::Chunk;

/// A walk over what is here.
#[derive(Debug)]
pub struct Collecting {
    snapshot: u64,
    begins_at: u64,
    next_index: u32,
    places: Vec<(Arc<Namespace>, usize)>,
    pieces: Pieces,
}

impl Collecting {
    /// Begins a snapshot with a number of its own. `begins_at` is the number of this node's last announcement.
    pub fn new(node: &Node, snapshot: u64, begins_at: u64) -> Collecting {
        let mut pieces = Pieces::default();
        let mut places = Vec::new();
        for namespace in node.hub.namespaces() {
            let app = namespace.app.id().into();
            let count = u32::try_from(namespace.app.connections()).unwrap_or(u32::MAX);
            pieces.push(&Entry::Connections { app, count });
            places.extend((0..STRIPES).map(|stripe| (namespace.clone(), stripe)));
        }
        Collecting {
            snapshot,
            begins_at,
            next_index: 0,
            places,
            pieces,
        }
    }

    /// Goes a step further. The answer are the chunks that are full, and `None` when the walk is over: then
    /// everything that is marked has to be flushed, and [`Collecting::finish`] makes the last chunk. Cached events of
    /// other nodes are left to those, if they are alive.
    pub fn step(
        &mut self,
        node: &Node,
        is_alive: impl Fn(NodeId) -> bool,
        now: Instant,
    ) -> Option<Vec<Chunk>> {
        let (namespace, stripe) = self.places.pop()?;
        let app: Arc<str> = namespace.app.id().into();
        for channel in namespace.channels_of(stripe) {
            let read = |channel: &Arc<Channel>, state: &mut ChannelState| {
                entries_of(node, &app, channel, state, &is_alive, now)
            };
            let entries = node.hub.step(&namespace, &channel, read).unwrap_or_default();
            entries.iter().flatten().for_each(|entry| self.pieces.push(entry));
        }
        let full = self.pieces.take_full();
        Some(full.into_iter().map(|piece| self.chunk(piece)).collect())
    }

    fn chunk(&mut self, piece: bytes::Bytes) -> Chunk {
        let index = self.next_index;
        self.next_index += 1;
        Chunk {
            snapshot: self.snapshot,
            index,
            begins_at: self.begins_at,
            ends_at: None,
            piece,
        }
    }

    /// The last chunks. `ends_at` is the number of this node's last announcement now.
    pub fn finish(mut self, ends_at: u64) -> Vec<Chunk> {
        let left = std::mem::take(&mut self.pieces).finish();
        let mut chunks: Vec<Chunk> = left.into_iter().map(|piece| self.chunk(piece)).collect();
        if chunks.is_empty() {
            chunks.push(self.chunk(bytes::Bytes::new()));
        }
        if let Some(last) = chunks.last_mut() {
            last.ends_at = Some(ends_at);
        }
        chunks
    }
}

/// What a channel has here, and its last event.
fn entries_of(
    node: &Node,
    app: &Arc<str>,
    channel: &Channel,
    state: &ChannelState,
    is_alive: impl Fn(NodeId) -> bool,
    now: Instant,
) -> [Option<Entry>; 2] {
    let here = node.id();
    let Some(name) = channel.name() else {
        return [None, None];
    };
    let count = u32::try_from(state.here()).unwrap_or(u32::MAX);
    let name: Arc<str> = name.as_str().into();
    let members = state
        .members()
        .into_iter()
        .flat_map(|members| members.claimed_by(here));
    let member = |(user_id, user_info, since): (&Arc<str>, &Arc<str>, _)| MemberEntry {
        user_id: user_id.clone(),
        claim: Some((user_info.clone(), since)),
    };
    let subscribed = (count > 0).then(|| Entry::Channel {
        app: app.clone(),
        channel: name.clone(),
        count,
        members: members.map(member).collect(),
    });
    let is_mine = |origin: NodeId| origin == here || !is_alive(origin);
    let cached = state.cached_at(now).filter(|event| is_mine(event.origin.node));
    let cached = cached.map(|event| cached_entry(app.clone(), name, event.clone(), now));
    [subscribed, cached]
}
