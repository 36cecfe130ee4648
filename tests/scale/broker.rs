//! A private broker: a child process on free ports, in a folder of its own, gone with this; and what it counts.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::nats::{NatsAdapter, NatsConfig, NatsUrl};
use fanwire::adapter::redis::{RedisAdapter, RedisConfig, RedisUrl};
use tempfile::TempDir;

use crate::machine::Machine;
use crate::port::free_port;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// `redis-server`.
    Redis,
    /// `nats-server`.
    Nats,
}

/// A broker that listens.
pub(crate) struct Broker {
    driver: Driver,
    process: Child,
    port: u16,
    /// Where it tells what it counts.
    told_at: u16,
    _folder: TempDir,
}

/// What has gone through a broker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Messages that nodes published.
    pub(crate) published: u64,
    /// Bytes that came in: with Redis the protocol's own too, NATS counts what messages carry.
    pub(crate) bytes_in: u64,
    /// Bytes that went out, the same.
    pub(crate) bytes_out: u64,
}

impl Traffic {
    pub(crate) fn since(self, before: Traffic) -> Traffic {
        Traffic {
            published: self.published - before.published,
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
        }
    }
}

impl Broker {
    pub(crate) fn start(driver: Driver) -> Result<Broker> {
        let folder = TempDir::new()?;
        let port = free_port();
        let told_at = match driver {
            Driver::Redis => port,
            Driver::Nats => free_port(),
        };
        let mut command = match driver {
            Driver::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                command
                    .args(["--port", &port.to_string(), "--dir"])
                    .arg(folder.path());
                command
            }
            Driver::Nats => {
                let mut command = Command::new("nats-server");
                command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
                command.args(["--http_port", &told_at.to_string()]);
                command
            }
        };
        let log = File::create(folder.path().join("log"))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        let process = process.context("the broker starts: is it installed?")?;
        let broker = Broker {
            driver,
            process,
            port,
            told_at,
            _folder: folder,
        };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            ensure!(
                began.elapsed() < Duration::from_secs(10),
                "the broker does not listen"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }

    /// A node on it, whose tasks run on the current runtime.
    pub(crate) fn machine(&self, config: &AdapterConfig, inbox_bytes_max: usize) -> Result<Machine> {
        match self.driver {
            Driver::Redis => {
                let redis = RedisConfig {
                    url: RedisUrl::new(&format!("redis://127.0.0.1:{}", self.port)),
                    ..RedisConfig::default()
                };
                Machine::start(config, inbox_bytes_max, "redis", |sink| {
                    RedisAdapter::open(&redis, config, sink).map_err(fault)
                })
            }
            Driver::Nats => {
                let nats = NatsConfig {
                    urls: vec![NatsUrl::new(&format!("nats://127.0.0.1:{}", self.port))],
                    ..NatsConfig::default()
                };
                Machine::start(config, inbox_bytes_max, "nats", |sink| {
                    NatsAdapter::open(&nats, config, sink).map_err(fault)
                })
            }
        }
    }

    /// Its process, as `/proc` names it.
    pub(crate) fn process(&self) -> String {
        self.process.id().to_string()
    }

    /// What has gone through it so far.
    pub(crate) fn traffic(&self) -> Result<Traffic> {
        let (question, names) = match self.driver {
            Driver::Redis => (
                "INFO everything\r\nQUIT\r\n",
                [
                    "cmdstat_publish:calls=",
                    "total_net_input_bytes:",
                    "total_net_output_bytes:",
                ],
            ),
            Driver::Nats => (
                "GET /varz HTTP/1.0\r\n\r\n",
                ["\"in_msgs\": ", "\"in_bytes\": ", "\"out_bytes\": "],
            ),
        };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.told_at))?;
        stream.write_all(question.as_bytes())?;
        let mut told = String::new();
        stream.read_to_string(&mut told)?;
        let number = |name: &str| -> u64 {
            let behind = told.split_once(name).map(|(_, behind)| behind);
            let digits = behind
                .unwrap_or_default()
                .chars()
                .take_while(char::is_ascii_digit);
            // Redis does not tell of what was never asked of it.
            digits.collect::<String>().parse().unwrap_or(0)
        };
        let [published, bytes_in, bytes_out] = names.map(number);
        Ok(Traffic {
            published,
            bytes_in,
            bytes_out,
        })
    }
}

fn fault((key, text): (&'static str, String)) -> anyhow::Error {
    anyhow::anyhow!("{key}: {text}")
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
