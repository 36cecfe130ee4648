//! The last events of an app's cache channels: which there are, how many bytes they hold, which is the oldest.
//!
//! The events themselves lie in their channels. This index only decides what must go: what has expired, and the
//! oldest while the app is over its bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::channel::Channel;
use crate::protocol::frame::Frame;

/// Charged for each cached event beside its frame. Bytes.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// The last event of a cache channel.
#[derive(Clone, Debug)]
pub struct CachedEvent {
    /// As it was broadcast.
    pub frame: Frame,
    /// From then on it is no longer shown.
    pub expires: Instant,
    /// Its place in the order of storing.
    pub stamp: u64,
}

impl CachedEvent {
    fn bytes(&self) -> usize {
        self.frame.as_bytes().len() + EVENT_OVERHEAD_BYTES
    }
}

/// All cached events of one app in the order in which they were stored, which is the order in which they expire.
#[derive(Debug, Default)]
pub struct CacheIndex {
    by_stamp: BTreeMap<u64, (Arc<Channel>, usize, Instant)>,
    next_stamp: u64,
    bytes: usize,
}

impl CacheIndex {
    /// Notes a new event in place of `replaced`, and gives it its stamp.
    pub fn store(
        &mut self,
        channel: &Arc<Channel>,
        frame: Frame,
        expires: Instant,
        replaced: Option<&CachedEvent>,
    ) -> CachedEvent {
        if let Some(old) = replaced {
            self.forget(old.stamp);
        }
        let event = CachedEvent {
            frame,
            expires,
            stamp: self.next_stamp,
        };
        self.next_stamp += 1;
        self.bytes += event.bytes();
        self.by_stamp
            .insert(event.stamp, (channel.clone(), event.bytes(), expires));
        event
    }

    fn forget(&mut self, stamp: u64) {
        if let Some((_, bytes, _)) = self.by_stamp.remove(&stamp) {
            self.bytes -= bytes;
        }
    }

    /// Takes out the oldest event if it has expired or the bytes are over the bound. Whoever asks then clears it
    /// in its channel, unless a newer one has taken its place.
    pub fn pop(&mut self, now: Instant, bytes_max: usize) -> Option<(Arc<Channel>, u64)> {
        let (&stamp, (channel, _, expires)) = self.by_stamp.first_key_value()?;
        if *expires > now && self.bytes <= bytes_max {
            return None;
        }
        let channel = channel.clone();
        self.forget(stamp);
        Some((channel, stamp))
    }
}
