use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

/// Every family that counts for an app, with its type: names that the peers' dashboards ask for.
const OF_APPS: [(&str, &str); 20] = [
    ("active_channels", "gauge"),
    ("broadcast_latency_ms", "histogram"),
    ("channel_subscriptions_total", "counter"),
    ("channel_unsubscriptions_total", "counter"),
    ("connected", "gauge"),
    ("http_calls_received_total", "counter"),
    ("http_received_bytes", "counter"),
    ("http_transmitted_bytes", "counter"),
    ("new_connections_total", "counter"),
    ("new_disconnections_total", "counter"),
    ("rate_limit_checks_total", "counter"),
    ("rate_limit_triggered_total", "counter"),
    ("quota_refused_total", "counter"),
    ("messages_total", "counter"),
    ("messages_today", "gauge"),
    ("peak_connections", "gauge"),
    ("socket_received_bytes", "counter"),
    ("socket_transmitted_bytes", "counter"),
    ("ws_messages_received_total", "counter"),
    ("ws_messages_sent_total", "counter"),
];

/// Those of the whole node.
const OF_NODE: [(&str, &str); 26] = [
    ("address_uncounted_total", "counter"),
    ("porch_full_total", "counter"),
    ("build_info", "gauge"),
    ("cache_bytes", "gauge"),
    ("closed_total", "counter"),
    ("config_changes_total", "counter"),
    ("config_refused_total", "counter"),
    ("connection_errors_total", "counter"),
    ("connections", "gauge"),
    ("connections_max", "gauge"),
    ("http_connections", "gauge"),
    ("http_connections_max", "gauge"),
    ("inbox_bytes", "gauge"),
    ("inbox_waits_total", "counter"),
    ("memory_limit_bytes", "gauge"),
    ("memory_mark_bytes", "gauge"),
    ("memory_used_bytes", "gauge"),
    ("outbox_bytes", "gauge"),
    ("publish_refused_total", "counter"),
    ("refusals_waiting", "gauge"),
    ("refused_total", "counter"),
    ("usage_save_failures_total", "counter"),
    ("shards", "gauge"),
    ("sockets_max", "gauge"),
    ("webhook_hasty_total", "counter"),
    ("webhook_untold", "gauge"),
];

/// Those of a node with a store of apps, behind `store_`.
const OF_STORE: [(&str, &str); 7] = [
    ("apps", "gauge"),
    ("lookups_total", "counter"),
    ("queries_failed_total", "counter"),
    ("queries_total", "counter"),
    ("stale_total", "counter"),
    ("unknown_names", "gauge"),
    ("up", "gauge"),
];

/// Those of a node in a cluster, behind `cluster_`.
const OF_CLUSTER: [(&str, &str); 25] = [
    ("announcements_total", "counter"),
    ("behind", "gauge"),
    ("connections", "gauge"),
    ("connections_wanted", "gauge"),
    ("deaf", "gauge"),
    ("duplicates_total", "counter"),
    ("gaps_total", "counter"),
    ("held_back_bytes", "gauge"),
    ("info", "gauge"),
    ("last_heard_seconds", "gauge"),
    ("nodes", "gauge"),
    ("nodes_lost_total", "counter"),
    ("nodes_unknown", "gauge"),
    ("received_total", "counter"),
    ("reconnects_total", "counter"),
    ("refused_total", "counter"),
    ("relayed_total", "counter"),
    ("repaired_total", "counter"),
    ("ring_bytes", "gauge"),
    ("roster_age_seconds", "gauge"),
    ("roster_channels", "gauge"),
    ("round_trip_seconds", "gauge"),
    ("snapshots_total", "counter"),
    ("topics", "gauge"),
    ("unsent_bytes", "gauge"),
];

fn metrics() -> Metrics {
    Metrics::new("fanwire_", 6001).expect("a good prefix")
}

fn one_shard() -> Snapshot {
    Snapshot {
        inbox_bytes: vec![0],
        ..Snapshot::default()
    }
}

