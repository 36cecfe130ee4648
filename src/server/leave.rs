//! How a server ends: its sockets go (`server/drain`), then what is under way is finished, handed over or dropped, each
//! part within a time of its own.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::cluster::GOODBYE_MAX;
use super::drain::OVERRUN_MAX;
use super::listener::Listening;
use super::{Server, Usage, admin};
use crate::config::LEAVING_S;
use crate::hub::inbox::{Entry, Inboxes};

/// After the last close frame, clients have this long to answer it, and callers to get their answers.
const LAST_CLOSES: Duration = Duration::from_secs(6);
/// Of that time, nobody new is let in for the last part: who has come before may still shake hands, ask, and be told.
const LAST_NEWCOMERS: Duration = Duration::from_secs(2);
/// When the last connection has gone, webhooks that wait have at least so long to be delivered.
const LAST_WEBHOOKS: Duration = Duration::from_secs(5);
/// The last of what the apps used is given so long to be saved.
const LAST_SAVE: Duration = Duration::from_secs(5);
/// How often it is looked whether the last connections have gone.
const LOOK: Duration = Duration::from_millis(20);

// What operators are told is kept.
const _: () = assert!(
    OVERRUN_MAX.as_secs()
        + LAST_CLOSES.as_secs()
        + LAST_WEBHOOKS.as_secs()
        + GOODBYE_MAX.as_secs()
        + LAST_SAVE.as_secs()
        + admin::STOP_MAX.as_secs()
        <= LEAVING_S as u64
);

impl Server {
    /// Leaves in good order: not ready at once, new sockets refused, the others closed evenly over the configured
    /// time, what is under way finished. Returns when all is done, or its time is over.
    pub async fn drain(mut self) {
        self.drain.begin();
        self.drain.drained().await;
        let closed = Instant::now();
        self.let_connections_go().await;
        drop(self.listening.take());
        self.flush_webhooks(closed).await;
        if let Some(membership) = self.membership.take() {
            membership.end().await;
        }
        self.save_usage().await;
        self.tasks.abort_all();
        self.stop().await;
        tracing::info!("stopped");
    }

    /// What is left are requests in hand, kept connections, sockets that answer their close frame, and newcomers, who are
    /// told that there is nothing here for them any more.
    async fn let_connections_go(&mut self) {
        let _ = self.closing.send(true);
        let (inboxes, listening) = (self.node.inboxes(), &mut self.listening);
        if let Some(listening) = &*listening {
            listening.leave();
        }
        let gone = async {
            let _ = timeout(LAST_CLOSES - LAST_NEWCOMERS, all_gone(inboxes, listening)).await;
            if let Some(listening) = &mut *listening {
                listening.close();
            }
            // Those as well who came at the last moment.
            all_gone(inboxes, listening).await;
        };
        if self.drain.in_time(LAST_CLOSES, gone).await.is_none() {
            let connections = connections(inboxes, &self.listening);
            tracing::warn!(
                connections,
                "the time is over; dropping the connections that are left"
            );
        }
    }

    /// The last channels were vacated just now: also where sockets took all the time, their news get some.
    async fn flush_webhooks(&self, closed: Instant) {
        self.node.finish_telling_back_ends();
        let webhooks = self.node.webhooks();
        let until = (closed + LAST_CLOSES).max(Instant::now() + LAST_WEBHOOKS);
        let flushed = self
            .drain
            .in_time(LAST_CLOSES + LAST_WEBHOOKS, webhooks.flush(until))
            .await;
        let dropped = match flushed {
            Some(dropped) => dropped,
            // Somebody is in a hurry.
            None => webhooks.flush(Instant::now()).await,
        };
        if dropped > 0 {
            tracing::warn!(events = dropped, "the time is over; dropping webhooks that wait");
        }
    }

    async fn save_usage(&mut self) {
        let Some(Usage { end, mut task }) = self.usage.take() else {
            return;
        };
        drop(end);
        if self.drain.in_time(LAST_SAVE, &mut task).await.is_none() {
            tracing::warn!("what the apps used in the last seconds could not be saved");
            task.abort();
        }
    }

    /// Ends the threads, and last of all the admin port.
    async fn stop(&mut self) {
        let mut delivery = self.node.inboxes().deliver();
        for shard in 0..self.shards.len() {
            delivery.push(shard as u16, Entry::Stop);
        }
        drop(delivery);
        let shards = std::mem::take(&mut self.shards);
        let joined =
            tokio::task::spawn_blocking(move || shards.into_iter().for_each(|shard| drop(shard.join())));
        let _ = joined.await;
        drop(self.stop_admin.take());
        if let Some(admin) = self.admin.take() {
            let _ = admin.await;
        }
    }
}

/// Those who are there, wherever they are.
fn connections(inboxes: &Inboxes, listening: &Option<Listening>) -> usize {
    // In this order: who leaves the porch is counted by a shard before.
    let on_porch = listening.as_ref().map_or(0, Listening::on_porch);
    on_porch + inboxes.connections()
}

async fn all_gone(inboxes: &Inboxes, listening: &Option<Listening>) {
    while connections(inboxes, listening) > 0 {
        sleep(LOOK).await;
    }
}
