//! The compose file, by the library that docker compose reads its files with. Its services are not started: there is no
//! docker here, and no registry.

use std::fs;

use fanwire::config::DrainConfig;
use serde_json::Value;

use crate::tools::{read, root, run, tool};

const FOLDER: &str = "deploy/compose";

/// The file as docker compose understands it: with what it inherits, and two variables replaced, without which it would say
/// what they are and go no further. (The library's own command knows no variables.)
fn model() -> Value {
    let mut text = read(&format!("{FOLDER}/compose.yaml"));
    for (variable, value) in [
        ("${FANWIRE_KEY:?the key of the app}", "my-key"),
        ("${FANWIRE_SECRET:?a long random text}", "my-secret"),
    ] {
        assert!(text.contains(variable), "{variable}");
        text = text.replace(variable, value);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("compose.yaml");
    fs::write(&file, text).expect("written");
    let mut reader = tool("compose-go");
    let text = run(reader.args(["-format", "json", "-no-path-resolution"]).arg(file));
    serde_json::from_str(&text).expect("JSON")
}

fn services(model: &Value) -> impl Iterator<Item = (&String, &Value)> {
    model["services"].as_object().expect("services").iter()
}

#[test]
fn what_it_mounts_and_builds_from_is_there() {
    let model = model();
    let here = root().join(FOLDER);
    let mut mounted = 0;
    for (name, service) in services(&model) {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume["source"].as_str().expect("a source");
            let is_there = match volume["type"].as_str() {
                Some("bind") => here.join(source).exists(),
                _ => model["volumes"].get(source).is_some(),
            };
            assert!(is_there, "{name} mounts {source}");
            mounted += 1;
        }
        if let Some(context) = service["build"]["context"].as_str() {
            let dockerfile = service["build"]["dockerfile"].as_str().unwrap_or("Dockerfile");
            assert!(
                here.join(context).join(dockerfile).exists(),
                "{name} is built from {context}"
            );
        }
    }
    assert!(mounted > 4, "{mounted}");
}

#[test]
fn its_nodes_are_configured_soundly_and_may_do_nothing_else() {
    let model = model();
    let nodes: Vec<_> = services(&model)
        .filter(|(name, _)| name.starts_with("fanwire"))
        .collect();
    assert_eq!(nodes.len(), 3);
    for (name, node) in nodes {
        let variables = node["environment"].as_object().expect("variables");
        let variables = variables
            .iter()
            .map(|(name, value)| (name, value.as_str().expect("a text")));
        let mut check = tool(env!("CARGO_BIN_EXE_fanwire"));
        check
            .env_clear()
            .arg("--config")
            .arg(root().join("deploy/image/etc/fanwire/config.json"));
        let config: Value =
            serde_json::from_str(&run(check.envs(variables).arg("check-config"))).expect("JSON");
        assert_eq!(config["apps"][0]["key"], "my-key");
        assert_eq!(config["server"]["host"], "0.0.0.0");
        assert_eq!(config["redis"]["url"], "redis://redis:6379");
        assert_eq!(
            (&node["read_only"], &node["cap_drop"][0]),
            (&true.into(), &"ALL".into()),
            "{name}"
        );
        let drain: DrainConfig = serde_json::from_value(config["drain"].clone()).expect("settings");
        let grace = node["stop_grace_period"]
            .as_str()
            .and_then(|grace| grace.strip_suffix('s'));
        let grace_s: u32 = grace.expect("a time").parse().expect("seconds");
        assert!(grace_s > drain.longest_s(), "{grace_s} s");
    }
}
