//! Hearing on one lane: one connection to each server, the wishes, and what is reported of them. One task does it, so
//! that what it reports is in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value, pipe};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::link::{Fault, Handle, Keeper, Pushes, Signs};
use super::names::Names;
use super::status::ServerId;
use super::topology::{Server, Topology};
use crate::adapter::owned::Owned;
use crate::adapter::wished::Wished;
use crate::adapter::wishes::{Ask, Due, Life, Wishes};
use crate::adapter::{Sink, Topic};

/// So many topics are asked about at once.
const BATCH_MAX: usize = 1024;
/// What connections report and the task has not looked at yet. Were it full, the connection would be given up.
const REPORTS_MAX: usize = 65_536;
/// After a refusal a server is left alone for so long.
const REFUSED_REST: Duration = Duration::from_millis(250);

/// What connections report.
enum Report {
    Up(ServerId, Handle),
    Down(ServerId, Life),
    Heard(Life, Topic),
    Left(Life, Topic),
    Answered(ServerId, Life, Vec<Topic>, Result<Vec<Value>, Fault>),
}

/// One server, as this lane sees it.
struct Ear {
    handle: Option<Handle>,
    /// A batch is under way.
    is_asked: bool,
    rest_until: Option<Instant>,
    _kept: Owned,
}

/// What hearing takes.
pub(super) struct Hearing {
    pub(super) keeper: Keeper,
    pub(super) names: Arc<Names>,
    pub(super) is_cluster: bool,
    pub(super) sink: Sink,
    pub(super) topology: watch::Receiver<Arc<Topology>>,
    pub(super) wished: Arc<Wished>,
}

struct Lane {
    hearing: Hearing,
    wishes: Wishes,
    ears: BTreeMap<ServerId, Ear>,
    report: mpsc::Sender<Report>,
}

impl Hearing {
    /// Hears, for ever.
    pub(super) async fn run(self) {
        let (report, mut reports) = mpsc::channel(REPORTS_MAX);
        let mut topology = self.topology.clone();
        topology.mark_changed();
        let wished = self.wished.clone();
        let mut lane = Lane {
            hearing: self,
            wishes: Wishes::default(),
            ears: BTreeMap::new(),
            report,
        };
        let mut waiting = Vec::new();
        loop {
            let rested = lane.ears.values().filter_map(|ear| ear.rest_until).min();
            tokio::select! {
                _ = reports.recv_many(&mut waiting, BATCH_MAX) => {
                    for report in waiting.drain(..) {
                        lane.take(report).await;
                    }
                }
                () = wished.some() => {
                    for (topic, (wanted, number)) in wished.take() {
                        lane.wishes.want(topic, wanted, number);
                    }
                }
                changed = topology.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let servers = topology.borrow_and_update().clone();
                    lane.follow(&servers).await;
                }
                () = sleep_until(rested.unwrap_or_else(Instant::now)), if rested.is_some() => {
                    let now = Instant::now();
                    for ear in lane.ears.values_mut() {
                        ear.rest_until = ear.rest_until.filter(|until| *until > now);
                    }
                }
            }
            lane.ask().await;
        }
    }
}

impl Lane {
    async fn take(&mut self, report: Report) {
        match report {
            Report::Up(server, handle) => {
                if let Some(ear) = self.ears.get_mut(&server) {
                    ear.handle = Some(handle);
                    ear.is_asked = false;
                    ear.rest_until = None;
                    self.wishes.look_again();
                }
            }
            Report::Down(server, life) => {
                let ear = self.ears.get_mut(&server);
                if let Some(ear) = ear.filter(|ear| ear.life() == Some(life)) {
                    ear.handle = None;
                    let lost = self.wishes.down(life);
                    self.lost(lost).await;
                }
            }
            Report::Heard(life, topic) => {
                if let Some(number) = self.wishes.heard(life, topic) {
                    self.hearing.sink.confirmed(topic, number).await;
                }
            }
            Report::Left(life, topic) => {
                if self.wishes.left(life, topic) {
                    self.hearing.keeper.doubt.notify_one();
                    self.lost(vec![topic]).await;
                }
            }
            Report::Answered(server, life, topics, replies) => {
                let is_refused = self.wishes.answered(life, topics);
                if is_refused {
                    self.hearing.keeper.refused(server, &replies);
                }
                let ear = self.ears.get_mut(&server);
                if let Some(ear) = ear.filter(|ear| ear.life() == Some(life)) {
                    ear.is_asked = false;
                    ear.rest_until = is_refused.then(|| Instant::now() + REFUSED_REST);
                }
            }
        }
    }

    async fn lost(&self, topics: Vec<Topic>) {
        for topic in topics {
            self.hearing.sink.lost(topic).await;
        }
    }

