//! Ports for servers that have to be told where to listen.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpSocket;

/// A port that nobody listens on, and that nobody gets who asks for any port as long as this process lives.
///
/// Between a look at which port is free and the start of a server there, another test may have got it: the server is
/// gone then, and somebody else listens. So the port stays bound: Linux then gives it to nobody who does not name it,
/// and lets one who does listen all the same.
pub(crate) fn free_port() -> u16 {
    static HELD: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket takes options");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let port = socket.local_addr().expect("an address").port();
    if cfg!(target_os = "linux") {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    }
    port
}
