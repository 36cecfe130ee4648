//! Joins and leaves in big presence channels: how long until the one who joins has the list of members, and until all others
//! have been told; and whether everybody knows the right ones in the end.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::arguments::Common;
use crate::progress::Extent;
use crate::result::{Better, Run, Unit};
use crate::swarm::Ticket;
use crate::swarm::account::delays;
use crate::swarm::crowd::{Audience, Detail};
use crate::swarm::members::{Members, Notice, View};
use crate::target::ChannelKind;

use super::{Field, GRACE, Measured, Offer, TICK, Watch, rate, tell_cpu_per, tell_curve};

/// So long without any notice everybody has been told.
const QUIET: Duration = Duration::from_millis(300);

/// Lets members join big presence channels and leave them again.
///
/// The server has to allow that many members in a channel: Fanwire's "presence_members_max" is 100 unless it is raised to
/// (members + joins) / channels at least.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Members of each channel that are there all the time, and are told of the others.
    #[arg(long, env = "NUM_CLIENTS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    members: u32,
    /// Channels.
    #[arg(long, env = "NUM_CHANNELS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// Members that join besides, and then leave: spread over the channels.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    joins: u32,
    /// Joins, and then leaves, per second. Without it they join all at once, and leave all at once.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How many may be on their way at a time, all at once or not.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    on_their_way: u32,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let Options { channels, joins, .. } = *options;
    let staying = options.members * channels;
    let audiences = [Audience {
        clients: staying + joins,
        channels,
        per_client: 1,
    }];
    let kind = ChannelKind::Presence;
    let mut field = Field::open(common, "presence", kind, &audiences, Detail::Ends, 1)?;
    field.run.parameter("members of each channel", options.members);
    field.run.parameter("joins", joins);
    match options.rate {
        Some(per_s) => field.run.parameter("rate (per second)", per_s),
        None => field.run.parameter("rate", "all at once"),
    }
    let mut tickets = field.tickets();
    tickets.iter_mut().for_each(|ticket| ticket.is_awaited = false);
    let joining = tickets.split_off(staying as usize);
    let hint = "not all of them can join; the server may limit how many members a presence channel has: Fanwire's \
                presence_members_max, for one, is 100 unless it is raised";
    field.bring(tickets.clone()).context(hint)?;
    field.hush()?;
    field.crowd.set_connecting_max(options.on_their_way as usize);

    let joined = field.take_turns(options, "joining", |field, turns| {
        field.crowd.admit(joining[turns].to_vec());
        Ok(())
    })?;
    let everybody: Vec<Ticket> = tickets.iter().chain(&joining).cloned().collect();
    let come = staying + joins;
    let live = field.board.totals().live;
    if !field.is_stopped() {
        anyhow::ensure!(live == come, "{live} of {come} members are there: {hint}");
        check(&mut field, &everybody, "have joined")?;
    }
    let left = field.take_turns(options, "leaving", |field, turns| {
        let first = staying + turns.start as u32;
        field.crowd.dismiss(&(first..first + turns.len() as u32))
    })?;
    if !field.is_stopped() {
        check(&mut field, &tickets, "have left")?;
    }

    let members = field.crowd.members()?;
    let of = |notices: &[Notice]| -> Vec<Notice> {
        let come_and_gone = notices.iter().skip(staying as usize).copied();
        come_and_gone.filter(|notice| notice.asked_ns > 0).collect()
    };
    let (joins, leaves) = (of(&members.joined), of(&members.left));
    let until = |notices: &[Notice], at: fn(&Notice) -> u64| {
        let mut times = delays();
        for notice in notices.iter().filter(|notice| at(notice) > notice.asked_ns) {
            times.saturating_record(at(notice) - notice.asked_ns);
        }
        times
    };
    let run = &mut field.run;
    let figures = run.figures.len();
    tell_curve(
        run,
        "join",
        "From asking to join until the list of members is there",
        &until(&joins, |notice| notice.answered_ns),
    );
    tell_curve(
        run,
        "join_told",
        "From asking to join until all others are told",
        &until(&joins, |notice| notice.last_ns),
    );
    tell_curve(
        run,
        "leave_told",
        "From a drop until all others are told",
        &until(&leaves, |notice| notice.last_ns),
    );
    let told = |notices: &[Notice]| notices.iter().map(|notice| u64::from(notice.told)).sum::<u64>();
    for (key, title, turns, count) in [
        ("joins", "Joins", &joined, joins.len()),
        ("leaves", "Leaves", &left, leaves.len()),
    ] {
        run.measured(
            &format!("{key}_per_second"),
            &format!("{title}, until all others are told"),
            count as f64 / turns.elapsed_s,
            Unit::PerSecond,
            Better::More,
        );
    }
    for (key, title, notices) in [
        ("notices_of_joins", "Notices of joins", &joins),
        ("notices_of_leaves", "Notices of leaves", &leaves),
    ] {
        run.measured(key, title, told(notices) as f64, Unit::Count, Better::Neither);
    }
    let (joins_count, leaves_count) = (joins.len() as u64, leaves.len() as u64);
    let (seen, gone) = (&joined.seen, &left.seen);
    tell_cpu_per(
        run,
        seen,
        joins_count,
        "server_cpu_per_join",
        "Server CPU per join, with its connection",
    );
    tell_cpu_per(
        run,
        seen,
        told(&joins),
        "server_cpu_per_join_notice",
        "  of it per member that is told",
    );
    tell_cpu_per(
        run,
        gone,
        leaves_count,
        "server_cpu_per_leave",
        "Server CPU per leave",
    );
    // The answer to the question comes first.
    run.figures.rotate_left(figures);
    left.count_faults(run);
    let is_kept = run.faults.total() == 0;
    let offer = options.rate.map_or(Offer::Closed, |_| Offer::open(is_kept));
    field.finish(joined, offer)
}