    /// Connects to new servers, and leaves those that are none any more.
    async fn follow(&mut self, topology: &Topology) {
        let is_here = |id| topology.servers.iter().any(|server| server.id == id);
        let gone: Vec<_> = self.ears.extract_if(.., |id, _| !is_here(*id)).collect();
        for (_, ear) in gone {
            if let Some(life) = ear.life() {
                let lost = self.wishes.down(life);
                self.lost(lost).await;
            }
        }
        for server in &topology.servers {
            if !self.ears.contains_key(&server.id) {
                let ear = self.ear(server);
                self.ears.insert(server.id, ear);
            }
        }
        self.wishes.look_again();
    }

    fn ear(&self, server: &Server) -> Ear {
        let (report, id) = (self.report.clone(), server.id);
        let tell = move |life, handle: Option<Handle>| {
            let report = report.clone();
            async move {
                let told = match handle {
                    Some(handle) => Report::Up(id, handle),
                    None => Report::Down(id, life),
                };
                // The lane is gone: so is this task, soon.
                let _ = report.send(told).await;
            }
        };
        let (names, sink, report) = (
            self.hearing.names.clone(),
            self.hearing.sink.clone(),
            self.report.clone(),
        );
        let pushes = move |life, signs| pushes(life, signs, names.clone(), sink.clone(), report.clone());
        let keeper = self.hearing.keeper.clone();
        Ear {
            handle: None,
            is_asked: false,
            rest_until: None,
            _kept: Owned::spawn(keeper.keep(id, server.address.clone(), pushes, tell)),
        }
    }

    /// Asks the servers for what is due.
    async fn ask(&mut self) {
        let topology = self.hearing.topology.borrow().clone();
        let ears = &self.ears;
        let owner = |topic| {
            let server = topology.owner(self.hearing.names.slot(topic))?;
            ears.get(&topology.servers[server].id)?.life()
        };
        let free = |life, more| {
            more < BATCH_MAX
                && ears
                    .values()
                    .any(|ear| ear.life() == Some(life) && !ear.is_asked && ear.rest_until.is_none())
        };
        let Due { lost, asks } = self.wishes.due(owner, free);
        self.lost(lost).await;
        for (life, asks) in asks {
            let mut ears = self.ears.iter_mut();
            let Some((server, ear)) = ears.find(|(_, ear)| ear.life() == Some(life)) else {
                continue;
            };
            ear.is_asked = true;
            let Some(mut handle) = ear.handle.clone() else {
                continue;
            };
            let mut questions = pipe();
            for (topic, ask) in &asks {
                // One topic each: a cluster refuses those of several slots together, and whoever counts on one answer
                // for each question is right.
                let command = match (ask, self.hearing.is_cluster) {
                    (Ask::Hear(_), false) => "SUBSCRIBE",
                    (Ask::Hear(_), true) => "SSUBSCRIBE",
                    (Ask::Leave, false) => "UNSUBSCRIBE",
                    (Ask::Leave, true) => "SUNSUBSCRIBE",
                };
                questions.cmd(command).arg(self.hearing.names.name(*topic));
            }
            let (report, server) = (self.report.clone(), *server);
            tokio::spawn(async move {
                let replies = handle.ask_all(&questions).await;
                let topics = asks.into_iter().map(|(topic, _)| topic).collect();
                let _ = report.send(Report::Answered(server, life, topics, replies)).await;
            });
        }
    }
}

impl Ear {
    fn life(&self) -> Option<Life> {
        self.handle.as_ref().map(|handle| handle.life)
    }
}

/// Hears what a connection brings unasked: messages go straight to the sink, the rest to the task. Never waits.
///
/// Which question a confirmation answers is told by its topic alone: a server may end a subscription in between, and
/// then replies no longer stand behind their questions.
fn pushes(
    life: Life,
    signs: Arc<Signs>,
    names: Arc<Names>,
    sink: Sink,
    report: mpsc::Sender<Report>,
) -> Pushes {
    Box::new(move |PushInfo { kind, data }| {
        signs.heard.store(true, Ordering::Relaxed);
        let mut data = data.into_iter();
        let Some(Value::BulkString(name)) = data.next() else {
            return;
        };
        let Some(topic) = names.topic(&name) else { return };
        let told = match kind {
            PushKind::Message | PushKind::SMessage => {
                if let Some(Value::BulkString(bytes)) = data.next() {
                    sink.heard(topic, Bytes::from(bytes));
                }
                return;
            }
            PushKind::Subscribe | PushKind::SSubscribe => Report::Heard(life, topic),
            PushKind::Unsubscribe | PushKind::SUnsubscribe => Report::Left(life, topic),
            _ => return,
        };
        if report.try_send(told).is_err() {
            signs.give_up();
        }
    })
}
