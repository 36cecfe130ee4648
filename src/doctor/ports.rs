//! Can the ports be listened on, and if not, who is there already?

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::address::TrustedProxies;
use crate::checkup::Report;
use crate::config::Config;

/// Who holds a port answers within so much, or is taken for something else.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Every version of this server answers this path with something that holds this, to the byte.
pub(super) const UP: &str = "/up";
pub(super) const UP_SIGN: &str = r#"{"health":"#;
/// What a proxy says first that does not know for whom: version 1 of the PROXY protocol.
const PROXY_HEADER: &[u8] = b"PROXY UNKNOWN\r\n";

pub(super) async fn examine(config: &Config, report: &mut Report<'_>) {
    let (server, admin) = (&config.server, &config.admin);
    let main = Port {
        host: &server.host,
        port: server.port,
        setting: "server.port",
        path: UP,
        sign: match config.tls.is_on() {
            false => UP_SIGN.to_owned(),
            // Not a secret that it would tell without TLS.
            true => "This port speaks TLS only".to_owned(),
        },
        proxies: server
            .proxy_protocol
            .then(|| TrustedProxies::parse(&server.trusted_proxies).unwrap_or_default()),
    };
    main.examine(report).await;
    if admin.enabled {
        let operators = Port {
            host: &admin.host,
            port: admin.port,
            setting: "admin.port",
            path: "/metrics",
            sign: "_build_info{version=".to_owned(),
            proxies: None,
        };
        operators.examine(report).await;
    }
}

struct Port<'a> {
    host: &'a str,
    port: u16,
    setting: &'static str,
    /// Where a server of ours answers with something that holds `sign`.
    path: &'static str,
    sign: String,
    /// Where connections begin with a header of the PROXY protocol: from whom it is taken.
    proxies: Option<TrustedProxies>,
}

impl Port<'_> {
    async fn examine(&self, report: &mut Report<'_>) {
        let Port {
            host, port, setting, ..
        } = self;
        if *port == 0 {
            return report.note(format!(
                "{setting} is 0: the system chooses a free port at each start"
            ));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = match lookup_host((bare, *port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let text = format!("{host} of {setting} has no address: {error}");
                return report.failure(text, "name an address of this machine, or 0.0.0.0 for all");
            }
        };
        let Some(address) = addresses.first().copied() else {
            return report.failure(
                format!("{host} has no address"),
                "name an address of this machine",
            );
        };
        match TcpListener::bind(address).await.map_err(|error| error.kind()) {
            Ok(_) => report.good(format!("{address} is free ({setting})")),
            Err(ErrorKind::AddrInUse) => self.taken(address, report).await,
            Err(ErrorKind::PermissionDenied) => report.failure(
                format!("{address} is not for this user ({setting})"),
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE; or choose a higher one behind a proxy",
            ),
            Err(ErrorKind::AddrNotAvailable) => report.failure(
                format!("{address} is no address of this machine ({setting})"),
                "name one of its addresses, or 0.0.0.0 for all",
            ),
            Err(kind) => report.failure(
                format!("cannot listen on {address}: {kind} ({setting})"),
                "choose another port or address",
            ),
        }
    }

    async fn get(&self, address: SocketAddr) -> io::Result<String> {
        let near = near(address);
        let first = match self.proxies {
            Some(_) => PROXY_HEADER,
            None => b"",
        };
        ask(
            TcpStream::connect(near).await?,
            self.path,
            &near.to_string(),
            first,
        )
        .await
    }

    async fn taken(&self, address: SocketAddr, report: &mut Report<'_>) {
        let setting = self.setting;
        let is_dropped = |proxies: &TrustedProxies| !proxies.trusts(near(address).ip());
        if self.proxies.as_ref().is_some_and(is_dropped) {
            return report.warning(
                format!(
                    "{address} is taken ({setting}); who has it cannot be asked: with server.proxy_protocol this \
                     address is none of server.trusted_proxies, and would be dropped"
                ),
                format!("`ss -ltnp 'sport = :{}'` says whether it is a Fanwire", self.port),
            );
        }
        match timeout(ANSWER_MAX, self.get(address)).await {
            Ok(Ok(answer)) if answer.contains(&self.sign) => report.note(format!(
                "{address} is served by a Fanwire already ({setting}); a second one needs another port"
            )),
            Ok(Ok(answer)) => {
                let server = answer.lines().find_map(|line| {
                    line.split_once(':')
                        .filter(|(name, _)| name.eq_ignore_ascii_case("server"))
                });
                let whom = match server {
                    Some((_, name)) => format!("`{}`", name.trim()),
                    None if answer.starts_with("HTTP/") => "another HTTP server".to_owned(),
                    None => "something that does not speak HTTP".to_owned(),
                };
                report.failure(
                    format!("{address} is taken by {whom} ({setting})"),
                    format!(
                        "stop it (`ss -ltnp 'sport = :{}'` says what it is) or choose another port",
                        self.port
                    ),
                );
            }
            _ => report.failure(
                format!("{address} is taken by something that does not answer HTTP ({setting})"),
                format!(
                    "stop it (`ss -ltnp 'sport = :{}'` says what it is) or choose another port",
                    self.port
                ),
            ),
        }
    }
}

/// To listen on every address is to be found on loopback.
fn near(address: SocketAddr) -> SocketAddr {
    let mut near = address;
    if address.ip().is_unspecified() {
        near.set_ip(match address.is_ipv4() {
            true => std::net::Ipv4Addr::LOCALHOST.into(),
            false => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    near
}

/// What is answered at `path`, head and body as they come, to who says `first` before all else.
pub(super) async fn ask<S>(mut stream: S, path: &str, host: &str, first: &[u8]) -> io::Result<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[first, request.as_bytes()].concat()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
