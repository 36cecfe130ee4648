//! Which events of a channel one subscriber has. Requests that are under way together may overtake each other, so the last
//! few are known one by one; what is older has either come or is told to whoever keeps the list of gaps.
//!
//! Pure, and small: there is one for every subscription.

use std::ops::Range;

/// How many of the last events are known one by one.
const WIDTH: u32 = u64::BITS;

/// What a subscriber has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// It is owed everything from there on.
    from: u32,
    /// It has had nothing from there on.
    next: u32,
    /// Which of those before `next` it has, the last one in the lowest bit. What it is not owed, it has.
    has: u64,
}

/// What an event is to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It was lacking.
    New,
    /// From before it was owed anything.
    Early,
    /// Something that it has, or that has been told as a gap.
    Known,
}

impl Window {
    /// Of one who is owed everything from there on.
    pub(super) fn new(from: u32) -> Window {
        Window {
            from,
            next: from,
            has: u64::MAX,
        }
    }

    /// Takes the next one, if it is that and nothing else is lacking.
    #[inline]
    pub(super) fn advance(&mut self, sequence: u32) -> bool {
        let is_next = sequence == self.next && self.has == u64::MAX;
        self.next += u32::from(is_next);
        is_next
    }

    /// Takes an event. Those that fall out of the window without having come are handed on as gaps.
    pub(super) fn take(&mut self, sequence: u32, gap: impl FnMut(Range<u32>)) -> Place {
        if sequence < self.from {
            return Place::Early;
        }
        if sequence >= self.next {
            self.move_to(sequence + 1, gap);
        }
        match self.bit(sequence) {
            Some(bit) if self.has & bit == 0 => {
                self.has |= bit;
                Place::New
            }
            _ => Place::Known,
        }
    }

    /// Hands everything on as gaps that is lacking before that sequence: it should have come by now.
    pub(super) fn overtake(&mut self, before: u32, mut gap: impl FnMut(Range<u32>)) {
        if before > self.next {
            self.move_to(before, &mut gap);
        }
        // Those before that are so much older than the last.
        let older = u64::MAX
            .checked_shl(self.next - before.min(self.next))
            .unwrap_or(0);
        let mut lacking = !self.has & older;
        self.has |= older;
        while lacking != 0 {
            let age = lacking.ilog2();
            lacking ^= 1 << age;
            let sequence = self.next - 1 - age;
            gap(sequence..sequence + 1);
        }
    }

    /// Nothing has come from there on.
    #[cfg(test)]
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Moves the window on: what is new in it is lacking.
    fn move_to(&mut self, next: u32, mut gap: impl FnMut(Range<u32>)) {
        let by = next - self.next;
        // From the oldest that falls out; before that there is nothing.
        for age in (WIDTH.saturating_sub(by)..WIDTH).rev() {
            if self.has & (1 << age) == 0 {
                let sequence = self.next - 1 - age;
                gap(sequence..sequence + 1);
            }
        }
        if by > WIDTH {
            gap(self.next..next - WIDTH);
        }
        self.has = self.has.checked_shl(by).unwrap_or(0);
        self.next = next;
    }

    fn bit(&self, sequence: u32) -> Option<u64> {
        let age = self.next.checked_sub(sequence + 1)?;
        (age < WIDTH).then(|| 1 << age)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Take(u32),
        Overtake(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let sequence = || prop_oneof![4 => 0_u32..40, 1 => 0_u32..400];
        let step =
            prop_oneof![9 => sequence().prop_map(Step::Take), 1 => sequence().prop_map(Step::Overtake)];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// A window, and the gaps it has told of, know as much as a set of all that has come.
        #[test]
        fn a_window_and_its_gaps_know_everything(from in 0_u32..10, steps in steps()) {
            let mut window = Window::new(from);
            let (mut had, mut gaps) = (BTreeSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Take(sequence) if gaps.contains(&sequence) => {
                        prop_assert_eq!(window.take(sequence, |_| unreachable!()), Place::Known);
                    }
                    Step::Take(sequence) => {
                        let before = window;
                        let place = if window.advance(sequence) {
                            prop_assert_eq!(sequence, before.next());
                            Place::New
                        } else {
                            window.take(sequence, |gap| gaps.extend(gap))
                        };
                        let expected = match () {
                            () if sequence < from => Place::Early,
                            () if had.insert(sequence) => Place::New,
                            () => Place::Known,
                        };
                        prop_assert_eq!(place, expected, "{} of {:?}", sequence, before);
                    }
                    Step::Overtake(before) => {
                        window.overtake(before, |gap| gaps.extend(gap));
                        for sequence in from..before {
                            prop_assert!(had.contains(&sequence) || gaps.contains(&sequence), "{}", sequence);
                        }
                    }
                }
                prop_assert!(had.is_disjoint(&gaps));
                prop_assert!(gaps.iter().all(|gap| *gap >= from));
            }
            window.overtake(window.next(), |gap| gaps.extend(gap));
            prop_assert!((from..window.next()).all(|sequence| had.contains(&sequence) != gaps.contains(&sequence)));
        }
    }
}
