use super::super::delta::{MemberEntry, Pieces};
use super::*;

const BYTES_MAX: usize = 1 << 20;

fn channel(name: &str, count: u32, members: &[(&str, bool)]) -> Entry {
    let member = |(user_id, is_here): &(&str, bool)| MemberEntry {
        user_id: (*user_id).into(),
        claim: is_here.then(|| ("{}".into(), Stamp(1))),
    };
    Entry::Channel {
        app: "1".into(),
        channel: name.into(),
        count,
        members: members.iter().map(member).collect(),
    }
}

fn chunk(snapshot: u64, index: u32, begins_at: u64, ends_at: Option<u64>, entries: &[Entry]) -> Chunk {
    let mut pieces = Pieces::default();
    entries.iter().for_each(|entry| pieces.push(entry));
    Chunk {
        snapshot,
        index,
        begins_at,
        ends_at,
        piece: pieces.finish().pop().unwrap_or_default(),
    }
}

/// What is said of each channel: its count and members, by name.
fn shares(staged: Staged) -> (u64, Vec<(String, u32, Vec<String>)>) {
    let Staged::Whole(number, whole) = staged else {
        panic!("not whole: {staged:?}");
    };
    let mut channels: Vec<_> = whole
        .apps
        .into_values()
        .flatten()
        .map(|(name, share)| {
            let mut members: Vec<_> = share.members.keys().map(ToString::to_string).collect();
            members.sort();
            (name.to_string(), share.count, members)
        })
        .collect();
    channels.sort();
    (number, channels)
}

#[test]
fn a_chunk_is_read_as_it_was_written() {
    for ends_at in [None, Some(0), Some(1 << 40)] {
        let chunk = chunk(u64::MAX, 3, 7, ends_at, &[channel("a", 1, &[])]);
        let bytes = chunk.encode();
        for length in 0..bytes.len() {
            assert!(
                Chunk::decode(bytes.slice(..length)).is_err(),
                "cut off at {length}"
            );
        }
        assert_eq!(Chunk::decode(bytes), Ok(chunk));
    }
}

#[test]
fn a_snapshot_of_what_does_not_change_is_whole_with_its_last_part() {
    let now = Instant::now();
    let mut staging = Staging::new(BYTES_MAX, now);
    let first = chunk(1, 0, 5, None, &[channel("a", 1, &[])]);
    assert_eq!(staging.chunk(&first, now), Ok(Staged::Waiting));
    assert_eq!(staging.chunk(&first, now), Ok(Staged::Waiting), "twice is once");
    let last = chunk(
        1,
        1,
        5,
        Some(5),
        &[channel("presence-b", 2, &[("u", true), ("v", true)])],
    );
    let whole = staging.chunk(&last, now).expect("well-formed");
    let members = vec!["u".to_owned(), "v".to_owned()];
    assert_eq!(
        shares(whole),
        (
            5,
            vec![("a".into(), 1, vec![]), ("presence-b".into(), 2, members)]
        )
    );
}

#[test]
fn what_was_announced_during_the_walk_lies_on_top_of_it() {
    let now = Instant::now();
    let mut staging = Staging::new(BYTES_MAX, now);
    let announced = |staging: &mut Staging, number, entry| staging.announced(number, vec![entry], 50, now);
    // Before the walk: the walk has seen it.
    assert_eq!(announced(&mut staging, 5, channel("a", 9, &[])), Staged::Waiting);
    assert_eq!(
        announced(
            &mut staging,
            6,
            channel("presence-b", 1, &[("u", false), ("w", true)])
        ),
        Staged::Waiting
    );
    staging
        .chunk(&chunk(1, 0, 5, None, &[channel("a", 1, &[])]), now)
        .expect("well-formed");
    let last = chunk(
        1,
        1,
        5,
        Some(7),
        &[channel("presence-b", 2, &[("u", true), ("v", true)])],
    );
    assert_eq!(
        staging.chunk(&last, now),
        Ok(Staged::Waiting),
        "number 7 is to come"
    );
    let whole = announced(&mut staging, 7, channel("a", 0, &[]));
    let members = vec!["v".to_owned(), "w".to_owned()];
    assert_eq!(shares(whole), (7, vec![("presence-b".into(), 1, members)]));
}

#[test]
fn a_snapshot_whose_announcements_were_missed_is_void_and_the_next_one_is_taken() {
    for ends_at in [5, 6] {
        let now = Instant::now();
        let mut staging = Staging::new(BYTES_MAX, now);
        // Number 6 was given up.
        assert_eq!(staging.announced(5, vec![], 0, now), Staged::Waiting);
        assert_eq!(
            staging.announced(7, vec![channel("b", 1, &[])], 50, now),
            Staged::Waiting
        );
        let old = chunk(1, 0, 5, Some(ends_at), &[channel("a", 1, &[])]);
        assert_eq!(staging.chunk(&old, now), Ok(Staged::Void));
        let next = chunk(2, 0, 6, Some(6), &[channel("a", 2, &[])]);
        let whole = staging.chunk(&next, now).expect("well-formed");
        assert_eq!(
            shares(whole),
            (7, vec![("a".into(), 2, vec![]), ("b".into(), 1, vec![])])
        );
    }
}

#[test]
fn parts_that_are_missing_are_asked_for_after_two_seconds() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut staging = Staging::new(BYTES_MAX, start);
    assert!(!staging.is_stalled(at(1_999)));
    assert!(staging.is_stalled(at(2_000)));
    assert!(!staging.is_stalled(at(2_001)), "asked a moment ago");
    let part = |snapshot, index, ends_at| chunk(snapshot, index, 0, ends_at, &[channel("a", 1, &[])]);
    staging.chunk(&part(1, 0, None), at(3_000)).expect("well-formed");
    let lonely = staging.chunk(&part(1, 2, Some(0)), at(4_000));
    assert_eq!(lonely, Ok(Staged::Waiting), "the part between was lost");
    assert!(staging.is_stalled(at(5_000)), "which is no progress");
    staging.chunk(&part(2, 0, None), at(5_100)).expect("well-formed");
    assert_eq!(
        staging.chunk(&part(1, 1, None), at(5_200)),
        Ok(Staged::Waiting),
        "of the old one"
    );
    let whole = staging
        .chunk(&part(2, 1, Some(0)), at(5_300))
        .expect("well-formed");
    assert_eq!(shares(whole), (0, vec![("a".into(), 1, vec![])]));
}

#[test]
fn what_is_collected_is_bounded() {
    let now = Instant::now();
    let mut staging = Staging::new(1_000, now);
    let many: Vec<Entry> = (0..10)
        .map(|number| channel(&number.to_string(), 1, &[]))
        .collect();
    assert_eq!(
        staging.chunk(&chunk(1, 0, 0, None, &many), now),
        Ok(Staged::TooLarge)
    );
    let mut staging = Staging::new(1_000, now);
    let announced = (0..10).map(|number| staging.announced(number, vec![], 100, now));
    assert_eq!(announced.last(), Some(Staged::TooLarge));
}
