//! Which servers there are, and which of them carries a topic: as configured, as sentinels say, or as a cluster says.
//! Looked up when in doubt, by one task for all who doubt.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use rand::seq::SliceRandom;
use redis::{Cmd, Value, cmd};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::config::{RedisConfig, RedisFault};
use super::link::{Connector, Fault, Keeper, Signs};
use super::publisher::Publisher;
use super::slots::SLOTS;
use super::status::{ServerId, Status};
use super::url::{Address, Layout};
use crate::adapter::tls;

/// So often the servers are looked up even when nobody doubts: a failover may be silent.
const PERIOD: Duration = Duration::from_secs(10);
/// Who doubts shortly after a look-up is answered by the next.
const REST: Duration = Duration::from_millis(400);
/// So many servers are asked at once, and the first to know wins.
const AT_ONCE: usize = 3;
/// An answer takes no longer, or others are asked.
const LOOK_UP_MAX: Duration = Duration::from_secs(2);

/// The servers, as they were last found.
#[derive(Debug, Default)]
pub(super) struct Topology {
    pub(super) servers: Vec<Arc<Server>>,
    found: Found,
}

/// One server that messages go through, for as long as it is one: who leaves and comes back is another.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: ServerId,
    pub(super) address: Address,
    /// One for each lane.
    pub(super) publishers: Vec<Publisher>,
}

/// The servers and, in a cluster, which slots they have: the first, the last, and the server's place in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    servers: Vec<Address>,
    slots: Vec<(u16, u16, usize)>,
}

impl Topology {
    /// The place in `servers` of the one that carries a slot, if any does.
    pub(super) fn owner(&self, slot: u16) -> Option<usize> {
        if self.found.slots.is_empty() {
            return (!self.servers.is_empty()).then_some(0);
        }
        let after = self.found.slots.partition_point(|(first, ..)| *first <= slot);
        let (_, last, server) = self.found.slots[..after].last()?;
        (slot <= *last).then_some(*server)
    }
}

/// Reads an answer, given by the server at the address.
type Understand = fn(&Value, &Address) -> Option<Found>;

/// Who looks the servers up.
pub(super) struct Seeker {
    pub(super) layout: Layout,
    seeds: Vec<Address>,
    /// How to get in where it is asked: at the sentinels, or at servers of the cluster.
    connector: Arc<Connector>,
    /// What the servers found are connected to with.
    pub(super) keeper: Keeper,
    lanes: usize,
}

impl Seeker {
    /// One that looks for what the section `redis` names. `per_server` connections there should be to each server, of
    /// them one for each lane that publishes.
    pub(super) fn new(config: &RedisConfig, per_server: usize, lanes: usize) -> Result<Seeker, RedisFault> {
        let parts = config.url.parts().map_err(|text| ("url", text))?;
        let tls = match parts.tls {
            true => Some(tls::client(&config.tls_files())?),
            false => None,
        };
        let servers = Arc::new(Connector {
            login: config.login(&parts),
            tls: tls.clone(),
        });
        let connector = match &parts.layout {
            Layout::Sentinel(_) => Arc::new(Connector {
                login: config.sentinel_login(),
                tls,
            }),
            Layout::Single | Layout::Cluster => servers.clone(),
        };
        Ok(Seeker {
            layout: parts.layout,
            seeds: parts.addresses,
            connector,
            keeper: Keeper {
                connector: servers,
                status: Arc::new(Status::new(per_server)),
                doubt: Arc::default(),
            },
            lanes,
        })
    }

