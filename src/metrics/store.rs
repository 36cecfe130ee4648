//! What a node knows of its store of apps at one moment: shown by a scrape, and in the answer to a readiness probe.

use prometheus::proto::{MetricFamily, MetricType};

use super::Naming;
use super::cluster::{counter, gauge};

/// The store of apps at one moment. Counts are since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreSnapshot {
    /// Of which kind it is: `postgres`, `mysql`, `sqlite`.
    pub driver: &'static str,
    /// Whether it answered when it was last asked.
    pub is_up: bool,
    /// Apps of the store that are known here.
    pub apps: u64,
    /// Names that no app has, as far as they are remembered.
    pub unknown: u64,
    /// Statements that the store was sent for apps.
    pub queries: u64,
    /// Of these, such as were not answered.
    pub failed: u64,
    /// Look-ups of an app that was not known and was found.
    pub found: u64,
    /// Look-ups of a name that no app has.
    pub not_found: u64,
    /// Look-ups that nobody could answer.
    pub unavailable: u64,
    /// Uses of an app that is known while the store did not answer.
    pub stale: u64,
}

impl StoreSnapshot {
    /// The families that show it, all named `PREFIX_store_*`.
    pub(super) fn families(&self, naming: &Naming) -> Vec<MetricFamily> {
        let family = |kind, name: &str, help: &str, samples| {
            let mut family = MetricFamily::default();
            family.set_name(naming.full(&format!("store_{name}")));
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family.set_metric(samples);
            family
        };
        let driver = [("driver", self.driver)];
        let shown =
            |name, help, value: u64| family(MetricType::GAUGE, name, help, vec![gauge(value as f64, &[])]);
        let counted = |name, help, value| family(MetricType::COUNTER, name, help, vec![counter(value, &[])]);
        let result = |value, result| counter(value, &[("result", result)]);
        vec![
            family(
                MetricType::GAUGE,
                "up",
                "1 if the store answered when it was last asked",
                vec![gauge(f64::from(u8::from(self.is_up)), &driver)],
            ),
            shown("apps", "Apps of the store that are known here", self.apps),
            shown(
                "unknown_names",
                "Keys and ids that no app has, as far as they are remembered",
                self.unknown,
            ),
            counted("queries_total", "Questions that the store was sent", self.queries),
            counted(
                "queries_failed_total",
                "Those of them that were not answered",
                self.failed,
            ),
            family(
                MetricType::COUNTER,
                "lookups_total",
                "Look-ups of apps that were not known here, by what came of them: found, unknown, unavailable",
                vec![
                    result(self.found, "found"),
                    result(self.not_found, "unknown"),
                    result(self.unavailable, "unavailable"),
                ],
            ),
            counted(
                "stale_total",
                "Uses of apps that are known here while the store did not answer",
                self.stale,
            ),
        ]
    }
}
