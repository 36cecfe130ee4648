//! The last events of an app's cache channels: which there are, how many bytes they hold, which is the oldest.
//!
//! The events themselves lie in their channels. This index only decides what must go: what has expired, and the
//! oldest while the app is over its bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::channel::Channel;
use crate::protocol::frame::Frame;
use crate::relay::Origin;

/// Charged for each cached event beside its frame. Bytes.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// The last event of a cache channel.
#[derive(Clone, Debug)]
pub struct CachedEvent {
    /// As it was broadcast.
    pub frame: Frame,
    /// From then on it is no longer shown.
    pub expires: Instant,
    /// When it was published, and on which node: the later one stays.
    pub origin: Origin,
    /// Announced by another node while nobody was subscribed here: whoever is now has got it when joining, so what comes
    /// over the relay of it, and of older ones of that node, is not for them.
    pub is_known_to_all: bool,
    /// Its place in the index, given by it.
    pub(super) place: Place,
}

/// By when an event goes; then in the order of storing.
pub(super) type Place = (Instant, u64);

impl CachedEvent {
    /// An event to be stored.
    pub fn new(frame: Frame, expires: Instant, origin: Origin) -> CachedEvent {
        CachedEvent {
            frame,
            expires,
            origin,
            is_known_to_all: false,
            place: (expires, 0),
        }
    }

    fn bytes(&self) -> usize {
        self.frame.as_bytes().len() + EVENT_OVERHEAD_BYTES
    }
}

/// All cached events of one app in the order in which they expire: those of one node are stored in that order, too.
#[derive(Debug, Default)]
pub struct CacheIndex {
    by_place: BTreeMap<Place, (Arc<Channel>, usize)>,
    stored: u64,
    bytes: usize,
}

impl CacheIndex {
    /// Notes a new event in place of `replaced`, and gives it its place.
    pub fn store(
        &mut self,
        channel: &Arc<Channel>,
        mut event: CachedEvent,
        replaced: Option<&CachedEvent>,
    ) -> CachedEvent {
        if let Some(old) = replaced {
            self.forget(old.place);
        }
        self.stored += 1;
        event.place = (event.expires, self.stored);
        self.bytes += event.bytes();
        self.by_place
            .insert(event.place, (channel.clone(), event.bytes()));
        event
    }

    /// What they hold together.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn forget(&mut self, place: Place) {
        if let Some((_, bytes)) = self.by_place.remove(&place) {
            self.bytes -= bytes;
        }
    }

    /// Takes out the oldest event if it has expired or the bytes are over the bound. Whoever asks then clears it
    /// in its channel, unless a newer one has taken its place.
    pub(super) fn pop(&mut self, now: Instant, bytes_max: usize) -> Option<(Arc<Channel>, Place)> {
        let (&place, (channel, _)) = self.by_place.first_key_value()?;
        if place.0 > now && self.bytes <= bytes_max {
            return None;
        }
        let channel = channel.clone();
        self.forget(place);
        Some((channel, place))
    }
}
