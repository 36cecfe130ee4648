//! A way to keys, for parts of the server that store something: a connection to the one server that has a key, kept up,
//! and led to another server when that has it. Knows nothing of what is stored.

use std::sync::Arc;

use redis::{Pipeline, ServerError, Value};
use tokio::sync::watch;

use super::config::{RedisConfig, RedisFault};
use super::link::{Handle, Keeper};
use super::slots::slot;
use super::status::ServerId;
use super::topology::{Seeker, Topology};
use crate::adapter::owned::Owned;

/// Connections to the server that has one key. They end with it.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Each carries one kind of traffic: what waits for an answer on one holds up no other.
    pub(crate) lines: Vec<Line>,
    _seeking: Owned,
}

/// One of the connections.
#[derive(Debug)]
pub(crate) struct Line {
    current: watch::Receiver<Option<Open>>,
    keeper: Keeper,
    _kept: Owned,
}

/// A connection that is up, or was.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    server: ServerId,
    handle: Handle,
}

impl Lines {
    /// Begins to connect, so many times. Redis need not be there yet.
    ///
    /// The error is about a setting of the section `redis`; [`RedisConfig::faults`] tells all of them.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O.
    pub(crate) fn open(config: &RedisConfig, key: &str, count: usize) -> Result<Lines, RedisFault> {
        let seeker = Seeker::new(config, count, 0)?;
        let keeper = seeker.keeper.clone();
        let (found, topology) = watch::channel(Arc::default());
        let slot = slot(key);
        let line = |_| {
            let (told, current) = watch::channel(None);
            let follow = follow(topology.clone(), slot, keeper.clone(), told);
            Line {
                current,
                keeper: keeper.clone(),
                _kept: Owned::spawn(follow),
            }
        };
        Ok(Lines {
            lines: (0..count).map(line).collect(),
            _seeking: Owned::spawn(seeker.follow(found)),
        })
    }
}

/// Keeps a connection up to whichever server has the slot, for ever.
async fn follow(
    mut topology: watch::Receiver<Arc<Topology>>,
    slot: u16,
    keeper: Keeper,
    told: watch::Sender<Option<Open>>,
) {
    let told = Arc::new(told);
    let mut kept: Option<(ServerId, Owned)> = None;
    topology.mark_changed();
    while topology.changed().await.is_ok() {
        let known = topology.borrow_and_update().clone();
        // While nobody has the slot, the last one may have it again.
        let Some(server) = known.owner(slot).map(|place| known.servers[place].clone()) else {
            continue;
        };
        if kept.as_ref().is_some_and(|(id, _)| *id == server.id) {
            continue;
        }
        drop(kept.take());
        told.send_replace(None);
        let (id, told) = (server.id, told.clone());
        let tell = move |_, handle: Option<Handle>| {
            told.send_replace(handle.map(|handle| Open { server: id, handle }));
            std::future::ready(())
        };
        let keep = keeper
            .clone()
            .keep(id, server.address.clone(), |_, _| Box::new(|_| {}), tell);
        kept = Some((id, Owned::spawn(keep)));
    }
}

impl Line {
    /// The connection, as soon as there is one. Another one than last time has another [`life`](Open::life).
    pub(crate) async fn open(&self) -> Option<Open> {
        let mut current = self.current.clone();
        current.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Sends all of it at once and gives the replies, those of refusal among them. `None` if there was no answer: the
    /// connection is at its end then, and what was asked may have been done or not.
    pub(crate) async fn ask(&self, open: &mut Open, pipeline: &Pipeline) -> Option<Vec<Value>> {
        open.handle.ask_all(pipeline).await.ok()
    }

    /// To be called with each refusal that is not expected: one that says that the servers have changed leads to a
    /// look-up, any other is told in the log, once for each kind as long as the connections are up.
    pub(crate) fn refused(&self, open: &Open, error: &ServerError) {
        if !self.keeper.doubts(error) {
            self.keeper.status.refused(open.server, &error.to_string());
        }
    }
}

impl Open {
    /// The number of the connection's life.
    pub(crate) fn life(&self) -> u64 {
        self.handle.life
    }
}
