//! Which sockets of a shard a plain send has to keep away from, and why. A plain table, beside the hot loop: while nobody
//! stands apart, one number is all that is looked at.

/// Why a socket stands apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Why {
    /// Something waits for it, and goes first.
    pub(super) is_blocked: bool,
    /// What it gets is encrypted.
    pub(super) is_sealed: bool,
}

impl Why {
    const NOT: Why = Why {
        is_blocked: false,
        is_sealed: false,
    };
}

/// The sockets that stand apart.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// By slot, dense.
    slots: Vec<Why>,
    /// How many of them do.
    count: usize,
}

impl Apart {
    /// There is one more slot, behind the others. Who is in it does not stand apart.
    pub(super) fn add_slot(&mut self) {
        self.slots.push(Why::NOT);
    }

    /// Whether the socket in this slot stands apart.
    #[inline]
    pub(super) fn holds(&self, slot: u32) -> bool {
        // While nobody does, the loop leaves even this table alone.
        self.count > 0 && self.slots[slot as usize] != Why::NOT
    }

    /// Why it does.
    pub(super) fn of(&self, slot: u32) -> Why {
        self.slots[slot as usize]
    }

    /// From now on for another reason, or for none.
    pub(super) fn change(&mut self, slot: u32, change: impl FnOnce(&mut Why)) {
        let why = &mut self.slots[slot as usize];
        let was = *why;
        change(why);
        self.count = self.count + usize::from(*why != Why::NOT) - usize::from(was != Why::NOT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_apart_does_so_until_no_reason_is_left() {
        let mut apart = Apart::default();
        for _ in 0..3 {
            apart.add_slot();
        }
        let held = |apart: &Apart| [0, 1, 2].map(|slot| apart.holds(slot));
        assert_eq!(held(&apart), [false, false, false]);
        type Change = fn(&mut Why);
        let steps: [(u32, Change, [bool; 3]); 7] = [
            (1, |why| why.is_sealed = true, [false, true, false]),
            (1, |why| why.is_blocked = true, [false, true, false]),
            (1, |why| why.is_blocked = true, [false, true, false]),
            (2, |why| why.is_blocked = true, [false, true, true]),
            (1, |why| why.is_blocked = false, [false, true, true]),
            (2, |why| why.is_blocked = false, [false, true, false]),
            (1, |why| *why = Why::default(), [false, false, false]),
        ];
        for (step, (slot, change, expected)) in steps.into_iter().enumerate() {
            apart.change(slot, change);
            assert_eq!(held(&apart), expected, "step {step}");
        }
        assert_eq!(apart.count, 0);
    }
}
