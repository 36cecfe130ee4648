//! Where sockets live: one thread, one owner, for life. Nobody else touches a shard's sockets; the only door into it
//! is its inbox.
//!
//! A shard is a tokio current-thread runtime. Its root future is the turn loop: entries of the inbox, then a batch of
//! sends, then tokio's turn with at most some sixty polls of sockets, however many woke at once. The tasks of a socket
//! only wait: one for it to say something, and another, while it is blocked, for it to take more.

mod apart;
mod audience;
mod charge;
mod core;
mod cork;
mod fanout;
pub mod framing;
mod input;
mod live;
pub mod outbox;
mod pulse;
mod reader;
mod rest;
mod run;
mod sealing;
mod session;
mod socket;
mod sockets;
mod subscriptions;
pub mod wheel;
mod wire;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::net::TcpStream;

use self::core::Core;
pub use self::live::LiveBytes;
use self::session::Session;
use self::socket::Socket;
use crate::address::{Client, Place};
use crate::app::Admission;
use crate::hub::inbox::{Arrival, Entry, ShardIndex};
use crate::node::Node;
use crate::protocol::socket_id::SocketId;
use crate::tls::Sealed;

/// Entries of the inbox worked before a batch of sends has its turn.
const ENTRIES_PER_TURN: usize = 512;
/// Room for entries that is kept when a flood is over.
const ENTRIES_KEPT: usize = 4096;
/// How often sockets are looked at whose time may have come.
const TICK: Duration = Duration::from_secs(1);

/// What is done with a connection before it is a socket: HTTP, up to the upgrade. Called on the shard's thread.
pub type Door = Box<dyn Fn(Rc<Shard>, Arrival<TcpStream>)>;

/// Opens a shard's door. Called on the shard's thread, in its runtime.
pub type Doors = Arc<dyn Fn(ShardIndex) -> Door + Send + Sync>;

/// A shard, as seen from the tasks on its own thread.
pub struct Shard {
    index: ShardIndex,
    node: Arc<Node>,
    core: RefCell<Core>,
}

/// A client that has been let in, and is to become a socket.
#[derive(Debug)]
pub struct Newcomer {
    /// Its place in the app's quota.
    pub admission: Admission,
    /// The protocol version that it speaks.
    pub protocol: u8,
    /// Whether it gets the hosted service's stricter answers.
    pub strict: bool,
    /// The answer to its handshake, which its greeting follows at once.
    pub answer: Vec<u8>,
    /// Who it is, for the log.
    pub client: Client,
    /// Its place among the connections of its address, where they are limited.
    pub place: Option<Place>,
}

/// Starts a shard's thread. It ends after [`Entry::Stop`].
pub fn start(
    index: ShardIndex,
    node: Arc<Node>,
    live: LiveBytes,
    live_bytes_max: usize,
    doors: Doors,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            let run = || -> io::Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(Default::default())?;
                let core = RefCell::new(Core::new(index, node.clone(), &live, live_bytes_max));
                let shard = Rc::new(Shard { index, node, core });
                runtime.block_on(async { turns(shard, doors(index)).await });
                Ok(())
            };
            // A mute shard would go unnoticed: whatever ends its loop against the rules ends the process.
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(shard = index, %error, "a shard could not start");
                    std::process::abort();
                }
                Err(_) => {
                    tracing::error!(shard = index, "a shard's loop panicked");
                    std::process::abort();
                }
            }
        })
}

/// The turn loop, until it is stopped.
async fn turns(shard: Rc<Shard>, door: Door) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut rest = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut taken = Vec::new();
    let mut entries = VecDeque::new();
    poll_fn(move |cx| {
        while ticks.poll_tick(cx).is_ready() {
            shard.core.borrow_mut().tick();
        }
        shard.node.inboxes().of(shard.index).take(cx.waker(), &mut taken);
        entries.extend(taken.drain(..));
        let now = Instant::now();
        let flow = shard.turn(now, &mut entries, &door);
        let core = shard.core.borrow();
        let is_rest_over = core.fanout.rests_until().is_some_and(|until| {
            rest.as_mut().reset(until.into());
            rest.as_mut().poll(cx).is_ready()
        });
        if !entries.is_empty() || core.is_busy() || is_rest_over {
            // Work is left, but tokio's tasks come first.
            cx.waker().wake_by_ref();
        }
        match flow {
            ControlFlow::Break(()) => Poll::Ready(()),
            ControlFlow::Continue(()) => Poll::Pending,
        }
    })
    .await;
}

impl Shard {
    /// One turn: some entries, one batch.
    fn turn(self: &Rc<Self>, now: Instant, entries: &mut VecDeque<Entry>, door: &Door) -> ControlFlow<()> {
        let count = entries.len().min(ENTRIES_PER_TURN);
        for entry in entries.drain(..count) {
            match entry {
                Entry::Accept(arrival) => self.accept(arrival, door),
                Entry::Stop => return ControlFlow::Break(()),
                asked => self.core.borrow_mut().work(asked),
            }
        }
        if entries.is_empty() && entries.capacity() > ENTRIES_KEPT {
            entries.shrink_to(ENTRIES_KEPT);
        }
        let mut core = self.core.borrow_mut();
        core.turn(now);
        self.spawn_writers(&mut core);
        ControlFlow::Continue(())
    }

    fn accept(self: &Rc<Self>, arrival: Arrival, door: &Door) {
        match arrival.try_map(TcpStream::from_std) {
            Ok(arrival) => door(self.clone(), arrival),
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was served");
                self.connection_gone();
            }
        }
    }

    /// Which one it is.
    pub fn index(&self) -> ShardIndex {
        self.index
    }

    /// A connection that never became a socket has ended.
    pub fn connection_gone(&self) {
        self.node.inboxes().of(self.index).remove_connection();
    }

    /// Makes a socket of an upgraded connection, with what it is encrypted with, if it is. `early` is what the client
    /// said behind its handshake.
    pub fn adopt(
        self: &Rc<Self>,
        stream: TcpStream,
        sealed: Option<Box<Sealed>>,
        early: &[u8],
        newcomer: Newcomer,
    ) {
        let Newcomer {
            admission,
            protocol,
            strict,
            answer,
            client,
            place,
        } = newcomer;
        let namespace = self.node.namespace(admission.app());
        let mut core = self.core.borrow_mut();
        let id = loop {
            let mut random = rand::rng();
            let mut number = || random.random_range(1..=SocketId::PART_MAX);
            let id = SocketId::from_parts(number(), number());
            if core.sockets.by_id(id).is_none() {
                break id;
            }
        };
        tracing::debug!(%client, socket_id = %id, app = admission.app().id(), "a socket is open");
        let key = core.insert(answer, |now_s| {
            let session = Session::new(id, namespace, protocol, strict);
            let mut socket = Socket::new(stream, sealed, session, now_s, admission, place);
            socket.unread = (!early.is_empty()).then(|| early.into());
            socket
        });
        self.spawn_writers(&mut core);
        self.spawn_reader(&mut core, key);
    }
}
