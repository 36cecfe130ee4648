//! The ways in: which sockets are listened on, whom to believe there, and what comes before HTTP.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::listener::{self, Entrance, Listening};
use super::marks::Marks;
use super::porch::{Porch, Steps};
use super::unix_socket::{SocketFile, Taken, listen_at};
use super::{StartError, bind};
use crate::address::{AddressLimits, Forwarding, TrustedProxies};
use crate::config::ServerConfig;
use crate::node::Node;
use crate::tls::Acceptor;

/// All ways in, by which nobody is let in yet.
pub(super) struct Entrances {
    port: TcpListener,
    unix_socket: Option<(TcpListener, SocketFile)>,
    trusted: TrustedProxies,
}

impl Entrances {
    /// Listens: whoever comes waits in the kernel from now on.
    pub(super) async fn bind(server: &ServerConfig) -> Result<Entrances, StartError> {
        let untrusted = |faults: Vec<(usize, &str)>| StartError::Setting {
            section: "server",
            key: "trusted_proxies",
            text: faults.first().map_or("", |(_, fault)| fault).to_owned(),
        };
        let trusted = TrustedProxies::parse(&server.trusted_proxies).map_err(untrusted)?;
        let settings = "server.host, server.port";
        let port = bind(&server.host, server.port, server.backlog, settings).await?;
        let unix_socket = match server.unix_socket.as_str() {
            "" => None,
            path => {
                let failed = |taken: Taken| StartError::UnixSocket {
                    path: path.to_owned(),
                    source: taken.into(),
                };
                let mode = server.unix_socket_mode_bits().unwrap_or_default();
                Some(listen_at(Path::new(path), mode, server.backlog).map_err(failed)?)
            }
        };
        Ok(Entrances {
            port,
            unix_socket,
            trusted,
        })
    }

    /// The port's.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// For whom trusted proxies speak.
    pub(super) fn forwarding(&self, server: &ServerConfig) -> Forwarding {
        Forwarding::new(self.trusted.clone(), server.forwarded_header)
    }

    /// Lets everybody in for whom there is room.
    pub(super) fn open(
        self,
        server: &ServerConfig,
        marks: &Arc<Marks>,
        limits: AddressLimits,
        tls: Option<Arc<Acceptor>>,
        node: &Arc<Node>,
    ) -> io::Result<Listening> {
        let Entrances {
            port,
            unix_socket,
            trusted,
        } = self;
        let steps = Steps {
            proxy_header: server.proxy_protocol.then(|| trusted.clone()),
            tls,
            limits: limits.clone(),
        };
        let porch = match steps.is_any() {
            true => {
                let patience = Duration::from_secs(server.header_timeout_s.into());
                let porch = Porch::open(steps, marks.room.porch, patience, node.clone())?;
                Some(Arc::new(porch))
            }
            false => None,
        };
        let mut entrances = vec![Entrance {
            listener: port,
            porch,
            trusted: trusted.clone(),
            limits: limits.clone(),
            only_proxies: server.proxy_protocol,
            marks: marks.clone(),
            _file: None,
        }];
        entrances.extend(unix_socket.map(|(listener, file)| Entrance {
            listener,
            porch: None,
            trusted,
            limits,
            only_proxies: false,
            marks: marks.clone(),
            _file: Some(file),
        }));
        listener::start(entrances, node.clone())
    }
}
