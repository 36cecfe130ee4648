//! Every metric that the dashboard, the alerts and `docs/metrics.md` name exists, and every one that exists is told of.

#[path = "support/brokers/mod.rs"]
mod brokers;
#[allow(dead_code, reason = "shared with tests that need more")]
#[path = "support/certificates.rs"]
mod certificates;
#[allow(dead_code, reason = "shared with tests that need more")]
#[path = "support/mod.rs"]
mod support;
#[path = "support/watched.rs"]
mod watched;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use support::eventually;
use support::server::{TestServer, app, config};
use watched::Watched;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the file is there")
}

/// All words of a text that are made as metrics' names are.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_metric = |word: &&str| {
        ["fanwire_", "process_"]
            .iter()
            .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
    };
    words(text).filter(is_metric).map(str::to_owned).collect()
}

/// Families by name, as `# TYPE` tells them, and the series of histograms.
async fn families() -> BTreeSet<String> {
    let mut watched = Watched::start().await;
    // A node has families of webhooks once it has sent one, and which of them tells of a channel is drawn.
    let text = eventually("a node that has sent a webhook", async || {
        let text = watched.nodes[0].admin("/metrics").await.body;
        if !text.contains("fanwire_webhook_sent_total{") {
            watched.go_on().await;
            return None;
        }
        Some(text)
    })
    .await;
    // And those of TLS where it is spoken.
    let files = certificates::Files::of(&certificates::Authority::new().vouch());
    let mut config = config([app()]);
    config.tls.cert_file = Some(files.certificate());
    config.tls.key_file = Some(files.key());
    let text = text + &TestServer::with_config(config).await.admin("/metrics").await.body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split(' ').next().expect("a name").to_owned())
        .collect()
}

/// Of which family a series is: that of a histogram has three.
fn family(series: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| series.strip_suffix(end).filter(|name| name.ends_with("_ms")))
        .unwrap_or(series)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_alerted_and_documented_is_what_there_is() {
    let families = families().await;
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/dashboards/fanwire.json")).expect("JSON");
    for (place, text, at_least) in [
        ("the dashboard", dashboard.to_string(), 30),
        ("the alerts", read("deploy/prometheus/alerts.yml"), 10),
    ] {
        let named = named(&text);
        assert!(named.len() >= at_least, "{place} names {named:?}");
        let unknown: Vec<_> = named
            .iter()
            .filter(|name| !families.contains(family(name)))
            .collect();
        assert!(
            unknown.is_empty(),
            "{place} names {unknown:?}, which no scrape has"
        );
    }

    let document = read("docs/metrics.md");
    let rows = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<_> = rows.map(|name| format!("fanwire_{name}")).collect();
    let own: BTreeSet<_> = families
        .into_iter()
        .filter(|name| name.starts_with("fanwire_"))
        .collect();
    assert_eq!(
        own.difference(&documented).collect::<Vec<_>>(),
        [""; 0],
        "told nowhere"
    );
    assert_eq!(
        documented.difference(&own).collect::<Vec<_>>(),
        [""; 0],
        "told, but not there"
    );
}
