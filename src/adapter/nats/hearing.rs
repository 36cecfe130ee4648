//! One lane: keeps its connection up for ever, carries out its wishes, and reports what it hears. One task does it, so
//! that what it reports is in order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use super::config::Access;
use super::session::{Fault, Session};
use super::status::Status;
use crate::adapter::owned::Owned;
use crate::adapter::wished::Wished;
use crate::adapter::wishes::{Ask, Life, Wishes};
use crate::adapter::{Sink, Topic};

/// How often the other side is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(1);
/// The pauses between attempts grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// So long interest takes to reach the other servers of a cluster, of which nobody tells: if it takes longer, what is
/// published there meanwhile is missed, and the numbers of the relay tell.
const SPREAD: Duration = Duration::from_millis(250);

/// What hearing on a lane takes.
pub(super) struct Hearing {
    pub(super) access: Arc<Access>,
    pub(super) prefix: Arc<str>,
    pub(super) status: Arc<Status>,
    pub(super) sink: Sink,
    pub(super) wished: Arc<Wished>,
    /// The connection, for those who publish, while it is up.
    pub(super) current: Arc<Mutex<Option<Arc<Session>>>>,
}

impl Hearing {
    /// Hears, for ever.
    pub(super) async fn run(self) {
        let mut wishes = Wishes::default();
        let (mut pause, mut again) = (PAUSE_MIN, false);
        for life in 1.. {
            let begun = Instant::now();
            match Session::open(&self.access, &self.prefix).await {
                Ok(session) => {
                    let session = Arc::new(session);
                    self.status.up(again);
                    again = true;
                    self.set_current(Some(session.clone()));
                    wishes.look_again();
                    let fault = self.live(life, &session, &mut wishes).await;
                    self.set_current(None);
                    self.status.down(&fault);
                    for topic in wishes.down(life) {
                        self.sink.lost(topic).await;
                    }
                }
                Err(fault) => self.status.failed(&fault),
            }
            // One that lived a while is no reason to be slow.
            if begun.elapsed() > 4 * PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            sleep(pause.mul_f32(rand::random_range(0.5..1.0))).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    fn set_current(&self, session: Option<Arc<Session>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Ends when the connection does, and says why.
    async fn live(&self, life: Life, session: &Arc<Session>, wishes: &mut Wishes) -> Fault {
        let mut heard = HashMap::new();
        loop {
            if let Err(fault) = self.ask(life, session, wishes, &mut heard).await {
                return fault;
            }
            tokio::select! {
                () = self.wished.some() => {}
                fault = session.over() => return fault,
                () = sleep(PULSE) => if let Err(fault) = session.answers().await {
                    return fault;
                },
            }
        }
    }
    /// Carries out what is due, and reports what was confirmed.
    async fn ask(
        &self,
        life: Life,
        session: &Arc<Session>,
        wishes: &mut Wishes,
        heard: &mut HashMap<Topic, Owned>,
    ) -> Result<(), Fault> {
        for (topic, (wanted, number)) in self.wished.take() {
            wishes.want(topic, wanted, number);
        }
        let asks = wishes.due(|_| Some(life), |_, _| true).asks.remove(&life);
        let mut asked = Vec::new();
        for (topic, ask) in asks.unwrap_or_default() {
            match ask {
                Ask::Hear(_) => {
                    if let Entry::Vacant(unheard) = heard.entry(topic) {
                        unheard.insert(self.hear(session, topic).await?);
                    }
                    asked.push(topic);
                }
                Ask::Leave => {
                    heard.remove(&topic);
                    wishes.left(life, topic);
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        session.answers().await?;
        if session.is_clustered() {
            tokio::select! {
                () = sleep(SPREAD) => {}
                fault = session.over() => return Err(fault),
            }
        }
        for topic in asked {
            if let Some(number) = wishes.heard(life, topic) {
                self.sink.confirmed(topic, number).await;
            }
        }
        Ok(())
    }

    /// Subscribes to a topic, and reports its messages until what is given back is dropped.
    async fn hear(&self, session: &Session, topic: Topic) -> Result<Owned, Fault> {
        let subscribe = session.client.subscribe(format!("{}.{topic}", self.prefix));
        let subscribed = tokio::select! {
            subscribed = subscribe => subscribed.map_err(|error| error.to_string()),
            fault = session.over() => Err(fault),
        };
        let mut messages = subscribed?;
        let (sink, heard) = (self.sink.clone(), session.heard.clone());
        Ok(Owned::spawn(async move {
            while let Some(message) = messages.next().await {
                heard.store(true, Ordering::Relaxed);
                sink.heard(topic, message.payload);
            }
        }))
    }
}
