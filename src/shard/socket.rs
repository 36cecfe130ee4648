//! One WebSocket connection, as its shard holds it: what belongs to it, and nothing of what is done with it.

use std::os::fd::{AsRawFd, RawFd};

use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::framing::Framing;
use super::input::HeldBack;
use super::outbox::Outbox;
use super::pulse::Pulse;
use super::session::Session;
use super::subscriptions::Subscriptions;
use crate::address::Place;
use crate::app::Admission;
use crate::tls::Sealed;

/// One WebSocket connection. An idle one holds nothing but this.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    /// What it is encrypted with, if it is.
    pub(super) sealed: Option<Box<Sealed>>,
    pub(super) session: Session,
    pub(super) subscriptions: Subscriptions,
    pub(super) pulse: Pulse,
    pub(super) framing: Framing,
    pub(super) outbox: Outbox,
    /// Input that was read and could not be worked yet.
    pub(super) unread: Option<Box<[u8]>>,
    /// What was read and has to wait.
    pub(super) held_back: Option<Box<HeldBack>>,
    /// Not being read: its silence proves nothing.
    pub(super) is_paused: bool,
    /// About to be closed by a drain.
    pub(super) is_shed: bool,
    /// The task that reads it, which takes it away when it ends.
    pub(super) reader: Option<AbortHandle>,
    /// Whether a task waits for the socket to take more, or is about to be spawned.
    pub(super) has_writer: bool,
    /// That task. A stream that is dropped forgets who waits for it, so the task has to be ended.
    pub(super) writer: Option<AbortHandle>,
    /// Its place in the app's quota.
    _admission: Admission,
    /// Its place among the connections of its address, where they are limited.
    _place: Option<Place>,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        sealed: Option<Box<Sealed>>,
        session: Session,
        now_s: u32,
        admission: Admission,
        place: Option<Place>,
    ) -> Self {
        Socket {
            stream,
            sealed,
            session,
            subscriptions: Subscriptions::default(),
            pulse: Pulse::new(now_s),
            framing: Framing::new(),
            outbox: Outbox::new(),
            unread: None,
            held_back: None,
            is_paused: false,
            is_shed: false,
            reader: None,
            has_writer: false,
            writer: None,
            _admission: admission,
            _place: place,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// What waits for it, as far as it was sealed already. Bytes.
    pub(super) fn sealed_bytes(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.unsent.len())
    }

    /// Whether it has got all that it is to get.
    pub(super) fn has_all(&self) -> bool {
        self.outbox.is_empty() && self.sealed_bytes() == 0
    }
}
