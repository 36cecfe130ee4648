//! What subscribers lack, other than what their windows know: the list is empty when all goes well.
//!
//! Pure: the ledger says what is lacking, and when it should have come.

use std::collections::HashMap;
use std::ops::Range;

use super::ledger::Seat;

/// What each subscription lacks.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    of_seats: HashMap<Seat, Vec<Gap>>,
}

/// Events that a subscription lacks among those it has.
#[derive(Clone, Debug)]
struct Gap {
    missing: Range<u32>,
    /// Whether something came that had to come later. Until then they are on their way, if late.
    is_overtaken: bool,
}

impl Gaps {
    /// Whether nobody lacks anything.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.of_seats.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.of_seats.clear();
    }

    /// These have not come yet, and still may.
    pub(super) fn wait(&mut self, seat: Seat, missing: Range<u32>) {
        self.put(seat, missing, false);
    }

    /// These should have come by now.
    pub(super) fn miss(&mut self, seat: Seat, missing: Range<u32>) {
        self.put(seat, missing, true);
    }

    fn put(&mut self, seat: Seat, missing: Range<u32>, is_overtaken: bool) {
        if !missing.is_empty() {
            self.of_seats.entry(seat).or_default().push(Gap {
                missing,
                is_overtaken,
            });
        }
    }

    /// Takes out what was waited for before that sequence.
    pub(super) fn overtake(&mut self, seat: Seat, before: u32) -> Vec<Range<u32>> {
        // Hashing is slower than all the rest.
        if self.is_empty() {
            return Vec::new();
        }
        let Some(gaps) = self.of_seats.remove(&seat) else {
            return Vec::new();
        };
        let mut overtaken = Vec::new();
        for gap in gaps {
            if gap.is_overtaken || gap.missing.start >= before {
                self.put(seat, gap.missing, gap.is_overtaken);
                continue;
            }
            let end = gap.missing.end.min(before);
            overtaken.push(gap.missing.start..end);
            self.wait(seat, end..gap.missing.end);
        }
        overtaken
    }

    /// One that was lacking has come after all. The answer is whether it was overtaken; nothing if it was not lacking.
    pub(super) fn fill(&mut self, seat: Seat, sequence: u32) -> Option<bool> {
        let gaps = self.of_seats.get_mut(&seat)?;
        let index = gaps.iter().position(|gap| gap.missing.contains(&sequence))?;
        let Gap {
            missing,
            is_overtaken,
        } = gaps.swap_remove(index);
        if gaps.is_empty() {
            self.of_seats.remove(&seat);
        }
        for rest in [missing.start..sequence, sequence + 1..missing.end] {
            self.put(seat, rest, is_overtaken);
        }
        Some(is_overtaken)
    }

    /// Takes out everything, seat by seat.
    pub(super) fn drain(&mut self) -> Vec<(Seat, Range<u32>)> {
        let of_seats = self.of_seats.drain();
        let mut all: Vec<_> = of_seats
            .flat_map(|(seat, gaps)| gaps.into_iter().map(move |gap| (seat, gap.missing)))
            .collect();
        all.sort_unstable_by_key(|(seat, missing)| (*seat, missing.start));
        all
    }
}
