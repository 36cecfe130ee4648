//! What became of the requests that published.

use hdrhistogram::Histogram;

use crate::swarm::account;

/// What became of the requests of a measurement.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Those that were sent, and those of them that were answered with success.
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    /// Answered otherwise, or not at all.
    pub(crate) refused: u64,
    /// From request to answer. Nanoseconds.
    pub(crate) answers: Histogram<u64>,
    /// From when a request was due until it was sent. Nanoseconds.
    pub(crate) lateness: Histogram<u64>,
    /// A few refusals, in words.
    pub(crate) examples: Vec<String>,
}

impl Requests {
    pub(super) fn new() -> Requests {
        Requests {
            sent: 0,
            accepted: 0,
            refused: 0,
            answers: account::delays(),
            lateness: account::delays(),
            examples: Vec::new(),
        }
    }
}
