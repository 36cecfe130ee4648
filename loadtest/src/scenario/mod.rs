//! The workloads. Each file has one: its own settings, what it does, and what it tells of it. What they share is here:
//! the field, which is a server with a crowd of clients and someone who publishes.

pub(crate) mod churn;
pub(crate) mod client_events;
pub(crate) mod connect;
pub(crate) mod fanout;
mod finish;
pub(crate) mod idle;
pub(crate) mod mixed;
pub(crate) mod occupancy;
mod options;
pub(crate) mod overload;
pub(crate) mod presence;
pub(crate) mod sustain;
mod tell;
mod watch;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::Common;
use crate::process::{Memory, raise_descriptor_limit};
use crate::progress::{Extent, Progress, Seen as Shown};
use crate::publisher::{Pace, Publisher, until_due};
use crate::result::{Better, Run, Unit};
use crate::swarm::board::{Board, Totals};
use crate::swarm::crowd::{Audience, Crowd, Detail};
use crate::swarm::{Arrivals, Ticket};
use crate::target::{ChannelKind, Target};

pub(crate) use self::finish::Measured;
pub(crate) use self::options::{Attendance, rate, seconds, share};
pub(crate) use self::tell::{quantile_s, tell_cpu_per, tell_curve, tell_series};
pub(crate) use self::watch::{Offer, Seen, Watch};

/// How long is waited at most before somebody looks at the time.
const TICK: Duration = Duration::from_millis(20);
/// What has not come after so long without anything is lost.
const GRACE: Duration = Duration::from_secs(2);
/// The same for those for whom no broadcast waits.
const VISITORS_GRACE: Duration = Duration::from_millis(500);
/// So long without anybody becoming live is a fault of server or harness.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Other threads' clients wake nobody here when they have what they wait for.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// An open loop that has sent that share of what was due has kept its rate.
const KEPT: f64 = 0.99;
/// Before CPU time is read: whoever was woken last goes to sleep again, and is then counted to the end.
const SETTLE: Duration = Duration::from_millis(20);

/// A server, clients of it, and someone who publishes.
pub(crate) struct Field<'a> {
    pub(crate) common: &'a Common,
    pub(crate) target: Arc<Target>,
    pub(crate) board: Arc<Board>,
    pub(crate) crowd: Crowd,
    pub(crate) publisher: Publisher,
    pub(crate) progress: Progress,
    /// What is told in the end.
    pub(crate) run: Run,
    pub(crate) stop: Arc<AtomicBool>,
    /// Whether somebody is there for whom no broadcast waits.
    has_visitors: bool,
    /// Those who have stopped reading: what has not come to them is not lost.
    pub(crate) stalled: Range<u32>,
    audiences: Vec<Audience>,
    began: Instant,
    /// The server's memory before the first client.
    empty: Option<Memory>,
}

/// What is published in a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) pace: Pace,
    /// Where: each event to the next one of these.
    pub(crate) channels: Range<u32>,
    pub(crate) until: Until,
}

/// When it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Time(Duration),
    Count(u64),
}

