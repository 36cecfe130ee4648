//! Cases to read, then a random life of an outbox beside a model that knows whole frames only.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Text frames joined as a channel's run.
fn run(texts: &[&str]) -> Bytes {
    texts
        .iter()
        .map(|text| Frame::text(text).into_bytes())
        .collect::<Vec<_>>()
        .concat()
        .into()
}

/// All that waits, in order.
fn waiting(outbox: &Outbox) -> Vec<u8> {
    let mut chunks = [IoSlice::new(&[]); 64]; // More pieces than the tests' bounds let in.
    let filled = outbox.chunks(&mut chunks);
    chunks[..filled].iter().flat_map(|chunk| chunk.to_vec()).collect()
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| frame.as_bytes().to_vec())
        .collect()
}

#[test]
fn the_rest_of_a_run_waits_for_the_runs_before_it() {
    let mut outbox = Outbox::new();
    assert_eq!(outbox.push(run(&["ab", "cd"]), 3, 1000), Pushed::Queued);
    assert_eq!(outbox.push(run(&["ef"]), 0, 1000), Pushed::Queued);
    assert_eq!(outbox.bytes(), 5 + 4 + 2 * PIECE_OVERHEAD_BYTES);
    outbox.advance(6);
    assert_eq!(waiting(&outbox), run(&["ef"])[1..]);
    outbox.advance(3);
    assert!(outbox.is_empty());
    assert_eq!(outbox.bytes(), 0);
}

#[test]
fn nothing_waits_of_a_run_that_left_whole() {
    let mut outbox = Outbox::new();
    assert_eq!(outbox.push(run(&["ab"]), 4, 0), Pushed::Queued);
    assert!(outbox.is_empty());
}

#[test]
fn over_the_bound_is_slow_and_queues_nothing() {
    let mut outbox = Outbox::new();
    let bytes_max = 2 * (4 + PIECE_OVERHEAD_BYTES);
    assert_eq!(outbox.push(run(&["ab"]), 0, bytes_max), Pushed::Queued);
    assert_eq!(outbox.push(run(&["cd"]), 0, bytes_max), Pushed::Queued);
    assert_eq!(outbox.push(run(&[""]), 0, bytes_max), Pushed::Slow);
    assert_eq!(waiting(&outbox), run(&["ab", "cd"]));
}

#[test]
fn without_other_data_one_run_of_any_size_is_taken() {
    let mut outbox = Outbox::new();
    outbox.push_control(Frame::ping());
    assert_eq!(
        outbox.push(run(&["a list of very many members"]), 0, 10),
        Pushed::Queued
    );
    assert_eq!(outbox.push(run(&[""]), 0, 10), Pushed::Slow);
}

#[test]
fn a_pong_leaves_after_the_frame_in_progress() {
    let mut outbox = Outbox::new();
    let _ = outbox.push(run(&["ab", "cd", "ef"]), 5, 1000);
    outbox.push_control(Frame::pong(b"1"));
    let expected = [&run(&["cd"])[1..], Frame::pong(b"1").as_bytes(), &run(&["ef"])].concat();
    assert_eq!(waiting(&outbox), expected);
}

#[test]
fn a_pong_leaves_first_when_no_frame_is_in_progress() {
    let mut outbox = Outbox::new();
    let _ = outbox.push(run(&["ab", "cd"]), 4, 1000);
    outbox.push_control(Frame::pong(b"1"));
    assert_eq!(
        waiting(&outbox),
        [Frame::pong(b"1").as_bytes(), &run(&["cd"])].concat()
    );
}

#[test]
fn a_flood_of_pings_is_answered_once() {
    let mut outbox = Outbox::new();
    outbox.push_control(Frame::pong(b"0"));
    outbox.advance(1);
    for payload in ["1", "2", "3"] {
        outbox.push_control(Frame::pong(payload.as_bytes()));
        outbox.push_control(Frame::ping());
    }
    let expected = frames(&[Frame::pong(b"0"), Frame::pong(b"3"), Frame::ping()]);
    assert_eq!(waiting(&outbox), expected[1..]);
}

