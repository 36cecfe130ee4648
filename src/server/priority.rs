//! Threads that give way to the shards: what they do has to be done, but nobody who is connected is to wait for it where
//! cores are few.

use rustix::process::setpriority_process;

/// How far they stand back: they get a tenth of a core for which a shard competes, and all of one that is free.
const NICENESS: i32 = 10;

/// Has this thread, and those that it begins, give way to all others. Where that cannot be had all works, at somebody's
/// cost.
pub(super) fn give_way() {
    if let Err(error) = setpriority_process(None, NICENESS) {
        let thread = std::thread::current();
        tracing::debug!(%error, thread = thread.name(), "a thread has the same priority as everything else");
    }
}
