//! Back ends that publish: keep-alive HTTP connections with one request at a time each, signed as the official libraries
//! sign them. Their epoll lies inside that of a swarm, so that one thread can do both.
//!
//! It knows nothing of who receives what: the board tells it what has arrived everywhere.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::swarm::board::Board;
use crate::swarm::stamp::{self, Stamp};
use crate::swarm::stream::Stream;
use crate::swarm::{Swarm, words};
use crate::target::Target;

mod answer;
mod connection;
mod pace;
mod requests;

use self::answer::Answer;
use self::connection::{Asked, Connection};
pub(crate) use self::pace::{Pace, until_due};
pub(crate) use self::requests::Requests;

/// So long after a request nobody waits for its event any more, nor for its answer.
const PATIENCE_NS: u64 = 5_000_000_000;
/// How often is looked for such requests.
const IMPATIENCE_NS: u64 = 100_000_000;
const EXAMPLES_MAX: usize = 5;

/// Connections to publish on.
pub(crate) struct Publisher {
    target: Arc<Target>,
    board: Arc<Board>,
    epoll: OwnedFd,
    events: Vec<Event>,
    connections: Vec<Connection>,
    /// Those without a request.
    free: Vec<usize>,
    request: Vec<u8>,
    /// What fills the data up behind the stamp.
    padding: String,
    in_flight: VecDeque<Asked>,
    /// Events that were refused, by channel: nobody is owed them.
    void: Vec<Vec<u32>>,
    requests: Requests,
    is_accepted: bool,
    looked_ns: u64,
    /// Why nothing can be published any more.
    trouble: Option<String>,
    /// Set when that is so: it ends the run.
    stop: Arc<AtomicBool>,
}

