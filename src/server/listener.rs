//! Binds, accepts, and hands each connection to the shard with the fewest, or to the porch if there is something to do
//! before HTTP. One thread for all listening sockets. Survives trouble: a failing `accept` backs
//! off and is counted, and never ends the server.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags, acceptfrom_with, shutdown};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::TcpSocket;

use super::marks::Marks;
use super::porch::Porch;
use super::unix_socket::SocketFile;
use crate::address::{AddressLimits, Client, TrustedProxies};
use crate::hub::inbox::{Arrival, Entry};
use crate::metrics::ConnectionError;
use crate::node::Node;

/// After a failed `accept`, for want of descriptors as a rule: closing sockets bring them back.
const BACK_OFF: Duration = Duration::from_millis(100);
/// While a porch or the node is full, it is looked so often whether somebody has left.
const FULL_LOOKS: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
/// While sockets are refused, newcomers are let in together, so often. Most of them are clients that come again and again,
/// and being woken for each is most of what they cost.
const LET_IN_TOGETHER: Duration = Duration::from_millis(2);
/// Connections accepted before their shards are woken.
const BATCH: usize = 64;
/// What the kernel may hoard for a reader that stalls: beyond it our own bounded outbox takes over. Bytes.
const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;

/// Opens a listening socket.
pub(super) async fn bind(host: &str, port: u16, backlog: u32) -> io::Result<TcpListener> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last_error = None;
    for address in tokio::net::lookup_host((host, port)).await? {
        match bind_to(address, backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address")))
}

fn bind_to(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // What is accepted inherits these. Only comfort: a connection without them works.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(&socket).set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX);
    socket.bind(address)?;
    socket.listen(backlog)?.into_std()
}

/// A listening socket, and how those get in who come by it.
pub(super) struct Entrance {
    pub(super) listener: TcpListener,
    /// Where they go first; none: to a shard at once.
    pub(super) porch: Option<Arc<Porch>>,
    /// Which of them are believed when they say for whom they speak.
    pub(super) trusted: TrustedProxies,
    pub(super) limits: AddressLimits,
    /// Only trusted proxies may come by it.
    pub(super) only_proxies: bool,
    /// With as many connections on the shards as there is room for, nobody is let in until somebody has left. The porch has
    /// places of its own.
    pub(super) marks: Arc<Marks>,
    /// The file of a Unix socket, which goes with it.
    pub(super) _file: Option<SocketFile>,
}

/// Accepts on a thread of its own, which hardly ever runs, until the answer is dropped.
pub(super) fn start(entrances: Vec<Entrance>, node: Arc<Node>) -> io::Result<Listening> {
    let handles = entrances.iter().map(|entrance| entrance.listener.try_clone());
    let handles = handles.collect::<io::Result<_>>()?;
    let porch = entrances.iter().find_map(|entrance| entrance.porch.clone());
    let thread = std::thread::Builder::new()
        .name("listener".to_owned())
        .spawn(move || {
            // A server that accepts nobody any more would look alive.
            let _abort = AbortOnPanic;
            while look(&entrances, &node).is_continue() {
                if entrances.iter().any(|entrance| entrance.marks.is_passed()) {
                    std::thread::sleep(LET_IN_TOGETHER);
                }
            }
        })?;
    Ok(Listening {
        handles,
        thread: Some(thread),
        porch,
    })
}

/// Waits until somebody comes, and lets in whoever has come. Breaks when the listener is to end.
fn look(entrances: &[Entrance], node: &Node) -> ControlFlow<()> {
    let mut is_full = false;
    let mut waiting: SmallVec<[PollFd<'_>; 4]> = SmallVec::new();
    for entrance in entrances {
        let has_room = entrance.has_room(node);
        is_full |= !has_room;
        // An end is told in any case.
        let flags = if has_room {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        waiting.push(PollFd::new(&entrance.listener, flags));
    }
    match poll(&mut waiting, is_full.then_some(&FULL_LOOKS)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => back_off(node, &error.into()),
    }
    for (entrance, waiting) in entrances.iter().zip(&waiting) {
        let found = waiting.revents();
        if found.contains(PollFlags::HUP) {
            return ControlFlow::Break(());
        }
        if found.contains(PollFlags::IN) {
            match entrance.accept_batch(node) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => back_off(node, &error),
            }
        }
    }
    ControlFlow::Continue(())
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn back_off(node: &Node, error: &io::Error) {
    node.metrics().connection_errors(ConnectionError::Accept).inc();
    tracing::warn!(%error, "cannot accept connections; trying again in {BACK_OFF:?}");
    std::thread::sleep(BACK_OFF);
}

/// A listener at work, and the porch behind it, which ends with this.
pub(super) struct Listening {
    handles: Vec<TcpListener>,
    thread: Option<JoinHandle<()>>,
    porch: Option<Arc<Porch>>,
}

impl Listening {
    /// How many were accepted and are not on a shard yet.
    pub(super) fn on_porch(&self) -> usize {
        self.porch.as_ref().map_or(0, |porch| porch.connections())
    }

    /// The server leaves: nobody on the porch is waited for any longer than for a moment.
    pub(super) fn leave(&self) {
        if let Some(porch) = &self.porch {
            porch.leave();
        }
    }

    /// Nobody is accepted any more; the port is free.
    pub(super) fn close(&mut self) {
        // Whoever polls a listener that is shut down is told that it hung up.
        for handle in self.handles.drain(..) {
            let _ = shutdown(handle, Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.close();
    }
}

impl Entrance {
    /// `WouldBlock` means that nobody is waiting any more.
    fn accept_batch(&self, node: &Node) -> io::Result<()> {
        let inboxes = node.inboxes();
        let mut delivery = inboxes.deliver();
        for _ in 0..BATCH {
            if !self.has_room(node) {
                return Ok(());
            }
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (stream, peer) = match acceptfrom_with(&self.listener, flags) {
                Ok((stream, peer)) => (TcpStream::from(stream), peer),
                // The client gave up while it waited, or a signal came: neither says anything about the next one.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let client = self.client(peer);
            if self.only_proxies && !client.is_proxy {
                tracing::debug!(%client, "a connection is dropped: it does not come from server.trusted_proxies");
                node.metrics()
                    .connection_errors(ConnectionError::ProxyHeader)
                    .inc();
                continue;
            }
            // On the porch it is yet to be seen whom to count.
            let place = match &self.porch {
                None => self.limits.enter(&client, Instant::now),
                Some(_) => Ok(None),
            };
            let Ok(place) = place else {
                node.metrics()
                    .connection_errors(ConnectionError::AddressLimit)
                    .inc();
                continue;
            };
            let arrival = Arrival {
                stream,
                client,
                place,
                sealed: None,
            };
            match &self.porch {
                None => {
                    let shard = inboxes.least_loaded();
                    inboxes.of(shard).add_connection();
                    delivery.push(shard, Entry::Accept(arrival));
                }
                Some(porch) => porch.receive(arrival),
            }
        }
        Ok(())
    }

    fn has_room(&self, node: &Node) -> bool {
        node.inboxes().connections() < self.marks.room.connections()
            && self.porch.as_ref().is_none_or(|porch| porch.make_room())
    }

    fn client(&self, peer: Option<SocketAddrAny>) -> Client {
        let address = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let address = address.map(|address| address.ip().to_canonical());
        Client {
            address,
            is_proxy: match address {
                Some(address) => self.trusted.trusts(address),
                None => self.trusted.trusts_unix_socket(),
            },
            is_tls: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_inherit_what_is_set_on_the_listener() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind_to(any, 1).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let _client = TcpStream::connect(address).expect("it listens");
        let mut waiting = [PollFd::new(&listener, PollFlags::IN)];
        poll(&mut waiting, None).expect("somebody knocks");
        let (stream, _) = listener.accept().expect("somebody knocked");
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("an option of TCP"));
        assert_eq!(
            socket.tcp_notsent_lowat().expect("an option of TCP"),
            NOT_SENT_BYTES_MAX
        );
    }
}
