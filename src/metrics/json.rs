//! Gathered families as the JSON of `prom-client`: what Soketi answers to `GET /metrics?json=1`.

use prometheus::proto::{Metric, MetricFamily, MetricType};
use serde_json::{Map, Number, Value, json};

/// An array with one object for each family.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    Value::Array(families.iter().map(family).collect()).to_string()
}

fn family(family: &MetricFamily) -> Value {
    let kind = family.get_field_type();
    let values: Vec<Value> = family
        .get_metric()
        .iter()
        .flat_map(|metric| match kind {
            MetricType::COUNTER => vec![sample(metric, metric.get_counter().get_value())],
            MetricType::GAUGE => vec![sample(metric, metric.get_gauge().get_value())],
            MetricType::HISTOGRAM => histogram(family.name(), metric),
            MetricType::SUMMARY | MetricType::UNTYPED => Vec::new(), // none is registered
        })
        .collect();
    json!({
        "help": family.help(),
        "name": family.name(),
        "type": format!("{kind:?}").to_lowercase(),
        "values": values,
        "aggregator": "sum",
    })
}

fn sample(metric: &Metric, value: f64) -> Value {
    json!({ "value": number(value), "labels": labels(metric) })
}

/// The buckets, cumulative, then the sum and the count: each a sample with a name of its own.
fn histogram(name: &str, metric: &Metric) -> Vec<Value> {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count();
    let bounded = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (number(bucket.upper_bound()), bucket.cumulative_count()));
    let mut samples: Vec<Value> = bounded
        .chain([(json!("+Inf"), count)])
        .map(|(bound, cumulative)| {
            let mut labels = labels(metric);
            labels.insert("le".to_owned(), bound);
            json!({ "labels": labels, "value": cumulative, "metricName": format!("{name}_bucket") })
        })
        .collect();
    for (suffix, value) in [
        ("sum", number(histogram.get_sample_sum())),
        ("count", json!(count)),
    ] {
        samples.push(
            json!({ "labels": labels(metric), "value": value, "metricName": format!("{name}_{suffix}") }),
        );
    }
    samples
}

fn labels(metric: &Metric) -> Map<String, Value> {
    metric
        .get_label()
        .iter()
        .map(|label| (label.name().to_owned(), json!(label.value())))
        .collect()
}

/// Whole numbers without `.0`, as JavaScript writes them.
fn number(value: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        return json!(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
