//! A private broker: a child process on free ports, in a folder of its own, gone with this; and what it counts.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use fanwire::adapter::config::AdapterConfig;
use fanwire::adapter::redis::{RedisAdapter, RedisConfig, RedisUrl};
use tempfile::TempDir;

use crate::machine::Machine;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// `redis-server`.
    Redis,
}

/// A broker that listens.
pub(crate) struct Broker {
    driver: Driver,
    process: Child,
    port: u16,
    _folder: TempDir,
}

/// What has gone through a broker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Messages that nodes published.
    pub(crate) published: u64,
    /// Bytes that came in, the protocol's own included.
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

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Broker {
    pub(crate) fn start(driver: Driver) -> Result<Broker> {
        let folder = TempDir::new()?;
        let port = free_port()?;
        let mut command = match driver {
            Driver::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                command
                    .args(["--port", &port.to_string(), "--dir"])
                    .arg(folder.path());
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
                    RedisAdapter::open(&redis, config, sink)
                        .map_err(|(key, text)| anyhow::anyhow!("{key} {text}"))
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
        match self.driver {
            Driver::Redis => {
                let told = self.info()?;
                let number = |name: &str| -> Result<u64> {
                    let line = told.lines().find_map(|line| line.strip_prefix(name));
                    let digits: String = line
                        .unwrap_or("0")
                        .chars()
                        .take_while(char::is_ascii_digit)
                        .collect();
                    Ok(digits.parse()?)
                };
                Ok(Traffic {
                    published: number("cmdstat_publish:calls=")?,
                    bytes_in: number("total_net_input_bytes:")?,
                    bytes_out: number("total_net_output_bytes:")?,
                })
            }
        }
    }

    /// What Redis answers to `INFO everything`.
    fn info(&self) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.write_all(b"INFO everything\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let length: usize = head.trim_start_matches('$').trim().parse()?;
        let mut told = vec![0; length];
        reader.read_exact(&mut told)?;
        Ok(String::from_utf8(told)?)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
