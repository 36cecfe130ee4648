//! All clients of a run: the swarm of this thread, and those of as many threads more as were asked for.

use std::fmt::Display;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, eventfd};

use crate::target::Target;

use super::account::Account;
use super::board::Board;
use super::ledger::Ledger;
use super::members::Members;
use super::rally::{Role, Trips};
use super::{Arrivals, Swarm, Ticket};

/// The niceness of a thread that goes before others.
const HURRY: i32 = -10;
/// A thread looks for orders at least so often. It is woken for them, too.
const ORDERS_EVERY: Duration = Duration::from_secs(1);

/// The clients of a run.
pub(crate) struct Crowd {
    board: Arc<Board>,
    here: Swarm,
    others: Vec<Other>,
    troubles: Receiver<anyhow::Error>,
}

#[derive(Debug)]
struct Other {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What a thread is told to do.
type Order = Box<dyn FnOnce(&mut Swarm) + Send>;

/// How exactly broadcasts are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// The first and the last arrival of each.
    Ends,
    /// Every arrival, for the median and the 99th percentile of each single one. Costs memory: eight bytes a delivery.
    Every,
}

impl Crowd {
    /// A crowd of nobody yet. `audiences` says for each channel to which audience it belongs: one thread's delays of one
    /// audience are in one histogram.
    pub(crate) fn new(
        target: &Arc<Target>,
        board: &Arc<Board>,
        threads: usize,
        audiences: &[usize],
        detail: Detail,
    ) -> Result<Crowd> {
        // Made by the thread that it is for: what epoll fills in is bound to one.
        let swarm = |thread| {
            let ledger = Ledger::new(target.run, audiences, detail == Detail::Every);
            let (target, board) = (Arc::clone(target), Arc::clone(board));
            move || Swarm::new(target, board, thread, ledger)
        };
        let (trouble, troubles) = mpsc::channel();
        let mut others = Vec::new();
        for thread in 1..threads {
            others.push(Other::start(swarm(thread), thread, trouble.clone())?);
        }
        Ok(Crowd {
            board: Arc::clone(board),
            here: swarm(0)()?,
            others,
            troubles,
        })
    }

    /// The swarm of this thread.
    pub(crate) fn here(&self) -> &Swarm {
        &self.here
    }

    /// Lets clients come, evenly on all threads.
    pub(crate) fn admit(&mut self, tickets: Vec<Ticket>) {
        self.admit_on(0..self.others.len() + 1, tickets);
    }

    /// Lets clients come, evenly on these threads, of which the first is this one.
    pub(crate) fn admit_on(&mut self, threads: Range<usize>, tickets: Vec<Ticket>) {
        let mut shares: Vec<Vec<Ticket>> = vec![Vec::new(); threads.len()];
        for ticket in tickets {
            shares[ticket.client as usize % threads.len()].push(ticket);
        }
        for (thread, share) in threads.zip(shares) {
            match thread.checked_sub(1).and_then(|index| self.others.get(index)) {
                Some(other) => other.order(Box::new(|swarm| swarm.admit(share))),
                None => self.here.admit(share),
            }
        }
    }

    /// Sets how many clients may be on their way at once.
    pub(crate) fn set_connecting_max(&mut self, connecting_max: usize) {
        let each = connecting_max.div_ceil(self.others.len() + 1);
        self.here.set_connecting_max(each);
        for other in &self.others {
            other.order(Box::new(move |swarm| swarm.set_connecting_max(each)));
        }
    }

    /// Lets one of the threads, the first being this one, go before whatever else wants the machine, if that is allowed:
    /// it must have little to do.
    pub(crate) fn hurry(&mut self, thread: usize) {
        let hurry = |_: &mut Swarm| {
            // On Linux this is of the calling thread alone. Without leave it has to wait as everybody else.
            let _ = rustix::process::setpriority_process(None, HURRY);
        };
        match thread.checked_sub(1).and_then(|index| self.others.get(index)) {
            Some(other) => other.order(Box::new(hurry)),
            None => hurry(&mut self.here),
        }
    }

    /// Ends the clients of these numbers, without a word. They must not be awaited ones.
    pub(crate) fn dismiss(&mut self, numbers: &Range<u32>) -> Result<()> {
        let numbers = numbers.clone();
        self.ask_all(move |swarm| swarm.dismiss(&numbers)).map(drop)
    }

    /// As [`Crowd::dismiss`], but does not wait until the other threads have done so.
    pub(crate) fn dismiss_soon(&mut self, numbers: &Range<u32>) {
        for other in &self.others {
            let numbers = numbers.clone();
            other.order(Box::new(move |swarm| swarm.dismiss(&numbers)));
        }
        self.here.dismiss(numbers);
    }

    /// The clients of these numbers do not read any more. They must not be awaited ones.
    pub(crate) fn stall(&mut self, numbers: &Range<u32>) -> Result<()> {
        let numbers = numbers.clone();
        self.ask_all(move |swarm| swarm.stall(&numbers)).map(drop)
    }

    /// How long those of them lasted that the server has ended since. Nanoseconds.
    pub(crate) fn endured(&mut self) -> Result<Vec<u64>> {
        Ok(self.ask_all(|swarm| swarm.endured().to_vec())?.concat())
    }

    /// What the members of presence channels have seen so far.
    pub(crate) fn members(&mut self) -> Result<Members> {
        let mut sum = Members::default();
        for members in self.ask_all(|swarm| swarm.members())? {
            sum.add(members);
        }
        Ok(sum)
    }

