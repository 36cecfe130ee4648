//! A connection on the porch, as a stream whose client is waited for only so long.
//!
//! What counts is the time for which the client lets us wait, not the time for which it waits for our threads: however
//! many come at once, what was begun is not thrown away. Until it has been answered anything it stands in the line of those
//! who make room for others.

use std::future::poll_fn;
use std::io;
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::server::waiting::{CalledOff, Line};

/// However little of it the client may be to blame for, nobody stays longer.
const STAY_MAX: Duration = Duration::from_secs(60);
/// Who has said nothing for so long makes room for others. What a client says first follows its connection at once; only
/// what was lost on its way takes longer, and what a crowd has to say that has just come.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Once the server leaves, who makes us wait may do so for so long.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);
/// Whoever is waited for is looked at so often: the server may have begun to leave.
const LOOK: Duration = Duration::from_secs(1);

/// How long a client may still let us wait. Pure.
#[derive(Debug)]
struct Patience {
    left: Duration,
    /// However the time was spent, no longer than this.
    end: Instant,
    /// Since when it is waited for.
    since: Option<Instant>,
}

impl Patience {
    fn new(patience: Duration, now: Instant) -> Patience {
        Patience {
            left: patience,
            end: now + STAY_MAX,
            since: None,
        }
    }

    /// It is waited for, from now on or longer already. The answer is until when.
    fn wait(&mut self, now: Instant, leaving_since: Option<Instant>) -> Instant {
        let since = *self.since.get_or_insert(now);
        let until = self.end.min(since + self.left);
        leaving_since.map_or(until, |leaving| until.min(leaving.max(since) + LAST_HANDSHAKES))
    }

    /// It has done its part at this moment, whenever we come to look at it.
    fn heard(&mut self, at: Instant) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(at.saturating_duration_since(since));
        }
    }
}

/// Wakes whoever waits for the client, and remembers since when there is a reason: until the task is looked at, other
/// handshakes may have had their turn.
#[derive(Debug, Default)]
struct Bell {
    rung_at: Mutex<Option<Instant>>,
    waker: AtomicWaker,
}

impl Bell {
    fn rung_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rung_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung_at().get_or_insert_with(Instant::now);
        self.waker.wake();
    }
}

/// What those on the porch have in common who are waited for.
#[derive(Debug, Default)]
pub(super) struct Bench {
    /// Those who have been answered nothing yet.
    line: Mutex<Line>,
    leaving_since: OnceLock<Instant>,
}

impl Bench {
    /// Held for a few steps, and whole after each of them.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends away those who have said nothing for longest, until so many are about to go, if there are as many.
    pub(super) fn make_room(&self, count: usize, now: Instant) {
        self.line().make_room(count, now, SILENCE_MIN);
    }

    /// The server leaves: nobody is waited for any longer than for a moment.
    pub(super) fn leave(&self, now: Instant) {
        self.leaving_since.get_or_init(|| now);
    }
}

/// A place in the line, given back when it is dropped.
struct Seat {
    bench: Arc<Bench>,
    key: usize,
}

impl Seat {
    fn take(bench: &Arc<Bench>, now: Instant) -> Seat {
        Seat {
            bench: bench.clone(),
            key: bench.line().sit(now),
        }
    }

    fn poll_called_off(&self, cx: &mut Context<'_>) -> Poll<CalledOff> {
        self.bench.line().poll_called_off(self.key, cx)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.bench.line().leave(self.key);
    }
}

/// A connection on the porch.
pub(super) struct Visitor {
    stream: TcpStream,
    bench: Arc<Bench>,
    patience: Patience,
    bell: Arc<Bell>,
    /// From the first time that it is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// While it makes us wait and has been answered nothing.
    seat: Option<Seat>,
    is_answered: bool,
    called_off: Option<CalledOff>,
}

