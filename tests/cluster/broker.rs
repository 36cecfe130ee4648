//! Private brokers on free ports, one of each kind for all cases. They end with this process, however it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::port::free_port;
use crate::support::eventually;

/// Runs a program until standard input ends: that of whoever started it, who holds the other end.
const UNTIL_END: &str = r#""$@" & cat; kill -KILL $!"#;

/// A server at work. What it is held by ends with this process, since nothing drops what is static.
struct Broker {
    address: SocketAddr,
    _held: Child,
}

impl Broker {
    async fn start(command: impl FnOnce(u16) -> Vec<String>) -> Broker {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let command = command(address.port());
        let held = Command::new("sh")
            .args(["-c", UNTIL_END, "sh"])
            .args(&command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        eventually(
            &format!("{} to listen; is it installed?", command[0]),
            async || TcpStream::connect(address).await.ok(),
        )
        .await;
        Broker { address, _held: held }
    }
}

/// Where Redis is.
pub(crate) async fn redis() -> String {
    static REDIS: OnceCell<Broker> = OnceCell::const_new();
    let command = |port: u16| {
        let arguments = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
        ];
        arguments
            .map(str::to_owned)
            .into_iter()
            .chain([port.to_string()])
            .collect()
    };
    let broker = REDIS.get_or_init(|| Broker::start(command)).await;
    format!("redis://{}", broker.address)
}

/// Where NATS is.
pub(crate) async fn nats() -> String {
    static NATS: OnceCell<Broker> = OnceCell::const_new();
    let command = |port: u16| {
        let arguments = ["nats-server", "-a", "127.0.0.1", "-p"];
        arguments
            .map(str::to_owned)
            .into_iter()
            .chain([port.to_string()])
            .collect()
    };
    let broker = NATS.get_or_init(|| Broker::start(command)).await;
    format!("nats://{}", broker.address)
}
