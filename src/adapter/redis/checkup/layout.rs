//! Which servers there are: what sentinels say of a master, what a cluster says of its own.

use std::collections::BTreeMap;

use redis::Value;

use super::{Address, Visitor, command, field, is_forbidden, line, text};
use crate::adapter::redis::slots::SLOTS;
use crate::adapter::redis::topology::{self, Masters};
use crate::checkup::Report;

/// Asks every sentinel for the master. None if they do not agree, or nobody knows one.
pub(super) async fn sentinels(
    visitor: &Visitor,
    name: &str,
    sentinels: &[Address],
    report: &mut Report<'_>,
) -> Option<Address> {
    let mut named: BTreeMap<Address, usize> = BTreeMap::new();
    let mut has_quorum = None;
    for address in sentinels {
        let Some(mut link) = visitor.visit(address, report).await else {
            continue;
        };
        let hello = link.ask(&command(&["HELLO"])).await.ok();
        let mode = hello
            .as_ref()
            .and_then(|hello| field(hello, "mode"))
            .and_then(text);
        if mode.as_deref().is_some_and(|mode| mode != "sentinel") {
            report.failure(
                format!("{address} is no sentinel, but a server"),
                "redis-sentinel:// names the sentinels (port 26379 as a rule); a single server is redis://",
            );
            continue;
        }
        let question = command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]);
        match link.ask(&question).await {
            Ok(answer) => match topology::master(&answer) {
                Some(master) => *named.entry(master).or_default() += 1,
                None => {
                    report.failure(
                        format!("the sentinel {address} knows no master named `{name}`"),
                        "the name at the end of redis.url is that of `sentinel monitor NAME …`",
                    );
                    continue;
                }
            },
            Err(fault) => {
                report.failure(
                    format!("the sentinel {address} does not say who the master is: {fault}"),
                    "its user needs `+sentinel|get-master-addr-by-name`",
                );
                continue;
            }
        }
        match link.ask(&command(&["SENTINEL", "CKQUORUM", name])).await {
            Ok(_) => has_quorum = Some(true),
            Err(fault) if fault.contains("NOQUORUM") || fault.contains("NOGOODSLAVE") => {
                has_quorum = has_quorum.or(Some(false));
                report.warning(
                    format!("the sentinel {address} sees no quorum: {fault}"),
                    "start the other sentinels, three at least: until then nobody replaces a master that dies",
                );
            }
            Err(_) => {}
        }
    }
    if sentinels.len() < 3 {
        report.warning(
            format!("redis.url names {} of the sentinels", sentinels.len()),
            "name all of them, three at least: a node must find one that lives",
        );
    }
    let answered: usize = named.values().sum();
    match (named.len(), named.pop_first()) {
        (1, Some((master, _))) => {
            let quorum = match has_quorum {
                Some(true) => "; the quorum for a failover is there",
                Some(false) => "",
                None => "; whether there is a quorum for a failover, they do not say to this user",
            };
            report.good(format!(
                "{answered} of {} sentinels name {master} as the master{quorum}",
                sentinels.len()
            ));
            Some(master)
        }
        (0, _) | (_, None) => None,
        (_, Some((first, _))) => {
            let others: Vec<_> = named.keys().map(Address::to_string).collect();
            report.failure(
                format!("the sentinels do not agree on the master: {first}, {}", others.join(", ")),
                "a failover may be under way: ask again in a minute; if it stays so, `SENTINEL RESET` those that are behind",
            );
            None
        }
    }
}

/// Asks the servers that are named, and gives the masters with their slots.
pub(super) async fn cluster(visitor: &Visitor, seeds: &[Address], report: &mut Report<'_>) -> Masters {
    let mut seen: Option<Masters> = None;
    for address in seeds {
        let Some(mut link) = visitor.visit(address, report).await else {
            continue;
        };
        match link
            .ask(&command(&["CLUSTER", "INFO"]))
            .await
            .map(|answer| text(&answer))
        {
            Ok(Some(info)) if line(&info, "cluster_state") == Some("ok") => {}
            Ok(info) => {
                let state = info
                    .as_deref()
                    .and_then(|info| line(info, "cluster_state"))
                    .unwrap_or("unknown")
                    .to_owned();
                report.failure(
                    format!("{address} says that the state of the cluster is `{state}`"),
                    "`redis-cli --cluster check` says what is missing",
                );
            }
            Err(fault) if is_forbidden(&fault) => {
                report.note(format!("{address}: this user may not ask for CLUSTER INFO"));
            }
            Err(_) => {}
        }
        let answer = match link.ask(&command(&["CLUSTER", "SLOTS"])).await {
            Ok(answer) => answer,
            Err(fault) => {
                let advice = match fault.contains("cluster support disabled") {
                    true => "it is a server of its own: redis.url is redis://",
                    false => "its user needs `+cluster|slots`",
                };
                report.failure(format!("{address} does not tell its slots: {fault}"), advice);
                continue;
            }
        };
        let Some(masters) = topology::masters_with_slots(&answer, address) else {
            report.failure(
                format!("{address} knows no master that has slots"),
                "create the cluster (`redis-cli --cluster create`), or name servers that belong to it",
            );
            continue;
        };
        match &seen {
            None => {
                coverage(&answer, &masters, report);
                seen = Some(masters);
            }
            Some(first) if *first != masters => report.failure(
                format!("{address} sees other masters or slots than the server before it"),
                "do they all belong to one cluster? A failover or resharding may be under way: ask again in a minute",
            ),
            Some(_) => {}
        }
    }
    seen.unwrap_or_default()
}

fn coverage(answer: &Value, masters: &Masters, report: &mut Report<'_>) {
    let ranges = masters.iter().flat_map(|(_, slots)| slots);
    let covered: u32 = ranges.map(|(first, last)| u32::from(last - first) + 1).sum();
    let slots = u32::from(SLOTS);
    if covered < slots {
        report.failure(
            format!("{} of {slots} slots belong to nobody", slots - covered),
            "events of the topics there go nowhere: `redis-cli --cluster fix`",
        );
    } else {
        report.good(format!("{} masters cover all {slots} slots", masters.len()));
    }
    let Value::Array(ranges) = answer else { return };
    // Behind the first slot, the last and the master stand the replicas.
    let bare = ranges
        .iter()
        .filter(|range| matches!(range, Value::Array(range) if range.len() < 4));
    let bare = bare.count();
    if bare > 0 {
        report.warning(
            format!(
                "{bare} of {} ranges of slots have a master without a replica",
                ranges.len()
            ),
            "if it dies its topics are gone until it is back: add replicas",
        );
    }
}
