//! One server that would carry topics: what it is, whether its clock is right, and whether a probe comes back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Address, Names, Visitor, command, field, is_forbidden, line, text};
use crate::adapter::Topic;
use crate::adapter::redis::link::Link;
use crate::adapter::redis::slots::slot;
use crate::adapter::redis::topology::Slots;
use crate::checkup::Report;

/// The oldest that is tested; sharded pub/sub begins with it.
const VERSION_MIN: u32 = 7;
/// Another clock further off than this makes logs hard to read, and presence stamps that are clamped.
const SKEW_MAX: Duration = Duration::from_secs(1);
/// What Redis has without being told: fewer bytes, and it hangs up on a node that hears a burst.
const PUBSUB_HARD_MIN: u64 = 32 * 1024 * 1024;
const PUBSUB_SOFT_MIN: u64 = 8 * 1024 * 1024;
/// Probes; their median is told.
const PROBES: usize = 9;
const PROBE_MAX: Duration = Duration::from_secs(2);
/// A broker farther away than this makes everything that crosses nodes late.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(20);

/// What is asked of every server.
pub(super) struct Task<'a> {
    pub(super) visitor: &'a Visitor,
    pub(super) prefix: &'a str,
    pub(super) names: &'a Names,
    /// How many connections one node makes to each server.
    pub(super) connections: u64,
}

/// How topics are published and heard: the commands.
struct Way {
    publish: &'static str,
    hear: &'static str,
    leave: &'static str,
    count: &'static str,
}

const PLAIN: Way = Way {
    publish: "PUBLISH",
    hear: "SUBSCRIBE",
    leave: "UNSUBSCRIBE",
    count: "NUMSUB",
};

const SHARDED: Way = Way {
    publish: "SPUBLISH",
    hear: "SSUBSCRIBE",
    leave: "SUNSUBSCRIBE",
    count: "SHARDNUMSUB",
};

