//! A stretch of network between a node and its broker, that can be cut, closed, or made to swallow what it should carry.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToBroker,
    FromBroker,
}

/// The stretch; gone with its handle.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Whether new connections are closed at once.
    refuses: watch::Sender<bool>,
    /// Whether a direction is held: bytes wait, nothing is closed.
    held: [watch::Sender<bool>; 2],
    connections: Mutex<Vec<AbortHandle>>,
}

impl State {
    fn connections(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    pub(crate) async fn to(broker: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *shared.refuses.borrow() {
                    continue;
                }
                let held = [Way::ToBroker, Way::FromBroker].map(|way| shared.held[way as usize].subscribe());
                let connection = tokio::spawn(carry(near, broker, held));
                let mut connections = shared.connections();
                connections.retain(|connection| !connection.is_finished());
                connections.push(connection.abort_handle());
            }
        });
        Proxy { address, state, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections; the answer is how many there were.
    pub(crate) fn cut(&self) -> usize {
        let mut connections = self.state.connections();
        connections.retain(|connection| !connection.is_finished());
        connections.iter().for_each(AbortHandle::abort);
        connections.drain(..).count()
    }

    /// From now on new connections are closed at once, or no longer.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.state.refuses.send_replace(refuses);
    }

    /// From now on nothing comes through in this direction, of old connections and new ones; or again all of it.
    pub(crate) fn hold(&self, way: Way, holds: bool) {
        self.state.held[way as usize].send_replace(holds);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn carry(near: TcpStream, broker: SocketAddr, held: [watch::Receiver<bool>; 2]) {
    // A broker that is away is seen as one: the connection ends.
    let Ok(far) = TcpStream::connect(broker).await else {
        return;
    };
    let ((near_from, near_to), (far_from, far_to)) = (near.into_split(), far.into_split());
    let [to_broker, from_broker] = held;
    tokio::select! {
        () = one_way(near_from, far_to, to_broker) => {}
        () = one_way(far_from, near_to, from_broker) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(bytes @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if held.wait_for(|is_held| !is_held).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
