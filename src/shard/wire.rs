//! Plain sends on bare descriptors: the hot loop's only system calls, and the crate's only `unsafe`.

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

/// A socket that does not take it now shall say so, and a peer that went away is an error, not a signal.
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// One system call, no readiness bookkeeping. What went wrong shows as nothing sent: the rest is parked, and the task
/// that waits for the socket meets the error.
pub(super) fn send_plain(fd: RawFd, bytes: &[u8]) -> usize {
    send(borrow(fd), bytes, SEND_FLAGS).unwrap_or(0)
}

/// The same for several pieces.
pub(super) fn send_gathered(fd: RawFd, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    sendmsg(
        borrow(fd),
        pieces,
        &mut SendAncillaryBuffer::default(),
        SEND_FLAGS,
    )
}

#[expect(
    unsafe_code,
    reason = "the hot loop writes to descriptors without a look at their sockets"
)]
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: every descriptor comes from a seat that is not blank or from a socket in the table. The table owns the
    // stream that owns the descriptor, drops it in `Sockets::remove` only, on this same thread, and the shard blanks
    // all seats of a socket before it calls that. Nobody keeps the borrow beyond the system call.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