fn in_a_cluster() -> Snapshot {
    let cluster = ClusterSnapshot {
        driver: "redis",
        node_id: "00ff".into(),
        connected: 3,
        connections: 4,
        reconnects: 5,
        is_behind: true,
        round_trip_s: Some(0.0015),
        last_heard_s: 0.25,
        nodes: 3,
        nodes_unknown: 1,
        relayed: 1_000_000,
        unsent_gaps: 1,
        gaps: 2,
        ..ClusterSnapshot::default()
    };
    Snapshot {
        cluster: Some(cluster),
        ..one_shard()
    }
}

fn app_snapshot(app_id: &str, connected: u64, active_channels: u64) -> AppSnapshot {
    AppSnapshot {
        app_id: app_id.into(),
        connected,
        active_channels,
        ..AppSnapshot::default()
    }
}

/// The value of the one line that begins with `series`, as written.
fn value<'a>(text: &'a str, series: &str) -> &'a str {
    let found: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .collect();
    assert_eq!(found.len(), 1, "{series} in\n{text}");
    found[0]
}

/// Every family of a scrape but those of the process, with its type, without the prefix.
fn shown(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| !name.starts_with("process_"))
        .map(|(name, kind)| (name.strip_prefix("fanwire_").expect("our prefix"), kind))
        .collect()
}

#[test]
fn the_names_and_types_are_exactly_these() {
    let metrics = metrics();
    metrics.app("1");
    let text = metrics.text(&one_shard()).unwrap();
    let alone: BTreeMap<&str, &str> = OF_APPS.into_iter().chain(OF_NODE).collect();
    assert_eq!(shown(&text), alone);

    let text = metrics.text(&in_a_cluster()).unwrap();
    let names = OF_CLUSTER.map(|(name, kind)| (format!("cluster_{name}"), kind));
    let mut expected = alone;
    expected.extend(names.iter().map(|(name, kind)| (&**name, *kind)));
    assert_eq!(shown(&text), expected);
}

#[test]
fn a_queue_at_a_broker_shows_its_families() {
    let broker = WebhookBrokerSnapshot {
        unsent: 1,
        partitions_full: 2,
        partitions_owned: 3,
        taken: 4,
        left: 5,
    };
    let with_broker = Snapshot {
        webhook_broker: Some(broker),
        ..Snapshot::default()
    };
    let text = metrics().text(&with_broker).unwrap();
    for (name, expected) in [
        ("unsent", "1"),
        ("partitions_full", "2"),
        ("partitions_owned", "3"),
        ("taken_total", "4"),
        ("left", "5"),
    ] {
        assert_eq!(value(&text, &format!("fanwire_webhook_broker_{name}")), expected);
    }
    let shown = shown(&text).into_iter();
    let of_broker = shown.filter(|(name, _)| name.starts_with("webhook_broker_"));
    assert_eq!(of_broker.count(), 5);
}

#[test]
fn a_store_shows_its_families_and_no_others() {
    let with_store = Snapshot {
        store: Some(StoreSnapshot {
            driver: "postgres",
            stale: 3,
            ..StoreSnapshot::default()
        }),
        ..Snapshot::default()
    };
    let text = metrics().text(&with_store).unwrap();
    let store = shown(&text)
        .into_iter()
        .filter(|(name, _)| name.starts_with("store_"));
    let expected = OF_STORE.map(|(name, kind)| (format!("store_{name}"), kind));
    assert_eq!(
        store
            .map(|(name, kind)| (name.to_owned(), kind))
            .collect::<Vec<_>>(),
        expected
    );
    assert_eq!(value(&text, "fanwire_store_stale_total"), "3");
    assert_eq!(value(&text, "fanwire_store_up{driver=\"postgres\"}"), "0");
}

