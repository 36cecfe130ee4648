//! Telling those who may have no socket: inside the socket, by `pusher:error` and a close with the same code. For one
//! shard, on its thread.
//!
//! Who is refused for want of room is told a random while later. pusher-js comes back exactly one second after it was
//! told, without any jitter: those who lost their sockets together would come again together, every second, for as long
//! as there is no room. It waits for the first message for as long as its last connection took, twice, and a second more
//! (on a page that was never connected two seconds, if it knows other transports), and then tries again at once: so the
//! while must stay below a second. Its handshake is answered at once, since browsers make their tabs wait for each
//! other's. `docs/sizing.md` has the experiment.
//!
//! Who waits, for the words or for its own goodbye, is out of tokio's hands: no task, no timer, nothing that wakes
//! anybody; a descriptor and some forty bytes in a wheel, which one task of the shard turns as long as somebody is in
//! it. The number of those who wait is bounded; beyond it they are told at once, and not waited for.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::http::{Gate, Place};
use super::upgrade::{Proof, switching_protocols};
use crate::address;
use crate::protocol::code::CloseCode;
use crate::protocol::frame::Frame;
use crate::protocol::server;
use crate::shard::wheel::Wheel;
use crate::tls::{Records, Sealed};

/// How often it is looked who is to be told, and who has gone.
const TICK: Duration = Duration::from_millis(20);
/// Told, and looked at whether they have left, in one tick: sends of live traffic go on between two. Apart, for however
/// many do not leave, the others are told in time.
const TOLD_PER_TICK: usize = 128;
const LOOKS_PER_TICK: usize = 128;
/// How long a refused client has to answer the close frame.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at one that has not left. Ticks.
const LEAVE_TICKS_MAX: u64 = 64;
/// Reads of what a refused client still says before others have their turn.
const READS_PER_LOOK: usize = 8;

/// What a client is told that may have no socket.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) proof: Proof,
    pub(super) code: CloseCode,
    /// Its place among the connections of its address.
    pub(super) place: Option<address::Place>,
}

/// A refused client.
struct Refused {
    stream: TcpStream,
    /// What it is encrypted with, if it is.
    sealed: Option<Box<Sealed>>,
    /// It counts as a connection for as long as it is one.
    _places: (Place, Option<address::Place>),
}

impl Refused {
    fn tell(&mut self, words: &[u8]) -> io::Result<()> {
        match &mut self.sealed {
            None => send(&self.stream, words),
            // What was sealed before has to go first, and nobody waits for that.
            Some(sealed) if !sealed.unsent.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            Some(sealed) => {
                let mut records = Records::default();
                sealed.seal(words, &mut records).map_err(io::Error::other)?;
                send(&self.stream, records.as_bytes())
            }
        }
    }

    /// TLS has a goodbye of its own.
    fn say_goodbye(&mut self) {
        let mut records = Records::default();
        if let Some(sealed) = &mut self.sealed
            && sealed.say_goodbye(&mut records).is_ok()
        {
            // Who does not take it has gone.
            let _ = send(&self.stream, records.as_bytes());
        }
    }
}

/// Its handshake has been answered, and it is to be told why nothing follows.
struct Untold {
    client: Refused,
    code: CloseCode,
}

/// Told, and waited for: pusher-js counts an unclean end against the transport.
struct Parting {
    client: Refused,
    /// At this tick no longer.
    by: u64,
    /// Until the next look; it grows.
    ticks: u64,
}

/// Those who wait for the same, each for its tick.
struct Line<T> {
    wheel: RefCell<Wheel<T>>,
    /// Whose tick has come, and not yet their turn.
    due: RefCell<Vec<T>>,
    count: Cell<usize>,
}

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line {
            wheel: RefCell::default(),
            due: RefCell::default(),
            count: Cell::new(0),
        }
    }
}

impl<T> Line<T> {
    fn count(&self) -> usize {
        self.count.get()
    }

    fn join(&self, one: T, tick: u64) {
        self.count.set(self.count() + 1);
        self.wheel.borrow_mut().insert(one, tick);
    }

    /// Takes out those whose tick has come, the first ones of too many.
    fn take(&self, now: u64, most: usize) -> Vec<T> {
        let mut due = self.due.take();
        self.wheel.borrow_mut().advance(now, &mut due);
        *self.due.borrow_mut() = due.split_off(due.len().min(most));
        self.count.set(self.count() - due.len());
        due
    }
}

/// The refused clients of one shard.
pub(super) struct Refusals {
    gate: Arc<Gate>,
    shard: usize,
    began: Instant,
    untold: Line<Untold>,
    parting: Line<Parting>,
    is_at_work: Cell<bool>,
}

