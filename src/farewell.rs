//! Leaving: the signals that ask for it, and the end of the process whatever hangs.

use std::process::exit;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use fanwire::server::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A drain that somebody hurries takes no longer.
const HURRIED_MAX: Duration = Duration::from_secs(10);
/// So long the last words may take: nobody may be reading the log any more.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The signals that ask the server to leave. Registered before it serves: none may end the process undrained.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn register() -> std::io::Result<Signals> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Signals { terminate, interrupt })
    }

    /// The next one's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Drains after a first signal, of this name. A second one has what is left closed over a second, a third ends the process
/// at once. After `longest` it is over in any case.
pub(crate) async fn leave(server: Server, mut signals: Signals, signal: &str, longest: Duration) {
    // First of all: even to write the log may hang.
    let deadline = Deadline::after(longest);
    tracing::info!(signal, "asked to leave; a second signal hurries");
    let haste = server.haste();
    let mut drain = Box::pin(server.drain());
    let mut is_hurried = false;
    loop {
        tokio::select! {
            () = &mut drain => return,
            signal = signals.next() => {
                if is_hurried {
                    tracing::warn!(signal, "asked a third time: leaving at once");
                    exit(1);
                }
                tracing::warn!(signal, "asked again: closing what is left over a second; a third signal ends it at once");
                is_hurried = true;
                haste.hurry();
                deadline.no_later_than(HURRIED_MAX);
            }
        }
    }
}

/// Ends the process when its time is over. On a thread of its own: what hangs may be all the others.
struct Deadline(Sender<Instant>);

impl Deadline {
    fn after(longest: Duration) -> Deadline {
        let (sooner, told) = channel();
        let at = Instant::now() + longest;
        let watching = thread::Builder::new()
            .name("deadline".into())
            .spawn(move || watch(at, &told));
        if let Err(error) = watching {
            tracing::warn!(%error, "nothing watches how long the drain takes");
        }
        Deadline(sooner)
    }

    /// Brings it forward, to so long from now.
    fn no_later_than(&self, longest: Duration) {
        // Nobody watches if the thread could not be started.
        let _ = self.0.send(Instant::now() + longest);
    }
}

fn watch(mut at: Instant, told: &Receiver<Instant>) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        match told.recv_timeout(left) {
            Ok(sooner) => at = at.min(sooner),
            Err(RecvTimeoutError::Timeout) => break,
            // The drain is over. What follows it may hang as well.
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(left);
                break;
            }
        }
    }
    let _ = thread::Builder::new()
        .spawn(|| tracing::error!("the time to leave is over, and something hangs: leaving at once"));
    thread::sleep(LAST_WORDS);
    exit(1);
}