impl Visitor {
    /// One that may let us wait for so long in all.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(super) fn new(stream: StdStream, bench: &Arc<Bench>, patience: Duration) -> io::Result<Visitor> {
        Ok(Visitor {
            stream: TcpStream::from_std(stream)?,
            bench: bench.clone(),
            patience: Patience::new(patience, Instant::now()),
            bell: Arc::default(),
            timer: None,
            seat: None,
            is_answered: false,
            called_off: None,
        })
    }

    /// Why it is not waited for any longer, if that is so: what was read or written then has failed.
    pub(super) fn called_off(&self) -> Option<CalledOff> {
        self.called_off
    }

    /// The connection itself.
    ///
    /// # Errors
    /// The system does not let go of it.
    pub(super) fn into_std(self) -> io::Result<StdStream> {
        self.stream.into_std()
    }

    /// Waits for something to be read, and leaves it where it is. Nothing is the end.
    pub(super) async fn peek(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut bytes = ReadBuf::new(bytes);
            self.poll_client(cx, |stream, cx| stream.poll_peek(cx, &mut bytes))
        })
        .await
    }

    /// Does something for which the client may have to do its part first.
    fn poll_client<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let rung_at = self.bell.rung_at().take();
        self.bell.waker.register(cx.waker());
        let waker = Waker::from(self.bell.clone());
        // First of all: what has come counts, also if it should have come sooner.
        let done = act(Pin::new(&mut self.stream), &mut Context::from_waker(&waker));
        let now = Instant::now();
        if done.is_ready() {
            self.patience.heard(rung_at.unwrap_or(now));
            return done;
        }
        self.called_off = ready!(self.poll_called_off(cx, now)).into();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_called_off(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<CalledOff> {
        if !self.is_answered {
            let seat = self.seat.get_or_insert_with(|| Seat::take(&self.bench, now));
            if let Poll::Ready(why) = seat.poll_called_off(cx) {
                return Poll::Ready(why);
            }
        }
        let until = self.patience.wait(now, self.bench.leaving_since.get().copied());
        if until <= now {
            return Poll::Ready(CalledOff::TooLong);
        }
        let next = until.min(now + LOOK);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
        timer.as_mut().reset(next);
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_client(cx, |stream, cx| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // From now on there is work that would be lost with it.
        self.is_answered = true;
        self.seat = None;
        self.poll_client(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// It was told to go. Until it has, it makes room like those who have said nothing.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_answered = false;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::yield_now;
    use tokio::time::advance;

    use super::*;

    /// A connection on the porch, and who is at its other end.
    fn visitor(bench: &Arc<Bench>) -> (Visitor, StdStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let client = StdStream::connect(address).expect("it listens");
        let (stream, _) = listener.accept().expect("somebody came");
        stream.set_nonblocking(true).expect("a socket takes options");
        let visitor = Visitor::new(stream, bench, Duration::from_secs(10));
        (visitor.expect("the system has room"), client)
    }

    /// Waits until the system has told that the client said something, without looking at it.
    async fn rings(visitor: &Visitor) {
        while visitor.bell.rung_at().is_none() {
            yield_now().await;
        }
    }

    /// What there is to be read of a client now. None: it is waited for.
    fn said(visitor: &mut Visitor) -> Option<io::Result<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = visitor.read_buf(&mut bytes).now_or_never()?;
        Some(read.map(|_| bytes))
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_pays_for_the_time_it_waits_for_us() {
        let bench = Arc::default();
        let (mut visitor, mut client) = visitor(&bench);
        for _ in 0..3 {
            assert!(said(&mut visitor).is_none());
            client.write_all(b"a").expect("it listens");
            rings(&visitor).await;
            // Others have their turn, for longer than it may let us wait.
            advance(Duration::from_secs(15)).await;
            assert_eq!(said(&mut visitor).expect("it has spoken").expect("in time"), b"a");
        }
        assert!(said(&mut visitor).is_none());
        advance(Duration::from_secs(11)).await;
        let late = said(&mut visitor).expect("it is not waited for any longer");
        assert_eq!(
            late.expect_err("nothing was said").kind(),
            io::ErrorKind::TimedOut
        );
        assert_eq!(visitor.called_off(), Some(CalledOff::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_answered_makes_room_for_nobody() {
        let bench = Arc::default();
        let mut all = [visitor(&bench), visitor(&bench), visitor(&bench)];
        for (visitor, _) in &mut all {
            assert!(said(visitor).is_none());
        }
        let [(first, its_client), (second, _), (third, _)] = &mut all;
        second.write_all(b"an answer").await.expect("it is there");
        assert!(said(second).is_none());
        its_client.write_all(b"a").expect("it listens");
        rings(first).await;
        // Nobody has to be quick.
        bench.make_room(3, Instant::now() + SILENCE_MIN / 2);
        assert!(said(third).is_none());
        let later = Instant::now() + SILENCE_MIN;
        bench.make_room(1, later);
        // Just in time: what was said counts, but there is nothing behind it.
        assert_eq!(said(first).expect("it has spoken").expect("in time"), b"a");
        assert!(said(first).is_some_and(|said| said.is_err()));
        assert_eq!(first.called_off(), Some(CalledOff::TooMany));
        assert!(said(third).is_none(), "it is not its turn");
        bench.make_room(2, later);
        assert!(said(third).is_some_and(|said| said.is_err()));
        bench.make_room(3, later);
        assert!(said(second).is_none(), "there is work that would be lost");
        // Until it is told to go.
        second.shutdown().await.expect("it is there");
        assert!(said(second).is_none());
        bench.make_room(3, Instant::now() + SILENCE_MIN);
        assert!(said(second).is_some_and(|said| said.is_err()));
    }

    /// Waits that begin at one moment and end, for the client, at another; and how many seconds it may wait again.
    #[test]
    fn what_a_client_lets_us_wait_is_summed_up() {
        let begun = Instant::now();
        let at = |s: u64| begun + Duration::from_secs(s);
        let mut patience = Patience::new(Duration::from_secs(10), begun);
        for (from, heard, until) in [(0, 3, 10), (20, 24, 27), (31, 33, 34), (40, 47, 41), (50, 51, 50)] {
            assert_eq!(patience.wait(at(from), None), at(until), "from {from}");
            // Asked again while it is waited for, the answer is the same.
            assert_eq!(patience.wait(at(from + 1), None), at(until), "from {from}");
            patience.heard(at(heard));
            // Until we come to it, and until it is waited for again, it is its time and not ours.
            patience.heard(at(heard + 5));
        }
    }

    #[test]
    fn nobody_stays_for_ever_and_less_so_when_the_server_leaves() {
        let begun = Instant::now();
        let at = |s: u64| begun + Duration::from_secs(s);
        let mut patience = Patience::new(Duration::from_secs(1_000), begun);
        assert_eq!(patience.wait(at(2), None), begun + STAY_MAX);
        assert_eq!(patience.wait(at(2), Some(at(20))), at(20) + LAST_HANDSHAKES);
        assert_eq!(patience.wait(at(2), Some(at(1))), at(2) + LAST_HANDSHAKES);
        patience.heard(at(30));
        assert_eq!(patience.wait(at(30), Some(at(20))), at(30) + LAST_HANDSHAKES);
        assert_eq!(patience.wait(at(30), Some(at(59))), begun + STAY_MAX);
    }

    #[test]
    fn a_bell_remembers_when_it_rang_first() {
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        assert_eq!(*bell.rung_at(), None);
        let before = Instant::now();
        waker.wake_by_ref();
        let first = bell.rung_at().expect("it rang");
        assert!(before <= first && first <= Instant::now());
        waker.wake_by_ref();
        assert_eq!(*bell.rung_at(), Some(first));
    }
}
