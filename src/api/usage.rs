//! `GET /apps/ID/usage`: what the app used, day by day, and what it may. Pure: who looks it up is `mod.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::civil::Date;
use serde::Serialize;

use super::channels::rendered;
use super::error::ApiError;
use super::query::parameter;
use crate::app::{AppConfig, USAGE_DAYS_MAX, UsageDay};

/// How many days are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsageQuery {
    /// Calendar days, today among them.
    pub(super) days: u32,
}

#[derive(Serialize)]
struct Answer {
    days: Vec<DayAnswer>,
    limits: LimitsAnswer,
}

#[derive(Serialize)]
struct DayAnswer {
    date: String,
    messages: u64,
    delivered: u64,
    bytes_received: u64,
    bytes_sent: u64,
    peak_connections: u64,
}

/// As they are configured: 0 is no limit.
#[derive(Serialize)]
struct LimitsAnswer {
    messages_per_day: u64,
    publishes_per_s: u32,
    queries_per_s: u32,
    client_events_per_s: u32,
    client_events_per_s_total: u32,
    connections_max: usize,
}

impl UsageQuery {
    /// Reads the query string.
    pub(super) fn parse(query: &str) -> Result<UsageQuery, ApiError> {
        let Some(days) = parameter(query, "days") else {
            return Ok(UsageQuery { days: 1 });
        };
        let days = days.parse().ok();
        let days = days.filter(|days| (1..=USAGE_DAYS_MAX as u32).contains(days));
        days.map(|days| UsageQuery { days }).ok_or_else(|| {
            ApiError::bad(format!(
                "`days` is a whole number from 1 to {USAGE_DAYS_MAX}: that many days, today among them."
            ))
        })
    }

    /// The answer, of what was used on some days, a day perhaps in several parts: the newest first. A day on which
    /// nothing was used is left out, but for today.
    pub(super) fn answer(self, today: Date, used: Vec<UsageDay>, config: &AppConfig) -> Bytes {
        let mut days = BTreeMap::from([(today, UsageDay::new(today))]);
        for used in used {
            let day = days.entry(used.day).or_insert_with(|| UsageDay::new(used.day));
            day.add(&used);
        }
        let age = |day: Date| today.since(day).map_or(i64::MAX, |span| span.get_days().into());
        let is_asked_for = |day: &UsageDay| (0..i64::from(self.days)).contains(&age(day.day));
        let days = days.into_values().rev().filter(is_asked_for);
        rendered(&Answer {
            days: days.map(DayAnswer::from).collect(),
            limits: LimitsAnswer {
                messages_per_day: config.messages_per_day,
                publishes_per_s: config.publishes_per_s,
                queries_per_s: config.queries_per_s,
                client_events_per_s: config.client_events_per_s,
                client_events_per_s_total: config.client_events_per_s_total,
                connections_max: config.connections_max,
            },
        })
    }
}

impl From<UsageDay> for DayAnswer {
    fn from(used: UsageDay) -> DayAnswer {
        DayAnswer {
            date: used.day.to_string(),
            messages: used.messages,
            delivered: used.delivered,
            bytes_received: used.bytes_received,
            bytes_sent: used.bytes_sent,
            peak_connections: used.connections_peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn one_to_thirty_one_days_may_be_asked_for() {
        for (query, days) in [
            ("auth_key=k", Some(1)),
            ("days=1", Some(1)),
            ("days=31", Some(31)),
            ("days=0", None),
            ("days=32", None),
            ("days=-1", None),
            ("days=two", None),
            ("days=", None),
        ] {
            let parsed = UsageQuery::parse(query).ok().map(|query| query.days);
            assert_eq!(parsed, days, "{query}");
        }
    }

    #[test]
    fn parts_of_a_day_add_up_and_days_that_were_not_asked_for_are_left_out() {
        let used = |day: Date, number| UsageDay {
            day,
            messages: number,
            delivered: number * 10,
            bytes_sent: number * 1_000,
            bytes_received: number * 100,
            connections_peak: number,
        };
        let today = date(2026, 3, 1);
        let all = vec![
            used(date(2026, 2, 27), 1),
            used(date(2026, 2, 28), 2),
            used(date(2026, 2, 28), 3),
            used(date(2026, 3, 2), 7),
        ];
        let config = AppConfig {
            messages_per_day: 5,
            ..AppConfig::demo()
        };
        let answer = UsageQuery { days: 2 }.answer(today, all, &config);
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let expected = json!([
            {"date": "2026-03-01", "messages": 0, "delivered": 0, "bytes_received": 0, "bytes_sent": 0,
             "peak_connections": 0},
            {"date": "2026-02-28", "messages": 5, "delivered": 50, "bytes_received": 500, "bytes_sent": 5000,
             "peak_connections": 3},
        ]);
        assert_eq!(answer["days"], expected);
        assert_eq!(
            (
                &answer["limits"]["messages_per_day"],
                &answer["limits"]["publishes_per_s"]
            ),
            (&json!(5), &json!(0))
        );
    }
}