    /// Those who ask begin to; each asks again at that interval, or when it is answered.
    pub(crate) fn begin_rally(&mut self, every_ns: Option<u64>, payload_bytes: usize) -> Result<()> {
        // Whoever answers must know how before anybody asks.
        self.ask_all(move |swarm| swarm.set_payload(payload_bytes))?;
        self.ask_all(move |swarm| swarm.begin_rally(every_ns)).map(drop)
    }

    /// Nobody asks any more.
    pub(crate) fn end_rally(&mut self) -> Result<()> {
        self.ask_all(Swarm::end_rally).map(drop)
    }

    /// What the pairs have come to so far.
    pub(crate) fn trips(&mut self) -> Result<Trips> {
        let mut sum = Trips::new();
        for trips in self.ask_all(|swarm| swarm.trips())? {
            sum.add(&trips);
        }
        Ok(sum)
    }

    /// Works this thread's sockets for a moment, or waits for something to arrive, but no longer than it is told to.
    ///
    /// # Errors
    /// What makes it hopeless to go on, on any thread.
    pub(crate) fn poll(&mut self, at_most: Duration) -> Result<()> {
        if let Ok(trouble) = self.troubles.try_recv() {
            return Err(trouble);
        }
        self.here.poll(at_most)
    }

    /// The measurement begins: what was counted before is forgotten.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let published = self.board.published_each();
        self.ask_all(move |swarm| swarm.ledger.begin(&published))
            .map(drop)
    }

    /// The measurement ends: the account of it. `void` lists, for each channel, the sequences that are owed to nobody, in
    /// ascending order.
    pub(crate) fn account(&mut self, void: &[Vec<u32>]) -> Result<Account> {
        let (published, void) = (self.board.published_each(), void.to_vec());
        Ok(Account::sum(
            self.ask_all(move |swarm| swarm.ledger.account(&published, &void))?,
        ))
    }

    /// What connecting came to since this was last asked.
    pub(crate) fn arrivals(&mut self) -> Result<Arrivals> {
        let all = self.ask_all(Swarm::take_arrivals)?;
        let mut all = all.into_iter();
        let mut sum = all.next().context("there is at least this thread")?;
        for one in all {
            sum.handshakes.add(&one.handshakes)?;
            sum.greetings.add(&one.greetings)?;
            sum.ends.extend(one.ends);
        }
        Ok(sum)
    }

    /// Asks every thread; the answers in their order.
    fn ask_all<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Swarm) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let ask = |other: &Other| {
            let (answer, answers) = mpsc::channel();
            let question = question.clone();
            other.order(Box::new(move |swarm| {
                // Whoever asked is still waiting, or the whole run is over.
                let _ = answer.send(question(swarm));
            }));
            answers
        };
        let waiting: Vec<Receiver<T>> = self.others.iter().map(ask).collect();
        let mut answers = vec![question(&mut self.here)];
        for other in waiting {
            answers.push(other.recv().context("a thread of clients has ended")?);
        }
        Ok(answers)
    }
}

impl Other {
    fn start(
        swarm: impl FnOnce() -> Result<Swarm> + Send + 'static,
        thread: usize,
        trouble: Sender<anyhow::Error>,
    ) -> Result<Other> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (orders, received) = mpsc::channel::<Order>();
        let woken = Arc::clone(&wake);
        let work = move || {
            if let Err(error) = swarm().and_then(|swarm| work(swarm, &received, &woken, &trouble)) {
                // Nobody listens any more when the run is over.
                let _ = trouble.send(error);
            }
        };
        let name = format!("clients-{thread}");
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Other {
            orders,
            wake,
            thread: Some(thread),
        })
    }

    fn order(&self, order: Order) {
        // A thread that has ended is told of by whoever needs its answer.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

/// A thread's loop, until nobody gives orders any more.
fn work(
    mut swarm: Swarm,
    orders: &Receiver<Order>,
    woken: &OwnedFd,
    trouble: &Sender<anyhow::Error>,
) -> Result<()> {
    swarm.also_wait_for(woken)?;
    loop {
        // Before the orders: one that comes after the look wakes the next wait.
        let _ = rustix::io::read(woken, &mut [0; 8]);
        loop {
            match orders.try_recv() {
                Ok(order) => order(&mut swarm),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        if let Err(error) = swarm.poll(ORDERS_EVERY) {
            let _ = trouble.send(error);
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Without a sender the thread ends.
        self.orders = mpsc::channel().0;
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who subscribes to what: each audience has clients and channels of its own, timed together.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    /// How many clients.
    pub(crate) clients: u32,
    /// How many channels they share.
    pub(crate) channels: u32,
    /// To how many of those each subscribes.
    pub(crate) per_client: u32,
}

impl Audience {
    /// For each channel of all audiences, to which it belongs.
    pub(crate) fn of_channels(audiences: &[Audience]) -> Vec<usize> {
        let channels = |(index, audience): (usize, &Audience)| vec![index; audience.channels as usize];
        audiences.iter().enumerate().flat_map(channels).collect()
    }

    /// The awaited clients of all audiences. Channels are dealt out in turn, so their subscribers differ by one at most.
    pub(crate) fn tickets(audiences: &[Audience]) -> Vec<Ticket> {
        let (mut tickets, mut first) = (Vec::new(), 0);
        for audience in audiences {
            for number in 0..audience.clients {
                let dealt = 0..audience.per_client.min(audience.channels);
                let channel = |turn| first + (number + turn) % audience.channels;
                tickets.push(Ticket {
                    client: tickets.len() as u32,
                    channels: dealt.map(channel).collect(),
                    is_awaited: true,
                    role: Role::Reads,
                });
            }
            first += audience.channels;
        }
        tickets
    }
}

impl Display for Audience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} clients, each on {} of {} channels",
            self.clients, self.per_client, self.channels
        )
    }
}
