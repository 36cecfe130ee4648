//! `"1184713.4403225"`: the public name of one socket, the thing that signatures bind to.
//!
//! It does not draw the numbers: who accepts sockets does, from a cryptographic source. It is not the small
//! key by which a socket is found inside the node either.

use std::fmt;

/// The name of one socket, unique in the cluster: two decimal numbers joined by a dot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    left: u64,
    right: u64,
}

impl SocketId {
    /// The largest number on either side of the dot; the smallest is 1.
    pub const PART_MAX: u64 = 9_999_999_999;

    /// Joins two numbers, each in `1..=PART_MAX` (an id outside would be printed, but never parsed again).
    pub fn from_parts(left: u64, right: u64) -> SocketId {
        SocketId { left, right }
    }

    /// The numbers before and after the dot.
    pub fn parts(self) -> (u64, u64) {
        (self.left, self.right)
    }

    /// Reads an id that this server could have issued, in the one form in which it prints it.
    ///
    /// `None` is not yet a malformed id, see [`SocketId::is_well_formed`]: `"0.0"` may be sent to the HTTP
    /// API, and names nobody.
    pub fn parse(text: &str) -> Option<SocketId> {
        let (left, right) = text.split_once('.')?;
        Some(SocketId {
            left: part(left)?,
            right: part(right)?,
        })
    }

    /// Whether the text matches `^\d+\.\d+$`, the form that every server SDK checks before it signs.
    pub fn is_well_formed(text: &str) -> bool {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('.')
            .is_some_and(|(left, right)| digits(left) && digits(right))
    }
}

/// One side of the dot, canonical: digits only (`u64::from_str` would take a `+`), no zero in front.
fn part(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.starts_with('0') {
        return None;
    }
    text.parse()
        .ok()
        .filter(|number| (1..=SocketId::PART_MAX).contains(number))
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.left, self.right)
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_could_have_issued_is_parsed() {
        for text in ["1.1", "1184713.4403225", "9999999999.9999999999"] {
            assert_eq!(SocketId::parse(text).expect(text).to_string(), text);
            assert!(SocketId::is_well_formed(text));
        }
        for text in [
            "0.1",
            "1.0",
            "01.1",
            "1.01",
            "10000000000.1",
            "1.99999999999999999999999999",
        ] {
            assert_eq!(SocketId::parse(text), None, "{text}");
            assert!(SocketId::is_well_formed(text), "{text}");
        }
        for text in [
            "", ".", "1", "1.", ".1", "1.2.3", "+1.1", "-1.1", "1.1 ", "1.1\n", "a.b", "1,1", "١.١",
        ] {
            assert_eq!(SocketId::parse(text), None, "{text:?}");
            assert!(!SocketId::is_well_formed(text), "{text:?}");
        }
    }
}
