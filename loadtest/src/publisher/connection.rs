//! A keep-alive connection that requests are sent on.

use crate::swarm::stream::Stream;

use super::answer::Answer;

/// A connection of a back end, with at most one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Option<Stream>,
    pub(super) answer: Answer,
    /// The request under way.
    pub(super) asked: Option<Asked>,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) channel: u32,
    pub(super) sequence: u32,
    pub(super) at_ns: u64,
}
