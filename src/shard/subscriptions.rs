//! The subscriptions of one socket: what it is in, and where it sits. Pure.
//!
//! Most sockets have a handful, so a plain list is searched; a socket with many gets an index beside it.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use crate::hub::channel::{Channel, Topic};

/// With more subscriptions than this, names are looked up in an index.
const SEARCHED_MAX: usize = 16;

/// One subscription, counted by the directory from the moment it stands here.
#[derive(Debug)]
pub(super) struct Subscription {
    /// What it is to.
    pub(super) channel: Arc<Channel>,
    /// Tells joins for this subscription from joins for an earlier one at the same place.
    pub(super) token: u32,
    /// The position in the channel's array, once the join has come through the inbox.
    pub(super) position: Option<u32>,
    /// The member that the socket is, on presence channels.
    pub(super) user_id: Option<Arc<str>>,
}

/// All subscriptions of one socket, each at a place that it keeps.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    places: Slab<Subscription>,
    #[expect(
        clippy::box_collection,
        reason = "as a rule absent, and then eight bytes instead of forty-eight"
    )]
    index: Option<Box<HashMap<Topic, u32>>>,
}

impl Subscriptions {
    /// Where this is subscribed to.
    pub(super) fn find(&self, topic: &Topic) -> Option<u32> {
        if let Some(index) = &self.index {
            return index.get(topic).copied();
        }
        self.places
            .iter()
            .find(|(_, held)| held.channel.topic == *topic)
            .map(|(place, _)| place as u32)
    }

    /// The subscription at a place.
    pub(super) fn get(&self, place: u32) -> Option<&Subscription> {
        self.places.get(place as usize)
    }

    /// The subscription at a place, to be changed.
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Subscription> {
        self.places.get_mut(place as usize)
    }

    /// The place that the next subscription will get.
    pub(super) fn next_place(&self) -> u32 {
        self.places.vacant_key() as u32
    }

    /// Notes a subscription at [`Subscriptions::next_place`].
    pub(super) fn insert(&mut self, subscription: Subscription) {
        let topic = subscription.channel.topic.clone();
        if self.places.capacity() == 0 {
            // Many sockets have one subscription for life; a list by itself begins with room for four.
            self.places.reserve_exact(1);
        }
        let place = self.places.insert(subscription) as u32;
        if let Some(index) = &mut self.index {
            index.insert(topic, place);
        } else if self.places.len() > SEARCHED_MAX {
            let all = self
                .places
                .iter()
                .map(|(place, held)| (held.channel.topic.clone(), place as u32));
            self.index = Some(Box::new(all.collect()));
        }
    }

    /// Forgets the subscription at a place.
    pub(super) fn remove(&mut self, place: u32) -> Option<Subscription> {
        let gone = self.places.try_remove(place as usize)?;
        if let Some(index) = &mut self.index {
            index.remove(&gone.channel.topic);
        }
        Some(gone)
    }

    /// The places of all subscriptions.
    pub(super) fn places(&self) -> Vec<u32> {
        self.places.iter().map(|(place, _)| place as u32).collect()
    }

    /// The places of the users watched.
    pub(super) fn watches(&self) -> Vec<u32> {
        let watches = self
            .places
            .iter()
            .filter(|(_, held)| matches!(held.channel.topic, Topic::Watch(_)));
        watches.map(|(place, _)| place as u32).collect()
    }

    /// How many there are that the client asked for: without its own user's channel and the users it watches.
    pub(super) fn count(&self) -> usize {
        let visible = |held: &Subscription| held.channel.name().is_some_and(|name| !name.kind().is_user());
        self.places.iter().filter(|(_, held)| visible(held)).count()
    }
}