impl Task<'_> {
    /// The only server.
    pub(super) async fn single(&self, address: &Address, report: &mut Report<'_>) {
        let Some(mut link) = self.visitor.visit(address, report).await else {
            return;
        };
        let mode = self.identity(&mut link, address, false, report).await;
        if mode.as_deref() == Some("cluster") {
            report.warning(
                format!("{address} belongs to a redis cluster"),
                "use redis-cluster:// with some of its servers: as a single one it sends every event to all of them, \
                 and there is no way round it when it dies",
            );
        }
        self.rest(link, address, &PLAIN, None, report).await;
    }

    /// The master that sentinels name. A stranger to them cannot be reached by the name they use.
    pub(super) async fn master(&self, address: &Address, report: &mut Report<'_>) {
        let Some(mut link) = self.visitor.visit(address, report).await else {
            return report
                .note("sentinels tell the address that the master told them: see replica-announce-ip");
        };
        self.identity(&mut link, address, false, report).await;
        self.rest(link, address, &PLAIN, None, report).await;
    }

    /// One master of a cluster.
    pub(super) async fn master_of_cluster(&self, address: &Address, slots: &Slots, report: &mut Report<'_>) {
        let Some(mut link) = self.visitor.visit(address, report).await else {
            return report.note("servers of a cluster tell their own addresses: see cluster-announce-ip");
        };
        self.identity(&mut link, address, true, report).await;
        self.rest(link, address, &SHARDED, Some(slots), report).await;
    }

    async fn rest(
        &self,
        mut link: Link,
        address: &Address,
        way: &Way,
        slots: Option<&Slots>,
        report: &mut Report<'_>,
    ) {
        clock(&mut link, address, report).await;
        self.probe(&mut link, address, way, slots, report).await;
        buffers(&mut link, address, report).await;
        self.room(&mut link, address, report).await;
        self.nodes(&mut link, way, slots, report).await;
    }

    /// Version and role. The answer is the mode: standalone, sentinel or cluster.
    async fn identity(
        &self,
        link: &mut Link,
        address: &Address,
        is_cluster: bool,
        report: &mut Report<'_>,
    ) -> Option<String> {
        let hello = match link.ask(&command(&["HELLO"])).await {
            Ok(hello) => hello,
            Err(fault) => {
                report.failure(
                    format!("{address} does not answer HELLO: {fault}"),
                    "is this Redis, 7 or later?",
                );
                return None;
            }
        };
        let said = |name| field(&hello, name).and_then(text).unwrap_or_default();
        let (server, version, role, mode) = (said("server"), said("version"), said("role"), said("mode"));
        let major: u32 = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or(0);
        match (major >= VERSION_MIN, is_cluster) {
            (true, _) => report.good(format!("{address} is {server} {version}")),
            (false, true) => report.failure(
                format!(
                    "{address} is {server} {version}: sharded pub/sub, which a cluster needs, begins with 7.0"
                ),
                "upgrade it",
            ),
            (false, false) => report.warning(
                format!("{address} is {server} {version}: older than 7.0, the oldest that is tested"),
                "upgrade it",
            ),
        }
        if mode == "sentinel" {
            report.failure(
                format!("{address} is a sentinel, not a server"),
                "redis.url is redis-sentinel://HOST:26379,…/NAME-OF-THE-MASTER",
            );
        } else if role != "master" {
            report.failure(
                format!("{address} is a {role}: what is published there reaches only who listens there"),
                "name the master, or its sentinels (redis-sentinel://), in redis.url",
            );
        }
        Some(mode)
    }

    /// Hears a topic that nobody else hears, publishes to it, and measures how long that takes.
    async fn probe(
        &self,
        link: &mut Link,
        address: &Address,
        way: &Way,
        slots: Option<&Slots>,
        report: &mut Report<'_>,
    ) {
        let topic = self.topic(slots);
        let (sender, mut heard) = mpsc::channel::<Value>(PROBES);
        let pushes = move |PushInfo { kind, data }: PushInfo| {
            if matches!(kind, PushKind::Message | PushKind::SMessage) {
                // A probe too many is none.
                let _ = data.into_iter().nth(1).map(|bytes| sender.try_send(bytes));
            }
        };
        let mut ear = match self.visitor.open(address, Box::new(pushes)).await {
            Ok(ear) => ear,
            Err(fault) => {
                return report.failure(
                    format!("{address} takes no second connection: {fault}"),
                    "is maxclients reached?",
                );
            }
        };
        if let Err(fault) = ear.ask(&command(&[way.hear, &topic])).await {
            return self.refused(address, way, way.hear, &fault, report);
        }
        let mut times = Vec::with_capacity(PROBES);
        for number in 0..PROBES {
            let number = number.to_string();
            let begun = Instant::now();
            if let Err(fault) = link.ask(&command(&[way.publish, &topic, &number])).await {
                return self.refused(address, way, way.publish, &fault, report);
            }
            match timeout(PROBE_MAX, heard.recv()).await {
                Ok(Some(value)) if text(&value) == Some(number) => times.push(begun.elapsed()),
                _ => {
                    return report.failure(
                        format!(
                            "{address} took a probe, and it did not come back within {} s",
                            PROBE_MAX.as_secs()
                        ),
                        "is something between here and redis that holds messages back?",
                    );
                }
            }
        }
        if let Err(fault) = ear.ask(&command(&[way.leave, &topic])).await {
            return self.refused(address, way, way.leave, &fault, report);
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        let told = format!(
            "{address}: {} and {} under `{}.` work; there and back in {:.2} ms",
            way.publish,
            way.hear,
            self.prefix,
            median.as_secs_f64() * 1000.0
        );
        if median > ROUND_TRIP_MAX {
            report.warning(
                told,
                "every event between nodes takes this long: put redis nearer",
            );
        } else {
            report.good(told);
        }
    }

    /// A topic for a probe, which in a cluster falls into one of these slots.
    fn topic(&self, slots: Option<&Slots>) -> String {
        let probe = format!("{}.doctor.{:08x}", self.prefix, rand::random::<u32>());
        let Some(slots) = slots else { return probe };
        let is_here = |name: &String| {
            let slot = slot(name);
            slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let mut tagged = (0..u32::from(u16::MAX) * 16).map(|tag| format!("{probe}{{{tag}}}"));
        tagged.find(is_here).unwrap_or(probe)
    }

    fn refused(&self, address: &Address, way: &Way, tried: &str, fault: &str, report: &mut Report<'_>) {
        let Way {
            publish, hear, leave, ..
        } = way;
        let (publish, hear, leave) = (publish.to_lowercase(), hear.to_lowercase(), leave.to_lowercase());
        let slots = if *way.publish == *SHARDED.publish {
            " +cluster|slots"
        } else {
            ""
        };
        let advice = match is_forbidden(fault) {
            true => format!(
                "ACL SETUSER {} +{publish} +{hear} +{leave}{slots} &{}.*",
                self.visitor.user, self.prefix
            ),
            false => "its log may say more".to_owned(),
        };
        report.failure(
            format!("{address} refuses {tried} under `{}.`: {fault}", self.prefix),
            advice,
        );
    }

    /// Whether there is room for the connections of some more nodes.
    async fn room(&self, link: &mut Link, address: &Address, report: &mut Report<'_>) {
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let most = link.ask(&command(&["CONFIG", "GET", "maxclients"])).await.ok();
        let most = number(
            most.as_ref()
                .and_then(|most| field(most, "maxclients"))
                .and_then(text),
        );
        let info = link
            .ask(&command(&["INFO", "clients"]))
            .await
            .ok()
            .and_then(|info| text(&info));
        let now = number(
            info.as_deref()
                .and_then(|info| line(info, "connected_clients"))
                .map(str::to_owned),
        );
        if let (Some(most), Some(now)) = (most, now)
            && now + 2 * self.connections > most
        {
            report.warning(
                format!(
                    "{address} has {now} of at most {most} connections, and a node makes {}",
                    self.connections
                ),
                "raise maxclients",
            );
        }
    }

    /// Who is there already.
    async fn nodes(&self, link: &mut Link, way: &Way, slots: Option<&Slots>, report: &mut Report<'_>) {
        let beats = self.names.name(Topic::Beats);
        let at = slot(&beats);
        if slots.is_some_and(|slots| !slots.iter().any(|(first, last)| (*first..=*last).contains(&at))) {
            return;
        }
        if let Ok(answer) = link.ask(&command(&["PUBSUB", way.count, &beats])).await
            && let Some(Value::Int(nodes)) = field(&answer, &beats)
        {
            report.note(format!(
                "nodes that are connected now, under the prefix `{}`: {nodes}",
                self.prefix
            ));
        }
    }
}

async fn clock(link: &mut Link, address: &Address, report: &mut Report<'_>) {
    let begun = SystemTime::now();
    let Ok(Value::Array(time)) = link.ask(&command(&["TIME"])).await else {
        return report.note(format!(
            "{address}: this user may not ask for TIME, so the clocks are not compared"
        ));
    };
    let half = begun.elapsed().unwrap_or_default() / 2;
    let part = |at: usize| {
        time.get(at)
            .and_then(text)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (Some(seconds), Some(micros)) = (part(0), part(1)) else {
        return;
    };
    let theirs = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
    let ours = begun + half;
    let skew = theirs
        .duration_since(ours)
        .unwrap_or_else(|error| error.duration());
    let told = format!(
        "the clocks of {address} and this machine are {:.3} s apart",
        skew.as_secs_f64()
    );
    match skew > SKEW_MAX {
        true => report.warning(told, "keep both right with NTP (`timedatectl set-ntp true`)"),
        false => report.good(told),
    }
}

/// A node that is busy for a moment must not be cut off.
async fn buffers(link: &mut Link, address: &Address, report: &mut Report<'_>) {
    const SETTING: &str = "client-output-buffer-limit";
    let limits = match link.ask(&command(&["CONFIG", "GET", SETTING])).await {
        Ok(answer) => field(&answer, SETTING).and_then(text),
        Err(_) => None,
    };
    let Some((hard, soft)) = limits.as_deref().and_then(pubsub_limits) else {
        return report.note(format!(
            "{address}: this user may not ask for CONFIG GET {SETTING}; keep its `pubsub` at 32mb 8mb 60 or more"
        ));
    };
    // 0 is no limit at all.
    if (1..PUBSUB_HARD_MIN).contains(&hard) || (1..PUBSUB_SOFT_MIN).contains(&soft) {
        report.warning(
            format!("{address} cuts a node off that is {hard} bytes behind, or {soft} for some time ({SETTING} pubsub)"),
            format!("CONFIG SET {SETTING} \"pubsub 256mb 64mb 60\""),
        );
    } else {
        report.good(format!(
            "{address} lets a node fall behind far enough ({SETTING} pubsub {hard} {soft})"
        ));
    }
}

/// The hard and the soft limit behind `pubsub`, in bytes.
fn pubsub_limits(limits: &str) -> Option<(u64, u64)> {
    let mut words = limits
        .split_whitespace()
        .skip_while(|word| *word != "pubsub")
        .skip(1);
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_listeners_are_found_among_the_others() {
        let limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(pubsub_limits(limits), Some((PUBSUB_HARD_MIN, PUBSUB_SOFT_MIN)));
        assert_eq!(pubsub_limits("normal 0 0 0"), None);
        assert_eq!(pubsub_limits("pubsub 1"), None);
    }
}
