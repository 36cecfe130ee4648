//! Back ends that publish: keep-alive HTTP connections, each with one request at a time, signed beforehand as the
//! official libraries sign it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use fanwire::protocol::auth;
use md5::{Digest, Md5};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::serve::{APP_ID, CHANNEL, EVENT, KEY, SECRET, data};
use crate::swarm::Swarm;

/// What came of some publications.
pub(crate) struct Rush {
    /// From the first request until every client had every event.
    pub(crate) elapsed: Duration,
    /// From each request to its answer. To about 0.1 ms, since the clients' thread reads the answers too.
    pub(crate) answers: Vec<Duration>,
    /// From each request, or from when it was due, until the last client had the event. With several in flight their
    /// order is not known, and this is about right.
    pub(crate) deliveries: Vec<Duration>,
}

/// When the next publication may begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As soon as fewer than so many are in flight: from the request until every client has the event.
    InFlight(u64),
    /// So many per second, whatever becomes of them. What is late is late from when it was due.
    PerSecond(u64),
}

impl Pace {
    /// Connections that it takes. An open loop needs more than there are requests at a time, and waits for a free one
    /// if a server answers that slowly.
    pub(crate) fn connections(self) -> u64 {
        match self {
            Pace::InFlight(publications) => publications,
            Pace::PerSecond(_) => 64,
        }
    }

    /// When a publication is due, if it is due at a time.
    fn due(self, began: Instant, number: u64) -> Option<Instant> {
        match self {
            Pace::InFlight(_) => None,
            Pace::PerSecond(per_s) => Some(began + Duration::from_secs_f64(number as f64 / per_s as f64)),
        }
    }
}

/// Connections to publish on.
pub(crate) struct Publishers {
    epoll: OwnedFd,
    streams: Vec<TcpStream>,
    /// Those without a request, and when each of the others sent its own.
    free: Vec<usize>,
    asked: Vec<Instant>,
    request: Vec<u8>,
    events: Vec<Event>,
}

impl Publishers {
    /// Opens so many, and lets the swarm wait for their answers too.
    pub(crate) fn connect(port: u16, count: u64, swarm: &Swarm) -> Result<Publishers> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        swarm.also_wait_for(&epoll)?;
        let mut streams = Vec::new();
        for index in 0..count {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(index), EventFlags::IN)?;
            streams.push(stream);
        }
        Ok(Publishers {
            epoll,
            free: (0..streams.len()).collect(),
            asked: vec![Instant::now(); streams.len()],
            streams,
            request: signed_request(port)?,
            events: Vec::with_capacity(64),
        })
    }

    /// Publishes so many events and waits until every client has all of them.
    pub(crate) fn rush(&mut self, swarm: &mut Swarm, pace: Pace, publications: u64) -> Result<Rush> {
        let first = swarm.delivered();
        let began = Instant::now();
        let mut rush = Rush {
            elapsed: Duration::ZERO,
            answers: Vec::new(),
            deliveries: Vec::new(),
        };
        let mut under_way: VecDeque<Instant> = VecDeque::new();
        let mut published = 0;
        while (rush.answers.len() as u64) < publications || (rush.deliveries.len() as u64) < publications {
            let mut wait = None;
            while published < publications && !self.free.is_empty() {
                let now = Instant::now();
                let due = pace.due(began, published);
                match (pace, due) {
                    (Pace::InFlight(at_most), _) if under_way.len() as u64 >= at_most => break,
                    (_, Some(due)) if due > now => {
                        wait = Some(due - now);
                        break;
                    }
                    _ => {}
                }
                self.publish(now)?;
                under_way.push_back(due.unwrap_or(now));
                published += 1;
            }
            swarm.poll(wait)?;
            self.take_answers(&mut rush.answers)?;
            while (rush.deliveries.len() as u64) < swarm.delivered() - first {
                let Some(asked) = under_way.pop_front() else {
                    bail!("more was delivered than published");
                };
                rush.deliveries.push(asked.elapsed());
            }
        }
        rush.elapsed = began.elapsed();
        Ok(rush)
    }

    fn publish(&mut self, now: Instant) -> Result<()> {
        let Some(free) = self.free.pop() else {
            bail!("no connection is free");
        };
        self.asked[free] = now;
        let sent = self.streams[free].write(&self.request)?;
        ensure!(sent == self.request.len(), "a request was not taken whole");
        Ok(())
    }

    fn take_answers(&mut self, took: &mut Vec<Duration>) -> Result<()> {
        epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&Timespec::default()),
        )?;
        for event in self.events.drain(..) {
            let index = event.data.u64() as usize;
            let mut answer = [0; 1024];
            let length = match self.streams[index].read(&mut answer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                read => read?,
            };
            let answer = &answer[..length];
            if !(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"{}")) {
                bail!("a publication was refused: {}", String::from_utf8_lossy(answer));
            }
            took.push(self.asked[index].elapsed());
            self.free.push(index);
        }
        Ok(())
    }
}

fn signed_request(port: u16) -> Result<Vec<u8>> {
    let body = format!(
        r#"{{"name":"{EVENT}","channels":["{CHANNEL}"],"data":"{}"}}"#,
        data()
    );
    let body_md5 = hex::encode(Md5::digest(&body));
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let path = format!("/apps/{APP_ID}/events");
    let query = format!("auth_key={KEY}&auth_timestamp={now_s}&auth_version=1.0&body_md5={body_md5}");
    let signature = auth::sign(SECRET, &format!("POST\n{path}\n{query}"));
    let request = format!(
        "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\n\
         Host: 127.0.0.1:{port}\r\n\
         Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Ok(request.into_bytes())
}
