//! A bare loop of `send`: the same bytes to each socket, one call after the other, from as many threads as a server has
//! shards.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::event::{PollFd, PollFlags, poll};

use super::door::{Publication, put_text};

/// The threads that send.
#[derive(Debug)]
pub(super) struct Senders {
    orders: Vec<Sender<Order>>,
    held: usize,
}

enum Order {
    Hold(Arc<TcpStream>, String),
    /// To a channel.
    Send(Arc<[u8]>, Arc<str>),
}

impl Senders {
    pub(super) fn start(count: usize) -> Senders {
        let start = |_| {
            let (orders, received) = mpsc::channel();
            std::thread::spawn(move || work(&received));
            orders
        };
        Senders {
            orders: (0..count).map(start).collect(),
            held: 0,
        }
    }

    /// Gives a socket to one of them, in turn.
    pub(super) fn hold(&mut self, socket: Arc<TcpStream>, channel: &str) {
        self.order(
            self.held % self.orders.len(),
            Order::Hold(socket, channel.to_owned()),
        );
        self.held += 1;
    }

    /// Lets each of them send it to all of its sockets that are on the channel.
    pub(super) fn send(&self, publication: &Publication<'_>) {
        for channel in &publication.channels {
            let mut frame = Vec::new();
            put_text(&mut frame, &publication.message(channel));
            let (frame, channel): (Arc<[u8]>, Arc<str>) = (frame.into(), (*channel).into());
            for thread in 0..self.orders.len() {
                self.order(thread, Order::Send(Arc::clone(&frame), Arc::clone(&channel)));
            }
        }
    }

    fn order(&self, thread: usize, order: Order) {
        // They end with this process and not before.
        let _ = self.orders[thread].send(order);
    }
}

fn work(orders: &Receiver<Order>) {
    let mut shares: HashMap<String, Vec<Arc<TcpStream>>> = HashMap::new();
    let mut behind = Vec::new();
    for order in orders {
        match order {
            Order::Hold(socket, channel) => shares.entry(channel).or_default().push(socket),
            Order::Send(frame, channel) => {
                if let Some(share) = shares.get(&*channel) {
                    send(share, &frame, &mut behind);
                }
            }
        }
    }
}

/// Sends to everyone, and again to those who could not take all of it, until they have. `behind` is room for them.
fn send(share: &[Arc<TcpStream>], frame: &[u8], behind: &mut Vec<(usize, usize)>) {
    for (index, socket) in share.iter().enumerate() {
        let sent = send_some(socket, frame);
        if sent < frame.len() {
            behind.push((index, sent));
        }
    }
    while !behind.is_empty() {
        behind.retain_mut(|(index, sent)| {
            *sent += send_some(&share[*index], &frame[*sent..]);
            *sent < frame.len()
        });
        let ready = |(index, _): &(usize, usize)| PollFd::new(&share[*index], PollFlags::OUT);
        let mut polled: Vec<PollFd<'_>> = behind.iter().map(ready).collect();
        if !polled.is_empty() && poll(&mut polled, None).is_err() {
            return;
        }
    }
}

/// How much a socket took; all of it, if it has gone.
fn send_some(mut socket: &TcpStream, bytes: &[u8]) -> usize {
    match socket.write(bytes) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(_) => bytes.len(),
    }
}
