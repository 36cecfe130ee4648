//! Connecting: how many sockets per second come to be subscribed, and how long each one's way takes; while others drop,
//! and when everybody comes back at the same moment.

use anyhow::Result;
use clap::Args;

use crate::arguments::Common;
use crate::progress::Extent;
use crate::result::{Better, Run, Unit};
use crate::swarm::Ticket;
use crate::swarm::crowd::{Audience, Detail};
use crate::target::ChannelKind;

use super::{Field, Offer, tell_cpu_per, tell_curve, tell_series};

/// Connects clients and subscribes them; with others dropping at the same moment, or all of them coming back at once.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Clients.
    #[arg(long, env = "NUM_CLIENTS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Channels that they share.
    #[arg(long, env = "NUM_CHANNELS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// How many of them may be on their way at a time: more than the server's backlog makes connections wait a second.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    on_their_way: u32,
    /// So many others are connected first, and drop at the moment when the measured ones begin.
    #[arg(long, default_value_t = 0, value_name = "CLIENTS")]
    drop_at_once: u32,
    /// After that all of them drop, and come back at once, without any limit: how long until everybody is subscribed.
    #[arg(long)]
    again: bool,
    /// Public, private or presence channels.
    #[arg(long, value_enum, default_value_t = ChannelKind::Public)]
    kind: ChannelKind,
}

/// Runs it.
pub(crate) fn run(common: &Common, options: &Options) -> Result<Run> {
    let Options {
        clients,
        channels,
        drop_at_once,
        ..
    } = *options;
    let threads = common.threads;
    // Those who drop have a thread of their own: closing must not keep the measured ones from connecting.
    let common = &Common {
        threads: threads + usize::from(drop_at_once > 0),
        ..common.clone()
    };
    let audience = |clients, channels| Audience {
        clients,
        channels,
        per_client: 1,
    };
    let mut audiences = vec![audience(clients, channels)];
    if drop_at_once > 0 {
        audiences.push(audience(drop_at_once, 1));
    }
    let mut field = Field::open(common, "connect", options.kind, &audiences, Detail::Ends, 1)?;
    field.run.parameter("on their way", options.on_their_way);
    if drop_at_once > 0 {
        field
            .run
            .parameter("of them drop while the others connect", drop_at_once);
    }
    let mut tickets: Vec<Ticket> = field.tickets();
    tickets.iter_mut().for_each(|ticket| ticket.is_awaited = false);
    let others = tickets.split_off(clients as usize);
    if drop_at_once > 0 {
        field.progress.phase(
            "connecting those who drop",
            Extent::Things(u64::from(drop_at_once)),
            std::time::Instant::now(),
        );
        field.crowd.admit_on(threads..threads + 1, others);
        field.wait_for(drop_at_once)?;
        // They are not measured.
        field.crowd.arrivals()?;
    }

    let on_their_way = options.on_their_way as usize;
    // Each thread has its share, the one of those who drop included.
    field
        .crowd
        .set_connecting_max(on_their_way * common.threads / threads);
    let mut watch = field.begin()?;
    let began_ns = field.board.now_ns();
    field.progress.phase(
        "connecting",
        Extent::Things(u64::from(clients)),
        std::time::Instant::now(),
    );
    field.crowd.dismiss_soon(&(clients..clients + drop_at_once));
    field.crowd.admit_on(0..threads, tickets.clone());
    let mut live = Vec::new();
    let took_s = field.settle_apart(drop_at_once, clients, &mut watch, &mut live)?;
    let measured = field.end(watch, began_ns)?;
    let arrivals = field.crowd.arrivals()?;
    let come = arrivals.handshakes.len();
    let run = &mut field.run;
    run.measured(
        "connected_per_second",
        "Connected and subscribed",
        come as f64 / took_s,
        Unit::PerSecond,
        Better::More,
    );
    tell_curve(
        run,
        "handshake",
        "From connecting until subscribed",
        &arrivals.handshakes,
    );
    tell_curve(
        run,
        "greeting",
        "From connecting until greeted",
        &arrivals.greetings,
    );
    tell_cpu_per(
        run,
        &measured.seen,
        come,
        "server_cpu_per_socket",
        "Server CPU per socket",
    );
    tell_series(run, "connected", "Connected and subscribed", Unit::Count, live);
    run.faults.examples.extend(arrivals.ends);
    // The answer to the question comes first, and then how fast the others dropped.
    if drop_at_once > 0 {
        run.figures.swap(0, 1);
    }
    if drop_at_once == 0 {
        field.weigh(come as u32)?;
    } else {
        field
            .run
            .notes
            .push("The server's CPU per socket includes that of the sockets that dropped.".to_owned());
    }
    if options.again && !field.is_stopped() {
        again(&mut field, tickets)?;
    }
    field.finish(measured, Offer::Closed)
}

/// All of them drop, and come back at once.
fn again(field: &mut Field<'_>, tickets: Vec<Ticket>) -> Result<()> {
    let clients = tickets.len() as u32;
    field.crowd.set_connecting_max(usize::MAX);
    let mut watch = field.begin()?;
    let began_ns = field.board.now_ns();
    field.progress.phase(
        "coming back at once",
        Extent::Things(u64::from(clients)),
        std::time::Instant::now(),
    );
    field.crowd.dismiss(&(0..clients))?;
    let failed = field.board.totals().failed + field.board.totals().closed;
    field.crowd.admit(tickets);
    let mut live = Vec::new();
    let took_s = field.settle(clients + failed, &mut watch, &mut live)?;
    let measured = field.end(watch, began_ns)?;
    let arrivals = field.crowd.arrivals()?;
    measured.count_faults(&mut field.run);
    let run = &mut field.run;
    run.measured(
        "again_time",
        "Until everybody is back",
        took_s,
        Unit::Seconds,
        Better::Less,
    );
    run.measured(
        "again_per_second",
        "Back and subscribed",
        arrivals.handshakes.len() as f64 / took_s,
        Unit::PerSecond,
        Better::More,
    );
    tell_curve(
        run,
        "again",
        "From coming back until subscribed",
        &arrivals.handshakes,
    );
    tell_cpu_per(
        run,
        &measured.seen,
        arrivals.handshakes.len(),
        "again_server_cpu_per_socket",
        "Server CPU per socket that comes back",
    );
    tell_series(run, "back", "Back and subscribed, all at once", Unit::Count, live);
    run.notes.push(
        "Those who come back at once are limited by the server's backlog too: a connection that finds it full is tried \
         again after a second."
            .to_owned(),
    );
    run.faults.examples.extend(arrivals.ends);
    Ok(())
}

impl Field<'_> {
    /// As [`Field::settle`], while so many others are leaving.
    fn settle_apart(
        &mut self,
        leaving: u32,
        count: u32,
        watch: &mut super::Watch,
        live: &mut Vec<(f64, f64)>,
    ) -> Result<f64> {
        let began = std::time::Instant::now();
        // Those who leave are counted as live until their thread has closed them.
        while leaving > 0 && self.board.lane(self.common.threads - 1).live() > 0 && !self.is_stopped() {
            self.step(super::LOOK_EVERY, watch, 0)?;
        }
        let left_s = began.elapsed().as_secs_f64();
        if leaving > 0 {
            self.run.measured(
                "dropped_time",
                "Time in which the others dropped",
                left_s,
                Unit::Seconds,
                Better::Neither,
            );
        }
        Ok(left_s + self.settle(count, watch, live)?)
    }
}
