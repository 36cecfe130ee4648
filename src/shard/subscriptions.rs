//! The subscriptions of one socket: what it is in, where it sits, and what it is about to be in. Pure.
//!
//! Most sockets have a handful, so a plain list is searched; a socket with many gets an index beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::hub::channel::{Channel, Topic};
use crate::protocol::channel_name::ChannelName;
use crate::protocol::presence::Member;

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

/// A subscription that is in order, and waits until its channel is heard from all nodes.
#[derive(Debug)]
pub(super) struct Awaited {
    /// What the answer names it by.
    pub(super) token: u32,
    /// What it is to. A user's own channel waits for a sign-in.
    pub(super) name: ChannelName,
    /// The member that the socket will be, on presence channels.
    pub(super) member: Option<Member>,
}

/// What is awaited, and who waits for that.
#[derive(Debug, Default)]
struct Awaiting {
    awaited: Vec<Awaited>,
    waiting: Option<Waker>,
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

/// All subscriptions of one socket, each at a place that it keeps.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// As a rule nothing is awaited.
    awaiting: Option<Box<Awaiting>>,
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

    /// How many there are that the client asked for, those awaited too: without its own user's channel and the users
    /// it watches.
    pub(super) fn count(&self) -> usize {
        let visible = |held: &Subscription| held.channel.name().is_some_and(|name| !name.kind().is_user());
        let awaited = self
            .all_awaited()
            .filter(|awaited| !awaited.name.kind().is_user());
        self.places.iter().filter(|(_, held)| visible(held)).count() + awaited.count()
    }

    fn all_awaited(&self) -> impl Iterator<Item = &Awaited> {
        self.awaiting.iter().flat_map(|awaiting| &awaiting.awaited)
    }

    /// Notes a subscription that has to wait.
    pub(super) fn await_it(&mut self, awaited: Awaited) {
        self.awaiting.get_or_insert_default().awaited.push(awaited);
    }

    /// The subscription to this channel that waits.
    pub(super) fn awaited(&self, name: &ChannelName) -> Option<&Awaited> {
        self.all_awaited().find(|awaited| awaited.name == *name)
    }

    /// Ready when nothing is awaited any more.
    pub(super) fn poll_admission(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(awaiting) = &mut self.awaiting else {
            return Poll::Ready(());
        };
        awaiting.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes back a subscription that waits: its answer will find nothing.
    pub(super) fn forgo(&mut self, name: &ChannelName) {
        self.take_awaited(|awaited| awaited.name == *name);
    }

    /// Takes back all that wait.
    pub(super) fn forgo_all(&mut self) {
        self.awaiting = None;
    }

    /// Takes out the subscription that the answer with this token is about.
    pub(super) fn answered(&mut self, token: u32) -> Option<Awaited> {
        self.take_awaited(|awaited| awaited.token == token)
    }

    fn take_awaited(&mut self, is_meant: impl Fn(&Awaited) -> bool) -> Option<Awaited> {
        let list = &mut self.awaiting.as_mut()?.awaited;
        let taken = list.swap_remove(list.iter().position(is_meant)?);
        if list.is_empty() {
            self.awaiting = None;
        }
        Some(taken)
    }
}
