//! What the processes of one case wrote, for the one who must understand why it failed.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines kept of each process.
const LINES_KEPT: usize = 400;
/// Lines shown of each process.
const LINES_SHOWN: usize = 40;

/// The logs of one case, in the order in which they were opened.
#[derive(Clone, Default)]
pub(crate) struct Logbook(Arc<Mutex<Vec<(String, Log)>>>);

/// The last lines of one process.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<VecDeque<String>>>);

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // A case that panics is when the logs are wanted.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logbook {
    /// A new log under this name.
    pub(crate) fn open(&self, name: &str) -> Log {
        let log = Log::default();
        locked(&self.0).push((name.to_owned(), log.clone()));
        log
    }

    /// The last lines of each.
    pub(crate) fn tails(&self) -> String {
        let mut text = String::new();
        for (name, log) in locked(&self.0).iter() {
            let lines = locked(&log.0);
            let _ = writeln!(text, "--- {name}: the last of {} lines", lines.len());
            for line in lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)) {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

impl Log {
    pub(crate) fn write(&self, line: String) {
        let mut lines = locked(&self.0);
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// What the first line that is one comes to.
    pub(crate) fn find<T>(&self, line: impl FnMut(&String) -> Option<T>) -> Option<T> {
        locked(&self.0).iter().find_map(line)
    }
}
