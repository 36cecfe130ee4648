//! The two tasks of a socket: one waits for it to say something, for life; the other waits for it to take more, while
//! something waits in its outbox. Both only wait; what is to be done is the core's part.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::spawn_local;

use super::Shard;
use super::core::Core;
use super::input::{Pause, Worked};
use crate::hub::inbox::SocketKey;
use crate::metrics::CloseReason;

/// The buffer that all sockets of a shard are read into, and so the most that one of them is heard at a time. Bytes.
const SCRATCH_BYTES: usize = 64 * 1024;

/// A socket's reader. Whatever ends its task, a panic included, takes the socket away.
struct Reader {
    shard: Rc<Shard>,
    key: SocketKey,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shard.node.metrics().closed(CloseReason::Internal).inc();
        }
        self.shard.core.borrow_mut().remove(self.key);
    }
}

async fn read(reader: Reader) {
    let Reader { shard, key } = &reader;
    while let Some(pause) = poll_fn(|cx| shard.poll_read(*key, cx)).await {
        // Boxed: the room is needed only while the socket pauses.
        match pause {
            Pause::Publications(namespace, channel) => {
                Box::pin(shard.node.room(&namespace, &channel.topic)).await;
            }
            Pause::Membership(wait) => Box::pin(tokio::time::sleep(wait)).await,
            Pause::Admission => poll_fn(|cx| shard.poll_admission(*key, cx)).await,
        }
    }
}

/// A socket's writer. If it panics nobody would ever write again: the socket goes as well.
struct Writer {
    shard: Rc<Shard>,
    key: SocketKey,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shard.core.borrow().sockets.cut(self.key);
        }
    }
}

async fn write(writer: Writer) {
    poll_fn(|cx| writer.shard.core.borrow_mut().sockets.poll_drain(writer.key, cx)).await;
}

impl Shard {
    pub(super) fn spawn_reader(self: &Rc<Self>, core: &mut Core, key: SocketKey) {
        let task = spawn_local(read(Reader {
            shard: self.clone(),
            key,
        }));
        if let Some(socket) = core.sockets.get_mut(key) {
            socket.reader = Some(task.abort_handle());
        }
    }

    /// Spawns the writers of sockets that have something waiting since the last call.
    pub(super) fn spawn_writers(self: &Rc<Self>, core: &mut Core) {
        for key in std::mem::take(&mut core.sockets.to_drain) {
            if let Some(socket) = core.sockets.get_mut(key) {
                let task = spawn_local(write(Writer {
                    shard: self.clone(),
                    key,
                }));
                socket.writer = Some(task.abort_handle());
            }
        }
    }

    /// Until what the socket waited for has come, so that what it holds back may be looked at again.
    fn poll_admission(&self, key: SocketKey, cx: &mut Context<'_>) -> Poll<()> {
        let mut core = self.core.borrow_mut();
        let socket = core.sockets.get_mut(key);
        socket.map_or(Poll::Ready(()), |socket| socket.subscriptions.poll_admission(cx))
    }

    /// Works input until there is none, a pause is due or the connection is over (`None`).
    fn poll_read(self: &Rc<Self>, key: SocketKey, cx: &mut Context<'_>) -> Poll<Option<Pause>> {
        let mut core = self.core.borrow_mut();
        if !core.may_hear() {
            // Others have said so much in this turn that the next one comes first.
            self.node.inboxes().of(self.index).wake();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Self::poll_core(&mut core, key, cx);
        core.close_slow();
        self.spawn_writers(&mut core);
        polled
    }

    fn poll_core(core: &mut Core, key: SocketKey, cx: &mut Context<'_>) -> Poll<Option<Pause>> {
        if let Some(pause) = core.resume(key) {
            return Poll::Ready(Some(pause));
        }
        loop {
            let Some(socket) = core.sockets.get_mut(key) else {
                return Poll::Ready(None);
            };
            let (received, is_all) = match socket.unread.take() {
                Some(mut unread) => (core.receive(key, &mut unread), true),
                None => {
                    // Taken out meanwhile; a panic that loses it costs one allocation.
                    let mut scratch = std::mem::take(&mut core.scratch);
                    if scratch.is_empty() {
                        scratch = vec![0; SCRATCH_BYTES].into();
                    }
                    let read = Self::read_into(core, key, &mut scratch, cx);
                    core.scratch = scratch;
                    match read {
                        Poll::Ready(read) => read,
                        Poll::Pending => return Poll::Pending,
                    }
                }
            };
            match received {
                ControlFlow::Break(()) => return Poll::Ready(None),
                ControlFlow::Continue(Worked::Pause(pause)) => return Poll::Ready(Some(pause)),
                ControlFlow::Continue(Worked::All) if is_all => {}
                ControlFlow::Continue(_) => {
                    // There is more, but others have their turn first.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once and works what came. False: the buffer was full, there may be more.
    fn read_into(
        core: &mut Core,
        key: SocketKey,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<(ControlFlow<(), Worked>, bool)> {
        let Some(socket) = core.sockets.get_mut(key) else {
            return Poll::Ready((ControlFlow::Break(()), true));
        };
        if socket.sealed.is_some() {
            return core.read_sealed(key, scratch, cx);
        }
        let mut buffer = ReadBuf::new(scratch);
        let read = Pin::new(&mut socket.stream).poll_read(cx, &mut buffer);
        let filled = buffer.filled().len();
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if filled > 0 => {
                let is_all = filled < scratch.len();
                Poll::Ready((core.receive(key, &mut scratch[..filled]), is_all))
            }
            Poll::Ready(_) => {
                core.lost(key);
                Poll::Ready((ControlFlow::Break(()), true))
            }
        }
    }
}
