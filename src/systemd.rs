//! What systemd is told, where it asks to be told (`Type=notify`): that the server serves, so that what needs it waits no
//! longer, and that it leaves and how long that may take, so that a long drain is not cut off by `TimeoutStopSec`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The variable by which systemd says where it listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// What systemd waits beyond the time in which a server leaves: it ends by itself, even if something hangs.
const MARGIN: Duration = Duration::from_secs(5);

/// The server serves.
pub(crate) fn serving() {
    tell("READY=1");
}

/// The server leaves, and will be gone within this time.
pub(crate) fn leaving(within: Duration) {
    tell(&format!(
        "STOPPING=1\nEXTEND_TIMEOUT_USEC={}",
        (within + MARGIN).as_micros()
    ));
}

/// Nobody waits for systemd, and nothing depends on it: what it does not hear is logged.
fn tell(message: &str) {
    let Some(socket) = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, message) {
        tracing::warn!(%error, "cannot tell systemd, which listens at {SOCKET}");
    }
}

/// Sends to the path of a socket, or, behind an `@`, to an abstract name.
fn send(socket: &OsString, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("fanwire-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listeners = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path)),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&abstract_address),
            ),
        ];
        for (socket, listener) in listeners {
            let listener = listener.expect("nobody else listens there");
            send(&socket, "READY=1").expect("somebody listens");
            let mut bytes = [0; 64];
            let length = listener.recv(&mut bytes).expect("a message");
            assert_eq!(&bytes[..length], b"READY=1");
        }
        assert!(send(&folder.path().join("nobody").into_os_string(), "READY=1").is_err());
    }
}
