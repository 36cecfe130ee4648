//! The slots of a Redis Cluster: which one a name falls into, and names that fall where they are wanted. Pure.

/// The slots of every cluster.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a name: of what stands in its first braces, if it has such, else of all of it.
pub(super) fn slot(name: &str) -> u16 {
    let tag = name
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(name).as_bytes()) % SLOTS
}

/// The slot that topic `number` of `topics` is to fall into: so they are spread evenly, whichever ranges of slots the
/// servers have.
pub(super) fn slot_of_topic(number: u16, topics: u16) -> u16 {
    let slot = u32::from(number) * u32::from(SLOTS) / u32::from(topics.max(1));
    // A number beyond the topics is nobody's, and must not be beyond the slots.
    (slot % u32::from(SLOTS)) as u16
}

/// For each of so many topics the first number, written out, that falls into its slot: the same on every node.
pub(super) fn tags(topics: u16) -> Vec<String> {
    let mut tag_of_slot = vec![None; usize::from(SLOTS)];
    let mut missing = tag_of_slot.len();
    for number in 0_u32.. {
        if missing == 0 {
            break;
        }
        let tag = number.to_string();
        let place = &mut tag_of_slot[usize::from(slot(&tag))];
        if place.is_none() {
            *place = Some(tag);
            missing -= 1;
        }
    }
    let tag = |number| tag_of_slot[usize::from(slot_of_topic(number, topics))].clone();
    (0..topics).filter_map(tag).collect()
}

/// CRC16 as Redis counts it (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` tells them.
        for (name, expected) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("a{foo}b", 12_182),
            ("a{foo}{bar}", 12_182),
            ("", 0),
        ] {
            assert_eq!(slot(name), expected, "{name}");
        }
        assert_eq!(slot("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}"), crc16(b"{bar") % SLOTS);
    }

    #[test]
    fn every_topic_has_a_short_tag_in_its_slot() {
        for topics in [16, 1000, 1024, SLOTS] {
            let tags = tags(topics);
            assert_eq!(tags.len(), usize::from(topics));
            for (number, tag) in (0..).zip(&tags) {
                assert!(tag.len() <= 6, "{tag}");
                assert_eq!(slot(&format!("x{{{tag}}}")), slot_of_topic(number, topics));
            }
        }
    }

    #[test]
    fn topics_are_spread_evenly_over_any_masters() {
        let tags = tags(1024);
        for masters in 3..=32_usize {
            let mut owned = vec![0_usize; masters];
            for tag in &tags {
                owned[usize::from(slot(tag)) * masters / usize::from(SLOTS)] += 1;
            }
            let even = tags.len() as f64 / masters as f64;
            for owned in owned {
                assert!(
                    (owned as f64 - even).abs() <= even * 0.2,
                    "{owned} of {masters} masters' {even}"
                );
            }
        }
    }
}
