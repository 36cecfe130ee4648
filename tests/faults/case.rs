//! One case while it runs: where it tells of its progress, and where its processes write.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::logbook::Logbook;

/// One case while it runs.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) logbook: Logbook,
    pub(crate) soak: Soak,
    began: Instant,
    /// The longest that this test itself was held up: microseconds.
    held_up: Arc<AtomicU64>,
}

/// How long and by which dice the soak runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Soak {
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

impl Soak {
    pub(crate) fn dice(self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

impl Case {
    /// Begins. Needs the runtime that the case runs on, whose delays it measures.
    pub(crate) fn begin(name: &'static str, logbook: Logbook, soak: Soak) -> Case {
        let held_up = Arc::new(AtomicU64::new(0));
        let worst = held_up.clone();
        tokio::spawn(async move {
            const NAP: Duration = Duration::from_millis(10);
            loop {
                let asleep = Instant::now();
                sleep(NAP).await;
                let late = asleep.elapsed().saturating_sub(NAP);
                worst.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
            }
        });
        Case {
            name,
            logbook,
            soak,
            began: Instant::now(),
            held_up,
        }
    }

    /// Tells of progress.
    pub(crate) fn say(&self, what: impl Display) {
        println!(
            "{:>6.1} s  {}: {what}",
            self.began.elapsed().as_secs_f64(),
            self.name
        );
    }

    /// All is set up: what held the test up until now is no excuse.
    pub(crate) fn is_set_up(&self) {
        self.held_up.store(0, Ordering::Relaxed);
    }

    /// Since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A bound as this machine can keep it: longer by what the test itself was held up.
    pub(crate) fn bound(&self, bound: Duration) -> Duration {
        bound + 2 * Duration::from_micros(self.held_up.load(Ordering::Relaxed))
    }
}
