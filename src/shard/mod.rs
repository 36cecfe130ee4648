//! Where sockets live: one thread, one owner, for life. Nobody else touches a shard's sockets; the only door into it
//! is its inbox.
//!
//! A shard is a tokio current-thread runtime. Its root future is the turn loop: entries of the inbox, then a batch of
//! sends, then tokio's turn with at most some sixty polls of sockets, however many woke at once. What waits is what
//! waits: each socket has a task that waits for it to say something, and while it is blocked another one that waits
//! for it to take more.

mod audience;
mod core;
mod fanout;
pub mod framing;
mod input;
mod live;
pub mod outbox;
mod pulse;
mod run;
mod session;
mod sockets;
mod subscriptions;
pub mod wheel;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use self::core::Core;
use self::input::Pause;
pub use self::live::LiveBytes;
use self::session::Session;
use self::sockets::Socket;
use crate::app::Admission;
use crate::hub::inbox::{Entry, ShardIndex, SocketKey};
use crate::metrics::CloseReason;
use crate::node::Node;
use crate::protocol::socket_id::SocketId;

/// The buffer that all sockets of a shard are read into, and so the most that one of them is heard at a time. Bytes.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Entries of the inbox worked before a batch of sends has its turn.
const ENTRIES_PER_TURN: usize = 512;
/// How often sockets are looked at whose time may have come.
const TICK: Duration = Duration::from_secs(1);
/// The two numbers of a socket id are drawn from 1 to this.
const SOCKET_ID_MAX: u64 = 9_999_999_999;

/// What is done with a connection before it is a socket: HTTP, up to the upgrade. Called on the shard's thread.
pub type Door = Arc<dyn Fn(Rc<Shard>, TcpStream) + Send + Sync>;

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
}

