//! Clients that do more than read, or less: those who ask and answer, and those who stop reading.

use std::ops::Range;
use std::time::Duration;

use super::Swarm;
use super::client::Client;
use super::rally::{Role, Trips};
use super::stamp::{self, Stamp};

/// How often a client that does not read says something, which is how it learns that it has been given up: as long as its
/// window is shut, the server's farewell cannot reach it.
const NUDGE_EVERY_NS: u64 = 50_000_000;

impl Swarm {
    /// The clients of these numbers do not read any more.
    pub(crate) fn stall(&mut self, numbers: &Range<u32>) {
        let now_ns = self.board.now_ns();
        for (index, client) in self.clients.iter_mut().enumerate() {
            if let Some(client) = client
                && client.is_live()
                && numbers.contains(&client.number)
            {
                client.stalled_ns = Some(now_ns);
                self.stalled.push(index);
            }
        }
    }

    /// How long those of them lasted that the server has ended since. Nanoseconds.
    pub(crate) fn endured(&self) -> &[u64] {
        &self.endured
    }

    /// One of them has been ended.
    pub(super) fn endure(&mut self, index: usize) {
        let Some(since_ns) = self.clients[index].as_ref().and_then(|client| client.stalled_ns) else {
            return;
        };
        self.endured.push(self.board.now_ns().saturating_sub(since_ns));
        self.counts.live -= 1;
        self.stalled.retain(|stalled| *stalled != index);
        self.remove(index);
    }

    /// Lets those ask whose turn it is, and nudges those who do not read. The answer is how long may be waited for sockets.
    #[inline]
    pub(super) fn ask_and_nudge(&mut self, at_most: Duration) -> Duration {
        let mut at_most = at_most;
        if !self.stalled.is_empty() {
            self.nudge();
            at_most = at_most.min(Duration::from_nanos(NUDGE_EVERY_NS));
        }
        while let Some(due_ns) = self.rally.next_ns() {
            let now_ns = self.board.now_ns();
            let Some((index, sequence)) = self.rally.next(now_ns) else {
                return at_most.min(Duration::from_nanos(due_ns.saturating_sub(now_ns)));
            };
            let Some(client) = self.clients[index].as_mut() else {
                continue;
            };
            let stamp = Stamp {
                run: self.target.run,
                channel: self.ledger.channel_of(client.seats.start),
                sequence,
                before: sequence,
                sent_ns: now_ns,
            };
            client.say_event(&self.target, &stamp, &self.padding);
        }
        at_most
    }

    fn nudge(&mut self) {
        let now_ns = self.board.now_ns();
        if now_ns - self.nudged_ns < NUDGE_EVERY_NS {
            return;
        }
        self.nudged_ns = now_ns;
        for index in self.stalled.clone() {
            if !self.clients[index].as_mut().is_some_and(Client::nudge) {
                self.endure(index);
            }
        }
    }

    /// Those who ask begin to; each asks again at that interval, or when it is answered.
    pub(crate) fn begin_rally(&mut self, every_ns: Option<u64>) {
        let is_asking = |client: &Client| client.is_live() && client.role == Role::Asks;
        let clients = self.clients.iter().enumerate();
        let asking: Vec<usize> = clients
            .filter(|(_, client)| client.as_ref().is_some_and(is_asking))
            .map(|(index, _)| index)
            .collect();
        self.rally.begin(&asking, every_ns, self.board.now_ns());
    }

    /// Sets how many bytes of data a client event has, or a stamp's length if that is more.
    pub(crate) fn set_payload(&mut self, payload_bytes: usize) {
        self.padding = "x".repeat(payload_bytes.saturating_sub(stamp::LENGTH));
    }

    /// Nobody asks any more.
    pub(crate) fn end_rally(&mut self) {
        self.rally.end();
    }

    /// What the pairs have come to so far.
    pub(crate) fn trips(&self) -> Trips {
        self.rally.trips()
    }
}
