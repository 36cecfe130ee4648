//! What a measurement came to, and how it gets into the run: what every scenario tells, whatever it did.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;

use super::{Field, Offer, Seen};
use crate::publisher::Requests;
use crate::result::{Better, Run, Unit};
use crate::swarm::account::Account;

/// What a measurement came to.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) account: Account,
    pub(crate) requests: Requests,
    pub(crate) seen: Seen,
    /// From the first request until the last delivery. Seconds.
    pub(crate) elapsed_s: f64,
    /// How long it was published. Seconds.
    pub(crate) published_s: f64,
    /// When it began, since the board's epoch.
    pub(crate) began_ns: u64,
}

impl Field<'_> {
    /// Puts into the run what every measurement tells, and ends it.
    pub(crate) fn finish(mut self, measured: Measured, offer: Offer) -> Result<Run> {
        let Measured {
            account,
            requests,
            seen,
            ..
        } = measured;
        let totals = self.board.totals();
        let run = &mut self.run;
        if account.delivered > 0 {
            let per_delivery = |cpu_s: f64| cpu_s / account.delivered as f64;
            if let Some(server) = seen.server {
                let cpu_s = per_delivery(server.exact.as_secs_f64());
                run.measured(
                    "server_cpu_per_delivery",
                    "Server CPU per delivered message",
                    cpu_s,
                    Unit::Seconds,
                    Better::Less,
                );
                if let Some((share, error)) = server.user_share() {
                    run.measured(
                        "server_user_cpu_per_delivery",
                        "  of it in user space (sampled)",
                        cpu_s * share,
                        Unit::Seconds,
                        Better::Less,
                    );
                    run.notes.push(format!(
                        "Time in user space is sampled by the kernel: ± {:.3} µs per delivered message.",
                        cpu_s * error * 1e6
                    ));
                }
            }
            let own_s = per_delivery(seen.own.exact.as_secs_f64());
            run.measured(
                "own_cpu_per_delivery",
                "This program's CPU per delivered message",
                own_s,
                Unit::Seconds,
                Better::Less,
            );
        }
        if let Some(memory) = seen.memory {
            run.measured(
                "server_memory",
                "Server memory at the end",
                memory.resident as f64,
                Unit::Bytes,
                Better::Less,
            );
        }
        let is_same_machine = self.target.address.ip().is_loopback() || self.common.pid.is_some();
        run.generator = seen.generator(offer, is_same_machine);
        run.series.extend(seen.series);
        run.faults.closed += u64::from(totals.closed + totals.failed);
        if let Some(trouble) = self.publisher.trouble() {
            run.notes.push(format!("Ended early: {trouble}."));
        }
        count_faults(run, &account, &requests);
        run.faults.examples.extend(self.crowd.arrivals()?.ends);
        run.interrupted = self.stop.load(Relaxed);
        run.took_s = self.began.elapsed().as_secs_f64();
        self.progress.end();
        Ok(self.run)
    }
}

/// Adds what went wrong to the run.
fn count_faults(run: &mut Run, account: &Account, requests: &Requests) {
    let faults = &mut run.faults;
    faults.lost += account.lost;
    faults.repeated += account.repeated;
    faults.out_of_order += account.out_of_order;
    faults.foreign += account.foreign;
    faults.refused += requests.refused;
    faults.examples.extend(account.examples.iter().cloned());
    faults.examples.extend(requests.examples.iter().cloned());
}

impl Measured {
    /// A part of the run that another one follows: what went wrong in it is told, too.
    pub(crate) fn count_faults(&self, run: &mut Run) {
        count_faults(run, &self.account, &self.requests);
    }
}
