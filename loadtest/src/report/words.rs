//! What a result means, in sentences; the same ones on a terminal and on a page. Pure.

use super::quantity::{counted, plural, told};
use crate::result::{Faults, Machine, Run, Unit, Verdict};

/// What an operator should make of the result, and do next.
pub(crate) fn verdict(run: &Run) -> String {
    let generator = &run.generator;
    let idle = format!("{:.0} %", generator.machine_idle * 100.0);
    match generator.verdict {
        Verdict::Kept => {
            "All that was offered was delivered: no limit was reached. Offer more to find one.".to_owned()
        }
        Verdict::Generator => {
            let busy = format!("{:.0} %", generator.busiest_thread * 100.0);
            let threads = more_threads(run).map_or_else(
                || "put the clients on another machine".to_owned(),
                |threads| format!("use --threads {threads} or another machine"),
            );
            format!(
                "The generator was the bottleneck, its busiest thread at {busy}: {threads}; this is not the server's limit."
            )
        }
        Verdict::Shared => format!(
            "Clients and server filled this machine together ({idle} of it idle): a figure of both. \
             For the server's own limit, put the clients on another machine."
        ),
        Verdict::Server => {
            format!(
                "The server was the limit; the generator could have done more ({idle} of its machine idle)."
            )
        }
        Verdict::Paced => match generator.server_busy {
            Some(busy) => format!(
                "A closed loop: its own pace was the limit, neither program was full (the server at {:.0} %, this \
                 program's busiest thread at {:.0} %). Offer more at once, or at a rate, to find a limit.",
                busy * 100.0,
                generator.busiest_thread * 100.0
            ),
            None => "A closed loop: its own pace was the limit as far as is known; this program had room, and whether \
                     the server was full is told with --pid."
                .to_owned(),
        },
    }
}

/// The verdict in two or three words.
pub(crate) fn verdict_briefly(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "all delivered",
        Verdict::Generator => "limited by the generator",
        Verdict::Shared => "one machine for both",
        Verdict::Server => "the server's limit",
        Verdict::Paced => "a closed loop's pace",
    }
}

/// A number of threads that may help; none when the machine has no core to spare for them.
fn more_threads(run: &Run) -> Option<u32> {
    let threads = run.parameters.iter().find(|(name, _)| name.ends_with("threads"));
    let threads: u32 = threads.and_then(|(_, value)| value.parse().ok()).unwrap_or(1);
    let idle_cores = run.generator.machine_idle * f64::from(run.machine.cores);
    (idle_cores >= 0.5 && threads < run.machine.cores).then(|| (threads * 2).min(run.machine.cores))
}

/// Each kind of fault that there was, in words: "3 messages were lost".
pub(crate) fn faults(faults: &Faults) -> Vec<String> {
    let messages = |count| plural(count, "message", "messages");
    let of = |count: u64, text: &dyn Fn(u64) -> String| (count > 0).then(|| text(count));
    [
        of(faults.lost, &|count| format!("{} lost", messages(count))),
        of(faults.repeated, &|count| {
            format!("{} delivered again", messages(count))
        }),
        of(faults.out_of_order, &|count| {
            format!("{} out of order", messages(count))
        }),
        of(faults.foreign, &|count| {
            format!("{} to clients who should not have them", messages(count))
        }),
        of(faults.refused, &|count| {
            format!("{} refused", plural(count, "HTTP request", "HTTP requests"))
        }),
        of(faults.closed, &|count| {
            format!("{} ended by the server", plural(count, "socket", "sockets"))
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All faults in one line, with an example; or that there were none.
pub(crate) fn faults_line(found: &Faults) -> String {
    let words = faults(found);
    if words.is_empty() {
        return "Nothing was lost, repeated, out of order or refused.".to_owned();
    }
    let example = found.examples.first();
    let example = example.map_or_else(String::new, |example| format!(": e.g. {example}"));
    format!("{}{example}.", words.join(", "))
}

/// That it was interrupted, and what its figures are then of.
pub(crate) fn interruption(run: &Run) -> Option<String> {
    let after = told(run.took_s, Unit::Seconds);
    run.interrupted
        .then(|| format!("Interrupted after {after}: the figures are of what was measured until then."))
}

/// "2 cores, AMD EPYC, 23.5 GiB, Linux 6.18".
pub(crate) fn machine(machine: &Machine) -> String {
    let mut words = vec![plural(u64::from(machine.cores), "core", "cores")];
    if !machine.cpu.is_empty() {
        words.push(machine.cpu.clone());
    }
    if machine.memory_bytes > 0 {
        words.push(told(machine.memory_bytes as f64, Unit::Bytes));
    }
    if !machine.kernel.is_empty() {
        words.push(format!("Linux {}", machine.kernel));
    }
    words.join(", ")
}

/// What this program itself used: "17.2 s CPU, busiest thread 71 %, machine 2 % idle".
pub(crate) fn generator(run: &Run) -> String {
    let generator = &run.generator;
    format!(
        "{} CPU, busiest thread {:.0} %, machine {:.0} % idle",
        told(generator.cpu_s, Unit::Seconds),
        generator.busiest_thread * 100.0,
        generator.machine_idle * 100.0
    )
}

/// What was asked for.
pub(crate) fn parameters(run: &Run) -> String {
    pairs(&run.parameters)
}

/// Names before values: "clients 1,000, payload 200 B".
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = &'a (String, String)>) -> String {
    let told = pairs.into_iter().map(|(name, value)| {
        // Ports and the like are no quantities; four digits are read without help.
        let number = value
            .parse::<u64>()
            .ok()
            .filter(|number| *number >= 10_000 && name != "port");
        format!("{name} {}", number.map_or_else(|| value.clone(), counted))
    });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_verdict_says_what_to_do() {
        let mut run = sample::run("fanwire", 1.0);
        run.generator.verdict = Verdict::Generator;
        run.generator.busiest_thread = 0.98;
        run.machine.cores = 8;
        run.generator.machine_idle = 0.6;
        assert_eq!(
            verdict(&run),
            "The generator was the bottleneck, its busiest thread at 98 %: use --threads 4 or another machine; \
             this is not the server's limit."
        );
        run.generator.machine_idle = 0.01;
        assert!(
            verdict(&run).contains("put the clients on another machine"),
            "{}",
            verdict(&run)
        );
    }

    #[test]
    fn a_server_of_which_nothing_is_known_is_not_called_idle() {
        let mut run = sample::run("fanwire", 1.0);
        run.generator.verdict = Verdict::Paced;
        assert!(verdict(&run).contains("--pid"), "{}", verdict(&run));
        run.generator.server_busy = Some(0.42);
        assert!(verdict(&run).contains("the server at 42 %"), "{}", verdict(&run));
    }

    #[test]
    fn faults_are_told_in_plain_words() {
        assert_eq!(
            faults_line(&Faults::default()),
            "Nothing was lost, repeated, out of order or refused."
        );
        let found = Faults {
            lost: 1,
            out_of_order: 2_000,
            examples: vec!["client 7 never had message 12 of channel-3".to_owned()],
            ..Faults::default()
        };
        assert_eq!(
            faults_line(&found),
            "1 message lost, 2,000 messages out of order: e.g. client 7 never had message 12 of channel-3."
        );
    }
}
