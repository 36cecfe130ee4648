//! Publishing to one server on one lane: one batch at a time, refused at once while the server is away.

use std::sync::{Arc, Mutex, PoisonError};

use redis::{Pipeline, Value};
use tokio::sync::{Semaphore, oneshot};

use super::link::{Fault, Handle, Keeper};
use super::status::ServerId;
use super::url::Address;
use crate::adapter::owned::Owned;

/// One connection that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    current: Arc<Mutex<Option<Handle>>>,
    /// Taken while a batch waits for its replies, even if nobody waits for it any more.
    free: Arc<Semaphore>,
    _kept: Owned,
}

impl Publisher {
    pub(super) fn open(keeper: Keeper, server: ServerId, address: Address) -> Publisher {
        let current: Arc<Mutex<Option<Handle>>> = Arc::default();
        let told = current.clone();
        let tell = move |_, handle| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = handle;
            std::future::ready(())
        };
        Publisher {
            current,
            free: Arc::new(Semaphore::new(1)),
            _kept: Owned::spawn(keeper.keep(server, address, |_, _| Box::new(|_| {}), tell)),
        }
    }

    /// Sends the messages, and gives what will hold their replies. `None` while the connection is down, or has not
    /// answered the last batch yet: nothing was sent.
    pub(super) fn send(&self, messages: Pipeline) -> Option<oneshot::Receiver<Result<Vec<Value>, Fault>>> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        let mut handle = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        let (done, replies) = oneshot::channel();
        tokio::spawn(async move {
            let answer = handle.ask_all(&messages).await;
            drop(permit);
            // Nobody waits for it any more.
            let _ = done.send(answer);
        });
        Some(replies)
    }
}
