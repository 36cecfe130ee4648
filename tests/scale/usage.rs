//! What this process and its threads have used, from `/proc`, and what is made of several runs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Resident memory of this process that is no file's. Bytes.
pub(crate) fn memory() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("/proc/self/status holds RssAnon")?.parse::<usize>()? * 1024)
}

/// CPU time of all threads of a process whose names begin so, as the scheduler counts it.
pub(crate) fn cpu(process: &str, threads: &str) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let path = task?.path();
        // A thread may have ended since it was listed.
        let (Ok(name), Ok(account)) = (
            fs::read_to_string(path.join("comm")),
            fs::read_to_string(path.join("schedstat")),
        ) else {
            continue;
        };
        if name.starts_with(threads) {
            let on_cpu_ns = account.split(' ').next().unwrap_or_default();
            total += Duration::from_nanos(on_cpu_ns.parse()?);
        }
    }
    Ok(total)
}

/// The one in the middle, the least and the most.
pub(crate) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

/// The value below which that share of the sorted ones lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