impl Publisher {
    /// Opens so many connections, and lets the swarm wait for their answers too. Each event carries so many bytes of data,
    /// or a stamp's length if that is more. When no connection can be made any more, it sets `stop`.
    pub(crate) fn connect(
        target: &Arc<Target>,
        board: &Arc<Board>,
        count: usize,
        payload_bytes: usize,
        swarm: &Swarm,
        stop: &Arc<AtomicBool>,
    ) -> Result<Publisher> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        swarm.also_wait_for(&epoll)?;
        let mut publisher = Publisher {
            target: Arc::clone(target),
            board: Arc::clone(board),
            epoll,
            events: Vec::with_capacity(64),
            connections: Vec::new(),
            free: Vec::new(),
            request: Vec::new(),
            padding: "x".repeat(payload_bytes.saturating_sub(stamp::LENGTH)),
            in_flight: VecDeque::new(),
            void: vec![Vec::new(); board.channels() as usize],
            requests: Requests::new(),
            is_accepted: false,
            looked_ns: 0,
            trouble: None,
            stop: Arc::clone(stop),
        };
        publisher.open(count)?;
        Ok(publisher)
    }

    /// Opens connections until there are so many.
    pub(crate) fn open(&mut self, count: usize) -> Result<()> {
        for index in self.connections.len()..count {
            let connection = Connection {
                stream: None,
                answer: Answer::default(),
                asked: None,
            };
            self.connections.push(connection);
            self.reopen(index)?;
            self.free.push(index);
        }
        Ok(())
    }

    fn reopen(&mut self, index: usize) -> Result<()> {
        let address = self.target.address;
        let stream = Stream::dial(address, self.target.tls.as_ref()).with_context(|| {
            format!(
                "nothing can be published: no connection to {address} (is the server running, and are --host and \
                 --port right?)"
            )
        })?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), flags)?;
        let connection = &mut self.connections[index];
        connection.stream = Some(stream);
        connection.answer = Answer::default();
        Ok(())
    }

    /// Whether a request can be sent now.
    pub(crate) fn is_free(&self) -> bool {
        !self.free.is_empty() && self.trouble.is_none()
    }

    /// Events that somebody still lacks and may still get.
    pub(crate) fn in_flight(&mut self) -> usize {
        let now_ns = self.board.now_ns();
        let board = &self.board;
        self.in_flight.retain(|asked| {
            !board.is_done(asked.channel, asked.sequence) && now_ns.saturating_sub(asked.at_ns) < PATIENCE_NS
        });
        self.in_flight.len()
    }

    /// Requests without an answer so far.
    pub(crate) fn unanswered(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    /// Publishes one event. It counts as sent when it was due, or now if it was not due at a time.
    ///
    /// When no connection can be made any more, the run is to end: what it has measured is worth telling.
    ///
    /// # Errors
    /// No connection is free.
    pub(crate) fn publish(&mut self, channel: u32, due_ns: Option<u64>) -> Result<()> {
        let index = self.free.pop().context("a publication needs a free connection")?;
        if self.connections[index].stream.is_none()
            && let Err(error) = self.reopen(index)
        {
            self.free.push(index);
            self.stop.store(true, Relaxed);
            self.trouble.get_or_insert_with(|| format!("{error:#}"));
            return Ok(());
        }
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let sequence = self.board.publish(channel);
        let at_ns = self.board.now_ns();
        let sent_ns = due_ns.unwrap_or(at_ns);
        let stamp = Stamp {
            run: self.target.run,
            channel,
            sequence,
            before: self.first_unanswered(channel).unwrap_or(sequence),
            sent_ns,
        };
        self.request.clear();
        let data = stamp.text() + &self.padding;
        self.target
            .put_publication(&mut self.request, channel, &data, unix_s);
        let asked = Asked {
            channel,
            sequence,
            at_ns,
        };
        if due_ns.is_none() {
            self.in_flight.push_back(asked);
        }
        self.requests.sent += 1;
        self.requests
            .lateness
            .saturating_record(at_ns.saturating_sub(sent_ns));
        let connection = &mut self.connections[index];
        connection.asked = Some(asked);
        if let Some(stream) = &mut connection.stream
            && let Err(error) = stream.send(&self.request)
        {
            self.lose(index, &format!("the connection broke: {error}"));
        }
        Ok(())
    }

    /// The oldest event of a channel of which nobody knows yet whether it was accepted.
    fn first_unanswered(&self, channel: u32) -> Option<u32> {
        let asked = self.connections.iter().filter_map(|connection| connection.asked);
        asked
            .filter(|asked| asked.channel == channel)
            .map(|asked| asked.sequence)
            .min()
    }

    /// Takes the answers that have come.
    ///
    /// # Errors
    /// The very first answer says that no request will ever be accepted.
    pub(crate) fn hear(&mut self) -> Result<()> {
        let now_ns = self.board.now_ns();
        if now_ns - self.looked_ns > IMPATIENCE_NS {
            self.looked_ns = now_ns;
            self.give_up(now_ns.saturating_sub(PATIENCE_NS));
        }
        loop {
            let mut events = std::mem::take(&mut self.events);
            epoll::wait(
                &self.epoll,
                spare_capacity(&mut events),
                Some(&Timespec::default()),
            )?;
            let is_all = events.len() < events.capacity();
            for event in events.drain(..) {
                self.work(event.data.u64() as usize)?;
            }
            self.events = events;
            if is_all {
                return Ok(());
            }
        }
    }

    fn work(&mut self, index: usize) -> Result<()> {
        if let Some(stream) = &mut self.connections[index].stream
            && let Err(error) = stream.flush()
        {
            self.lose(index, &format!("the connection broke: {error}"));
        }
        let mut buffer = [0; 4096];
        loop {
            let connection = &mut self.connections[index];
            let Some(stream) = &mut connection.stream else {
                return Ok(());
            };
            match stream.read(&mut buffer) {
                Ok(0) => {
                    self.lose(index, "the server ended the connection without an answer");
                    return Ok(());
                }
                Ok(length) => {
                    connection.answer.feed(&buffer[..length]);
                    if connection.answer.is_complete() {
                        self.answered(index)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    self.lose(index, &format!("the connection broke: {error}"));
                    return Ok(());
                }
            }
        }
    }

    fn answered(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let answer = std::mem::take(&mut connection.answer);
        let Some(asked) = connection.asked.take() else {
            // Nobody asked: such a connection is of no use.
            connection.stream = None;
            return Ok(());
        };
        if answer.is_last() {
            connection.stream = None;
        }
        self.free.push(index);
        let status = answer.status();
        if status == 200 {
            let took_ns = self.board.now_ns() - asked.at_ns;
            self.requests.accepted += 1;
            self.requests.answers.saturating_record(took_ns);
            self.is_accepted = true;
            return Ok(());
        }
        let told = words(answer.bytes());
        if !self.is_accepted {
            match status {
                401 | 403 => bail!("a publication was refused: {told} (are --key and --secret right?)"),
                404 => bail!("a publication was refused: {told} (are --app-id and --path right?)"),
                413 => bail!(
                    "a publication was refused: {told} (a smaller --payload, or a higher limit of the server)"
                ),
                _ => {}
            }
        }
        self.refuse(asked, &format!("a publication was answered with: {told}"));
        Ok(())
    }

    /// A connection is over. A request on it may or may not have been heard; nobody is owed its event.
    fn lose(&mut self, index: usize, how: &str) {
        let connection = &mut self.connections[index];
        connection.stream = None;
        if let Some(asked) = connection.asked.take() {
            self.free.push(index);
            self.refuse(asked, how);
        }
    }

    /// Waits no longer for answers to requests from before then.
    pub(crate) fn give_up(&mut self, before_ns: u64) {
        for index in 0..self.connections.len() {
            if self.connections[index]
                .asked
                .is_some_and(|asked| asked.at_ns < before_ns)
            {
                self.lose(index, "a publication was not answered");
            }
        }
    }

    /// Why nothing can be published any more, if that is so.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn refuse(&mut self, asked: Asked, how: &str) {
        self.requests.refused += 1;
        if self.requests.examples.len() < EXAMPLES_MAX {
            self.requests.examples.push(how.to_owned());
        }
        self.void[asked.channel as usize].push(asked.sequence);
        self.in_flight
            .retain(|other| (other.channel, other.sequence) != (asked.channel, asked.sequence));
    }

    /// The sequences that are owed to nobody, for each channel in ascending order.
    pub(crate) fn void(&mut self) -> &[Vec<u32>] {
        self.void
            .iter_mut()
            .for_each(|of_channel| of_channel.sort_unstable());
        &self.void
    }

    /// So far, since this was last taken.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The measurement begins: what was counted before is forgotten.
    pub(crate) fn begin(&mut self) {
        self.requests = Requests::new();
    }

    /// The measurement ends: what became of its requests.
    pub(crate) fn take_requests(&mut self) -> Requests {
        std::mem::replace(&mut self.requests, Requests::new())
    }
}
