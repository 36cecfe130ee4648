//! The floor: a process that holds as many sockets as the server and does nothing but send them the same bytes, from as
//! many threads, one call for each. No server can be cheaper without sending less often.

use std::io::{Write, stdin};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};

use anyhow::{Context, Result, bail, ensure};
use fanwire::protocol::EncodedEvent;
use fanwire::protocol::channel_name::ChannelName;

use crate::child;
use crate::serve::{CHANNEL, EVENT, data};

/// As the server sets it. Bytes.
const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;

/// The standard library's 128 are too few for a swarm that connects.
const BACKLOG: i32 = 4096;

/// Takes orders from the parent: `hold N` accepts so many connections, `send` sends once to each of them.
pub(crate) fn hold_and_send(threads: usize) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::listen(&listener, BACKLOG)?;
    child::announce(listener.local_addr()?.port())?;
    let (done, finished) = mpsc::channel();
    let mut senders = Vec::new();
    for line in stdin().lines() {
        match line?.split_once(' ') {
            Some(("hold", count)) => senders = hold(&listener, count.parse()?, threads, &done)?,
            None => {
                for sender in &senders {
                    sender.send(())?;
                }
                for _ in &senders {
                    finished.recv()??;
                }
            }
            Some(_) => bail!("the parent says something else"),
        }
        child::answer("done")?;
    }
    Ok(())
}

fn hold(
    listener: &TcpListener,
    count: usize,
    threads: usize,
    done: &Sender<Result<()>>,
) -> Result<Vec<Sender<()>>> {
    let mut shares: Vec<Vec<TcpStream>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..count {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        socket2::SockRef::from(&stream).set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
        shares[index % threads].push(stream);
    }
    let name = ChannelName::parse(CHANNEL, usize::MAX).context("the channel's name is lawful")?;
    let frame = EncodedEvent::new(EVENT, &data(), None).frame(&name).into_bytes();
    let send_to = |mut share: Vec<TcpStream>| {
        let (sender, orders): (_, Receiver<()>) = mpsc::channel();
        let (frame, done) = (frame.clone(), done.clone());
        std::thread::spawn(move || {
            for () in orders {
                let sent = send_once(&mut share, &frame);
                if done.send(sent).is_err() {
                    return;
                }
            }
        });
        sender
    };
    Ok(shares.into_iter().map(send_to).collect())
}

fn send_once(share: &mut [TcpStream], frame: &[u8]) -> Result<()> {
    for stream in share {
        let sent = stream.write(frame)?;
        ensure!(sent == frame.len(), "a socket took only a part");
    }
    Ok(())
}