#[test]
fn a_close_ends_the_frame_in_progress_and_is_the_last() {
    let mut outbox = Outbox::new();
    let _ = outbox.push(run(&["ab", "cd"]), 1, 1000);
    let _ = outbox.push(run(&["ef"]), 0, 1000);
    outbox.push_control(Frame::ping());
    outbox.close(Frame::close_with(4200, "first").into_bytes());
    outbox.close(Frame::close_with(4201, "second").into_bytes());
    outbox.push_control(Frame::ping());
    assert_eq!(outbox.push(run(&["gh"]), 0, 1000), Pushed::Closing);
    let close = Frame::close_with(4200, "first");
    assert_eq!(waiting(&outbox), [&run(&["ab"])[1..], close.as_bytes()].concat());
    assert_eq!(outbox.bytes(), 3 + PIECE_OVERHEAD_BYTES);
    outbox.advance(3 + close.as_bytes().len());
    assert!(outbox.is_empty() && outbox.is_closing());
}

#[test]
fn a_close_lets_a_begun_pong_end() {
    let mut outbox = Outbox::new();
    outbox.push_control(Frame::pong(b"1"));
    outbox.push_control(Frame::ping());
    outbox.advance(2);
    let _ = outbox.push(run(&["ab"]), 0, 1000);
    outbox.close(Frame::close_with(4200, "").into_bytes());
    assert_eq!(
        waiting(&outbox),
        [&b"1"[..], Frame::close_with(4200, "").as_bytes()].concat()
    );
}

#[derive(Debug, Clone)]
enum Step {
    /// A run of so many frames with payloads so long; the first bytes are sent past the outbox if it is empty.
    Push {
        frames: Vec<usize>,
        sent: usize,
    },
    Pong(u8),
    Ping,
    /// Shows so many chunks and lets so much of them leave.
    Write {
        chunks: usize,
        bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (vec(prop_oneof![5 => 0..20usize, 1 => 120..140usize], 1..5), 0..60usize)
            .prop_map(|(frames, sent)| Step::Push { frames, sent }),
        2 => any::<u8>().prop_map(Step::Pong),
        1 => Just(Step::Ping),
        6 => (1..6usize, 0..80usize).prop_map(|(chunks, bytes)| Step::Write { chunks, bytes }),
    ]
}

/// What an outbox is to do, said in whole frames.
#[derive(Default)]
struct Model {
    /// Each with the number of its run; controls have none.
    frames: Vec<(Vec<u8>, Option<usize>)>,
    /// So much of the first frame is sent.
    sent: usize,
    is_closing: bool,
}

impl Model {
    fn waiting(&self) -> Vec<u8> {
        self.frames
            .iter()
            .flat_map(|(frame, _)| frame)
            .skip(self.sent)
            .copied()
            .collect()
    }

    fn charge(&self) -> usize {
        let runs = self.frames.iter().filter_map(|(_, run)| *run);
        let data = self
            .frames
            .iter()
            .filter(|(_, run)| run.is_some())
            .map(|(frame, _)| frame.len());
        let sent = if self.frames.first().is_some_and(|(_, run)| run.is_some()) {
            self.sent
        } else {
            0
        };
        let pieces = runs.collect::<std::collections::BTreeSet<_>>().len();
        data.sum::<usize>() - sent + pieces * PIECE_OVERHEAD_BYTES
    }

    fn frames_begun(&self) -> usize {
        usize::from(self.sent > 0)
    }

    fn push_control(&mut self, frame: Frame) {
        if self.is_closing {
            return;
        }
        let frame = frame.as_bytes().to_vec();
        let mut at = self.frames_begun();
        while let Some((older, None)) = self.frames.get_mut(at) {
            if older[0] == frame[0] {
                *older = frame;
                return;
            }
            at += 1;
        }
        self.frames.insert(at, (frame, None));
    }

    fn close(&mut self, frame: Frame) {
        if !self.is_closing {
            self.frames.truncate(self.frames_begun());
            self.frames.push((frame.as_bytes().to_vec(), None));
            self.is_closing = true;
        }
    }

