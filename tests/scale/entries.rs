//! What one entry of the roster takes on a node that has it from another one: its memory, and the time to take it in.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use fanwire::adapter::NodeId;
use fanwire::hub::inbox::Inboxes;
use fanwire::node::Node;
use fanwire::relay::Stamp;
use fanwire::roster::delta::{Entry, MemberEntry, Pieces, read};
use fanwire::roster::digest::Digest;

use crate::machine;
use crate::usage::memory;

/// What an entry of the roster takes on a node that has it from another one, by kind.
#[derive(Args)]
pub(crate) struct Options {
    /// So many of each kind.
    #[arg(long, default_value_t = 1_000_000)]
    count: usize,
}

/// Entries that are told together.
const TOGETHER: usize = 1_000;

pub(crate) fn run(options: &Options) -> Result<()> {
    println!("| entry | memory | in an announcement | to read and apply |");
    println!("| --- | ---: | ---: | ---: |");
    let private = |number| format!("private-user-{number:012}");
    weigh(
        "a channel on one other node, `private-user-` and 12 digits",
        options,
        |number| (private(number), 1, Vec::new()),
    )?;
    weigh("the same for a second node that has it", options, |number| {
        (private(number / 2), 1 + number as u32 % 2, Vec::new())
    })?;
    let user = |number| (format!("#server-to-user-{number:012}"), 1, Vec::new());
    weigh("a signed-in user, 12 digits", options, user)?;
    weigh("the same in an app with `watchlist`", options, user)?;
    let room =
        |size: usize| move |number: usize| (format!("presence-room-{:08}", number / size), 1, vec![number]);
    weigh("a member of a presence channel with 20", options, room(20))?;
    weigh("a member of a presence channel with 1,000", options, room(1_000))?;
    Ok(())
}

fn weigh(what: &str, options: &Options, entry: impl Fn(usize) -> (String, u32, Vec<usize>)) -> Result<()> {
    let (apps, metrics) = machine::apps(what.contains("watchlist"))?;
    let node = Node::new(apps, Inboxes::new(1, usize::MAX), metrics);
    let app: Arc<str> = "1".into();
    let is_twice = what.contains("second node");
    let mut digests = vec![Digest::default(); 1 + usize::from(is_twice)];
    let before = memory()?;
    let (mut bytes, mut took) = (0, std::time::Duration::ZERO);
    for first in (0..options.count).step_by(TOGETHER) {
        for (peer, digest) in digests.iter_mut().enumerate() {
            let mut pieces = Pieces::default();
            let mine = (first..first + TOGETHER).filter(|number| !is_twice || number % 2 == peer);
            for number in mine {
                let (channel, count, members) = entry(number);
                let member = |number| MemberEntry {
                    user_id: format!("user-{number:012}").into(),
                    claim: Some((machine::user_info(number).into(), Stamp(1_760_000_000_000_000))),
                };
                pieces.push(&Entry::Channel {
                    app: app.clone(),
                    channel: channel.into(),
                    count,
                    members: members.into_iter().map(member).collect(),
                });
            }
            for piece in pieces.finish() {
                bytes += piece.len();
                let began = Instant::now();
                let entries = read(piece).map_err(|_| anyhow::anyhow!("written wrong"))?;
                node.apply(NodeId(1 + peer as u64), &entries, digest, began);
                took += began.elapsed();
            }
        }
    }
    let taken = memory()?.saturating_sub(before);
    println!(
        "| {what} | {} B | {} B | {:.2} µs |",
        taken / options.count,
        bytes / options.count,
        took.as_secs_f64() * 1e6 / options.count as f64
    );
    // Its memory would be taken again by the next one, and not be seen.
    std::mem::forget(node);
    Ok(())
}
