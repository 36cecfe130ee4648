//! Wishes on their way from whoever has them to the task that carries them out: state, so that nothing is queued.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::{Topic, WishNumber};

/// Wishes that the task has not looked at yet: the last one of each topic.
#[derive(Debug, Default)]
pub(super) struct Wished {
    topics: Mutex<HashMap<Topic, (bool, WishNumber)>>,
    some: Notify,
}

impl Wished {
    /// Takes a wish; an older one than that known is void. Never waits.
    pub(super) fn want(&self, topic: Topic, wanted: bool, number: WishNumber) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let wish = topics.entry(topic).or_default();
        if number >= wish.1 {
            *wish = (wanted, number);
        }
        drop(topics);
        self.some.notify_one();
    }

    /// Ends when there is something to take.
    pub(super) async fn some(&self) {
        self.some.notified().await;
    }

    /// Takes them.
    pub(super) fn take(&self) -> HashMap<Topic, (bool, WishNumber)> {
        std::mem::take(&mut *self.topics.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
