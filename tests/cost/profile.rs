//! Reads what callgrind writes: instructions of each function, without those that it calls.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The functions, the most expensive first.
pub(crate) fn read(path: &Path) -> Result<Vec<(String, u64)>> {
    let text = fs::read_to_string(path).with_context(|| format!("callgrind wrote no {}", path.display()))?;
    let (mut names, mut costs) = (HashMap::new(), HashMap::<&str, u64>::new());
    let (mut function, mut is_of_call) = ("", false);
    for line in text.lines() {
        let first = line.bytes().next();
        if let Some(name) = line.strip_prefix("fn=") {
            function = named(&mut names, name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            named(&mut names, name);
        } else if line.starts_with("calls=") {
            // The line after it holds what the called function cost.
            is_of_call = true;
        } else if matches!(first, Some(b'0'..=b'9' | b'+' | b'-' | b'*'))
            && !std::mem::take(&mut is_of_call)
            && let Some((_, cost)) = line.split_once(' ')
        {
            *costs.entry(function).or_default() += cost.trim().parse::<u64>()?;
        }
    }
    let mut costs: Vec<_> = costs
        .into_iter()
        .map(|(name, cost)| (name.to_owned(), cost))
        .collect();
    costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    Ok(costs)
}

/// A name is written out once, behind a number in parentheses, and is only the number from then on.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, written: &'a str) -> &'a str {
    match written.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(written).copied().unwrap_or(written),
    }
}