impl<'a> Field<'a> {
    /// Looks at the server, and prepares a crowd of nobody yet, with so many connections to publish on.
    ///
    /// # Errors
    /// What is wrong with the arguments, in words that say what to do.
    pub(crate) fn open(
        common: &'a Common,
        scenario: &str,
        kind: ChannelKind,
        audiences: &[Audience],
        detail: Detail,
        publishers: usize,
    ) -> Result<Field<'a>> {
        let clients: u32 = audiences.iter().map(|audience| audience.clients).sum();
        raise_descriptor_limit(u64::from(clients) + publishers as u64)?;
        let began = Instant::now();
        let target = Arc::new(common.target(kind, clients)?);
        let empty = common.pid.map(Memory::of).transpose()?;
        let channels = Audience::of_channels(audiences);
        ensure!(!channels.is_empty(), "at least one channel is needed");
        let board = Arc::new(Board::new(channels.len(), common.threads));
        let crowd = Crowd::new(&target, &board, common.threads, &channels, detail)?;
        let publisher = Publisher::connect(
            &target,
            &board,
            publishers,
            common.payload_bytes(),
            crowd.here(),
            &common.stop,
        )?;
        let mut run = Run::new(scenario, &common.label, crate::arguments::command_line());
        run.parameter("server", target.address);
        run.parameter("clients", clients);
        run.parameter("channels", channels.len());
        for audience in audiences.iter().filter(|audience| audience.per_client > 1) {
            run.parameter("channels of each client", audience.per_client);
        }
        run.parameter("payload (bytes)", common.payload_bytes());
        run.parameter("client threads", common.threads);
        Ok(Field {
            common,
            target,
            board,
            crowd,
            publisher,
            progress: Progress::new(common.quiet, began),
            run,
            stop: Arc::clone(&common.stop),
            has_visitors: false,
            stalled: 0..0,
            audiences: audiences.to_vec(),
            began,
            empty,
        })
    }

    /// Whether somebody wants it to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Everybody who is meant to come, as awaited clients: they may be made visitors, or be left out.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        Audience::tickets(&self.audiences)
    }

    /// Lets all clients come as awaited ones, and waits until they are live.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) fn gather(&mut self) -> Result<Arrivals> {
        let tickets = self.tickets();
        self.bring(tickets)
    }

    /// Lets these clients come, and waits until they are live.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) fn bring(&mut self, tickets: Vec<Ticket>) -> Result<Arrivals> {
        self.bring_on(0..self.common.threads, tickets)
    }

    /// As [`Field::bring`], on these threads.
    pub(crate) fn bring_on(&mut self, threads: Range<usize>, tickets: Vec<Ticket>) -> Result<Arrivals> {
        let began = Instant::now();
        let count = self.board.totals().live + tickets.len() as u32;
        let before = count - tickets.len() as u32;
        self.progress
            .phase("connecting", Extent::Things(u64::from(count)), began);
        self.has_visitors |= tickets.iter().any(|ticket| !ticket.is_awaited);
        self.crowd.admit_on(threads, tickets);
        self.wait_for(count)?;
        let live = self.board.totals().live;
        let took_s = began.elapsed().as_secs_f64();
        self.run.measured(
            "connected_per_second",
            "Connected and subscribed",
            f64::from(live - before) / took_s,
            Unit::PerSecond,
            Better::More,
        );
        self.weigh(live)?;
        self.crowd.arrivals()
    }

    /// Waits until so many clients are live.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) fn wait_for(&mut self, count: u32) -> Result<()> {
        let (mut live, mut heard) = (0, Instant::now());
        while live < count && !self.is_stopped() {
            self.crowd.poll(TICK)?;
            let (totals, now) = (self.board.totals(), Instant::now());
            if totals.failed + totals.closed > 0 {
                let ends = self.crowd.arrivals()?.ends;
                bail!(
                    "{} of {count} connections failed: {}",
                    totals.failed + totals.closed,
                    ends.join("; ")
                );
            }
            if totals.live > live {
                (live, heard) = (totals.live, now);
            }
            ensure!(
                now - heard < SILENCE_MAX,
                "{live} of {count} clients are connected and subscribed, and nothing has come for {SILENCE_MAX:?}"
            );
            self.progress.tell(now, || Shown {
                done: u64::from(live),
                ..Shown::default()
            });
        }
        Ok(())
    }

    /// Works for a while; nothing is published.
    pub(crate) fn idle_for(&mut self, time: Duration, watch: &mut Watch) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < time && !self.is_stopped() {
            self.step(TICK.min(time.saturating_sub(began.elapsed())), watch, 0)?;
        }
        Ok(())
    }

    /// Waits until so many clients have come, well or not, and counts those who are there over time. The answer is how
    /// long it took. Seconds.
    ///
    /// # Errors
    /// Nothing has come for long.
    pub(crate) fn settle(
        &mut self,
        count: u32,
        watch: &mut Watch,
        live: &mut Vec<(f64, f64)>,
    ) -> Result<f64> {
        let began = Instant::now();
        let (mut last, mut heard, mut looked) = (Totals::default(), began, began);
        let arrived = |totals: &Totals| totals.live + totals.failed + totals.closed;
        while arrived(&last) < count && !self.is_stopped() {
            self.step(LOOK_EVERY, watch, u64::from(last.live))?;
            let (totals, now) = (self.board.totals(), Instant::now());
            if arrived(&totals) > arrived(&last) {
                heard = now;
            }
            last = totals;
            if now - looked >= TICK || arrived(&last) >= count {
                live.push(((now - began).as_secs_f64(), f64::from(last.live)));
                looked = now;
            }
            ensure!(
                now - heard < SILENCE_MAX,
                "{} of {count} clients are connected and subscribed, and nothing has come for {SILENCE_MAX:?}",
                last.live
            );
        }
        Ok((heard - began).as_secs_f64())
    }

    /// Tells what a socket weighs.
    fn weigh(&mut self, live: u32) -> Result<()> {
        if let Some((empty, pid)) = self.empty.zip(self.common.pid)
            && live > 0
        {
            let bytes = Memory::of(pid)?.resident.saturating_sub(empty.resident) as f64 / f64::from(live);
            self.run.measured(
                "memory_per_socket",
                "Server memory per socket, after connecting",
                bytes,
                Unit::Bytes,
                Better::Less,
            );
        }
        Ok(())
    }

    /// Works for a moment: clients, answers, and the view.
    pub(crate) fn step(&mut self, at_most: Duration, watch: &mut Watch, done: u64) -> Result<()> {
        let worked = self.crowd.poll(at_most).and_then(|()| self.publisher.hear());
        if let Err(error) = worked {
            // What has been measured is worth telling, if there is anything.
            if self.publisher.requests().accepted == 0 {
                return Err(error);
            }
            self.stop.store(true, Relaxed);
            self.run.notes.push(format!("Ended early: {error:#}."));
        }
        let (now, board) = (Instant::now(), &self.board);
        watch.tick(now, || board.totals(), self.publisher.requests().sent);
        let ledger = &self.crowd.here().ledger;
        self.progress.tell(now, || Shown {
            done,
            delivered: board.totals().delivered,
            p99_s: ledger.p99_s(),
            ..Shown::default()
        });
        Ok(())
    }

    /// The measurement begins: what was counted before is forgotten.
    pub(crate) fn begin(&mut self) -> Result<Watch> {
        std::thread::sleep(SETTLE);
        self.crowd.begin()?;
        self.publisher.begin();
        Watch::begin(self.common.pid)
    }

    /// The measurement ends, when everybody has everything or nothing has come for a while.
    pub(crate) fn end(&mut self, mut watch: Watch, began_ns: u64) -> Result<Measured> {
        let published_s = (self.board.now_ns() - began_ns) as f64 / 1e9;
        let loaded = watch.load_stops()?;
        let (mut delivered, mut heard) = (0, Instant::now());
        let mut heard_ns = self.board.now_ns();
        // Nobody knows whether visitors have everything: when nothing comes any more, they should.
        let quiet = if self.has_visitors {
            VISITORS_GRACE
        } else {
            Duration::ZERO
        };
        while heard.elapsed() < GRACE
            && !(self.board.is_all_done() && self.publisher.unanswered() == 0 && heard.elapsed() >= quiet)
        {
            self.step(TICK, &mut watch, 0)?;
            let totals = self.board.totals();
            if totals.delivered != delivered {
                (delivered, heard, heard_ns) = (totals.delivered, Instant::now(), self.board.now_ns());
            }
        }
        // Whoever has not answered by now never will: nobody is owed what was asked for.
        self.publisher.give_up(u64::MAX);
        std::thread::sleep(SETTLE);
        let seen = watch.end(loaded)?;
        if !self.stalled.is_empty() {
            self.crowd.dismiss(&self.stalled)?;
        }
        let account = self.crowd.account(self.publisher.void())?;
        let last_ns = account.broadcasts.iter().map(|broadcast| broadcast.last_ns).max();
        let ended_ns = last_ns.filter(|last| *last > began_ns).unwrap_or(heard_ns);
        Ok(Measured {
            account,
            requests: self.publisher.take_requests(),
            seen,
            elapsed_s: (ended_ns.saturating_sub(began_ns) as f64 / 1e9).max(1e-9),
            published_s,
            began_ns,
        })
    }

    /// Publishes as planned, from now on until the plan's end or until somebody wants it to end.
    pub(crate) fn rush(&mut self, plan: &Plan, phase: &str) -> Result<Measured> {
        self.rush_with(std::slice::from_ref(plan), phase, |_| Ok(()))
    }

    /// Publishes as several plans say at once; it ends with the first of them. Between two looks at the sockets something
    /// else may be done.
    pub(crate) fn rush_with(
        &mut self,
        plans: &[Plan],
        phase: &str,
        mut besides: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<Measured> {
        let first = plans.first().context("there is something to publish")?;
        let extent = match first.until {
            Until::Time(time) => Extent::Lasting(time),
            Until::Count(count) => Extent::Things(count),
        };
        let connections = plans.iter().map(|plan| plan.pace.connections());
        self.publisher.open(connections.sum())?;
        let mut watch = self.begin()?;
        self.progress.phase(phase, extent, Instant::now());
        let began_ns = self.board.now_ns();
        let mut numbers = vec![0; plans.len()];
        while !self.is_stopped() && !first.is_over(numbers[0], self.board.now_ns() - began_ns) {
            let mut wait = TICK;
            for (plan, number) in plans.iter().zip(&mut numbers) {
                wait = wait.min(self.publish_due(plan, number, began_ns)?);
            }
            self.step(wait, &mut watch, numbers[0])?;
            besides(self)?;
        }
        self.end(watch, began_ns)
    }

    /// Publishes what is due. The answer is how long may be waited for the next.
    fn publish_due(&mut self, plan: &Plan, number: &mut u64, began_ns: u64) -> Result<Duration> {
        let look_every = if self.common.threads > 1 { LOOK_EVERY } else { TICK };
        while self.publisher.is_free() && !plan.is_over(*number, self.board.now_ns() - began_ns) {
            let due_ns = plan.pace.due_ns(*number).map(|due| began_ns + due);
            match (plan.pace, due_ns) {
                (Pace::InFlight(at_most), _) if self.publisher.in_flight() >= at_most => {
                    return Ok(look_every);
                }
                (_, Some(due_ns)) if due_ns > self.board.now_ns() => {
                    return Ok(until_due(due_ns, self.board.now_ns(), TICK));
                }
                _ => {}
            }
            let channels = plan.channels.end - plan.channels.start;
            let channel = plan.channels.start + (*number % u64::from(channels)) as u32;
            self.publisher.publish(channel, due_ns)?;
            *number += 1;
        }
        Ok(TICK)
    }
}

impl Plan {
    fn is_over(&self, number: u64, elapsed_ns: u64) -> bool {
        match self.until {
            Until::Time(time) => Duration::from_nanos(elapsed_ns) >= time,
            Until::Count(count) => number >= count,
        }
    }
}
