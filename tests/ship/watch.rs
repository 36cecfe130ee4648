//! What Prometheus and Grafana are given: the configuration is taken, every rule is evaluated, and every panel of the
//! dashboard shows something, asked of a real Prometheus that watches two nodes. (That no name is wrong,
//! `tests/monitoring.rs` shows in every run of the tests.)

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::brokers::{Process, free_port};
use crate::support::eventually;
use crate::tools::{read, run, tool};
use crate::watched::Watched;

const CONFIG: &str = "deploy/prometheus/prometheus.yml";
const ALERTS: &str = "deploy/prometheus/alerts.yml";

/// How many rules the file holds.
fn rules_written() -> usize {
    let text = read(ALERTS);
    let is_rule = |line: &&str| line.trim_start().starts_with("- alert: ");
    text.lines().filter(is_rule).count()
}

#[test]
fn prometheus_takes_the_configuration_and_the_rules() {
    let said = run(tool("promtool").args(["check", "config", CONFIG]));
    let expected = format!(" {} rules found", rules_written());
    assert!(said.contains(&expected), "{said}");
}

/// Rules that compare series with each other, and those whose moment counts: `tests/ship/alerts.yml` holds the series.
#[test]
fn somebody_is_woken_in_time_and_not_for_nothing() {
    run(tool("promtool").args(["test", "rules", "tests/ship/alerts.yml"]));
}

/// Dashboards that Grafana finds, and the data source that they name.
#[test]
fn grafana_is_told_where_things_are() {
    let compose = read("deploy/compose/compose.yaml");
    let provider = read("deploy/grafana/provisioning/dashboards/fanwire.yaml");
    let mounted = "/var/lib/grafana/dashboards";
    assert!(compose.contains(&format!("../grafana/dashboards:{mounted}:ro")) && provider.contains(mounted));
    let source = read("deploy/grafana/provisioning/datasources/prometheus.yaml");
    assert!(source.contains("url: http://prometheus:9090") && source.contains("isDefault: true"));
}

/// The questions of the dashboard, by the title of their panel, as Grafana asks them when all is chosen.
fn questions() -> BTreeMap<String, Vec<String>> {
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/dashboards/fanwire.json")).expect("JSON");
    let mut questions = BTreeMap::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().expect("a title").to_owned();
        let asked = panel["targets"]
            .as_array()
            .expect("targets")
            .iter()
            .map(|target| {
                let mut expression = target["expr"].as_str().expect("an expression").to_owned();
                for (variable, value) in [
                    ("$job", ".+"),
                    ("$instance", ".+"),
                    ("$app_id", ".+"),
                    ("$__rate_interval", "1m"),
                ] {
                    expression = expression.replace(variable, value);
                }
                expression
            });
        assert!(panel["description"].is_string(), "{title} says what it shows");
        assert!(
            questions.insert(title.clone(), asked.collect()).is_none(),
            "two panels are called {title}"
        );
    }
    questions
}

/// What Prometheus answers. (In HTTP/1.0, in which nobody answers in chunks.)
fn ask(port: u16, path: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_something_and_every_rule_is_evaluated() {
    let mut watched = Watched::start().await;
    let mut prometheus = Process::new("prometheus", "prometheus", free_port());
    let targets: Vec<_> = watched
        .nodes
        .iter()
        .map(|node| format!("\"{}\"", node.admin_address))
        .collect();
    let example = read(CONFIG);
    let shown = "[\"fanwire-1:9601\", \"fanwire-2:9601\", \"fanwire-3:9601\"]";
    assert!(example.contains(shown) && example.contains("15s"));
    let config = example
        .replace(shown, &format!("[{}]", targets.join(", ")))
        .replace("15s", "1s");
    fs::write(prometheus.path("prometheus.yml"), config).expect("written");
    fs::write(prometheus.path("alerts.yml"), read(ALERTS)).expect("written");
    let port = prometheus.port;
    prometheus.arguments(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
    prometheus.arguments([format!("--web.listen-address=127.0.0.1:{port}")]);
    prometheus.start();

    for (title, expressions) in questions() {
        for expression in expressions {
            let path = format!(
                "/api/v1/query?query={}",
                utf8_percent_encode(&expression, NON_ALPHANUMERIC)
            );
            eventually(
                &format!("something to see of {title}: {expression}"),
                async || {
                    let answer = ask(port, &path);
                    assert_ne!(answer["status"], "error", "{title}: {answer}");
                    if answer["data"]["result"].as_array().is_none_or(Vec::is_empty) {
                        watched.go_on().await;
                        return None;
                    }
                    Some(())
                },
            )
            .await;
        }
    }
    eventually("every rule to be evaluated", async || {
        let groups = ask(port, "/api/v1/rules");
        let groups = groups["data"]["groups"].as_array()?.clone();
        let rules: Vec<_> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:#?}");
        // Nothing is wrong here, so nobody is woken. (The store and the broker are there, both nodes agree.)
        assert!(rules.iter().all(|rule| rule["state"] != "firing"), "{rules:#?}");
        (rules.len() == rules_written() && rules.iter().all(|rule| rule["health"] == "ok")).then_some(())
    })
    .await;
}