/// Whether every member knows exactly who is there.
fn check(field: &mut Field<'_>, there: &[Ticket], when: &str) -> Result<()> {
    let members: Members = field.crowd.members()?;
    let mut expected: HashMap<u32, View> = HashMap::new();
    for ticket in there {
        let view = expected.entry(ticket.channels[0]).or_default();
        view.count += 1;
        view.sum += i64::from(ticket.client);
    }
    let (mut lost, mut excess) = (0, 0);
    let faults = &mut field.run.faults;
    for ticket in there {
        let expected = expected[&ticket.channels[0]];
        let known = members
            .views
            .get(ticket.client as usize)
            .copied()
            .unwrap_or_default();
        if known == expected {
            continue;
        }
        // What a wrong set of the right size lacks, it has something else for.
        let lacking = expected.count - known.count;
        lost += lacking.max(i64::from(lacking == 0)) as u64;
        excess += (-lacking).max(0) as u64;
        if faults.examples.len() < 5 {
            faults.examples.push(format!(
                "member {} knows {} members when all {when}, and there are {}",
                ticket.client, known.count, expected.count
            ));
        }
    }
    faults.lost += lost;
    faults.foreign += excess;
    Ok(())
}

impl Field<'_> {
    /// Lets so many join or leave, at the rate that was asked for, and waits until everybody has been told.
    fn take_turns(
        &mut self,
        options: &Options,
        phase: &str,
        mut turn: impl FnMut(&mut Self, Range<usize>) -> Result<()>,
    ) -> Result<Measured> {
        let mut watch = self.begin()?;
        let (began, began_ns) = (Instant::now(), self.board.now_ns());
        let all = options.joins as usize;
        self.progress.phase(phase, Extent::Things(all as u64), began);
        let (before, mut done) = (self.board.totals().live, 0);
        while done < all && !self.is_stopped() {
            let due = match options.rate {
                Some(per_s) => (began.elapsed().as_secs_f64() * per_s) as usize + 1,
                None => all,
            };
            let now = due.min(all);
            if now > done {
                turn(self, done..now)?;
                done = now;
            }
            self.step(Duration::from_millis(1), &mut watch, done as u64)?;
        }
        // Somebody may still be on the way.
        let is_there = |field: &Self| field.board.totals().live.abs_diff(before) as usize >= done;
        let mut waited = Instant::now();
        let mut last = self.board.totals();
        while !is_there(self) && waited.elapsed() < GRACE && !self.is_stopped() {
            self.step(TICK, &mut watch, done as u64)?;
            let totals = self.board.totals();
            if totals != last {
                (last, waited) = (totals, Instant::now());
            }
        }
        let heard_ns = self.quiet(&mut watch)?;
        let mut measured = self.end(watch, began_ns)?;
        measured.elapsed_s = (heard_ns.saturating_sub(began_ns) as f64 / 1e9).max(1e-9);
        Ok(measured)
    }

    /// Waits until nobody is told anything any more. The answer is when the last one was.
    fn quiet(&mut self, watch: &mut Watch) -> Result<u64> {
        let (mut other, mut heard, mut heard_ns) = (0, Instant::now(), self.board.now_ns());
        while heard.elapsed() < QUIET && !self.is_stopped() {
            self.step(Duration::from_millis(1), watch, 0)?;
            let now = self.board.totals().other;
            if now != other {
                (other, heard, heard_ns) = (now, Instant::now(), self.board.now_ns());
            }
        }
        Ok(heard_ns)
    }

    /// As [`Field::quiet`], before anything is measured.
    fn hush(&mut self) -> Result<()> {
        let mut watch = self.begin()?;
        self.quiet(&mut watch).map(drop)
    }
}
