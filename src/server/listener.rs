//! Binds, accepts, and hands each connection to the shard with the fewest. Survives trouble: a failing `accept` backs
//! off and is counted, and never ends the server.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};
use socket2::SockRef;
use tokio::net::TcpSocket;

use crate::hub::inbox::Entry;
use crate::metrics::ConnectionError;
use crate::node::Node;

/// After a failed `accept`, for want of descriptors as a rule: closing sockets bring them back.
const BACK_OFF: Duration = Duration::from_millis(100);
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

/// Accepts on a thread of its own, which hardly ever runs, until the answer is dropped.
pub(super) fn start(listener: TcpListener, node: Arc<Node>) -> io::Result<Listening> {
    let handle = listener.try_clone()?;
    let thread = std::thread::Builder::new()
        .name("listener".to_owned())
        .spawn(move || {
            // A server that accepts nobody any more would look alive.
            let _abort = AbortOnPanic;
            loop {
                let mut waiting = [PollFd::new(&listener, PollFlags::IN)];
                match poll(&mut waiting, None) {
                    Ok(_) if waiting[0].revents().contains(PollFlags::HUP) => return,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => back_off(&node, &error.into()),
                }
                match accept_batch(&listener, &node) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => back_off(&node, &error),
                }
            }
        })?;
    Ok(Listening {
        handle,
        thread: Some(thread),
    })
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

/// A listener at work.
pub(super) struct Listening {
    handle: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listening {
    /// Nobody is accepted any more; the port is free.
    fn drop(&mut self) {
        // Whoever polls a listener that is shut down is told that it hung up.
        let _ = shutdown(&self.handle, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `WouldBlock` means that nobody is waiting any more.
fn accept_batch(listener: &TcpListener, node: &Node) -> io::Result<()> {
    let inboxes = node.inboxes();
    let mut delivery = inboxes.deliver();
    for _ in 0..BATCH {
        let stream = match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(stream) => TcpStream::from(stream),
            // The client gave up while it waited, or a signal came: neither says anything about the next one.
            Err(Errno::CONNABORTED | Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let shard = inboxes.least_loaded();
        inboxes.of(shard).add_connection();
        delivery.push(shard, Entry::Accept(stream));
    }
    Ok(())
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
