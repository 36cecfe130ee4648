//! The events of one endpoint by channel, and the line of the channels whose events may go. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::{BODY_BYTES_MAX, SPREAD_MAX, Terms};
use crate::protocol::ChannelName;
use crate::webhook::body::Event;

/// The events of all channels that have any.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<ChannelName, Lane>,
    /// The channels of which something may go, each once, and since when.
    ready: VecDeque<(ChannelName, Instant)>,
    /// The events of these channels.
    ready_events: usize,
}

/// The events of one channel, the oldest first.
#[derive(Debug, Default)]
struct Lane {
    events: VecDeque<Event>,
    /// Events of the channel are on their way or wait to be tried again: these here wait for them.
    is_held: bool,
}

impl Lanes {
    pub(super) fn push(&mut self, event: Event, now: Instant) {
        let channel = event.channel.clone();
        let lane = self.lanes.entry(channel.clone()).or_default();
        lane.events.push_back(event);
        if lane.is_held {
            return;
        }
        self.ready_events += 1;
        if lane.events.len() == 1 {
            self.ready.push_back((channel, now));
        }
    }

    /// When a batch may be taken: as soon as there is enough for one, or the first has waited long enough for others.
    pub(super) fn due(&self, terms: &Terms) -> Option<Instant> {
        let (_, since) = self.ready.front()?;
        let is_full = self.ready_events >= terms.max_events;
        Some(if is_full { *since } else { *since + terms.max_delay })
    }

    /// Takes up to so many events from the front of the line; what is left of their channels waits for them.
    pub(super) fn take(&mut self, max_events: usize, now: Instant) -> Vec<Event> {
        let mut taken: Vec<Event> = Vec::new();
        let mut bytes = 0;
        while let Some((channel, since)) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&channel) else {
                continue;
            };
            let before = taken.len();
            while let Some(event) = lane.events.front()
                && taken.len() < max_events
                && bytes < BODY_BYTES_MAX
                && taken.first().is_none_or(|first| go_together(first, event, now))
            {
                bytes += event.json.len();
                taken.extend(lane.events.pop_front());
            }
            if taken.len() == before {
                self.ready.push_front((channel, since));
                break;
            }
            self.ready_events -= taken.len() - before + lane.events.len();
            lane.is_held = true;
        }
        taken
    }

    /// The events of these are done with: their channels may go on.
    pub(super) fn release(&mut self, done: &[Event], now: Instant) {
        for event in done {
            let Some(lane) = self.lanes.get_mut(&event.channel).filter(|lane| lane.is_held) else {
                continue;
            };
            lane.is_held = false;
            if lane.events.is_empty() {
                self.lanes.remove(&event.channel);
            } else {
                self.ready_events += lane.events.len();
                self.ready.push_back((event.channel.clone(), now));
            }
        }
        if self.lanes.is_empty() {
            // What a flood needed is not kept.
            *self = Lanes::default();
        }
    }
}

/// Whether two events may be in one body: both too old to be sent, or of about the same age.
fn go_together(first: &Event, event: &Event, now: Instant) -> bool {
    if first.expires <= now {
        return event.expires <= now;
    }
    let (one, other) = (first.expires.max(event.expires), first.expires.min(event.expires));
    other > now && one.duration_since(other) <= SPREAD_MAX
}