impl Refusals {
    pub(super) fn new(gate: Arc<Gate>, shard: usize) -> Rc<Refusals> {
        Rc::new(Refusals {
            gate,
            shard,
            began: Instant::now(),
            untold: Line::default(),
            parting: Line::default(),
            is_at_work: Cell::new(false),
        })
    }

    /// Takes a client over, which is told in its time.
    pub(super) fn refuse(
        self: &Rc<Self>,
        stream: tokio::net::TcpStream,
        sealed: Option<Box<Sealed>>,
        refusal: Refusal,
        place: Place,
    ) {
        // Errors are clients that have gone.
        let Ok(stream) = stream.into_std() else { return };
        let Refusal {
            proof,
            code,
            place: of_address,
        } = refusal;
        let mut words = switching_protocols(&proof);
        let delay = self.delay(code);
        if delay.is_zero() {
            words.extend(last_words(code));
        }
        let mut client = Refused {
            stream,
            sealed,
            _places: (place, of_address),
        };
        if client.tell(&words).is_err() {
            return;
        }
        if delay.is_zero() {
            self.part(client);
        } else {
            let due = ticks(self.began.elapsed() + delay);
            self.untold.join(Untold { client, code }, due);
            self.show();
        }
        self.work();
    }

    /// How long a client is let wait. While the node drains, clients leave it evenly already, and are to find another one
    /// soon.
    fn delay(&self, code: CloseCode) -> Duration {
        let longest_ms = self.gate.config.refusal_delay_ms_max;
        if code != CloseCode::OverCapacity || longest_ms == 0 || self.is_full(self.untold.count()) {
            return Duration::ZERO;
        }
        Duration::from_millis(rand::rng().random_range(1..=longest_ms).into())
    }

    fn is_full(&self, count: usize) -> bool {
        count >= self.gate.marks.room.refused / self.gate.refused.len()
    }

    /// For gauges: how many wait to be told.
    fn show(&self) {
        self.gate.refused[self.shard].store(self.untold.count(), Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.untold.count() + self.parting.count() == 0
    }

    /// Works for as long as there is somebody.
    fn work(self: &Rc<Self>) {
        if self.is_idle() || self.is_at_work.replace(true) {
            return;
        }
        let refusals = self.clone();
        tokio::task::spawn_local(async move {
            let mut look = interval(TICK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !refusals.is_idle() {
                look.tick().await;
                refusals.tell();
                refusals.look();
            }
            refusals.is_at_work.set(false);
        });
    }

    /// Tells some of those whose time has come. A node that drains lets nobody wait.
    fn tell(&self) {
        let now = match self.gate.health.state().is_draining() {
            true => u64::MAX,
            false => self.now(),
        };
        for Untold { mut client, code } in self.untold.take(now, TOLD_PER_TICK) {
            if client.tell(&last_words(code)).is_ok() {
                self.part(client);
            }
        }
        self.show();
    }

    /// Looks which of those who were told have left.
    fn look(&self) {
        let now = self.now();
        for Parting { client, by, ticks } in self.parting.take(now, LOOKS_PER_TICK) {
            if now < by && has_not_left(&client.stream) {
                self.wait_for(client, by, (ticks * 2).min(LEAVE_TICKS_MAX));
            }
        }
    }

    /// Nothing more is said to it. It is waited for, if not for too many.
    fn part(&self, mut client: Refused) {
        client.say_goodbye();
        let is_open = client.stream.shutdown(Shutdown::Write).is_ok();
        if is_open && !self.is_full(self.parting.count()) {
            self.wait_for(client, self.now() + ticks(GOODBYE_MAX), 1);
        }
    }

    fn wait_for(&self, client: Refused, by: u64, ticks: u64) {
        let next = by.min(self.now() + ticks);
        self.parting.join(Parting { client, by, ticks }, next);
    }

    fn now(&self) -> u64 {
        ticks(self.began.elapsed())
    }
}

/// Why it may have no socket, and the end.
fn last_words(code: CloseCode) -> Vec<u8> {
    let (error, close) = (server::closing_error(code), Frame::close(code));
    [error.as_bytes(), close.as_bytes()].concat()
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

/// Next to nothing was sent to this client before: there is room for this, or it is lost.
fn send(mut stream: &TcpStream, words: &[u8]) -> io::Result<()> {
    match stream.write(words)? {
        sent if sent == words.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// What it says is read, or the kernel would cut it off without a goodbye.
fn has_not_left(mut stream: &TcpStream) -> bool {
    let mut said = [0; 512];
    for _ in 0..READS_PER_LOOK {
        match stream.read(&mut said) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}
