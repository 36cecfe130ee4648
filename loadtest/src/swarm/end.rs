//! How connections end: what is told of it, and whether it makes sense to go on.

use std::io::{self, ErrorKind};

use super::client::words;
use super::frames::Broken;
use super::{EXAMPLES_MAX, Swarm};

/// Why a connection is over.
#[derive(Debug)]
pub(crate) enum End {
    /// The server, or the network, ended it, or broke the protocol: in words.
    Ended(String),
    /// As `Ended`, and connecting again would end the same way.
    Hopeless(String),
}

impl End {
    pub(crate) fn words(&self) -> &str {
        match self {
            End::Ended(words) | End::Hopeless(words) => words,
        }
    }
}

/// Why the server closes, as its close frame says it.
pub(super) fn closed(payload: &[u8]) -> End {
    let [high, low, reason @ ..] = payload else {
        return End::Ended("the server closed without a reason".to_owned());
    };
    let code = u32::from(u16::from_be_bytes([*high, *low]));
    let words = format!("the server closed with {code} {}", words(reason));
    if is_hopeless(code) {
        End::Hopeless(words)
    } else {
        End::Ended(words)
    }
}

/// What the protocol's codes from 4000 to 4099 mean: do not come back.
pub(super) fn is_hopeless(code: u32) -> bool {
    (4000..4100).contains(&code)
}

/// A connection that cannot be read any more.
pub(super) fn broke(error: &io::Error) -> End {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        None => End::Ended(format!("the connection broke: {error}")),
        Some(rustls::Error::InvalidCertificate(why)) => End::Hopeless(format!(
            "the server's certificate is not trusted: {why} (name its authority with --ca, or trust anybody with --insecure)"
        )),
        Some(error) => End::Hopeless(format!(
            "TLS failed: {error} (does the server speak it there? See --tls and --port)"
        )),
    }
}

pub(super) fn broken(broken: Broken) -> End {
    End::Ended(format!("the server sent {broken}"))
}

impl Swarm {
    /// A connection is over.
    #[cold]
    pub(super) fn end(&mut self, index: usize, end: End) {
        let Some(client) = &self.clients[index] else {
            return;
        };
        if client.is_live() {
            self.counts.live -= 1;
            self.counts.closed += 1;
        } else {
            self.on_their_way -= 1;
            self.counts.failed += 1;
        }
        self.remove(index);
        self.tell(end);
    }

    pub(super) fn remove(&mut self, index: usize) {
        if let Some(client) = self.clients[index].take() {
            client.seats.clone().for_each(|seat| self.ledger.leave(seat));
            self.vacant.push(index);
        }
    }

    pub(super) fn tell(&mut self, end: End) {
        let ends = &mut self.arrivals.ends;
        if ends.len() < EXAMPLES_MAX && !ends.iter().any(|known| known == end.words()) {
            ends.push(end.words().to_owned());
        }
        if let End::Hopeless(words) = end {
            self.hopeless.get_or_insert(words);
        }
    }

    pub(super) fn unconnected(&self, error: &io::Error) -> End {
        let address = self.target.address;
        match error.kind() {
            ErrorKind::ConnectionRefused => End::Hopeless(format!(
                "nothing listens on {address}: is the server running, and are --host and --port right?"
            )),
            ErrorKind::AddrNotAvailable => End::Hopeless(format!(
                "no local ports are left for connections to {address}: connect from more addresses with --sources, \
                 or widen net.ipv4.ip_local_port_range"
            )),
            _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => End::Hopeless(
                "no descriptors are left: raise the hard limit (ulimit -Hn, LimitNOFILE, fs.nr_open)"
                    .to_owned(),
            ),
            _ => End::Ended(format!("cannot connect to {address}: {error}")),
        }
    }
}