/// Starts a shard's thread. It ends after [`Entry::Stop`].
pub fn start(
    index: ShardIndex,
    node: Arc<Node>,
    live: LiveBytes,
    live_bytes_max: usize,
    door: Door,
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
                runtime.block_on(turns(shard, door));
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
    let mut taken = Vec::new();
    let mut entries = Vec::new().into_iter();
    poll_fn(move |cx| {
        while ticks.poll_tick(cx).is_ready() {
            shard.core.borrow_mut().tick();
        }
        if entries.len() == 0 {
            shard.node.inboxes().of(shard.index).take(cx.waker(), &mut taken);
            entries = std::mem::take(&mut taken).into_iter();
        }
        let flow = shard.turn(&mut entries, &door);
        let core = shard.core.borrow();
        if entries.len() > 0 || core.fanout.is_busy() || core.has_due() {
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
    fn turn(self: &Rc<Self>, entries: &mut impl Iterator<Item = Entry>, door: &Door) -> ControlFlow<()> {
        let mut core = self.core.borrow_mut();
        for entry in entries.take(ENTRIES_PER_TURN) {
            match core.work(entry) {
                Some(Entry::Accept(stream)) => {
                    drop(core);
                    self.accept(stream, door);
                    core = self.core.borrow_mut();
                }
                Some(_) => return ControlFlow::Break(()),
                None => {}
            }
        }
        let Core { fanout, sockets, .. } = &mut *core;
        fanout.start();
        fanout.work(sockets);
        core.look_at_due();
        core.close_slow();
        self.spawn_writers(&mut core);
        ControlFlow::Continue(())
    }

    fn accept(self: &Rc<Self>, stream: std::net::TcpStream, door: &Door) {
        match TcpStream::from_std(stream) {
            Ok(stream) => door(self.clone(), stream),
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was served");
                self.connection_gone();
            }
        }
    }

    /// A connection that never became a socket has ended.
    pub fn connection_gone(&self) {
        self.node.inboxes().of(self.index).remove_connection();
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Sockets on this shard.
    pub fn sockets(&self) -> usize {
        self.core.borrow().sockets.len()
    }

    /// Makes a socket of an upgraded connection. `early` is what the client sent behind its handshake.
    pub fn adopt(self: &Rc<Self>, stream: TcpStream, early: &[u8], newcomer: Newcomer) {
        let Newcomer {
            admission,
            protocol,
            strict,
        } = newcomer;
        let namespace = self.node.namespace(admission.app());
        let mut core = self.core.borrow_mut();
        let id = loop {
            let mut random = rand::rng();
            let mut number = || random.random_range(1..=SOCKET_ID_MAX);
            let id = SocketId::from_parts(number(), number());
            if !core.sockets.has_id(id) {
                break id;
            }
        };
        let key = core.insert(|now_s| {
            let session = Session::new(id, namespace, protocol, strict);
            let mut socket = Socket::new(stream, session, now_s, admission);
            socket.unread = (!early.is_empty()).then(|| early.into());
            socket
        });
        self.spawn_writers(&mut core);
        drop(core);
        spawn_local(read(Reader {
            shard: self.clone(),
            key,
        }));
    }

    fn spawn_writers(self: &Rc<Self>, core: &mut Core) {
        for key in std::mem::take(&mut core.sockets.to_drain) {
            let shard = self.clone();
            let drain = poll_fn(move |cx| shard.core.borrow_mut().sockets.poll_drain(key, cx));
            if let Some(socket) = core.sockets.get_mut(key) {
                socket.writer = Some(spawn_local(drain).abort_handle());
            }
        }
    }

    /// Works input until there is none, a pause is due or the connection is over (`None`).
    fn poll_read(self: &Rc<Self>, key: SocketKey, cx: &mut Context<'_>) -> Poll<Option<Pause>> {
        let mut core = self.core.borrow_mut();
        let polled = loop {
            let Some(socket) = core.sockets.get_mut(key) else {
                break Poll::Ready(None);
            };
            if let Some(mut unread) = socket.unread.take() {
                match core.receive(key, &mut unread) {
                    ControlFlow::Break(()) => break Poll::Ready(None),
                    ControlFlow::Continue(Some(pause)) => break Poll::Ready(Some(pause)),
                    ControlFlow::Continue(None) => continue,
                }
            }
            // Taken out meanwhile; a panic that loses it costs one allocation.
            let mut scratch = std::mem::take(&mut core.scratch);
            if scratch.is_empty() {
                scratch = vec![0; SCRATCH_BYTES].into();
            }
            let Some(socket) = core.sockets.get_mut(key) else {
                break Poll::Ready(None);
            };
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut socket.stream).poll_read(cx, &mut buffer);
            let filled = buffer.filled().len();
            let received = match read {
                Poll::Ready(Ok(())) if filled > 0 => Some(core.receive(key, &mut scratch[..filled])),
                Poll::Ready(_) => {
                    core.lost(key);
                    Some(ControlFlow::Break(()))
                }
                Poll::Pending => None,
            };
            core.scratch = scratch;
            match received {
                None => break Poll::Pending,
                Some(ControlFlow::Break(())) => break Poll::Ready(None),
                Some(ControlFlow::Continue(Some(pause))) => break Poll::Ready(Some(pause)),
                Some(ControlFlow::Continue(None)) if filled == SCRATCH_BYTES => {
                    // There may be more, but others have their turn first.
                    cx.waker().wake_by_ref();
                    break Poll::Pending;
                }
                Some(ControlFlow::Continue(None)) => {}
            }
        };
        core.close_slow();
        self.spawn_writers(&mut core);
        polled
    }
}

/// The task that reads one socket. Whatever ends it, a panic included, takes the socket away.
struct Reader {
    shard: Rc<Shard>,
    key: SocketKey,
}

async fn read(reader: Reader) {
    let Reader { shard, key } = &reader;
    while let Some(pause) = poll_fn(|cx| shard.poll_read(*key, cx)).await {
        // Boxed: the room is needed only while the socket pauses.
        match pause {
            Pause::Publications => Box::pin(shard.node.room_to_publish()).await,
            Pause::Membership(wait) => Box::pin(tokio::time::sleep(wait)).await,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shard.node.metrics().closed(CloseReason::Internal).inc();
        }
        let mut core = self.shard.core.borrow_mut();
        core.remove(self.key);
    }
}