    /// Keeps the topology true, for ever.
    pub(super) async fn follow(self, topology: watch::Sender<Arc<Topology>>) {
        let mut fault_told = None;
        loop {
            let known = topology.borrow().clone();
            match self.look_up(&known).await {
                Ok(found) => {
                    if fault_told.take().is_some() {
                        tracing::info!("the servers of redis are found again");
                    }
                    if found != known.found {
                        self.publish(found, &known, &topology);
                    }
                }
                Err(fault) => {
                    if fault_told.as_ref() != Some(&fault) {
                        tracing::warn!(reason = fault, "the servers of redis cannot be found");
                        fault_told = Some(fault);
                    }
                    sleep(REST).await;
                    continue;
                }
            }
            sleep(REST).await;
            let period = match self.layout {
                Layout::Single => pending().left_future(),
                Layout::Sentinel(_) | Layout::Cluster => sleep(PERIOD).right_future(),
            };
            tokio::select! {
                () = self.keeper.doubt.notified() => {}
                () = period => {}
            }
        }
    }

    fn publish(&self, found: Found, known: &Topology, topology: &watch::Sender<Arc<Topology>>) {
        let server = |address: &Address| {
            let mut known = known.servers.iter();
            let known = known.find(|server| server.address == *address);
            known.cloned().unwrap_or_else(|| self.server(address))
        };
        let servers: Vec<_> = found.servers.iter().map(server).collect();
        let of_now: Vec<_> = servers.iter().map(|server| server.id).collect();
        self.keeper.status.keep_only(&of_now);
        if self.layout != Layout::Single && found.servers != known.found.servers {
            let names: Vec<_> = found.servers.iter().map(Address::to_string).collect();
            tracing::info!(servers = names.join(" "), "these are the servers of redis");
        }
        topology.send_replace(Arc::new(Topology { servers, found }));
    }

    fn server(&self, address: &Address) -> Arc<Server> {
        let id = self.keeper.status.add(address);
        let open = |_| Publisher::open(self.keeper.clone(), id, address.clone());
        Arc::new(Server {
            id,
            address: address.clone(),
            publishers: (0..self.lanes).map(open).collect(),
        })
    }

    async fn look_up(&self, known: &Topology) -> Result<Found, Fault> {
        let mut asked = self.seeds.clone();
        match &self.layout {
            Layout::Single => {
                return Ok(Found {
                    servers: asked,
                    slots: Vec::new(),
                });
            }
            Layout::Sentinel(_) => {}
            Layout::Cluster => {
                asked.extend(known.found.servers.iter().cloned());
                asked.sort();
                asked.dedup();
            }
        }
        asked.shuffle(&mut rand::rng());
        let mut fault = Fault::default();
        for some in asked.chunks(AT_ONCE) {
            match select_ok(some.iter().map(|address| self.ask(address).boxed())).await {
                Ok((found, _)) => return Ok(found),
                Err(last) => fault = last,
            }
        }
        Err(fault)
    }

    async fn ask(&self, address: &Address) -> Result<Found, Fault> {
        let asked = async {
            let mut link = self
                .connector
                .connect(address, Arc::new(Signs::default()), Box::new(|_| {}))
                .await?;
            let (command, understand) = self.question();
            let answer = link.ask(&command).await?;
            understand(&answer, address).ok_or_else(|| match &self.layout {
                Layout::Sentinel(name) => format!("no master named `{name}` is known there"),
                _ => "no server that has slots is known there".to_owned(),
            })
        };
        let answered = timeout(LOOK_UP_MAX, asked).await;
        let answered = answered.unwrap_or_else(|_| Err("it does not answer".into()));
        answered.map_err(|fault| format!("{address}: {fault}"))
    }

    fn question(&self) -> (Cmd, Understand) {
        match &self.layout {
            Layout::Sentinel(name) => {
                let mut command = cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
                (command, |answer, _| found_master(answer))
            }
            _ => {
                let mut command = cmd("CLUSTER");
                command.arg("SLOTS");
                (command, masters)
            }
        }
    }
}

/// Understands what a sentinel says: a host and a port, both as text.
fn found_master(answer: &Value) -> Option<Found> {
    Some(Found {
        servers: vec![master(answer)?],
        slots: Vec::new(),
    })
}

/// The address that a sentinel names.
pub(super) fn master(answer: &Value) -> Option<Address> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(host), Value::BulkString(port)] = &parts[..] else {
        return None;
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
    Some(Address {
        host: text(host)?,
        port: text(port)?.parse().ok()?,
    })
}