#[test]
fn every_family_is_in_the_documentation() {
    let page = include_str!("../../docs/metrics.md");
    let cluster = OF_CLUSTER.map(|(name, kind)| (format!("cluster_{name}"), kind));
    let own = OF_APPS.into_iter().chain(OF_NODE);
    let store = OF_STORE.map(|(name, kind)| (format!("store_{name}"), kind));
    let own = own.map(|(name, kind)| (name.to_owned(), kind));
    for (name, kind) in own.chain(cluster).chain(store) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}`")));
        assert!(
            row.is_some_and(|row| row.contains(kind)),
            "docs/metrics.md lacks {name}, a {kind}"
        );
    }
}

#[test]
fn a_cluster_is_shown_as_the_scrape_found_it() {
    let metrics = metrics();
    let text = metrics.text(&in_a_cluster()).unwrap();
    for (series, expected) in [
        ("info{driver=\"redis\",node_id=\"00ff\"}", "1"),
        ("connections", "3"),
        ("connections_wanted", "4"),
        ("reconnects_total{driver=\"redis\"}", "5"),
        ("behind", "1"),
        ("deaf", "0"),
        ("round_trip_seconds", "0.0015"),
        ("last_heard_seconds", "0.25"),
        ("nodes", "3"),
        ("nodes_unknown", "1"),
        ("relayed_total", "1000000"),
        ("gaps_total{reason=\"unsent\"}", "1"),
        ("gaps_total{reason=\"given_up\"}", "2"),
        ("gaps_total{reason=\"busy\"}", "0"),
    ] {
        assert_eq!(
            value(&text, &format!("fanwire_cluster_{series}")),
            expected,
            "{series}"
        );
    }

    // No time is better than one that nobody measured.
    let mut unheard = in_a_cluster();
    unheard.cluster.as_mut().expect("a cluster").round_trip_s = None;
    let text = metrics.text(&unheard).unwrap();
    assert!(!text.contains("round_trip"), "{text}");
    assert!(!metrics.text(&one_shard()).unwrap().contains("cluster"));
}

#[test]
fn every_sample_stands_under_the_type_of_its_family_and_no_family_comes_twice() {
    let metrics = metrics();
    metrics.app("1").broadcast_latency_ms.observe(3.0);
    metrics.app("2");
    let text = metrics.text(&in_a_cluster()).unwrap();
    let (mut seen, mut family) = (BTreeSet::new(), "");
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            family = described.split(' ').next().unwrap();
            assert!(seen.insert(family), "{family} twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name.strip_prefix(family).expect(line);
            assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        }
    }
    assert_eq!(TEXT_CONTENT_TYPE, "text/plain; version=0.0.4");
}

#[test]
fn an_app_s_series_carry_app_id_and_port_and_nothing_else() {
    let metrics = metrics();
    metrics.app("1");
    let text = metrics.text(&one_shard()).unwrap();
    for (name, kind) in OF_APPS {
        if kind != "histogram" {
            value(&text, &format!("fanwire_{name}{{app_id=\"1\",port=\"6001\"}}"));
        }
    }
    value(
        &text,
        "fanwire_broadcast_latency_ms_bucket{app_id=\"1\",port=\"6001\",le=\"+Inf\"}",
    );
}

#[test]
fn the_prefix_is_the_operator_s() {
    let cases = [
        ("soketi_", "soketi_shards"),
        ("soketi", "soketi_shards"),
        ("", "shards"),
    ];
    for (prefix, series) in cases {
        let text = Metrics::new(prefix, 1).unwrap().text(&one_shard()).unwrap();
        assert_eq!(value(&text, series), "1", "{prefix}");
    }
    for bad in ["9lives", "my-gateway", "a b"] {
        assert!(Metrics::new(bad, 1).is_err(), "{bad}");
    }
}

#[test]
fn two_registries_in_one_process_do_not_know_each_other() {
    let (one, other) = (metrics(), metrics());
    one.app("1").new_connections_total.inc();
    assert_eq!(other.app("1").new_connections_total.get(), 0);
}

#[test]
fn the_same_app_gets_the_same_counters() {
    let metrics = metrics();
    assert!(Arc::ptr_eq(&metrics.app("1"), &metrics.app("1")));
    metrics.app("1").new_connections_total.inc();
    assert_eq!(metrics.app("2").new_connections_total.get(), 0);
}

#[test]
fn batches_from_many_threads_add_up_exactly() {
    const THREADS: u64 = 8;
    const BATCHES: u64 = 10_000;
    let metrics = metrics();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let app = metrics.app("1");
            scope.spawn(move || {
                let counts = |messages, bytes| BatchCounts { messages, bytes };
                for _ in 0..BATCHES {
                    app.sent(counts(3, 300));
                    app.received(counts(1, 7));
                    app.http_call(5, 2);
                }
            });
        }
    });
    let text = metrics.text(&one_shard()).unwrap();
    let expected = [
        ("ws_messages_sent_total", 3),
        ("socket_transmitted_bytes", 300),
        ("ws_messages_received_total", 1),
        ("socket_received_bytes", 7),
        ("http_calls_received_total", 1),
        ("http_received_bytes", 5),
        ("http_transmitted_bytes", 2),
    ];
    for (name, each) in expected {
        let series = format!("fanwire_{name}{{app_id=\"1\",port=\"6001\"}}");
        assert_eq!(
            value(&text, &series),
            (each * THREADS * BATCHES).to_string(),
            "{name}"
        );
    }
}

#[test]
fn gauges_show_the_snapshot_and_fall_to_zero_with_what_it_no_longer_names() {
    let metrics = metrics();
    let connected = |app_id| format!("fanwire_connected{{app_id=\"{app_id}\",port=\"6001\"}}");
    let busy = Snapshot {
        apps: vec![app_snapshot("1", 20_000, 7), app_snapshot("2", 1, 0)],
        outbox_bytes: 4096,
        inbox_bytes: vec![10, 20],
        room: RoomSnapshot {
            sockets_max: 20_002,
            ..RoomSnapshot::default()
        },
        webhook_untold: 5,
        ..Snapshot::default()
    };
    let text = metrics.text(&busy).unwrap();
    assert_eq!(value(&text, &connected("1")), "20000");
    assert_eq!(
        value(&text, "fanwire_active_channels{app_id=\"1\",port=\"6001\"}"),
        "7"
    );
    assert_eq!(value(&text, &connected("2")), "1");
    assert_eq!(value(&text, "fanwire_outbox_bytes"), "4096");
    assert_eq!(value(&text, "fanwire_webhook_untold"), "5");
    assert_eq!(value(&text, "fanwire_inbox_bytes{shard=\"0\"}"), "10");
    assert_eq!(value(&text, "fanwire_inbox_bytes{shard=\"1\"}"), "20");
    assert_eq!(value(&text, "fanwire_shards"), "2");
    assert_eq!(value(&text, "fanwire_sockets_max"), "20002");

    let quiet = Snapshot {
        apps: vec![app_snapshot("2", 3, 1)],
        inbox_bytes: vec![0, 0],
        webhook_untold: 0,
        ..Snapshot::default()
    };
    let text = metrics.text(&quiet).unwrap();
    assert_eq!(value(&text, &connected("1")), "0");
    assert_eq!(
        value(&text, "fanwire_active_channels{app_id=\"1\",port=\"6001\"}"),
        "0"
    );
    assert_eq!(value(&text, &connected("2")), "3");
    assert_eq!(value(&text, "fanwire_outbox_bytes"), "0");
}

#[test]
fn every_reason_is_there_at_zero_from_the_start() {
    let metrics = metrics();
    let text = metrics.text(&one_shard()).unwrap();
    for reason in CloseReason::ALL {
        let series = format!("fanwire_closed_total{{reason=\"{}\"}}", reason.as_str());
        assert_eq!(value(&text, &series), "0");
        metrics.closed(*reason).inc();
    }
    for error in ConnectionError::ALL {
        let series = format!(
            "fanwire_connection_errors_total{{error_type=\"{}\",port=\"6001\"}}",
            error.as_str()
        );
        assert_eq!(value(&text, &series), "0");
        metrics.connection_errors(*error).inc();
    }
    for reason in RefusedFor::ALL {
        let series = format!("fanwire_refused_total{{reason=\"{}\"}}", reason.as_str());
        assert_eq!(value(&text, &series), "0");
    }
    let text = metrics.text(&one_shard()).unwrap();
    for reason in CloseReason::ALL {
        let series = format!("fanwire_closed_total{{reason=\"{}\"}}", reason.as_str());
        assert_eq!(value(&text, &series), "1", "each value has a counter of its own");
    }
}

#[test]
fn latencies_fall_into_cumulative_buckets() {
    let metrics = metrics();
    let latency = metrics.app("1").broadcast_latency_ms.clone();
    for milliseconds in [0.1, 0.3, 40.0, 60_000.0] {
        latency.observe(milliseconds);
    }
    let text = metrics.text(&one_shard()).unwrap();
    for (bound, count) in [
        ("0.25", "1"),
        ("0.5", "2"),
        ("50", "3"),
        ("10000", "3"),
        ("+Inf", "4"),
    ] {
        let series =
            format!("fanwire_broadcast_latency_ms_bucket{{app_id=\"1\",port=\"6001\",le=\"{bound}\"}}");
        assert_eq!(value(&text, &series), count, "{bound}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_is_there_under_its_usual_names() {
    let text = metrics().text(&one_shard()).unwrap();
    for name in [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
    ] {
        assert!(value(&text, name).parse::<f64>().unwrap() > 0.0, "{name}");
    }
}

#[test]
fn as_json_it_is_what_prom_client_writes() {
    let metrics = metrics();
    let app = metrics.app("1");
    app.new_connections_total.inc_by(5);
    app.broadcast_latency_ms.observe(1.5);
    let families: Vec<Value> = serde_json::from_str(&metrics.json(&one_shard())).unwrap();
    let family = |name: &str| families.iter().find(|family| family["name"] == name).expect(name);

    let counter = family("fanwire_new_connections_total");
    assert_eq!(counter["type"], "counter");
    assert_eq!(
        counter["values"],
        serde_json::json!([{ "value": 5, "labels": { "app_id": "1", "port": "6001" } }])
    );
    let latency = &family("fanwire_broadcast_latency_ms")["values"];
    let samples = latency.as_array().unwrap();
    let named = |suffix: &str| {
        let name = format!("fanwire_broadcast_latency_ms_{suffix}");
        samples.iter().filter(move |sample| sample["metricName"] == *name)
    };
    assert_eq!(named("bucket").count(), 15);
    assert_eq!(named("bucket").next_back().unwrap()["labels"]["le"], "+Inf");
    assert_eq!(named("sum").next().unwrap()["value"], 1.5);
    assert_eq!(named("count").next().unwrap()["value"], 1);
}

#[test]
fn tls_has_figures_where_it_is_spoken_and_nowhere_else() {
    let metrics = metrics();
    let plain = metrics.text(&Snapshot::default()).unwrap();
    assert!(!plain.contains("fanwire_tls"), "{plain}");
    let with_certificate = |left_s| Snapshot {
        certificate_expiry_s: Some(left_s),
        ..Snapshot::default()
    };
    metrics.tls().resumed.inc();
    for left_s in [86_400, -1] {
        let text = metrics.text(&with_certificate(left_s)).unwrap();
        let shown = value(&text, "fanwire_tls_certificate_expiry_seconds");
        assert_eq!(shown, left_s.to_string());
        assert_eq!(
            value(&text, "fanwire_tls_handshakes_total{kind=\"resumed\"}"),
            "1"
        );
        assert_eq!(value(&text, "fanwire_tls_handshakes_total{kind=\"full\"}"), "0");
    }
}