    fn close_behind(&mut self, frame: Frame) {
        if !self.is_closing {
            self.frames.push((frame.as_bytes().to_vec(), Some(usize::MAX)));
            self.is_closing = true;
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        while let Some((first, _)) = self.frames.first()
            && first.len() <= self.sent
        {
            self.sent -= first.len();
            self.frames.remove(0);
        }
    }
}

const BYTES_MAX: usize = 600;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whole_frames_leave_in_order(
        steps in vec(step(), 0..60),
        close in proptest::option::of((0..60usize, any::<bool>())),
    ) {
        let (mut outbox, mut model) = (Outbox::new(), Model::default());
        let (mut wire, mut accepted, mut runs, mut last_pong) = (Vec::new(), Vec::new(), 0usize, None);
        let last = [Step::Write { chunks: 1000, bytes: usize::MAX }];
        for (at, step) in steps.iter().chain(&last).enumerate() {
            let bye = Frame::close_with(4200, "bye");
            match close {
                Some((closes, true)) if closes == at => {
                    outbox.close_behind(bye.clone().into_bytes());
                    model.close_behind(bye);
                }
                Some((closes, false)) if closes == at => {
                    outbox.close(bye.clone().into_bytes());
                    model.close(bye);
                }
                _ => {}
            }
            match step {
                Step::Push { frames, sent } => {
                    runs += 1;
                    let texts = frames.iter().map(|len| format!("{runs:0len$}"));
                    let new: Vec<_> = texts.map(|text| Frame::text(&text).as_bytes().to_vec()).collect();
                    let run = Bytes::from(new.concat());
                    let sent = if outbox.is_empty() && !outbox.is_closing() { (*sent).min(run.len()) } else { 0 };
                    let charge = run.len() + PIECE_OVERHEAD_BYTES;
                    let expected = if model.is_closing {
                        Pushed::Closing
                    } else if model.charge() > 0 && model.charge() + charge > BYTES_MAX {
                        Pushed::Slow
                    } else {
                        wire.extend_from_slice(&run[..sent]);
                        accepted.extend(new.iter().cloned());
                        model.frames.extend(new.into_iter().map(|frame| (frame, Some(runs))));
                        model.advance(sent);
                        Pushed::Queued
                    };
                    prop_assert_eq!(outbox.push(run, sent, BYTES_MAX), expected);
                }
                Step::Pong(payload) => {
                    last_pong = Some(Frame::pong(&[*payload]).as_bytes().to_vec());
                    outbox.push_control(Frame::pong(&[*payload]));
                    model.push_control(Frame::pong(&[*payload]));
                }
                Step::Ping => {
                    outbox.push_control(Frame::ping());
                    model.push_control(Frame::ping());
                }
                Step::Write { chunks, bytes } => {
                    let mut shown = vec![IoSlice::new(&[]); *chunks];
                    let filled = outbox.chunks(&mut shown);
                    let shown: Vec<u8> = shown[..filled].iter().flat_map(|chunk| chunk.to_vec()).collect();
                    let bytes = shown.len().min(*bytes);
                    wire.extend_from_slice(&shown[..bytes]);
                    outbox.advance(bytes);
                    model.advance(bytes);
                }
            }
            prop_assert_eq!(waiting(&outbox), model.waiting());
            prop_assert_eq!(outbox.bytes(), model.charge());
            prop_assert_eq!(outbox.is_empty(), model.frames.is_empty());
            prop_assert!(outbox.waiting.as_ref().is_none_or(|waiting| waiting.controls.len() <= 4));
        }

        // What came out, seen without the model: whole frames, the data in order, the newest pong, the close last.
        prop_assert!(outbox.is_empty());
        let mut sent: Vec<&[u8]> = Vec::new();
        let mut from = 0;
        while from < wire.len() {
            let to = frame_boundary(&wire, from + 1);
            sent.push(&wire[from..to]);
            from = to;
        }
        let data: Vec<_> = sent.iter().filter(|frame| frame[0] == 0x81).map(|frame| frame.to_vec()).collect();
        prop_assert!(accepted.starts_with(&data));
        if outbox.is_closing() {
            let close = Frame::close_with(4200, "bye");
            prop_assert_eq!(*sent.last().expect("a close was sent"), close.as_bytes());
        }
        if outbox.is_closing() && matches!(close, Some((_, true))) {
            prop_assert_eq!(data, accepted, "what waited went before the close");
        } else if !outbox.is_closing() {
            prop_assert_eq!(data, accepted);
            let newest = sent.iter().rfind(|frame| frame[0] == 0x8a).map(|frame| frame.to_vec());
            prop_assert_eq!(newest, last_pong);
        }
    }
}
