//! Can the ports be listened on, and if not, who is there already?

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::checkup::Report;
use crate::config::Config;

/// Who holds a port answers within so much, or is taken for something else.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

pub(super) async fn examine(config: &Config, report: &mut Report<'_>) {
    let (server, admin) = (&config.server, &config.admin);
    let main = Port {
        host: &server.host,
        port: server.port,
        setting: "server.port",
        // Every version of this server answers this, to the byte.
        path: "/up",
        sign: match config.tls.is_on() {
            false => r#"{"health":"#.to_owned(),
            // Not a secret that it would tell without TLS.
            true => "This port speaks TLS only".to_owned(),
        },
    };
    main.examine(report).await;
    if admin.enabled {
        let operators = Port {
            host: &admin.host,
            port: admin.port,
            setting: "admin.port",
            path: "/metrics",
            sign: "_build_info{version=".to_owned(),
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

    async fn taken(&self, address: SocketAddr, report: &mut Report<'_>) {
        let setting = self.setting;
        match timeout(ANSWER_MAX, get(address, self.path)).await {
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

/// What is answered at `path`, head and body as they come.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    // To listen on every address is to be found on loopback.
    let mut near = address;
    if address.ip().is_unspecified() {
        near.set_ip(match address.is_ipv4() {
            true => std::net::Ipv4Addr::LOCALHOST.into(),
            false => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let mut stream = TcpStream::connect(near).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {near}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
