//! The heap of the binary: jemalloc, which packs what a socket keeps tighter than the C library's allocator and, what
//! that one never does by itself, gives memory back after a mass leave or a burst. The library does not choose: tests and
//! benchmarks that embed it bring their own.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read by jemalloc at its first allocation: what has been free for a second goes back to the system, by a thread of
/// jemalloc's own, so that no shard pays for it. (`_RJEM_MALLOC_CONF` in the environment overrides it.)
#[expect(
    unsafe_code,
    reason = "the name is the documented place of jemalloc's settings, and a thin reference is the pointer it expects"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";