/// Ranges of slots, each by its first and its last.
pub(super) type Slots = Vec<(u16, u16)>;
/// Servers with the slots they have.
pub(super) type Masters = Vec<(Address, Slots)>;

/// The masters that a server of a cluster names, each with the first and the last of its ranges of slots.
pub(super) fn masters_with_slots(answer: &Value, asked: &Address) -> Option<Masters> {
    let Found { servers, slots } = masters(answer, asked)?;
    let with_slots = servers.into_iter().enumerate().map(|(place, server)| {
        let own = slots.iter().filter(|(.., owner)| *owner == place);
        (server, own.map(|(first, last, _)| (*first, *last)).collect())
    });
    Some(with_slots.collect())
}

/// Understands what a server of a cluster says: for each range of slots its master, then the replicas. A master that
/// does not know its own address is where it was asked.
fn masters(answer: &Value, asked: &Address) -> Option<Found> {
    let Value::Array(ranges) = answer else { return None };
    let read = ranges.iter().map(|range| slots_of_master(range, asked));
    let mut ranges: Vec<_> = read.collect::<Option<_>>()?;
    // Each server tells them in an order of its own.
    ranges.sort_unstable();
    let mut found = Found::default();
    for (first, last, address) in ranges {
        let known = found.servers.iter().position(|known| *known == address);
        let server = known.unwrap_or_else(|| {
            found.servers.push(address);
            found.servers.len() - 1
        });
        found.slots.push((first, last, server));
    }
    (!found.slots.is_empty()).then_some(found)
}

fn slots_of_master(range: &Value, asked: &Address) -> Option<(u16, u16, Address)> {
    let Value::Array(range) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
        return None;
    };
    let [host, Value::Int(port), ..] = &master[..] else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) if host == b"?" => return None,
        Value::BulkString(host) if !host.is_empty() => std::str::from_utf8(host).ok()?.to_owned(),
        _ => asked.host.clone(),
    };
    let port = u16::try_from(*port).ok().filter(|port| *port > 0)?;
    let slot = |slot: i64| u16::try_from(slot).ok().filter(|slot| *slot < SLOTS);
    Some((slot(*first)?, slot(*last)?, Address { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let server =
            |host, port| Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        let replica = server(text("replica"), 1);
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            server(host, port),
            replica,
        ])
    }

    fn asked() -> Address {
        Address {
            host: "asked".into(),
            port: 7000,
        }
    }

    #[test]
    fn slots_belong_to_masters() {
        let answer = Value::Array(vec![
            range(8000, 16_383, text("b"), 2),
            range(0, 99, text("a"), 1),
            range(200, 7999, Value::Nil, 3),
            range(100, 150, text("b"), 2),
        ]);
        let found = masters(&answer, &asked()).expect("understood");
        let servers: Vec<_> = found.servers.iter().map(Address::to_string).collect();
        assert_eq!(servers, ["a:1", "b:2", "asked:3"]);
        let topology = Topology {
            servers: Vec::new(),
            found,
        };
        let owners = [0, 99, 100, 150, 151, 199, 200, 7999, 8000, 16_383].map(|slot| topology.owner(slot));
        let (a, b, asked) = (Some(0), Some(1), Some(2));
        assert_eq!(owners, [a, a, b, b, None, None, asked, asked, b, b]);
    }

    #[test]
    fn what_is_no_answer_is_not_understood() {
        for answer in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(1)])]),
            Value::Array(vec![range(0, 16_384, text("a"), 1)]),
            Value::Array(vec![range(-1, 1, text("a"), 1)]),
            Value::Array(vec![range(0, 1, text("a"), 0)]),
            Value::Array(vec![range(0, 1, text("?"), 1)]),
        ] {
            assert_eq!(masters(&answer, &asked()), None, "{answer:?}");
            assert_eq!(master(&answer), None, "{answer:?}");
        }
        let named = Value::Array(vec![text("::1"), text("6380")]);
        assert_eq!(master(&named).expect("understood").to_string(), "[::1]:6380");
    }
}
