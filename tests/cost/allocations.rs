//! An allocator that counts, for the server's process: how often memory is asked for, how much, and how much of it is
//! kept. Asked to, it also remembers who asked.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts, and leaves the work to the system's allocator.
pub(crate) struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);
static FREED_BYTES: AtomicU64 = AtomicU64::new(0);
static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static ASKED_FROM: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);

thread_local! {
    /// Remembering allocates, too.
    static IS_REMEMBERING: Cell<bool> = const { Cell::new(false) };
}

/// What has been asked for so far, by all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
    /// Bytes that were not given back yet.
    pub(crate) kept_bytes: u64,
}

/// Reads the counters. Exact while all threads rest.
pub(crate) fn so_far() -> Asked {
    let bytes = ALLOCATED_BYTES.load(Ordering::Relaxed);
    Asked {
        allocations: ALLOCATIONS.load(Ordering::Relaxed),
        bytes,
        kept_bytes: bytes.saturating_sub(FREED_BYTES.load(Ordering::Relaxed)),
    }
}

/// Remembers from now on who asks. Slow.
pub(crate) fn watch() {
    IS_WATCHED.store(true, Ordering::Relaxed);
}

/// Stops remembering: the call stacks that asked, with how often each did, the most frequent first.
pub(crate) fn watched() -> Vec<(String, u64)> {
    IS_WATCHED.store(false, Ordering::Relaxed);
    let asked_from = ASKED_FROM.lock().expect("nobody panics with it").take();
    let mut asked_from: Vec<_> = asked_from.unwrap_or_default().into_iter().collect();
    asked_from.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    asked_from
}

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    ALLOCATED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    if IS_WATCHED.load(Ordering::Relaxed) && !IS_REMEMBERING.replace(true) {
        let stack = Backtrace::force_capture().to_string();
        if let Ok(mut asked_from) = ASKED_FROM.lock() {
            *asked_from.get_or_insert_default().entry(stack).or_default() += 1;
        }
        IS_REMEMBERING.set(false);
    }
}

fn uncount(bytes: usize) {
    FREED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// The only way to see every allocation. Each method hands its arguments to the system's allocator as they are and
// its answer back, so whatever `GlobalAlloc` asks of caller and allocator holds here if it holds there. Counting
// touches atomics, and a thread-local without a destructor; what it allocates while it remembers a call stack is not
// remembered in turn.
#[allow(
    unsafe_code,
    reason = "an allocator is an unsafe trait; see the argument above"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        uncount(layout.size());
        count(size);
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        uncount(layout.size());
        unsafe { System.dealloc(memory, layout) }
    }
}
